"""Whose transaction a write is in: when it is held, when it is released, and what others see meanwhile."""

from typing import Any

import pytest
from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, async_sessionmaker
from sqlalchemy.util import await_only

from fastrdb import NearTier, NotFound, RowsNotFound
from tests.models import User, UserChange, UserIn, named, user_crud
from tests.world import ANN, BOB, Read, World

STALE = Read("Ann", from_cache=True)
HELD = "bypass: the entry is held"
ABSENT = "miss: absent"


class Commits:
    """What the cache said of Ann at each COMMIT of an engine, just before it was sent."""

    def __init__(self, world: World) -> None:
        self.states: list[str] = []
        self.reads: list[Read] = []
        self._world = world

    def look(self, connection: object) -> None:
        """Look; called after fastrdb's own listener."""
        await_only(self._look())

    async def _look(self) -> None:
        self.states.append(await self._world.state())
        self.reads.append(await self._world.read())


@pytest.fixture
async def commits(world: World) -> Commits:
    """Looks at the cache from within each COMMIT; Ann is cached."""
    await world.warm()
    commits = Commits(world)
    event.listen(world.engine.sync_engine, "commit", commits.look)
    return commits


# Ours: nothing before, or autobegun.


async def test_own_write_commits(world: World) -> None:
    """A write in a session that is in no transaction is committed when it returns."""
    async with world.factory() as session:
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        assert not session.in_transaction()
    assert await world.stored() == "new"


async def test_own_write_holds_during_commit(world: World, commits: Commits) -> None:
    """When COMMIT is sent, the row is held, and a reader passes the cache by and sees what is committed."""
    async with world.factory() as session:
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert commits.states == [HELD]
    assert commits.reads == [Read("Ann", from_cache=False)]


async def test_own_write_is_written_through(world: World) -> None:
    """After a write that was alone in its transaction, readers get the new row without SQL, under each key."""
    await world.warm()
    await world.warm(email="ann@x")
    async with world.factory() as session:
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert await world.read() == Read("new", from_cache=True)
    assert await world.read(email="ann@x") == Read("new", from_cache=True)


async def test_factory_write_is_written_through(world: World) -> None:
    """With a factory as ``db`` a write commits, is written through, and leaves no connection out."""
    await world.warm()
    await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)
    assert await world.read() == Read("new", from_cache=True)
    assert world.leaked == 0


async def test_own_delete_is_seen(world: World) -> None:
    """After a delete, readers find nothing, under each key."""
    await world.warm()
    await world.warm(email="ann@x")
    await world.crud.delete(db=world.factory, redis=world.cache, id=ANN)
    assert (await world.read()).name is None
    assert (await world.read(email="ann@x")).name is None


async def test_autobegun_transaction_is_committed_whole(world: World) -> None:
    """After a SELECT of the caller's, a write commits, together with what was pending in the session."""
    async with world.factory() as session:
        bob = (await session.execute(select(User).where(User.id == BOB))).scalar_one()
        bob.name = "pending"
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        assert not session.in_transaction()
    assert await world.stored() == "new"
    assert await world.stored(BOB) == "pending"


async def test_autobegun_transaction_is_not_written_through(world: World, commits: Commits) -> None:
    """A write after a SELECT of the caller's holds during COMMIT and then only drops the row."""
    async with world.factory() as session:
        await session.execute(select(User.id))
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert commits.states == [HELD]
    assert await world.state() == ABSENT
    assert (await world.read()).name == "new"


async def test_flush_during_commit_stops_writing_through(world: World) -> None:
    """A statement that a session's own hook sends between the write and COMMIT keeps the value out of the cache."""
    await world.warm()
    async with world.factory() as session:

        def change_again(sync_session: Any) -> None:
            sync_session.connection().exec_driver_sql("UPDATE users SET name = 'hooked' WHERE id = 1")

        event.listen(session.sync_session, "before_commit", change_again)
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert await world.state() == ABSENT
    assert (await world.read()).name == "hooked"


