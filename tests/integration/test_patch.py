"""patch: only what differs is written; where nothing does, nothing moves."""

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, Numeric, String
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Conflict, Crud, EmptyInput, MultipleFound, NotFound, UniqueViolation, Updated
from tests.models import User, UserChange, named
from tests.people import People, PersonChange, people_in
from tests.world import ANN, World


@pytest.fixture
async def people(database_url: str) -> AsyncIterator[People]:
    """No rows yet, with versions and timestamps."""
    async with people_in(database_url) as people:
        yield people


def updates(world: World) -> list[str]:
    """The statements that change a user; what locks SQLite's database changes no row."""
    return [each for each in world.sent if each.startswith("UPDATE") and " 0 = 1" not in each]


async def patch(world: World, change: UserChange, **told: Any) -> Updated[Any]:
    """Patch a user, Ann by default."""
    given: dict[str, Any] = {"db": world.factory, "redis": world.cache, "id": ANN, **told}
    return await world.crud.patch(obj_in=change, **given)


async def test_only_differing_fields_are_written(world: World) -> None:
    """The UPDATE sets what differs, the answer names it, and readers see it."""
    await world.warm()
    row, changed = await patch(world, UserChange(name="new", email="ann@x"))
    assert (row.name, changed) == ("new", frozenset({"name"}))
    (sent,) = [each for each in updates(world) if "name" in each.partition("WHERE")[0].partition("RETURNING")[0]]
    assert "email" not in sent.partition("WHERE")[0].partition("SET")[2]
    assert (await world.read()).name == "new"


@pytest.mark.parametrize("joined", [False, True])
async def test_an_equal_row_is_left_alone(world: World, joined: bool) -> None:
    """Where nothing differs no UPDATE is sent, and rows, lists and counts stay in the cache."""
    given: dict[str, Any] = {"db": world.factory, "redis": world.cache, "group_id": 1}
    await world.warm()
    await world.warm(email="ann@x")
    for _ in range(3):
        listed, count = await world.crud.get_multi(**given), await world.crud.count(**given)
    world.sent.clear()
    if joined:
        async with world.factory() as session, session.begin():
            row, changed = await patch(world, UserChange(name="Ann", group_id=1), db=session)
    else:
        row, changed = await patch(world, UserChange(name="Ann", group_id=1))
    assert (row.name, changed) == ("Ann", frozenset())
    assert updates(world) == []
    world.sent.clear()
    assert (await world.read()).from_cache
    assert (await world.read(email="ann@x")).from_cache
    assert await world.crud.get_multi(**given) == listed
    assert await world.crud.count(**given) == count
    assert world.sent == []


async def test_changes_drop_rows_lists_and_counts(world: World) -> None:
    """A changed key field drops the old key, the new one, and the lists of both groups."""
    given: dict[str, Any] = {"db": world.factory, "redis": world.cache}
    for _ in range(3):
        await world.read(email="ann@x")
        await world.read(email="new@x")
        await world.crud.get_multi(**given, group_id=1)
        await world.crud.get_multi(**given, group_id=2)
        await world.crud.count(**given, group_id=2)
    _, changed = await patch(world, UserChange(name="Ann", email="new@x", group_id=2))
    assert changed == {"email", "group_id"}
    assert (await world.read(email="ann@x")).name is None
    assert (await world.read(email="new@x")).name == "Ann"
    assert [user.name for user in await world.crud.get_multi(**given, group_id=1)] == ["Bob"]
    assert [user.name for user in await world.crud.get_multi(**given, group_id=2)] == ["Ann"]
    assert await world.crud.count(**given, group_id=2) == 1


async def test_joined_patches_follow_the_caller(world: World) -> None:
    """After the caller's rollback the old row is served, after the COMMIT the new one."""
    await world.warm()
    async with world.factory() as session:
        await session.begin()
        assert (await patch(world, named("gone"), db=session)).changed == {"name"}
        await session.rollback()
        assert (await world.read()).name == "Ann"
        async with session.begin():
            await patch(world, named("new"), db=session)
        assert (await world.read()).name == "new"


