"""Soft delete, audit and tenants on real databases, by ORM, by hand-written statements and by Crud."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel as Schema
from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from fastrdb import Crud, NotFound, ReadOptions
from fastrdb.context import actor, tenant
from tests.people import People, Person, PersonChange, PersonIn, PersonOut, people_in


@pytest.fixture
async def people(database_url: str) -> AsyncIterator[People]:
    """An empty database, once PostgreSQL and once SQLite."""
    async with people_in(database_url) as people:
        yield people


EVERY_ROW = ReadOptions(include_deleted=True)


def by(row: Any) -> tuple[str | None, str | None, str | None]:
    """What the audit columns of a row say."""
    return row.created_by, row.updated_by, row.request_id


# Audit.


async def test_orm_writes_are_audited(people: People) -> None:
    """A flush inside a block says who made a row and who changed it, and the instance knows it at once."""
    async with people.db() as session:
        ann = Person(name="Ann", tenant_id="acme")
        session.add(ann)
        async with actor("ann", request_id="r1"):
            await session.flush()
        assert by(ann) == ("ann", "ann", "r1")
        ann.name = "Anna"
        async with actor("bob"):
            await session.flush()
        assert by(ann) == ("ann", "bob", None), "the request of the last write, which named none"


async def test_writes_outside_of_a_block_keep_what_is_there(people: People) -> None:
    """Without an actor, an INSERT leaves the columns NULL and an UPDATE leaves them as they are."""
    nobody = await people.create("Nobody")
    assert by(nobody) == (None, None, None)
    with actor("ann", "r1"):
        ann = await people.create("Ann")
    assert by(await people.update(ann.id, name="Anna")) == ("ann", "ann", "r1")


async def test_crud_writes_are_audited(people: People) -> None:
    """``create`` and ``update`` fill the columns, and the response, the cache and the database say the same."""
    with actor("ann", "r1"):
        made = await people.create()
    assert by(made) == ("ann", "ann", "r1")
    assert made == await people.get(made.id) == await people.stored(made.id)
    with actor("bob", "r2"):
        changed = await people.update(made.id, name="Anna")
    assert by(changed) == ("ann", "bob", "r2")
    assert changed == await people.get(made.id) == await people.stored(made.id)
    assert people.cache.stats.hits == 2, "both writes put their row in place"


async def test_statements_that_are_kept_ask_the_context_each_time(people: People) -> None:
    """Crud builds a statement once; each time it runs, it finds who acts then."""
    row = await people.create()
    for number in range(3):
        with actor(f"user-{number}", f"r{number}"):
            assert by(await people.update(row.id, name=f"n{number}")) == (None, f"user-{number}", f"r{number}")
    assert by(await people.update(row.id, name="last")) == (None, "user-2", "r2")


async def test_concurrent_requests_do_not_mix(people: People) -> None:
    """Tasks that write at the same time are audited each as its own actor."""

    async def request(number: int) -> PersonOut:
        async with actor(f"user-{number}", f"r{number}"):
            made = await people.create(f"Person {number}")
            await asyncio.sleep(0)
            return await people.update(made.id, name=f"person {number}")

    found = await asyncio.gather(*(request(number) for number in range(8)))
    assert list(map(by, found)) == [(f"user-{n}", f"user-{n}", f"r{n}") for n in range(8)]


async def test_many_rows_are_audited(people: People) -> None:
    """``create_multi`` fills the columns of every row."""
    with actor("ann", "r1"), tenant("acme"):
        many = [PersonIn(name=f"Person {number}") for number in range(5)]
        found = await people.crud.create_multi(db=people.db, redis=people.cache, instances=many)
    assert [row.name for row in found] == [row.name for row in many]
    assert {by(row) for row in found} == {("ann", "ann", "r1")}
    assert {row.tenant_id for row in found} == {"acme"}


async def test_values_that_are_given_win(people: People) -> None:
    """Who says who it was, is believed."""
    with actor("ann", "r1"):
        made = await people.create(created_by="import", tenant_id="acme")
        assert by(made) == ("import", "ann", "r1")
        assert by(await people.update(made.id, updated_by="import")) == ("import", "import", "r1")


async def test_setting_the_same_user_by_hand_again_keeps_him(people: People) -> None:
    """``set_audit_fields`` with what is there already is no change, which must not make the row anybody else's."""
    async with people.db() as session:
        row = Person(name="Ann", tenant_id="acme")
        row.set_audit_fields("ann", "r1")
        session.add(row)
        await session.flush()
        row.name = "Anna"
        row.set_audit_fields("ann", "r1", is_update=True)
        await session.flush()
        assert by(row) == ("ann", "ann", "r1")


async def test_hand_written_statements_are_audited(people: People) -> None:
    """``insert()`` and ``update()`` of models and tables fill the columns, also where two audited tables meet."""
    table: Any = Person.__table__
    async with people.db.begin() as session:
        with actor("ann", "r1"):
            await session.execute(insert(Person), [{"name": "a", "tenant_id": "t"}, {"name": "b", "tenant_id": "t"}])
            await session.execute(insert(table).values(name="c", tenant_id="t"))
        other = table.alias("other")
        with actor("bob", "r2"):
            await session.execute(update(Person).where(Person.name == "a").values(name="A"))
            await session.execute(
                update(table)
                .where(table.c.name == "b", other.c.name == "c", table.c.tenant_id == other.c.tenant_id)
                .values(name="B")
            )
        found = [(row.name, *by(row)) for row in await session.scalars(select(Person))]
    assert sorted(found) == [
        ("A", "ann", "bob", "r2"),
        ("B", "ann", "bob", "r2"),
        ("c", "ann", "ann", "r1"),
    ]


