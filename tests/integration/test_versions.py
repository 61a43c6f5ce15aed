"""Versions: a write that has not seen the last one is refused, by ORM and by Crud."""

import asyncio
import pickle
import uuid
from collections.abc import AsyncIterator

import pytest
from pydantic import BaseModel as Schema
from pydantic import ConfigDict
from sqlalchemy import String, event, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.orm.exc import StaleDataError

from fastrdb import (
    Cache,
    Conflict,
    Crud,
    EmptyInput,
    FastRDBError,
    KeyMismatch,
    MultipleFound,
    NotFound,
    ValueRefused,
)
from tests.people import People, Person, PersonChange, people_in


@pytest.fixture
async def people(database_url: str) -> AsyncIterator[People]:
    """An empty database, once PostgreSQL and once SQLite."""
    async with people_in(database_url) as people:
        yield people


async def test_each_write_raises_the_version(people: People) -> None:
    """A row begins at 1, and each update adds one, in the response, the cache and the database."""
    made = await people.create()
    versions = [made.version]
    for name in ("Anna", "Annie"):
        changed = await people.update(made.id, name=name)
        assert changed == await people.get(made.id) == await people.stored(made.id)
        versions.append(changed.version)
    assert versions == [1, 2, 3]


async def test_version_seen_in_the_schema(people: People) -> None:
    """A version in the update schema is what the caller saw: it is compared, never written."""
    made = await people.create()
    changed = await people.update(made.id, name="Anna", version=1)
    assert (changed.name, changed.version) == ("Anna", 2)
    with pytest.raises(Conflict) as caught:
        await people.update(made.id, name="Late", version=1)
    assert (caught.value.seen, caught.value.current) == (1, 2)
    assert str(caught.value).startswith(f"Person with id={made.id!r} has version 2 by now, not 1; nothing was changed")
    assert isinstance(caught.value, StaleDataError)
    assert isinstance(caught.value, FastRDBError)
    assert await people.get(made.id) == changed == await people.stored(made.id)


async def test_version_seen_as_a_filter(people: People) -> None:
    """A version among the filters does the same, for ``delete``, too."""
    made = await people.create()
    await people.update(made.id, name="Anna")
    change, key = PersonChange(name="Late"), {"id": made.id, "version": 1}
    with pytest.raises(Conflict):
        await people.crud.update(db=people.db, redis=people.cache, obj_in=change, **key)
    with pytest.raises(Conflict):
        await people.crud.delete(db=people.db, redis=people.cache, **key)
    key["version"] = 2
    assert (await people.crud.update(db=people.db, redis=people.cache, obj_in=change, **key)).version == 3
    key["version"] = 3
    await people.crud.delete(db=people.db, redis=people.cache, **key)
    with pytest.raises(NotFound):
        await people.crud.update(db=people.db, redis=people.cache, obj_in=change, **key)


async def test_row_that_needs_a_lock(people: People) -> None:
    """Where the row is not named by a unique key, or its key changes, a stale version is a conflict all the same."""
    made = await people.create()
    named = {"db": people.db, "redis": people.cache, "tenant_id": "acme"}
    with pytest.raises(Conflict):
        await people.crud.update(obj_in=PersonChange(name="Anna", version=7), **named)
    changed = await people.crud.update(obj_in=PersonChange(name="Anna", version=1), **named)
    assert (changed.id, changed.version) == (made.id, 2)
    with pytest.raises(NotFound):
        await people.crud.get(db=people.db, redis=people.cache, name="Ann")


async def test_no_row_is_no_conflict(people: People) -> None:
    """Where there is no such row, or several, whatever the version, that is what is said."""
    with pytest.raises(NotFound):
        await people.update(uuid.uuid4(), name="Anna", version=1)
    for name in ("Ann", "Bob"):
        await people.create(name)
    with pytest.raises(NotFound):
        await people.crud.update(
            db=people.db, redis=people.cache, obj_in=PersonChange(updated_by="x", version=9), tenant_id="acme"
        )
    with pytest.raises(MultipleFound):
        await people.crud.update(
            db=people.db, redis=people.cache, obj_in=PersonChange(updated_by="x", version=1), tenant_id="acme"
        )


