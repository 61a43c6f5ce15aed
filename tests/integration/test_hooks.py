"""Hooks after commit: told once of what a transaction made true, when it is true, and never of anything else."""

import asyncio
import logging
from typing import Any

import pytest
from sqlalchemy import event, exists
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import aliased
from sqlalchemy.util import await_only

from fastrdb import Committed, KeyMismatch, RowChange, UniqueViolation, UsageError
from tests.models import User, UserChange, UserIn, named, user_crud
from tests.world import ANN, BOB, World, until


class Told:
    """What a hook was told, and what it then saw."""

    def __init__(self, world: World) -> None:
        self.events: list[Committed] = []
        self.seen: list[Any] = []
        self._world = world

    async def __call__(self, committed: Committed) -> None:
        self.events.append(committed)
        self.seen.append((await self._world.stored(), (await self._world.read()).name, await self._world.state()))

    @property
    def kinds(self) -> list[list[str]]:
        """The kinds of the rows of each event."""
        return [[row.kind for row in event.rows or ()] for event in self.events]


@pytest.fixture
async def told(world: World) -> Told:
    """A hook on the users; Ann is cached."""
    await world.warm()
    return world.crud.after_commit(Told(world))


def image(id: int, email: str, group_id: int = 1) -> dict[str, Any]:
    """What images have of a user: the key and the columns of templates."""
    return {"id": id, "email": email, "group_id": group_id}


@pytest.mark.parametrize("cached", [True, False])
async def test_writes_are_told_with_their_rows(world: World, told: Told, cached: bool) -> None:
    """Create, update, delete and create_multi tell the rows before and after, with a cache and without."""
    given: dict[str, Any] = {"db": world.factory, "redis": world.cache if cached else None}
    await world.crud.create(**given, obj_in=UserIn(email="cid@x"))
    await world.crud.update(**given, obj_in=UserChange(email="dan@x"), email="cid@x")
    await world.crud.update(**given, obj_in=named("Dan"), email="dan@x")
    await world.crud.delete(**given, email="dan@x")
    await world.crud.create_multi(**given, instances=[UserIn(email=f"{number}@x") for number in range(300)])
    assert [event.kinds for event in told.events] == [{"create"}, {"update"}, {"update"}, {"delete"}, {"create"}]
    rows = [event.rows for event in told.events]
    assert rows[0] == (RowChange(None, image(3, "cid@x")),)
    assert rows[1] == (RowChange(image(3, "cid@x"), image(3, "dan@x")),)
    assert rows[2] == (RowChange(image(3, "dan@x"), image(3, "dan@x")),)
    assert rows[3] == (RowChange(image(3, "dan@x"), None),)
    assert rows[4] is not None
    assert [row.after and row.after["email"] for row in rows[4]] == [f"{number}@x" for number in range(300)]
    assert {event.model for event in told.events} == {User}


@pytest.mark.parametrize("cached", [True, False])
@pytest.mark.parametrize("batch", [None, 100])
async def test_writes_by_condition_are_told_with_their_rows(
    world: World, told: Told, cached: bool, batch: int | None
) -> None:
    """update_where and delete_where tell each row before and after, more than the cache drops one by one included."""
    given: dict[str, Any] = {"db": world.factory, "redis": world.cache if cached else None}
    users = [UserIn(email=f"{number}@x", group_id=2) for number in range(300)]
    created = await world.crud.create_multi(**given, instances=users)
    before = {user.id: image(user.id, user.email, 2) for user in created}
    moved = {user.id: image(user.id, user.email, 3) for user in created}
    told.events.clear()
    await world.crud.update_where(**given, obj_in=UserChange(group_id=3), group_id=2, batch=batch)
    await world.crud.update_where(**given, obj_in=named("x"), group_id=3, batch=batch)
    await world.crud.delete_where(**given, group_id=3, batch=batch)
    assert [event.kinds for event in told.events] == [{"update"}, {"update"}, {"delete"}]
    rows = [{row.before["id"]: row for row in event.rows or () if row.before} for event in told.events]
    assert rows[0] == {id: RowChange(before[id], moved[id]) for id in before}
    assert rows[1] == {id: RowChange(moved[id], moved[id]) for id in before}
    assert rows[2] == {id: RowChange(moved[id], None) for id in before}


async def test_many_upserts_are_told_with_their_rows(pg_world: World) -> None:
    """upsert_multi tells every row, more than the cache drops one by one included."""
    told = pg_world.crud.after_commit(Told(pg_world))
    users = [UserIn(email=email, name="x") for email in ("ann@x", *(f"{number}@x" for number in range(300)))]
    await pg_world.crud.upsert_multi(pg_world.factory, pg_world.cache, users)
    assert [sorted(kinds) for kinds in told.kinds] == [["create"] * 300 + ["update"]]