# Conditions.


async def test_conditions_by_statement_and_by_crud(people: People) -> None:
    """What the mixins give as conditions works in ``select`` and as ``where=``."""
    with actor("ann", "r1"):
        await people.create("Ann")
        gone = await people.create("Gone")
        await people.create("Other", tenant_id="other")
    with actor("bob", "r2"):
        await people.update(gone.id, name="Gone!")
    async with people.db.begin() as session:
        (await session.get_one(Person, gone.id)).soft_delete()
    await people.crud.invalidate(people.cache)
    conditions: dict[str, ColumnElement[bool]] = {
        "Ann Other": Person.active_only(),
        "Gone!": Person.deleted_only(),
        "Ann Gone! Other": Person.include_deleted(),
        "Ann Gone!": Person.by_tenant("acme"),
        "Other": Person.exclude_tenant("acme"),
        "Ann  Gone! Other": Person.by_user("ann"),
        "Gone! ": Person.updated_by_user("bob"),
        " Gone!": Person.by_request("r2"),
        "Gone!  ": Person.is_deleted,  # type: ignore[dict-item]  # an expression on the class
    }
    async with people.db() as session:
        for names, condition in conditions.items():
            found = (await session.scalars(select(Person.name).where(condition).order_by(Person.name))).all()
            assert found == names.split(), names
            for _ in range(2):  # loaded, and from the cache
                rows = await people.crud.get_multi(
                    db=people.db, redis=people.cache, where=condition, order_by="name", options=EVERY_ROW
                )
                assert [row.name for row in rows] == names.split(), names


# Soft delete.


async def test_soft_delete_and_restore_are_stored(people: People) -> None:
    """The marks of an instance reach the database, and crud's responses show them."""
    made = await people.create()
    at = datetime(2026, 1, 2, tzinfo=UTC)
    async with people.db.begin() as session:
        (await session.get_one(Person, made.id)).soft_delete(at)
    await people.crud.invalidate(people.cache, id=made.id)
    found = await people.crud.get(db=people.db, redis=people.cache, id=made.id, options=EVERY_ROW)
    assert (found.is_active, found.deleted_at) == (False, at)
    with pytest.raises(NotFound):
        await people.get(made.id)
    async with people.db.begin() as session:
        (await session.get_one(Person, made.id)).restore()
    assert (await people.stored(made.id)).is_active


async def test_responses_can_show_whether_a_row_is_deleted(people: People) -> None:
    """``is_deleted`` is a field of a response like any other, loaded and from the cache."""

    class Marked(Schema):
        name: str
        is_deleted: bool

    made, crud = await people.create(), Crud(Person, Marked, "marked:{id}", tenant=False)
    for _ in range(2):
        assert await crud.get(db=people.db, redis=people.cache, id=made.id) == Marked(name="Ann", is_deleted=False)


@pytest.mark.parametrize("values", [{"is_active": False}, {"deleted_at": datetime(2026, 1, 1, tzinfo=UTC)}])
async def test_database_refuses_marks_that_disagree(people: People, values: dict[str, Any]) -> None:
    """A row that is inactive without a time of deletion, or active with one, is refused."""
    made = await people.create()
    async with people.db() as session:
        with pytest.raises(DBAPIError, match="ck_people_soft_delete"):
            await session.execute(update(Person).where(Person.id == made.id).values(**values))


# Tenants.


async def test_tenant_comes_from_the_context(people: People) -> None:
    """An INSERT that names no tenant is the current tenant's, by Crud and by ORM."""
    with tenant("acme"):
        made = await people.create(created_by="import")
        async with people.db.begin() as session:
            session.add(Person(name="Orm"))
    assert made.tenant_id == "acme"
    async with people.db() as session:
        assert set((await session.scalars(select(Person.tenant_id))).all()) == {"acme"}


async def test_row_without_a_tenant_is_refused(people: People) -> None:
    """Outside of a block, and without a tenant given, nothing is inserted."""
    with pytest.raises(IntegrityError):
        await people.create(created_by="import")


async def test_crud_serves_models_by_uuid_given_as_text(people: People) -> None:
    """A key given as text names the same entry as the UUID, and a mistaken one is refused before anything is sent."""
    made = await people.create()
    for _ in range(2):
        assert await people.crud.get(db=people.db, redis=people.cache, id=str(made.id).upper()) == made
    assert people.cache.stats.hits == 2
    changed = await people.crud.update(
        db=people.db, redis=people.cache, obj_in=PersonChange(name="Anna"), id=str(made.id)
    )
    assert await people.get(made.id) == changed
    since = {">=": made.created_at.isoformat()}
    assert await people.crud.count(db=people.db, redis=people.cache, created_at=since) == 1