async def test_failed_own_write_leaves_all_as_it_was(world: World) -> None:
    """A write that finds no row rolls back: the session can be used, and what was cached still is."""
    await world.warm()
    async with world.factory() as session:
        with pytest.raises(NotFound):
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=77)
        assert not session.in_transaction()
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=BOB)
    assert await world.read() == STALE


# The caller's: begun, nested, commit=False.


async def test_joined_write_shows_after_the_callers_commit(world: World) -> None:
    """In the caller's ``begin()`` others see the old row, from the cache, until COMMIT, and then the new one."""
    await world.warm()
    async with world.factory() as session:
        async with session.begin():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
            assert await world.read() == STALE
            assert await world.read(session) == Read("new", from_cache=False)
        assert await world.state() == ABSENT
    assert (await world.read()).name == "new"
    assert await world.read() == Read("new", from_cache=True)


async def test_joined_write_holds_during_commit(world: World, commits: Commits) -> None:
    """The caller's COMMIT finds the row held, and readers meanwhile pass the cache by."""
    async with world.factory() as session, session.begin():
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        assert commits.states == []
    assert commits.states == [HELD]
    assert commits.reads == [Read("Ann", from_cache=False)]


async def test_joined_rollback_leaves_the_cache_as_it_was(world: World) -> None:
    """After the caller's ROLLBACK the cache still has the row, and gives it without SQL."""
    await world.warm()
    async with world.factory() as session:
        await session.begin()
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        await session.rollback()
    assert await world.read() == STALE


async def test_closing_a_joined_session_leaves_the_cache_as_it_was(world: World) -> None:
    """A session that is closed without COMMIT has changed nothing."""
    await world.warm()
    async with world.factory() as session:
        await session.begin()
        await world.crud.delete(db=session, redis=world.cache, id=ANN)
    assert await world.read() == STALE


@pytest.mark.parametrize("how", ["create_multi", "update_multi", "update_multi counted", "delete_multi"])
async def test_joined_write_of_many_rows_that_fails_half_way_changes_none(world: World, how: str) -> None:
    """A caller who goes on after an error in the middle of it, its own one, and commits, commits no row of it."""
    await world.warm()

    def stop(rows: int) -> None:
        raise LookupError(rows)

    async with world.factory() as session, session.begin():
        told: dict[str, Any] = {"db": session, "redis": world.cache, "progress": stop}
        items, returning = [(ANN, named("new")), (BOB, named("new"))], how == "update_multi"
        write = {
            "create_multi": lambda: world.crud.create_multi(**told, instances=[UserIn(email="carl@x")]),
            "delete_multi": lambda: world.crud.delete_multi(**told, keys=[ANN, BOB]),
        }.get(how, lambda: world.crud.update_multi(**told, items=items, returning=returning))
        with pytest.raises(LookupError):
            await write()
    assert [await world.stored(id) for id in (ANN, BOB)] == ["Ann", "Bob"]
    assert await world.crud.count(db=world.factory, redis=None) == 2
    assert (await world.read()).name == "Ann"


async def test_joined_write_that_misses_a_row_too_late_changes_none(pg_world: World) -> None:
    """A row that a trigger keeps from being changed is missed after others were; a caller who commits commits none."""
    world = pg_world
    await world.execute(
        "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$",
        "CREATE TRIGGER keep BEFORE UPDATE ON users FOR EACH ROW WHEN (OLD.name = 'Bob') EXECUTE FUNCTION keep()",
    )
    await world.warm()
    async with world.factory() as session, session.begin():
        with pytest.raises(RowsNotFound):
            await world.crud.update_multi(session, world.cache, [(ANN, named("new")), (BOB, named("new"))])
    assert await world.stored() == "Ann"
    assert (await world.read()).name == "Ann"


async def test_work_after_a_rollback_is_released(world: World) -> None:
    """A session whose first transaction was rolled back commits a second one as if nothing had been."""
    await world.warm()
    async with world.factory() as session:
        async with session.begin():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("gone"), id=BOB)
            await session.rollback()
        async with session.begin():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert await world.state() == ABSENT
    assert (await world.read()).name == "new"