async def test_rows_that_cannot_be_named_are_not_told_one_by_one(pg_world: World) -> None:
    """More than 10 000 rows, a condition that reads other rows, and AUTOCOMMIT tell that any row may have changed."""
    world = pg_world
    told, given = world.crud.after_commit(Told(world)), {"db": world.factory, "redis": None}
    await world.execute(
        "INSERT INTO users (email, name, group_id) SELECT g || '@y', 'y', 9 FROM generate_series(1, 10001) g"
    )
    assert await world.crud.update_where(**given, obj_in=named("z"), group_id=9, batch=2_000) == 10_001
    other = aliased(User)
    await world.crud.update_where(**given, obj_in=named("z"), where=exists().where(other.id == User.id, other.id < 3))
    commits = async_sessionmaker(world.another_engine(isolation_level="AUTOCOMMIT"))
    await world.crud.update_where(commits, None, named("z"), id=ANN)
    await world.crud.delete_where(**given, group_id=9, id={"<": 10_003})
    assert [(event.kinds, event.rows and len(event.rows)) for event in told.events] == [
        ({"update"}, None),
        ({"update"}, None),
        ({"update"}, None),
        ({"delete"}, 10_000),
    ]


async def test_hooks_see_what_is_committed_and_released(world: World, told: Told) -> None:
    """When a hook is called the row is in the database, others read it, and the cache holds nothing back."""
    await world.crud.update(world.factory, world.cache, named("new"), id=ANN)
    assert [seen[:2] for seen in told.seen] == [("new", "new")]
    assert not told.seen[0][2].startswith("bypass")
    async with world.factory() as session, session.begin():
        await world.crud.update(session, world.cache, named("newer"), id=ANN)
        assert len(told.events) == 1
    assert told.seen[1][:2] == ("newer", "newer")
    assert not told.seen[1][2].startswith("bypass")


@pytest.mark.parametrize("cached", [True, False])
async def test_one_event_for_a_transaction(world: World, told: Told, cached: bool) -> None:
    """All writes of a joined transaction are told together at its end, to each crud's hooks in their order."""
    order: list[str] = []

    @world.crud.after_commit
    async def second(committed: Committed) -> None:
        order.append(f"second after {len(told.events)}")

    cache = world.cache if cached else None
    async with world.factory() as session, session.begin():
        await world.crud.update(session, cache, named("new"), id=ANN)
        await world.crud.delete(session, cache, id=BOB)
        await world.crud.create(session, cache, UserIn(email="cid@x"))
        assert told.events == []
    assert told.kinds == [["update", "delete", "create"]]
    assert told.events[0].kinds == {"update", "delete", "create"}
    assert order == ["second after 1"]


@pytest.mark.parametrize("cached", [True, False])
async def test_rollbacks_are_not_told(world: World, told: Told, cached: bool) -> None:
    """After a rollback, a failed write, a session that is closed, and a savepoint's rollback nothing is told."""
    cache = world.cache if cached else None
    async with world.factory() as session:
        await session.begin()
        await world.crud.update(session, cache, named("gone"), id=ANN)
        await session.rollback()
        await session.begin()
        await world.crud.update(session, cache, named("gone"), id=ANN)
    with pytest.raises(UniqueViolation):
        await world.crud.update(world.factory, cache, UserChange(email="bob@x"), id=ANN)
    async with world.factory() as session, session.begin():
        savepoint = await session.begin_nested()
        await world.crud.update(session, cache, named("gone"), id=ANN)
        async with session.begin_nested():
            await world.crud.delete(session, cache, id=BOB)
        await savepoint.rollback()
    assert told.events == []
    async with world.factory() as session, session.begin():
        await world.crud.update(session, cache, named("new"), id=ANN)
        savepoint = await session.begin_nested()
        await world.crud.delete(session, cache, id=BOB)
        await savepoint.rollback()
        async with session.begin_nested():
            await world.crud.create(session, cache, UserIn(email="cid@x"))
    assert told.kinds == [["update", "create"]]


async def test_commit_false_and_ours_are_told_once(world: World, told: Told) -> None:
    """A write that commits what an earlier one left to the caller tells both, once, after the release."""
    async with world.factory() as session:
        await world.crud.update(session, None, named("first"), id=ANN, commit=False)
        await world.crud.update(session, world.cache, named("new"), id=ANN)
    assert told.kinds == [["update", "update"]]
    assert told.seen[0][:2] == ("new", "new")
    assert not told.seen[0][2].startswith("bypass")


async def test_autocommit_is_told_at_once(world: World, told: Told) -> None:
    """In AUTOCOMMIT each write is told when its statement is done, joined or not."""
    committing = async_sessionmaker(world.another_engine(isolation_level="AUTOCOMMIT"))
    for cache in (world.cache, None):
        await world.crud.update(committing, cache, named("new"), id=ANN)
        async with committing() as session, session.begin():
            await world.crud.update(session, cache, named("newer"), id=ANN)
            assert told.kinds[-1] == ["update"]
    assert told.kinds == [["update"]] * 4


