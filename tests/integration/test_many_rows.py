"""update_multi and delete_multi, and what create_multi says of bad rows: by key, all or none, never stale."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from fastrdb import (
    BatchRefused,
    Cache,
    Conflict,
    EmptyInput,
    InputError,
    NotFound,
    RowsConflict,
    RowsNotFound,
    UniqueViolation,
    UnknownField,
    UsageError,
)
from fastrdb.crud import rowwise
from tests.models import User, UserChange, UserIn, UserOut, named
from tests.people import People, PersonChange, PersonIn, people_in
from tests.teams import Cruds, Loose
from tests.world import ANN, BOB, Read, World, opened

COUNT = 600  # more than the cache names one by one, and than one statement with CASE changes


class Oddity(UserIn):
    """A create schema with a field that the model lacks."""

    shoe_size: int = 3


@pytest.fixture
async def people(database_url: str) -> AsyncIterator[People]:
    """A model that counts versions."""
    async with people_in(database_url) as people:
        yield people


def users(count: int = COUNT, group_id: int = 2) -> list[UserIn]:
    """Users who are not there yet."""
    return [UserIn(email=f"user{number}@x", name=f"User {number}", group_id=group_id) for number in range(count)]


async def fill(world: World, count: int = COUNT) -> list[int]:
    """Create users outside of any cache, and give their ids."""
    created = await world.crud.create_multi(db=world.factory, redis=None, instances=users(count))
    return [user.id for user in created]


async def names(world: World) -> dict[int, str]:
    """What is committed."""
    async with world.outside.connect() as connection:
        return {row[0]: row[1] for row in await connection.execute(select(User.id, User.name))}


async def lists(world: World) -> tuple[list[str], int]:
    """The first group, as a list and counted, from the cache if it is there."""
    given: dict[str, Any] = {"db": world.factory, "redis": world.cache, "group_id": 1}
    return [user.name for user in await world.crud.get_multi(**given)], await world.crud.count(**given)


# create_multi.


@pytest.mark.parametrize("count", [1, 40, COUNT])
async def test_created_rows_are_counted_when_nobody_wants_them(world: World, count: int) -> None:
    """``returning=False`` gives their number; they are there, with the defaults of Python's."""
    assert await world.crud.create_multi(world.factory, world.cache, users(count), returning=False) == count
    stored = await names(world)
    assert [stored[id] for id in sorted(stored)][2:] == [user.name for user in users(count)]


@pytest.mark.parametrize("returning", [True, False])
@pytest.mark.parametrize("count", [3, COUNT])
async def test_created_rows_are_seen_by_lists_counts_and_keys(world: World, count: int, returning: bool) -> None:
    """What was cached before, that a user does not exist included, is not served after ``create_multi``."""
    assert await lists(world) == (["Ann", "Bob"], 2)
    await world.warm(email="user1@x")
    await world.crud.create_multi(world.factory, world.cache, users(count, group_id=1), returning=returning)
    assert (await world.read(email="user1@x")).name == "User 1"
    assert (await lists(world))[1] == count + 2


async def test_created_rows_in_a_callers_transaction_wait_for_it(world: World) -> None:
    """Rows that are not returned show after the caller's COMMIT, and never after its ROLLBACK."""
    await world.warm(email="user1@x")
    async with world.factory() as session:
        await session.begin()
        await world.crud.create_multi(session, world.cache, users(), returning=False)
        assert (await world.read(session, email="user1@x")) == Read("User 1", from_cache=False)
        assert (await world.read(email="user1@x")) == Read(None, from_cache=True)
        await session.rollback()
        assert (await world.read(email="user1@x")) == Read(None, from_cache=True)
        await session.begin()
        await world.crud.create_multi(session, world.cache, users(), returning=False)
        await session.commit()
    assert (await world.read(email="user1@x")).name == "User 1"


