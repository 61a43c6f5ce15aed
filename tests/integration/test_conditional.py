"""update_where and delete_where on each database, and what they do to the cache."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import exists, func, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from fastrdb import Conflict, EmptyInput, ForeignKeyViolation, InputError, UniqueViolation, UnknownField
from tests.models import User, UserChange, UserIn, named
from tests.people import PersonChange, PersonIn, people_in
from tests.teams import Cruds, Loose
from tests.world import ANN, BOB, World


def calls(world: World) -> dict[str, Any]:
    """The arguments of calls in a world."""
    return {"db": world.factory, "redis": world.cache}


async def names(world: World) -> list[str]:
    """The names of all users, from the database."""
    return [user.name for user in await world.crud.get_multi(world.factory, None, 1000, order_by="id")]


async def more(world: World, count: int) -> None:
    """Create users in group 9."""
    await world.crud.create_multi(**calls(world), instances=[UserIn(email=f"u{n}", group_id=9) for n in range(count)])


# Which rows.


async def test_rows_that_match_are_changed_and_counted(world: World) -> None:
    """Keywords, filters and an expression choose the rows; the others stay as they are."""
    await more(world, 3)
    assert await world.crud.update_where(**calls(world), obj_in=named("new"), group_id=9) == 3
    assert await names(world) == ["Ann", "Bob", "new", "new", "new"]
    assert await world.crud.update_where(**calls(world), obj_in=named("two"), where=User.id > 2, email="u1") == 1
    assert await world.crud.update_where(**calls(world), obj_in=named("x"), filters={"name": "nobody"}) == 0
    assert await world.crud.delete_where(**calls(world), group_id={">": 1}, where=User.name == "new") == 2
    assert await names(world) == ["Ann", "Bob", "two"]


async def test_rows_that_are_as_they_should_be_count(world: World) -> None:
    """The number is that of the rows that matched, on each database."""
    assert await world.crud.update_where(**calls(world), obj_in=UserChange(group_id=1), group_id=1) == 2


async def test_delete_without_a_condition_does_not_empty_the_table(world: World) -> None:
    """advanced-alchemy's ``delete_where()`` without filters empties the table; here it raises."""
    for nothing in ({}, {"filters": {}}, {"where": None}, {"where": true()}):
        with pytest.raises(EmptyInput, match="all_rows=True"):
            await world.crud.delete_where(**calls(world), **nothing)
        with pytest.raises(EmptyInput, match="all_rows=True"):
            await world.crud.update_where(**calls(world), obj_in=named("x"), **nothing)
    assert await names(world) == ["Ann", "Bob"]


async def test_empty_list_matches_nothing(world: World) -> None:
    """General Operate's empty list of a filter matched all rows; here it matches none."""
    assert await world.crud.update_where(**calls(world), obj_in=named("x"), id=[]) == 0
    assert await world.crud.delete_where(**calls(world), id=[]) == 0
    with pytest.raises(InputError):
        await world.crud.delete_where(**calls(world), filters=[])
    assert await names(world) == ["Ann", "Bob"]


async def test_every_row_when_told(world: World) -> None:
    """``all_rows=True`` says that every row is meant; with a condition beside it, nobody knows what is."""
    with pytest.raises(InputError, match="leave one of them out"):
        await world.crud.delete_where(**calls(world), all_rows=True, id=ANN)
    assert await world.crud.update_where(**calls(world), obj_in=named("x"), all_rows=True) == 2
    assert await world.crud.delete_where(**calls(world), all_rows=True) == 2
    assert await names(world) == []


async def test_wrong_arguments_change_nothing(world: World) -> None:
    """Unknown fields, nothing to set and a wrong size of batches raise before anything is sent."""
    before = len(world.sent)
    wrong: list[tuple[dict[str, Any], type[Exception]]] = [
        ({"obj_in": named("x"), "nothing": 1}, UnknownField),
        ({"obj_in": UserChange(), "id": ANN}, EmptyInput),
        ({"obj_in": named("x"), "id": ANN, "batch": 0}, InputError),
    ]
    for arguments, error in wrong:
        with pytest.raises(error):
            await world.crud.update_where(**calls(world), **arguments)
    assert len(world.sent) == before


async def test_refused_update_changes_nothing(world: World) -> None:
    """Where one of the rows is refused, none is changed."""
    with pytest.raises(UniqueViolation):
        await world.crud.update_where(**calls(world), obj_in=UserChange(email="same"), all_rows=True)
    assert await world.crud.count(world.factory, email="same") == 0


# In batches.