async def test_bound_connections_are_not_told(world: World, told: Told) -> None:
    """In a session on the caller's connection no hook is called: nobody can tell when it commits."""
    async with world.engine.begin() as connection, AsyncSession(connection) as session:
        await world.crud.update(session, world.cache, named("new"), id=ANN)
        await session.commit()
    assert told.events == []


async def test_a_failing_commit_is_not_told(world: World, told: Told) -> None:
    """A COMMIT that is refused is told to nobody, nor is it by a later one of the same session."""

    def refuse(connection: object) -> None:
        raise RuntimeError("no")

    for cache in (world.cache, None):
        async with world.factory() as session:
            event.listen(world.engine.sync_engine, "commit", refuse)
            with pytest.raises(RuntimeError):
                await world.crud.update(session, cache, named("gone"), id=ANN)
            with pytest.raises(RuntimeError):
                async with session.begin():
                    await world.crud.update(session, cache, named("gone"), id=ANN)
            event.remove(world.engine.sync_engine, "commit", refuse)
            assert told.events == []
            await world.crud.update(session, cache, named("Ann"), id=ANN)
        assert told.kinds == [["update"]]
        told.events.clear()


async def test_failing_hooks_harm_nobody(world: World, told: Told, caplog: pytest.LogCaptureFixture) -> None:
    """What a hook raises is logged; the write returns its row, and later hooks are called."""

    async def fails(committed: Committed) -> None:
        raise ValueError("oops")

    async def is_cancelled(committed: Committed) -> None:
        raise asyncio.CancelledError

    after: list[Committed] = []

    async def later(committed: Committed) -> None:
        after.append(committed)

    for hook in (fails, is_cancelled, later):
        world.crud.after_commit(hook)
    with caplog.at_level(logging.ERROR, "fastrdb.hooks"):
        row = await world.crud.update(world.factory, world.cache, named("new"), id=ANN)
        async with world.factory() as session, session.begin():
            await world.crud.update(session, world.cache, named("newer"), id=ANN)
    assert row.name == "new"
    assert len(after) == 2
    assert caplog.text.count("ValueError: oops") == 2
    assert (await world.read()).name == "newer"


async def test_a_cancelled_caller_loses_neither_release_nor_hook(world: World, told: Told) -> None:
    """A caller who is cancelled while COMMIT is on its way is cancelled after the release and the hooks."""
    reached, goes_on = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        await goes_on.wait()

    event.listen(world.engine.sync_engine, "commit", lambda _: await_only(wait()))
    task = asyncio.ensure_future(world.crud.update(world.factory, world.cache, named("new"), id=ANN))
    await reached.wait()
    task.cancel()
    goes_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told.kinds == [["update"]]
    assert (await world.read()).name == "new"


@pytest.mark.parametrize("cached", [True, False])
async def test_what_a_failed_write_may_have_left_is_told(pg_world: World, cached: bool) -> None:
    """Where a caller commits in spite of a write that raised after its INSERT, any row may have changed."""
    world, events = pg_world, list[Committed]()
    crud = user_crud(pattern="user:name:{name}", list_pattern=None)

    @crud.after_commit
    async def keep(committed: Committed) -> None:
        events.append(committed)

    await world.execute(
        "CREATE FUNCTION shout() RETURNS trigger AS $$ BEGIN NEW.name = upper(NEW.name); RETURN NEW; END $$"
        " LANGUAGE plpgsql",
        "CREATE TRIGGER shout BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION shout()",
    )
    async with world.factory() as session, session.begin():
        with pytest.raises(KeyMismatch):
            await crud.create(session, world.cache if cached else None, UserIn(email="a@x", name="low"), name="low")
    assert [event.rows for event in events] == [None]
    assert await world.stored(3) == "LOW"


async def test_hooks_may_write(world: World) -> None:
    """A hook may use the same crud, with a session of its own; its own write is told, too."""
    kinds: list[list[str]] = []

    @world.crud.after_commit
    async def log(committed: Committed) -> None:
        kinds.append(sorted(committed.kinds))
        if committed.kinds == {"delete"}:
            await world.crud.create(world.factory, world.cache, UserIn(email="log@x"))

    async with world.factory() as session, session.begin():
        await world.crud.delete(session, world.cache, id=BOB)
    assert kinds == [["delete"], ["create"]]

    async def is_there() -> bool:
        return (await world.read(email="log@x")).name == "new"

    await until(is_there)


async def test_an_unchanged_row_is_not_told(world: World, told: Told) -> None:
    """A patch that changes nothing tells nothing; one that does, tells the row."""
    await world.crud.patch(world.factory, world.cache, named("Ann"), id=ANN)
    assert told.events == []
    await world.crud.patch(world.factory, world.cache, named("new"), id=ANN)
    assert told.kinds == [["update"]]


async def test_only_async_callables_are_hooks(pg_world: World) -> None:
    """A plain function is refused when it is registered."""
    with pytest.raises(UsageError, match="async"):
        pg_world.crud.after_commit(print)  # type: ignore[type-var]  # what is tried