async def test_own_instances_are_refreshed(world: World) -> None:
    """An instance of the row in the caller's session has the new value."""
    async with world.factory() as session:
        ann = await session.get_one(User, ANN)
        await patch(world, named("new"), db=session)
        assert ann.name == "new"


async def test_refusals(world: World) -> None:
    """What matches no row, several, or sets nothing raises as in update, and nothing is changed."""
    with pytest.raises(NotFound):
        await patch(world, named("new"), id=77)
    with pytest.raises(MultipleFound):
        await world.crud.patch(world.factory, world.cache, named("new"), group_id=1)
    with pytest.raises(EmptyInput):
        await patch(world, UserChange())
    with pytest.raises(UniqueViolation):
        await patch(world, UserChange(email="bob@x"))
    assert await world.stored() == "Ann"


async def test_nothing_else_moves(people: People) -> None:
    """An equal row keeps its version and ``updated_at``; a change counts one version."""
    made = await people.create(name="Ann")
    row, changed = await people.crud.patch(people.db, people.cache, PersonChange(name="Ann"), id=made.id)
    assert (row, changed) == (made, frozenset())
    assert await people.stored(made.id) == made
    row, changed = await people.crud.patch(people.db, people.cache, PersonChange(name="Eve"), id=made.id)
    assert (row.version, changed) == (made.version + 1, {"name"})
    assert await people.get(made.id) == row


@pytest.mark.parametrize("name", ["Ann", "Eve"])
async def test_an_old_version_conflicts(people: People, name: str) -> None:
    """A version that is not the row's any more raises, whether or not anything differs."""
    made = await people.create(name="Ann")
    with pytest.raises(Conflict):
        await people.crud.patch(people.db, people.cache, PersonChange(name=name, version=7), id=made.id)
    row, _ = await people.crud.patch(people.db, people.cache, PersonChange(name=name, version=1), id=made.id)
    assert row.version == (1 if name == "Ann" else 2)


class Base(DeclarativeBase):
    """Tables with kinds of values."""


class Thing(Base):
    """Values that have several spellings."""

    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    price: Mapped[Decimal] = mapped_column(Numeric(8, 2))
    note: Mapped[str | None] = mapped_column(String(50))
    data: Mapped[Any] = mapped_column(JSON)
    at: Mapped[datetime]
    on: Mapped[bool]


class ThingOut(BaseModel):
    """A thing."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    price: Decimal
    note: str | None
    data: Any
    at: datetime
    on: bool


class Loose(BaseModel):
    """Any fields."""

    model_config = ConfigDict(extra="allow")


async def test_values_are_compared_as_columns_have_them(database_url: str) -> None:
    """Another spelling of the same value is no change; NULL, and a part of a JSON value, are."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    crud = Crud[Thing, Loose, Loose, ThingOut](Thing, ThingOut)
    db = async_sessionmaker(engine)
    at = datetime(2026, 1, 2, 3, 4, 5)
    values = {"price": Decimal("1.50"), "note": None, "data": {"a": [1, True]}, "at": at, "on": True}
    made = await crud.create(db, None, Loose(id=1, **values))
    same = {"price": 1.5, "note": None, "data": {"a": [1, True]}, "at": at.isoformat(), "on": "true"}
    assert (await crud.patch(db, None, Loose(**same), id=1)) == (made, frozenset())
    for name, value in {
        "price": "1.51",
        "note": "",
        "data": {"a": [1]},
        "at": at.replace(second=6),
        "on": False,
    }.items():
        row, changed = await crud.patch(db, None, Loose(**{**same, name: value}), id=1)
        assert changed == {name}
        assert str(getattr(row, name)) == str(value)
        await crud.update(db, None, Loose(**values), id=1)
    await engine.dispose()