@pytest.mark.parametrize("size", [1, 3, 7, 100])
async def test_batches_change_each_row_once(world: World, size: int) -> None:
    """Every row that matched is changed once, though the change takes it out of what matches; progress is told."""
    await more(world, 7)
    told: list[int] = []
    changed = await world.crud.update_where(
        **calls(world), obj_in=UserChange(group_id=8, name="n"), group_id=9, batch=size, progress=told.append
    )
    assert changed == 7 == told[-1]
    assert told == sorted(told)
    assert all(after - before <= size for before, after in zip([0, *told], told, strict=False))
    assert await world.crud.count(world.factory, group_id=8, name="n") == 7
    told.clear()
    assert await world.crud.delete_where(**calls(world), group_id=8, batch=size, progress=told.append) == 7
    assert told[-1] == 7
    assert await names(world) == ["Ann", "Bob"]


async def test_batches_are_one_transaction(world: World) -> None:
    """An error in a later batch undoes the earlier ones."""
    await more(world, 6)

    def stop(rows: int) -> None:
        if rows == 4:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        await world.crud.delete_where(**calls(world), all_rows=True, batch=2, progress=stop)
    assert await world.crud.count(world.factory) == 8


async def test_batches_do_not_go_by_a_key_that_changes(world: World) -> None:
    """Batches go by the primary key; an update that changes it is refused."""
    moved: Any = Loose(id=7)
    with pytest.raises(InputError, match="leave batch out"):
        await world.crud.update_where(**calls(world), obj_in=moved, id=ANN, batch=1)


# The cache.


async def warm(world: World) -> None:
    """Cache both users, two groups' lists and counts."""
    for _ in range(2):
        await world.read(id=ANN)
        await world.read(id=BOB)
        await world.read(email="ann@x")
        for group in (1, 2):
            await world.crud.get_multi(**calls(world), group_id=group)
            await world.crud.count(**calls(world), group_id=group)


async def same_as_stored(world: World) -> None:
    """Whatever is read through the cache is what is stored."""
    for key in ({"id": ANN}, {"id": BOB}, {"email": "ann@x"}, {"email": "new@x"}):
        cached = await world.crud.get_or_none(**calls(world), **key)
        assert cached == await world.crud.get_or_none(world.factory, None, **key), key
    for group in (1, 2):
        cached_list = await world.crud.get_multi(**calls(world), group_id=group)
        assert cached_list == await world.crud.get_multi(world.factory, None, group_id=group)
        assert await world.crud.count(**calls(world), group_id=group) == await world.crud.count(
            world.factory, None, group_id=group
        )


async def test_changed_rows_are_not_served_stale(world: World) -> None:
    """Entries, lists by old and new columns, and counts follow an update, few rows or many."""
    await warm(world)
    await world.crud.update_where(**calls(world), obj_in=UserChange(group_id=2, name="n"), id=ANN)
    await same_as_stored(world)
    await warm(world)
    await world.crud.update_where(**calls(world), obj_in=UserChange(email="new@x"), where=User.name == "n")
    await same_as_stored(world)
    await more(world, 300)
    await warm(world)
    await world.crud.update_where(**calls(world), obj_in=UserChange(group_id=1), all_rows=True, batch=100)
    await same_as_stored(world)


async def test_deleted_rows_are_not_served_stale(world: World) -> None:
    """So they do a delete, few rows or many."""
    await warm(world)
    assert await world.crud.delete_where(**calls(world), name="Ann") == 1
    await same_as_stored(world)
    await more(world, 300)
    await warm(world)
    await world.crud.delete_where(**calls(world), all_rows=True)
    await same_as_stored(world)


async def test_named_rows_leave_the_others_cached(world: World) -> None:
    """A condition that matches few rows drops those, and not the table."""
    await warm(world)
    await world.crud.update_where(**calls(world), obj_in=UserChange(group_id=2), name="Ann")
    assert (await world.read(id=BOB)).from_cache
    await warm(world)
    await world.crud.delete_where(**calls(world), name="Ann")
    assert (await world.read(id=BOB)).from_cache


async def test_nothing_matched_drops_no_row(world: World) -> None:
    """Where nothing matches, rows stay cached."""
    await warm(world)
    await world.crud.delete_where(**calls(world), name="nobody")
    assert (await world.read(id=BOB)).from_cache


async def test_condition_on_other_rows_drops_the_table(world: World) -> None:
    """A condition that reads other rows may name other ones a moment later: the whole table is dropped."""
    await warm(world)
    other = aliased(User)
    condition = exists(select(other.id).where(other.group_id == User.group_id, other.id > User.id))
    assert await world.crud.update_where(**calls(world), obj_in=named("x"), where=condition) == 1
    await same_as_stored(world)


async def test_condition_that_changes_by_itself(world: World) -> None:
    """A condition with the server's clock is taken, too."""
    await warm(world)
    condition = func.now() == func.now()
    assert await world.crud.update_where(**calls(world), obj_in=named("x"), where=condition, id=ANN) == 1
    await same_as_stored(world)