async def test_savepoint_waits_for_the_root(world: World, commits: Commits) -> None:
    """A write in ``begin_nested()`` holds nothing when the savepoint is released, but when the root commits."""
    async with world.factory() as session, session.begin():
        async with session.begin_nested():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        assert commits.states == []
        assert await world.read() == STALE
    assert commits.states == [HELD]
    assert (await world.read()).name == "new"


async def test_savepoint_alone_joins(world: World) -> None:
    """``begin_nested()`` on a fresh session is the caller's, too: nothing is committed before the caller does."""
    await world.warm()
    async with world.factory() as session:
        async with session.begin_nested():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        assert await world.stored() == "Ann"
        assert await world.read() == STALE
        await session.commit()
    assert (await world.read()).name == "new"


async def test_rolled_back_savepoint_harms_nobody(world: World) -> None:
    """A write whose savepoint was rolled back is not seen, nor is the row that the root then commits missed."""
    await world.warm()
    async with world.factory() as session, session.begin():
        nested = await session.begin_nested()
        await world.crud.update(db=session, redis=world.cache, obj_in=named("gone"), id=ANN)
        await nested.rollback()
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=BOB)
    assert (await world.read()).name == "Ann"
    assert (await world.read(id=BOB)).name == "new"


async def test_root_rollback_after_a_savepoint_leaves_the_cache(world: World) -> None:
    """A savepoint that was released counts for nothing when the root is rolled back."""
    await world.warm()
    async with world.factory() as session:
        await session.begin()
        async with session.begin_nested():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        await session.rollback()
    assert await world.read() == STALE


async def test_write_after_a_savepoint_commits_both(world: World) -> None:
    """A write with no ``begin()`` around it commits what a savepoint before it wrote, and releases both."""
    await world.warm()
    await world.warm(id=BOB)
    async with world.factory() as session:
        await session.execute(select(User.id))
        async with session.begin_nested():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        await world.crud.update(db=session, redis=world.cache, obj_in=named("newer"), id=BOB)
        assert not session.in_transaction()
    assert [await world.state(id=id) for id in (ANN, BOB)] == [ABSENT, ABSENT]
    assert [(await world.read(id=id)).name for id in (ANN, BOB)] == ["new", "newer"]


async def test_commit_false_joins(world: World, commits: Commits) -> None:
    """With ``commit=False`` the caller commits, and the cache follows that."""
    async with world.factory() as session:
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN, commit=False)
        assert session.in_transaction()
        assert await world.read() == STALE
        await session.commit()
    assert commits.states == [HELD]
    assert await world.read() == Read("new", from_cache=False)


async def test_commit_false_of_a_crud_joins(world: World) -> None:
    """A crud built with ``commit=False`` never commits; a call may still ask for it."""
    crud = user_crud(commit=False)
    async with world.factory() as session:
        await crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        assert await world.stored() == "Ann"
        await session.rollback()
        await crud.update(db=session, redis=world.cache, obj_in=named("newer"), id=ANN, commit=True)
    assert await world.stored() == "newer"


async def test_own_write_takes_a_joined_one_with_it(world: World) -> None:
    """A write that commits releases what ``commit=False`` wrote before it in the same transaction."""
    await world.warm()
    async with world.factory() as session:
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN, commit=False)
        await world.crud.update(db=session, redis=world.cache, obj_in=named("newer"), id=BOB)
    assert await world.state() == ABSENT
    assert [(await world.read(id=id)).name for id in (ANN, BOB)] == ["new", "newer"]


async def test_negative_answers_wait_for_the_commit(world: World) -> None:
    """That a user does not exist stays cached until the caller's COMMIT creates it."""
    key = {"email": "carl@x"}
    await world.warm(**key)
    async with world.factory() as session, session.begin():
        await world.crud.create(db=session, redis=world.cache, obj_in=UserIn(email="carl@x", name="Carl"))
        assert await world.read(**key) == Read(None, from_cache=True)
    assert (await world.read(**key)).name == "Carl"