@pytest.mark.parametrize("returning", [True, False])
async def test_refused_row_leaves_none_in_a_callers_transaction(world: World, returning: bool) -> None:
    """Of rows of which the last is there already none is written, also where the caller goes on and commits."""
    given = [*users(), UserIn(email="ann@x")]
    async with world.factory() as session, session.begin():
        with pytest.raises(UniqueViolation):
            async with session.begin_nested():
                await world.crud.create_multi(session, world.cache, given, returning=returning)
        if world.dialect != "postgresql":
            with pytest.raises(UniqueViolation):
                await world.crud.create_multi(session, world.cache, given, returning=returning)
    assert await names(world) == {ANN: "Ann", BOB: "Bob"}
    assert (await world.read(email="user1@x")).name is None


async def test_every_bad_row_is_named_before_anything_is_sent(world: World) -> None:
    """A batch with bad rows reports each one's index, field and reason, and sends nothing."""
    wrong: list[Any] = [
        UserIn(email="a@x"),
        UserIn(email="b@x", group_id=2**40),
        UserIn(email="a\0@x", group_id=-(2**40)),
        Oddity(email="c@x"),
    ]
    with pytest.raises(BatchRefused) as refused:
        await world.crud.create_multi(world.factory, world.cache, wrong)
    rows = [(row.index, row.field) for row in refused.value.rows]
    assert sorted(rows) == [(1, "group_id"), (2, "email"), (2, "group_id"), (3, "shoe_size")]
    assert "takes a whole number from" in next(row.reason for row in refused.value.rows if row.index == 1)
    assert refused.value.indexes == (1, 2, 3)
    assert isinstance(refused.value, InputError)
    assert world.sent == []


async def test_go_6_dicts_are_refused_with_a_clear_error(world: World) -> None:
    """GO 6: dicts in place of schemas are named, and what to pass; nothing is stored with empty fields."""
    wrong: list[Any] = [UserIn(email="a@x"), {"email": "b@x"}, UserChange(email="c@x")]
    with pytest.raises(BatchRefused, match=r"\[1\] dict; pass an instance of the create schema, UserIn"):
        await world.crud.create_multi(world.factory, world.cache, wrong)
    change: list[Any] = [{"id": ANN, "name": "x"}]
    with pytest.raises(BatchRefused, match=r"\[0\] dict; pass a pair of a key and .* UserChange"):
        await world.crud.update_multi(world.factory, world.cache, change)
    assert world.sent == []


async def test_duplicates_within_a_batch_are_named(world: World) -> None:
    """Rows that have the unique key of an earlier one are refused, and the earlier one is named."""
    wrong = [*users(3), UserIn(email="user1@x"), UserIn(email="user1@x")]
    with pytest.raises(BatchRefused) as refused:
        await world.crud.create_multi(world.factory, world.cache, wrong)
    reason = "email: the same as in [1], where it has to be unique"
    assert [(row.index, row.field, row.reason) for row in refused.value.rows] == [
        (3, "email", reason),
        (4, "email", reason),
    ]
    with pytest.raises(BatchRefused, match=r"\[1\] the same key as in \[0\]"):
        await world.crud.update_multi(world.factory, world.cache, [(ANN, named("a")), (str(ANN), named("b"))])
    with pytest.raises(BatchRefused, match=r"\[2\] the same key as in \[0\]"):
        await world.crud.delete_multi(world.factory, world.cache, [ANN, BOB, ANN])
    assert world.sent == []


# update_multi.


@pytest.mark.parametrize("count", [1, 2, 50, COUNT])
async def test_each_row_gets_its_own_values(world: World, count: int) -> None:
    """Rows are changed as their items say, answered in their order, and nothing else moves."""
    ids = await fill(world, count)
    items = [(id, named(f"new {id}")) for id in reversed(ids)]
    changed = await world.crud.update_multi(world.factory, world.cache, items)
    assert [(user.id, user.name) for user in changed] == [(id, f"new {id}") for id in reversed(ids)]
    assert [user.email for user in changed] == [f"user{number}@x" for number in reversed(range(count))]
    assert await names(world) == {ANN: "Ann", BOB: "Bob", **{id: f"new {id}" for id in ids}}