async def test_mistakes_about_versions_are_refused(people: People) -> None:
    """A version of ``None``, one that differs from the filter's, or nothing besides it: nothing is sent."""
    made = await people.create()
    sent: list[str] = []
    event.listen(people.engine.sync_engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
    with pytest.raises(ValueRefused, match="version"):
        await people.update(made.id, name="Anna", version=None)
    with pytest.raises(EmptyInput, match="besides the version"):
        await people.update(made.id, version=1)
    change = PersonChange(name="Anna", version=1)
    with pytest.raises(KeyMismatch, match="version"):
        await people.crud.update(db=people.db, redis=people.cache, obj_in=change, id=made.id, version=2)
    assert sent == []


async def test_one_of_many_concurrent_writers_wins(people: People) -> None:
    """Of ten who saw the same version, one writes, nine learn of it, and the row has one version more."""
    made = await people.create()

    async def write(number: int) -> bool:
        try:
            await people.update(made.id, name=f"Ann {number}", version=1)
        except Conflict:
            return False
        return True

    outcomes = await asyncio.gather(*(write(number) for number in range(10)))
    assert sum(outcomes) == 1
    stored = await people.stored(made.id)
    assert (stored.name, stored.version) == (f"Ann {outcomes.index(True)}", 2)
    assert await people.get(made.id) == stored


async def test_concurrent_writers_who_saw_nothing_are_all_counted(people: People) -> None:
    """The database adds: ten updates without a version make the version eleven."""
    made = await people.create()
    await asyncio.gather(*(people.update(made.id, name=f"Ann {number}") for number in range(10)))
    assert (await people.stored(made.id)).version == 11


async def test_stale_instance_is_refused_by_the_orm(people: People) -> None:
    """An instance that was loaded before Crud wrote the row cannot be flushed."""
    made = await people.create()
    async with people.db() as session:
        row = await session.get_one(Person, made.id)
        await session.commit()
        await people.update(made.id, name="Anna")
        row.name = "Late"
        with pytest.raises(StaleDataError):
            await session.flush()
    assert (await people.stored(made.id)).name == "Anna"


async def test_crud_in_a_session_keeps_its_instances_fresh(people: People) -> None:
    """An instance in the session that Crud writes with has the new version, and can be flushed afterwards."""
    made = await people.create()
    async with people.db() as session:
        row = await session.get_one(Person, made.id)
        change = PersonChange(name="Anna", version=row.version)
        await people.crud.update(db=session, redis=people.cache, obj_in=change, id=made.id)
        assert (row.name, row.version) == ("Anna", 2)
        row.name = "Annie"
        await session.commit()
        assert row.version == 3


async def test_conflict_in_the_callers_transaction_leaves_it_usable(people: People) -> None:
    """Nothing was changed by the write that conflicts, and the caller's transaction goes on."""
    first, second = await people.create("Ann"), await people.create("Bob")
    async with people.db.begin() as session:
        await people.crud.update(db=session, redis=people.cache, obj_in=PersonChange(name="Anna"), id=first.id)
        change = PersonChange(name="Late", version=5)
        with pytest.raises(Conflict):
            await people.crud.update(db=session, redis=people.cache, obj_in=change, id=second.id)
    assert ((await people.get(first.id)).name, (await people.get(second.id)).name) == ("Anna", "Bob")


def test_conflict_says_what_it_knows() -> None:
    """The message has the row's version where that is known, and survives a trip through pickle."""
    known, unknown = Conflict("Person", {"id": 1}, 1, 2), Conflict("Person", {"id": 1}, 1, None)
    assert "has version 2 by now, not 1" in str(pickle.loads(pickle.dumps(known)))
    assert "has another version by now, not 1" in str(pickle.loads(pickle.dumps(unknown)))


async def test_increment_version_writes_a_row_that_is_unchanged(people: People) -> None:
    """The version rises by one, and another session's instance is stale then."""
    made = await people.create()
    async with people.db() as session, people.db() as other:
        row, theirs = await session.get_one(Person, made.id), await other.get_one(Person, made.id)
        await other.commit()
        row.increment_version()
        await session.commit()
        assert row.version == 2
        theirs.name = "Late"
        with pytest.raises(StaleDataError):
            await other.flush()


async def test_model_with_a_version_of_its_own(people: People) -> None:
    """Any model whose ``version_id_col`` counts is treated so, whatever its name, and without a default, too."""

    class Elsewhere(DeclarativeBase):
        pass

    class Page(Elsewhere):
        __tablename__ = "pages"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str] = mapped_column(String(20))
        edition: Mapped[int] = mapped_column("edition_number")
        __mapper_args__ = {"version_id_col": edition}

    class PageIn(Schema):
        text: str
        edition: int | None = None

    class PageOut(Schema):
        model_config = ConfigDict(from_attributes=True)
        id: int
        text: str
        edition: int

    crud = Crud[Page, PageIn, PageIn, PageOut](Page, PageOut, "page:{id}")
    async with people.engine.begin() as connection:
        await connection.run_sync(Elsewhere.metadata.create_all)
    async with Cache.from_url("memory://") as cache:
        made = await crud.create(db=people.db, redis=cache, obj_in=PageIn(text="a"))
        assert made.edition == 1
        changed = await crud.update(db=people.db, redis=cache, obj_in=PageIn(text="b", edition=1), id=made.id)
        assert changed == await crud.get(db=people.db, redis=cache, id=made.id) == PageOut(id=1, text="b", edition=2)
        with pytest.raises(Conflict):
            await crud.update(db=people.db, redis=cache, obj_in=PageIn(text="c", edition=1), id=made.id)


async def test_versions_that_are_no_numbers_are_left_to_the_orm(people: People) -> None:
    """A version that the ORM makes in another way is a column like any other to Crud."""

    class Elsewhere(DeclarativeBase):
        pass

    class Sheet(Elsewhere):
        __tablename__ = "sheets"
        id: Mapped[int] = mapped_column(primary_key=True)
        mark: Mapped[str] = mapped_column(String(32))
        __mapper_args__ = {"version_id_col": mark, "version_id_generator": lambda _: uuid.uuid4().hex}

    class SheetIn(Schema):
        mark: str

    class SheetOut(Schema):
        model_config = ConfigDict(from_attributes=True)
        id: int
        mark: str

    crud = Crud[Sheet, SheetIn, SheetIn, SheetOut](Sheet, SheetOut, "sheet:{id}")
    async with people.engine.begin() as connection:
        await connection.run_sync(Elsewhere.metadata.create_all)
    made = await crud.create(db=people.db, redis=None, obj_in=SheetIn(mark="a"))
    assert (await crud.update(db=people.db, redis=None, obj_in=SheetIn(mark="b"), id=made.id)).mark == "b"
    async with AsyncSession(people.engine) as session:
        assert (await session.scalars(select(Sheet.mark))).one() == "b"