async def test_two_caches_in_one_transaction_follow_it(world: World) -> None:
    """Writes of one transaction that were told of different caches are dropped from each."""
    other = world.another_cache(prefix="other:")
    await world.warm()
    assert (await world.read(cache=other)).name == "Ann"
    async with world.factory() as session, session.begin():
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        await world.crud.update(db=session, redis=other, obj_in=named("newer"), id=ANN)
    assert (await world.read()).name == "newer"
    assert (await world.read(cache=other)).name == "newer"


# A Connection's.


def bound(world: World, connection: AsyncConnection, **options: Any) -> AsyncSession:
    """A session on a Connection, as test suites have them that roll everything back."""
    return AsyncSession(bind=connection, expire_on_commit=False, **options)


async def test_bound_session_never_commits_its_connection(world: World) -> None:
    """A write in a session on a Connection leaves the Connection's transaction open, and others see the old row."""
    await world.warm()
    async with world.engine.connect() as connection:
        outer = await connection.begin()
        session = bound(world, connection)
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        assert outer.is_active
        assert await world.read() == STALE
        assert await world.read(session) == Read("new", from_cache=False)
        await session.commit()  # the session's, not the Connection's
        assert await world.read() == STALE
        await session.close()
        await outer.rollback()
    assert await world.read() == STALE
    assert await world.stored() == "Ann"


async def test_bound_session_with_savepoints_never_commits_its_connection(world: World) -> None:
    """So does one that makes each of its transactions a savepoint."""
    await world.warm()
    async with world.engine.connect() as connection:
        outer = await connection.begin()
        session = bound(world, connection, join_transaction_mode="create_savepoint")
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        await session.commit()
        await session.close()
        assert await world.read() == STALE
        await outer.rollback()
    assert await world.read() == STALE


@pytest.mark.parametrize("mode", ["conditional_savepoint", "create_savepoint", "rollback_only"])
async def test_bound_factory_reads_its_writes_and_keeps_them(world: World, mode: Any) -> None:
    """A factory of sessions on a Connection reads past the cache, and what it writes is the Connection's to commit."""
    world.cache = world.another_cache(near=NearTier())
    await world.warm()
    crud, everybody = world.crud, {"db": world.factory, "redis": world.cache}
    async with world.engine.connect() as connection:
        outer = await connection.begin()
        if mode == "conditional_savepoint":  # which then makes one, too
            await connection.begin_nested()
        factory = async_sessionmaker(connection, expire_on_commit=False, join_transaction_mode=mode)
        given: dict[str, Any] = {"db": factory, "redis": world.cache}
        await crud.create(**given, obj_in=UserIn(email="carl@x", group_id=2))
        await crud.update(**given, obj_in=UserChange(name="new", group_id=2), id=ANN)
        assert [user.id for user in await crud.get_multi(**everybody, group_id=2)] == []
        for _ in range(2):
            assert await world.read(factory) == Read("new", from_cache=False)
            assert [user.name for user in await crud.get_by_keys(**given, keys=[ANN])] == ["new"]
            assert {user.email for user in await crud.get_multi(**given, group_id=2)} == {"ann@x", "carl@x"}
            assert await crud.count(**given, group_id=2) == 2
        assert await world.read() == STALE
        await outer.commit()
    assert await world.stored() == "new"


async def test_bound_session_fills_nothing(world: World) -> None:
    """What a session on a Connection reads is not cached."""
    async with world.engine.connect() as connection, connection.begin():
        session = bound(world, connection)
        assert (await world.read(session)).name == "Ann"
        assert await world.state() == ABSENT
        await session.close()


async def test_hold_of_a_bound_session_runs_out(world: World) -> None:
    """The Connection's COMMIT finds the row held; nobody releases it, and nobody renews it: the hold ends."""
    cache = world.cache = world.another_cache(hold_s=0.5)
    await world.warm()
    async with world.engine.connect() as connection, connection.begin():
        session = bound(world, connection)
        await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        await session.close()
        assert await world.state() == "hit"
    ends: set[int] = set()
    while (explained := await world.crud.explain(cache, world.factory, id=ANN)).state == HELD:
        ends |= set(explained.held_until_ms.values())
        assert (await world.read()).name == "new"
    assert len(ends) == 1
    assert (await world.read()).name == "new"