async def test_one_statement_changes_many_rows(world: World) -> None:
    """Rows that set the same fields share statements, however many fields the schemas have."""
    ids = await fill(world)
    world.sent.clear()
    await world.crud.update_multi(world.factory, world.cache, [(id, named(str(id))) for id in ids], returning=False)
    assert len([sent for sent in world.sent if sent.startswith("UPDATE")]) <= 1 + -(-COUNT // rowwise._CASES)


async def test_rows_that_set_other_fields_are_other_batches(world: World) -> None:
    """Only fields that were set are written, row by row."""
    ids = await fill(world, 3)
    changes = [UserChange(name="a"), UserChange(group_id=9), UserChange(name="c", group_id=8)]
    changed = await world.crud.update_multi(world.factory, world.cache, zip(ids, changes, strict=True))
    assert [(user.name, user.group_id) for user in changed] == [("a", 2), ("User 1", 9), ("c", 8)]


async def test_go_8_updates_can_set_null(cruds: Cruds) -> None:
    """GO 8: ``None`` is NULL, in one row, while others get a value."""
    items = [(1, Loose(team_code=None)), (2, Loose(team_code="blue"))]
    changed = await cruds.members.update_multi(**cruds.given, items=items)
    assert [member.team_code for member in changed] == [None, "blue"]
    assert [(await cruds.members.get(**cruds.given, id=id)).team_code for id in (1, 2)] == [None, "blue"]


@pytest.mark.parametrize("count", [0, COUNT])
async def test_changed_rows_are_never_stale(world: World, count: int) -> None:
    """Rows under their keys old and new, and their lists and counts, show the change, of few rows and of many."""
    more = [(id, named("new")) for id in await fill(world, count or 1)]
    assert await lists(world) == (["Ann", "Bob"], 2)
    for key in ({"id": ANN}, {"email": "ann@x"}, {"email": "anna@x"}, {"id": BOB}):
        await world.warm(**key)
    items = [(ANN, UserChange(email="anna@x", group_id=5)), (BOB, named("Robert")), *more]
    await world.crud.update_multi(world.factory, world.cache, items)
    assert (await world.read(email="ann@x")).name is None
    assert (await world.read(email="anna@x")).name == "Ann"
    assert (await world.crud.get(world.factory, world.cache, id=ANN)).group_id == 5
    assert (await world.read(id=BOB)).name == "Robert"
    assert await lists(world) == (["Robert"], 1)


async def test_changes_in_a_callers_transaction_wait_for_it(world: World) -> None:
    """Others get the old row until the caller's COMMIT, and after a ROLLBACK from the cache still."""
    await world.warm()
    async with world.factory() as session:
        await session.begin()
        await world.crud.update_multi(session, world.cache, [(ANN, named("new"))])
        assert await world.read() == Read("Ann", from_cache=True)
        assert await world.read(session) == Read("new", from_cache=False)
        await session.rollback()
        assert await world.read() == Read("Ann", from_cache=True)
        await session.begin()
        await world.crud.update_multi(session, world.cache, [(ANN, named("new"))])
        await session.commit()
    assert (await world.read()).name == "new"


async def test_rows_are_found_by_another_unique_key(world: World) -> None:
    """``where_field`` names it, keys may be mappings, and the key itself can be changed."""
    items: list[tuple[Any, UserChange]] = [
        ("bob@x", UserChange(email="robert@x")),
        ({"email": "ann@x"}, UserChange(name="Anna")),
    ]
    changed = await world.crud.update_multi(world.factory, world.cache, items, where_field="email")
    assert [(user.id, user.email, user.name) for user in changed] == [(BOB, "robert@x", "Bob"), (ANN, "ann@x", "Anna")]


async def test_primary_keys_can_be_changed(cruds: Cruds) -> None:
    """Rows get other primary keys, and are answered under them, in the order of the items."""
    await cruds.rooms.create(**cruds.given, obj_in=Loose(name="cellar"))
    changed = await cruds.rooms.update_multi(**cruds.given, items=[(2, Loose(id=20)), (1, Loose(id=10))])
    assert [(room.id, room.name) for room in changed] == [(20, "cellar"), (10, "hall")]
    assert await cruds.rooms.get_or_none(**cruds.given, id=1) is None


async def test_go_9_every_missing_row_is_named_and_nothing_is_committed(world: World) -> None:
    """GO 9: the error comes before COMMIT, with the index and key of each row that is not there."""
    await world.warm()
    items = [(77, named("a")), (ANN, named("b")), (78, named("c"))]
    with pytest.raises(RowsNotFound, match=r"no User for \[0\] 77; \[2\] 78; nothing was changed") as found:
        await world.crud.update_multi(world.factory, world.cache, items)
    assert found.value.rows == {0: 77, 2: 78}
    assert isinstance(found.value, NotFound)
    assert await world.stored() == "Ann"
    assert await world.read() == Read("Ann", from_cache=True)


async def test_missing_rows_can_be_left_out(world: World) -> None:
    """``missing="skip"`` changes those that are there, and answers them alone."""
    items = [(77, named("a")), (ANN, named("b"))]
    changed = await world.crud.update_multi(world.factory, world.cache, items, missing="skip")
    assert changed == [UserOut(id=ANN, email="ann@x", name="b", group_id=1)]
    assert await world.crud.update_multi(world.factory, world.cache, items[:1], missing="skip", returning=False) == 0


async def test_missing_row_in_a_callers_transaction_leaves_it_usable(world: World) -> None:
    """The caller goes on after it, and commits what else was done."""
    async with world.factory() as session, session.begin():
        await world.crud.update_multi(session, world.cache, [(BOB, named("Robert"))])
        with pytest.raises(RowsNotFound):
            await world.crud.update_multi(session, world.cache, [(ANN, named("b")), (77, named("a"))])
    assert await names(world) == {ANN: "Ann", BOB: "Robert"}


async def test_every_bad_item_is_named(world: World) -> None:
    """Items with wrong keys, fields and values, or that set nothing, are all reported; nothing is sent."""
    items: list[Any] = [
        ("x", named("a")),
        (1, UserChange(group_id=2**40)),
        (2, UserChange()),
        (None, named("b")),
        ((1, 2), named("c")),
        (3, UserIn(email="d@x")),
        4,
        (5, named("fine")),
    ]
    with pytest.raises(BatchRefused) as refused:
        await world.crud.update_multi(world.factory, world.cache, items)
    assert refused.value.indexes == (0, 1, 2, 3, 4, 5, 6)
    assert {row.index: row.field for row in refused.value.rows}[1] == "group_id"
    assert world.sent == []


async def test_arguments_that_mean_nothing_are_refused(world: World) -> None:
    """An empty batch, a key that is not unique, a field that is not there, another word than raise and skip."""
    given: dict[str, Any] = {"db": world.factory, "redis": world.cache}
    items = [(ANN, named("a"))]
    with pytest.raises(EmptyInput, match="items"):
        await world.crud.update_multi(**given, items=[])
    with pytest.raises(EmptyInput, match="keys"):
        await world.crud.delete_multi(**given, keys=[])
    with pytest.raises(UsageError, match="keys"):
        await world.crud.delete_multi(**given, keys="12")
    with pytest.raises(UsageError, match="unique key: email, id"):
        await world.crud.update_multi(**given, items=items, where_field="name")
    with pytest.raises(UnknownField):
        await world.crud.update_multi(**given, items=items, where_field="mail")
    with pytest.raises(InputError, match="skip"):
        await world.crud.delete_multi(**given, keys=[ANN], missing="ignore")
    assert world.sent == []


async def test_versions_are_counted_and_compared(people: People) -> None:
    """A row that somebody wrote since is named with both versions, and none is changed; else each has one more."""
    given = [PersonIn(name=name, tenant_id="acme") for name in ("Ann", "Bob", "Carl")]
    made = await people.crud.create_multi(people.db, people.cache, given)
    await people.update(made[1].id, name="Bobby")
    items = [(row.id, PersonChange(name=f"{row.name}!", version=1)) for row in made]
    with pytest.raises(RowsConflict, match="has version 2, not 1") as found:
        await people.crud.update_multi(people.db, people.cache, items)
    assert isinstance(found.value, Conflict)
    assert found.value.indexes == (1,)
    assert (await people.stored(made[0].id)).name == "Ann"
    items[1] = (made[1].id, PersonChange(name="Bob!", version=2))
    changed = await people.crud.update_multi(people.db, people.cache, items)
    assert [(row.name, row.version) for row in changed] == [("Ann!", 2), ("Bob!", 3), ("Carl!", 2)]
    assert [await people.get(row.id) for row in made] == changed == [await people.stored(row.id) for row in made]


async def test_overlapping_batches_wait_for_each_other(world: World) -> None:
    """Batches that have the same rows in another order end one after the other, and the last one has all rows."""
    ids = await fill(world, 40)

    async def change(name: str, order: list[int]) -> None:
        await world.crud.update_multi(world.factory, world.cache, [(id, named(name)) for id in order])

    await asyncio.gather(*(change(f"{n}", ids if n % 2 else ids[::-1]) for n in range(6)))
    stored = await names(world)
    assert len({stored[id] for id in ids}) == 1
    assert (await world.read(id=ids[0])).name == stored[ids[0]]


async def test_rows_are_found_as_the_database_compares(mariadb_url: str, valkey_url: str) -> None:
    """A key in another case names the row on MariaDB, whose collation takes both for equal; twice is too often."""
    async with opened(mariadb_url, valkey_url) as world:
        given: dict[str, Any] = {"db": world.factory, "redis": world.cache, "where_field": "email"}
        assert [user.id for user in await world.crud.update_multi(**given, items=[("ANN@x", named("new"))])] == [ANN]
        with pytest.raises(BatchRefused, match=r"\[1\] its key names the same row as that of \[0\]"):
            await world.crud.delete_multi(**given, keys=["ann@x", "ANN@x"])
        assert (await world.read()).name == "new"


async def test_own_instances_are_fresh(world: World) -> None:
    """Instances of the session that writes show what was written, or are gone."""
    async with world.factory() as session:
        ann, bob = await session.get_one(User, ANN), await session.get_one(User, BOB)
        await world.crud.update_multi(session, world.cache, [(ANN, named("Anna"))])
        assert ann.name == "Anna"
        await world.crud.update_multi(session, world.cache, [(ANN, named("Annie"))], returning=False)
        await session.refresh(ann)
        assert ann.name == "Annie"
        await world.crud.delete_multi(session, world.cache, [BOB])
        assert bob not in session


async def test_changes_that_reach_other_tables_age_them(cruds: Cruds) -> None:
    """Members follow the code of their team, in the cache, too; and go with it."""
    member = lambda: cruds.members.get_or_none(**cruds.given, id=1)  # noqa: E731
    await cruds.cached(member)
    await cruds.teams.update_multi(**cruds.given, items=[(1, Loose(code="green"))])
    assert (await member()).team_code == "green"
    await cruds.teams.delete_multi(**cruds.given, keys=[1])
    assert await member() is None


async def test_violated_constraint_undoes_all(world: World) -> None:
    """A duplicate among many changes is the database's usual error, and no row is changed."""
    ids = await fill(world)
    items = [*((id, named("new")) for id in ids), (BOB, UserChange(email="ann@x"))]
    with pytest.raises(UniqueViolation):
        await world.crud.update_multi(world.factory, world.cache, items)
    assert "new" not in (await names(world)).values()


# delete_multi.


@pytest.mark.parametrize("count", [0, COUNT])
async def test_deleted_rows_are_gone_everywhere(world: World, count: int) -> None:
    """Rows, lists and counts that were cached do not show them, of few rows and of many."""
    ids = await fill(world, count or 1)
    assert await lists(world) == (["Ann", "Bob"], 2)
    for key in ({"id": ANN}, {"email": "ann@x"}):
        await world.warm(**key)
    assert await world.crud.delete_multi(world.factory, world.cache, [*ids, ANN]) == [*ids, ANN]
    assert [(await world.read(**key)).name for key in ({"id": ANN}, {"email": "ann@x"})] == [None, None]
    assert await lists(world) == (["Bob"], 1)
    assert await names(world) == {BOB: "Bob"}


async def test_go_5_only_rows_that_were_there_are_reported(world: World) -> None:
    """GO 5: a key that never existed is named by an error, or left out of the answer."""
    with pytest.raises(RowsNotFound) as found:
        await world.crud.delete_multi(world.factory, world.cache, [ANN, 777])
    assert found.value.rows == {1: 777}
    assert await world.stored() == "Ann"
    assert await world.crud.delete_multi(world.factory, world.cache, [ANN, 777], missing="skip") == [ANN]
    assert await world.crud.delete_multi(world.factory, world.cache, [ANN, 777], missing="skip") == []


async def test_rows_are_deleted_by_another_key(world: World) -> None:
    """Keys of another unique key name rows, as text or as mappings."""
    keys: list[Any] = ["bob@x", {"email": "ann@x"}]
    assert await world.crud.delete_multi(world.factory, world.cache, keys, where_field="email") == keys
    assert await names(world) == {}


async def test_deletions_in_a_callers_transaction_wait_for_it(world: World) -> None:
    """Others get the row from the cache until the COMMIT, and after a ROLLBACK."""
    await world.warm()
    async with world.factory() as session:
        await session.begin()
        await world.crud.delete_multi(session, world.cache, [ANN, BOB])
        assert await world.read() == Read("Ann", from_cache=True)
        await session.rollback()
        assert await world.read() == Read("Ann", from_cache=True)
        await world.crud.delete_multi(session, world.cache, [ANN, BOB])
    assert (await world.read()).name is None


# All three.


async def test_progress_is_told_and_may_undo_all(world: World) -> None:
    """Each write says how many rows it has sent; an error of the one who listens undoes all of them."""
    told: list[int] = []

    def stop(rows: int) -> None:
        raise RuntimeError("enough")

    given: dict[str, Any] = {"db": world.factory, "redis": world.cache}
    created = await world.crud.create_multi(**given, instances=users(), progress=told.append)
    ids = [user.id for user in created]
    await world.crud.update_multi(**given, items=[(id, named("new")) for id in ids], progress=told.append)
    assert told[0] == told[-1] == COUNT
    before = await names(world)
    with pytest.raises(RuntimeError, match="enough"):
        await world.crud.update_multi(**given, items=[(id, named("newer")) for id in ids], progress=stop)
    with pytest.raises(RuntimeError, match="enough"):
        await world.crud.delete_multi(**given, keys=ids, progress=stop)
    with pytest.raises(RuntimeError, match="enough"):
        await world.crud.create_multi(
            **given, instances=[UserIn(email=f"{n}@y") for n in range(COUNT)], returning=False, progress=stop
        )
    assert await names(world) == before
    await world.crud.delete_multi(**given, keys=ids, progress=told.append)
    assert told[-1] == COUNT


async def test_autocommit_is_held_before_the_statements(world: World) -> None:
    """Where each statement commits by itself, nothing that was cached is served after the call."""
    await world.warm()
    engine = world.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        await world.crud.create_multi(session, world.cache, users(), returning=False)
        await world.crud.update_multi(session, world.cache, [(ANN, named("new"))])
        assert (await world.read()).name == "new"
        assert await world.crud.delete_multi(session, world.cache, [ANN, BOB]) == [ANN, BOB]
    assert (await world.read()).name is None


async def test_without_a_cache_the_answers_are_the_same(world: World) -> None:
    """``redis=None`` and a cache within the process answer as Redis does."""
    async with Cache.from_url("memory://") as memory:
        for cache in (None, memory):
            created = await world.crud.create_multi(world.factory, cache, users(2))
            changes = [(user.id, named("new")) for user in created]
            changed = await world.crud.update_multi(world.factory, cache, changes)
            assert changed == [user.model_copy(update={"name": "new"}) for user in created]
            keys = [user.id for user in created]
            assert await world.crud.delete_multi(world.factory, cache, keys) == keys
            assert await world.crud.get_or_none(world.factory, cache, id=keys[0]) is None