async def test_joined_writes_wait_for_the_commit(world: World) -> None:
    """In a caller's transaction others get the old rows until COMMIT, and after a rollback."""
    await warm(world)
    async with AsyncSession(world.engine) as session:
        await session.begin()
        await world.crud.update_where(session, world.cache, named("new"), id=ANN)
        await world.crud.delete_where(session, world.cache, id=BOB)
        assert await world.read(id=ANN) == ("Ann", True)
        assert await world.read(id=BOB) == ("Bob", True)
        await session.rollback()
        assert await world.read(id=ANN) == ("Ann", True)
        await session.begin()
        await world.crud.update_where(session, world.cache, named("new"), id=ANN)
        await world.crud.delete_where(session, world.cache, id=BOB)
        await session.commit()
    assert (await world.read(id=ANN)).name == "new"
    assert (await world.read(id=BOB)).name is None


async def test_autocommit_drops_the_table(world: World) -> None:
    """Under AUTOCOMMIT the table is held before the statement; nothing stale is left."""
    engine = world.another_engine(isolation_level="AUTOCOMMIT")
    await warm(world)
    async with AsyncSession(engine) as session:
        assert await world.crud.update_where(session, world.cache, UserChange(group_id=2), id=ANN) == 1
        assert await world.crud.delete_where(session, world.cache, id=BOB) == 1
    await same_as_stored(world)


async def test_concurrent_writes_leave_nothing_stale(world: World) -> None:
    """While many write by condition at once, the cache ends with what is stored."""
    for turn in range(3):
        await asyncio.gather(
            *(
                world.crud.update_where(**calls(world), obj_in=UserChange(group_id=1 + n % 2, name=f"n{n}"), id=user)
                for n in range(turn, turn + 4)
                for user in (ANN, BOB)
            )
        )
        await same_as_stored(world)


# What else is reached.


async def test_cascades_age_what_they_reach(cruds: Cruds) -> None:
    """Deleting teams deletes their members, changing a code changes theirs: in the cache, too."""
    given = cruds.given
    await cruds.cached(lambda: cruds.members.get(**given, id=1))
    await cruds.teams.update_where(**given, obj_in=Loose(code="green"), code="red")
    assert (await cruds.members.get(**given, id=1)).team_code == "green"
    await cruds.cached(lambda: cruds.badges.get(**given, id=1))
    await cruds.teams.delete_where(**given, code=["green"])
    assert await cruds.members.get_or_none(**given, id=1) is None
    assert (await cruds.badges.get(**given, id=1)).member_id is None


async def test_row_that_is_referred_to_stays(cruds: Cruds) -> None:
    """An update that a foreign key forbids raises, and changes nothing."""
    with pytest.raises(ForeignKeyViolation):
        await cruds.members.update_where(**cruds.given, obj_in=Loose(team_id=99), all_rows=True)
    assert await cruds.members.count(cruds.factory, team_id=1) == 2


# The caller's own instances, and versions.


async def test_own_instances_follow(world: World) -> None:
    """Instances of the caller's session show what was written, and leave the session when their rows go."""
    async with AsyncSession(world.engine, expire_on_commit=False) as session, session.begin():
        ann, bob = await session.get_one(User, ANN), await session.get_one(User, BOB)
        await world.crud.update_where(session, world.cache, named("new"), id=ANN)
        assert (ann.name, bob.name) == ("new", "Bob")
        await world.crud.delete_where(session, world.cache, id=BOB)
        assert bob not in session
        assert ann in session
        assert await session.get(User, BOB) is None


async def test_versions_are_counted_and_compared(database_url: str) -> None:
    """Each changed row has the next version; a version in the update is compared, not written."""
    async with people_in(database_url) as people:
        ann, bob = await people.create("Ann"), await people.create("Bob")
        change = PersonChange(updated_by="me")
        assert await people.crud.update_where(people.db, people.cache, change, tenant_id="acme") == 2
        after = await people.get(ann.id)
        assert (after.version, after.updated_by) == (2, "me")
        assert after.updated_at >= ann.updated_at
        stale = PersonChange(updated_by="you", version=1)
        assert await people.crud.update_where(people.db, people.cache, stale, name="Bob") == 0
        assert (await people.get(bob.id)).version == 2
        with pytest.raises(Conflict):
            await people.crud.update(people.db, people.cache, stale, name="Bob")


async def test_upsert_of_a_model_with_all_mixins(database_url: str) -> None:
    """A model with every column mixin: audit columns, timestamps and the version follow an upsert."""
    given = PersonIn(name="Ann", tenant_id="acme", created_by="somebody")
    async with people_in(database_url) as people:
        ann = await people.create("Ann")
        found = await people.crud.upsert(
            people.db, people.cache, given, conflict_fields=["name"], update_fields=["created_by"]
        )
        assert (found.created, found.row.id, found.row.version) == (False, ann.id, 2)
        assert found.row.updated_at >= ann.updated_at
        assert await people.get(ann.id) == await people.stored(ann.id) == found.row
