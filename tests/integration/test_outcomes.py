"""How a COMMIT ended: refused, lost, cancelled, hanging; and what the cache then says."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, closing
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from fastrdb import CacheClosed, CheckViolation, NotFound, UniqueViolation
from tests.models import UserIn, named
from tests.servers.redis import RedisServer
from tests.world import ANN, BOB, Read, World, opened, until

HELD, ABSENT = "bypass: the entry is held", "miss: absent"
STALE = Read("Ann", from_cache=True)

# Names that make COMMIT do something: a deferred trigger runs when COMMIT is sent, and before it is done.
AT_COMMIT = """
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name = 'refused' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation'; END IF;
    IF NEW.name LIKE 'slow %' THEN PERFORM pg_sleep(split_part(NEW.name, ' ', 2)::float); END IF;
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON users
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()
"""
COMMITTING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'COMMIT%' AND state = 'active'"
)


@pytest.fixture
async def slow(postgres_url: str, valkey_url: str) -> AsyncIterator[World]:
    """A world on PostgreSQL, with Ann cached, where a user's name can make COMMIT slow, or refused."""
    async with opened(postgres_url, valkey_url) as world:
        await world.execute(AT_COMMIT, TRIGGER)
        await world.warm()
        yield world


async def ask(world: World, statement: str) -> Any:
    """One value, from outside."""
    async with world.outside.connect() as connection:
        return (await connection.execute(text(statement))).scalar()


async def committing(world: World) -> int:
    """Wait until a COMMIT is under way; the process of PostgreSQL that does it."""

    async def is_under_way() -> bool:
        return await ask(world, COMMITTING) is not None

    await until(is_under_way)
    return int(await ask(world, COMMITTING))


async def settled(world: World) -> None:
    """Wait until no connection is out and no COMMIT under way."""

    async def is_settled() -> bool:
        return world.leaked == 0 and await ask(world, COMMITTING) is None

    await until(is_settled)


def is_state(world: World, state: str) -> Callable[[], Awaitable[bool]]:
    """Whether the cache says so of Ann."""

    async def compare() -> bool:
        return await world.state() == state

    return compare


def is_free(world: World) -> Callable[[], Awaitable[bool]]:
    """Whether nobody holds Ann."""

    async def check() -> bool:
        return "held" not in await world.state()

    return check


def write(world: World, name: str, db: Any = None) -> asyncio.Task[Any]:
    """Start to change Ann's name."""
    change = world.crud.update(db=db or world.factory, redis=world.cache, obj_in=named(name), id=ANN)
    return asyncio.create_task(change)


# Refused.


async def test_refused_commit_raises_a_typed_error(slow: World) -> None:
    """A constraint that is checked at COMMIT refuses the write; the error is a typed one, with its cause."""
    async with slow.factory() as session:
        with pytest.raises(CheckViolation) as failure:
            await slow.crud.update(db=session, redis=slow.cache, obj_in=named("refused"), id=ANN)
        assert isinstance(failure.value, IntegrityError)
        assert failure.value.__cause__ is not None
        assert not session.in_transaction()
    assert slow.leaked == 0


async def test_refused_commit_is_released_without_a_value(slow: World) -> None:
    """After a refused COMMIT nothing is held, the new value is nowhere, and readers see the old row."""
    with pytest.raises(CheckViolation):
        await slow.crud.update(db=slow.factory, redis=slow.cache, obj_in=named("refused"), id=ANN)
    assert await slow.state() == ABSENT
    assert await slow.read() == Read("Ann", from_cache=False)
    assert await slow.read() == STALE


async def test_refused_commit_of_the_callers_is_released(slow: World) -> None:
    """The same for a COMMIT of the caller's own."""
    async with slow.factory() as session:
        with pytest.raises(IntegrityError):
            async with session.begin():
                await slow.crud.update(db=session, redis=slow.cache, obj_in=named("refused"), id=ANN)
    assert await slow.state() == ABSENT
    assert await slow.read() == Read("Ann", from_cache=False)


async def test_session_works_after_a_refused_commit(slow: World) -> None:
    """The session whose COMMIT was refused can write again at once."""
    async with slow.factory() as session:
        with pytest.raises(CheckViolation):
            await slow.crud.update(db=session, redis=slow.cache, obj_in=named("refused"), id=ANN)
        await slow.crud.update(db=session, redis=slow.cache, obj_in=named("new"), id=ANN)
    assert (await slow.read()).name == "new"


async def test_refused_statement_holds_nothing(world: World) -> None:
    """A statement that a constraint refuses is rolled back, and the cache is as it was."""
    await world.warm()
    async with world.factory() as session:
        with pytest.raises(UniqueViolation):
            await world.crud.create(db=session, redis=world.cache, obj_in=UserIn(email="ann@x"))
        assert not session.in_transaction()
    assert await world.read() == STALE


async def test_busy_commit_is_released(sqlite_url: str, valkey_url: str) -> None:
    """SQLite refuses COMMIT while somebody reads: nothing was written, nothing is held, and the next try succeeds."""
    async with opened(sqlite_url, valkey_url, connect_args={"timeout": 0.1}) as world:
        await world.warm()
        with closing(sqlite3.connect(str(make_url(sqlite_url).database))) as reader:
            rows = reader.execute("SELECT * FROM users")
            rows.fetchone()  # one is left: the reader keeps its lock
            with pytest.raises(OperationalError, match="locked"):
                await write(world, "new")
            assert await world.state() == ABSENT
            assert (await world.read()).name == "Ann"
            rows.close()
        await write(world, "new")
        assert await world.read() == Read("new", from_cache=True)


# Unknown: the connection was lost.


@asynccontextmanager
async def cut_after_commit(world: World) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Sessions over a proxy that hands COMMIT on and then hangs up, so that its answer is lost."""
    target = make_url(world.url)
    links: set[asyncio.Task[None]] = set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: Callable[[bytes], bool]) -> None:
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
            if cut(data):
                return

    async def link(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(target.host, target.port)
        asked = asyncio.Event()

        def is_commit(data: bytes) -> bool:
            if b"COMMIT" in data:
                asked.set()
            return False

        pumps = [pump(reader, back, is_commit), pump(there, Lost(writer, asked), lambda data: asked.is_set())]
        tasks = [asyncio.create_task(each) for each in pumps]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        writer.close()
        back.close()

    async def start(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(link(reader, writer))
        links.add(task)
        task.add_done_callback(links.discard)

    server = await asyncio.start_server(start, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    url, world.url = world.url, target.set(port=port).render_as_string(hide_password=False)
    engine = world.another_engine()
    world.url = url
    try:
        yield async_sessionmaker(engine)
    finally:
        await engine.dispose()
        server.close()
        while links:
            await asyncio.wait(set(links))


class Lost:
    """A writer that hands nothing on any more once something was asked."""

    def __init__(self, writer: asyncio.StreamWriter, asked: asyncio.Event) -> None:
        self._writer, self._asked = writer, asked

    def write(self, data: bytes) -> None:
        """Write, or lose it."""
        if not self._asked.is_set():
            self._writer.write(data)

    async def drain(self) -> None:
        """Wait until it is sent."""
        await self._writer.drain()


async def test_lost_commit_that_happened_is_seen(pg_world: World) -> None:
    """COMMIT was done but its answer lost: the hold stays until it runs out, and readers see the new row throughout."""
    world = pg_world
    world.cache = world.another_cache(hold_s=0.5)
    await world.warm()
    async with cut_after_commit(world) as factory:
        with pytest.raises(DBAPIError):
            await world.crud.update(db=factory, redis=world.cache, obj_in=named("new"), id=ANN)
        assert await world.state() == HELD
        assert await world.read() == Read("new", from_cache=False)
        await until(is_state(world, ABSENT))
        await world.warm()
        assert await world.read() == Read("new", from_cache=True)


async def test_callers_lost_commit_that_happened_is_seen(pg_world: World) -> None:
    """The same for the caller's own COMMIT, even after a savepoint that was released."""
    world = pg_world
    world.cache = world.another_cache(hold_s=0.5)
    await world.warm()
    async with cut_after_commit(world) as factory:
        async with factory() as session:
            await session.begin()
            async with session.begin_nested():
                await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
            with pytest.raises(DBAPIError):
                await session.commit()
        assert await world.state() == HELD
        assert await world.read() == Read("new", from_cache=False)
        await until(is_state(world, ABSENT))
        await world.warm()
        assert (await world.read()).name == "new"


@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
async def test_killed_commit_keeps_its_hold(slow: World, joined: bool) -> None:
    """A backend that is terminated during COMMIT leaves the hold to run out; readers then see what the database has."""
    cache = slow.cache = slow.another_cache(hold_s=0.5)
    session = slow.factory()
    if joined:
        await session.begin()
        await slow.crud.update(db=session, redis=cache, obj_in=named("slow 20"), id=ANN)
        task = asyncio.create_task(session.commit())
    else:
        task = write(slow, "slow 20", session)
    await ask(slow, f"SELECT pg_terminate_backend({await committing(slow)})")
    with pytest.raises(DBAPIError):
        await task
    await session.close()
    assert await slow.state() == HELD
    assert await slow.read() == Read("Ann", from_cache=False)
    await until(is_state(slow, ABSENT))
    assert await slow.read() == Read("Ann", from_cache=False)
    assert await slow.read() == STALE
    assert slow.leaked == 0


async def test_connection_killed_before_commit_releases_nothing_wrongly(slow: World) -> None:
    """A backend that is terminated between the statement and COMMIT leaves readers with the old row."""
    cache = slow.cache = slow.another_cache(hold_s=0.5)
    async with slow.factory() as session:
        await session.begin()
        await slow.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        pid = (await session.execute(text("SELECT pg_backend_pid()"))).scalar()
        await ask(slow, f"SELECT pg_terminate_backend({pid})")
        with pytest.raises(DBAPIError):
            await session.commit()
    assert (await slow.read()).name == "Ann"
    await until(is_state(slow, ABSENT))
    assert (await slow.read()).name == "Ann"


# The commit event fails.


async def test_closed_cache_aborts_the_commit(world: World) -> None:
    """A write whose cache was closed is rolled back: nobody could be told of it."""
    await world.warm()
    cache = world.another_cache()
    await cache.aclose()
    async with world.factory() as session:
        with pytest.raises(CacheClosed):
            await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        assert not session.in_transaction()
    assert await world.stored() == "Ann"
    assert await world.read() == STALE
    assert world.leaked == 0


async def test_closed_cache_aborts_the_callers_commit(world: World) -> None:
    """So is the caller's transaction, which can then be begun anew."""
    cache = world.another_cache()
    async with world.factory() as session:
        await session.begin()
        await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        await cache.aclose()
        with pytest.raises(CacheClosed):
            await session.commit()
        await session.rollback()
        assert await world.stored() == "Ann"
        await world.crud.update(db=session, redis=world.cache, obj_in=named("newer"), id=ANN)
    assert await world.stored() == "newer"


async def test_aborted_commit_leaves_no_open_transaction_in_the_pool(world: World) -> None:
    """A session whose commit was aborted, and that is only closed, gives back a connection that has nothing open."""
    cache = world.another_cache()
    async with world.factory() as session:
        await session.begin()
        await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        await cache.aclose()
        with pytest.raises(CacheClosed):
            await session.commit()
    async with world.factory() as session:
        assert (await session.execute(text("SELECT name FROM users WHERE id = 1"))).scalar() == "Ann"
        await session.commit()
    assert await world.stored() == "Ann"


async def test_listener_that_refuses_the_commit_leaves_the_old_row(world: World) -> None:
    """When somebody else's commit listener raises after ours, nothing was written and nothing new is served."""
    cache = world.cache = world.another_cache(hold_s=0.3)
    await world.warm()

    def refuse(connection: object) -> None:
        raise LookupError("not today")

    event.listen(world.engine.sync_engine, "commit", refuse)
    with pytest.raises(LookupError):
        await world.crud.update(db=world.factory, redis=cache, obj_in=named("new"), id=ANN)
    event.remove(world.engine.sync_engine, "commit", refuse)
    assert (await world.read()).name == "Ann"
    await until(is_state(world, ABSENT))
    await world.warm()
    assert await world.read() == STALE


async def test_cache_closed_during_commit_does_not_undo_it(slow: World, caplog: pytest.LogCaptureFixture) -> None:
    """A cache that is closed while COMMIT is under way: the write stands, and its hold runs out by itself."""
    cache = slow.another_cache(hold_s=0.4)
    task = asyncio.create_task(slow.crud.update(db=slow.factory, redis=cache, obj_in=named("slow 0.2"), id=ANN))
    await committing(slow)
    await cache.aclose()
    with caplog.at_level(logging.WARNING, "fastrdb"):
        assert (await task).name == "slow 0.2"
    assert await slow.stored() == "slow 0.2"
    await until(is_state(slow, ABSENT))
    assert (await slow.read()).name == "slow 0.2"


# Cancelled.


async def by_task(work: Callable[[], Awaitable[Any]], now: asyncio.Event) -> None:
    """``task.cancel()``."""
    task = asyncio.ensure_future(work())
    await now.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def by_impatience(work: Callable[[], Awaitable[Any]], now: asyncio.Event) -> None:
    """``task.cancel()``, again and again until the task ends."""
    task = asyncio.ensure_future(work())
    await now.wait()
    while not task.done():
        task.cancel()
        await asyncio.sleep(0.001)
    assert task.cancelled()


async def by_timeout(work: Callable[[], Awaitable[Any]], now: asyncio.Event) -> None:
    """``asyncio.timeout``."""

    async def limited() -> None:
        async with asyncio.timeout(None) as limit:

            async def expire() -> None:
                await now.wait()
                limit.reschedule(0)

            expiring = asyncio.create_task(expire())
            await work()
        await expiring

    with pytest.raises(TimeoutError):
        await limited()


async def by_scope(work: Callable[[], Awaitable[Any]], now: asyncio.Event) -> None:
    """A cancel scope of anyio's, which cancels at every ``await`` until it is left."""
    with anyio.CancelScope() as scope:

        async def cancel() -> None:
            await now.wait()
            scope.cancel()

        cancelling = asyncio.create_task(cancel())
        await work()
        await anyio.lowlevel.checkpoint()
        raise AssertionError("the cancellation was lost")
    await cancelling
    assert scope.cancelled_caught


async def by_group(work: Callable[[], Awaitable[Any]], now: asyncio.Event) -> None:
    """A task group of anyio's, another task of which fails."""

    async def fail() -> None:
        await now.wait()
        raise LookupError("the other task")

    async def both() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(fail)
            group.start_soon(work)

    with pytest.raises(ExceptionGroup) as failure:
        await both()
    assert failure.group_contains(LookupError)


Cancel = Callable[[Callable[[], Awaitable[Any]], asyncio.Event], Awaitable[None]]
CANCELS: dict[str, Cancel] = {"task": by_task, "timeout": by_timeout, "scope": by_scope, "group": by_group}


@pytest.fixture(params=CANCELS)
def cancel(request: pytest.FixtureRequest) -> Cancel:
    """Each way to cancel some work when an event is set."""
    return CANCELS[request.param]


def when(world: World, moment: str) -> asyncio.Event:
    """An event that is set when a write is at that moment."""
    now = asyncio.Event()
    if moment == "statement":
        event.listen(world.engine.sync_engine, "before_cursor_execute", lambda *_: now.set(), once=True)
    elif moment == "release":
        event.listen(world.engine.sync_engine, "checkin", lambda *_: now.set(), once=True)
    else:
        event.listen(world.engine.sync_engine, "commit", lambda *_: now.set(), insert=moment == "hold", once=True)
    return now


@pytest.mark.parametrize("moment", ["statement", "hold", "commit", "release"])
@pytest.mark.parametrize("session_given", [False, True], ids=["factory", "session"])
async def test_cancelled_own_write_is_whole_or_absent(
    world: World, cancel: Cancel, moment: str, session_given: bool
) -> None:
    """However a write is cancelled, and when: readers see what is committed, the session works, nothing leaks."""
    await world.warm()
    async with world.factory() as session:
        db: Any = session if session_given else world.factory
        now = when(world, moment)
        change = lambda: world.crud.update(db=db, redis=world.cache, obj_in=named("new"), id=ANN)  # noqa: E731
        await cancel(change, now)
        if moment != "statement":
            assert await world.stored() == "new"
        if session_given:
            assert not session.in_transaction()
            await world.crud.update(db=session, redis=world.cache, obj_in=named("other"), id=BOB)
    stored = await world.stored()
    assert (await world.read()).name == stored
    await until(_gives_back(world))
    await world.warm()
    assert (await world.read()).name == stored == await world.stored()


def _gives_back(world: World) -> Callable[[], Awaitable[bool]]:
    async def check() -> bool:
        return world.leaked == 0

    return check


@pytest.mark.parametrize("moment", ["hold", "commit", "release"])
async def test_impatience_does_not_stop_a_commit(world: World, moment: str) -> None:
    """Once COMMIT is near, a caller that is cancelled again and again ends when the write is complete."""
    now = when(world, moment)
    await by_impatience(lambda: world.crud.delete(db=world.factory, redis=world.cache, id=ANN), now)
    assert await world.stored() is None
    assert (await world.read()).name is None
    assert world.leaked == 0


async def test_write_cancelled_while_commit_hangs_is_whole(slow: World, cancel: Cancel) -> None:
    """A caller that is cancelled while COMMIT hangs waits for it, without spinning, and then is cancelled."""
    now, started = asyncio.Event(), 0.0

    async def watch() -> None:
        nonlocal started
        await committing(slow)
        started = time.thread_time()
        now.set()

    watching = asyncio.create_task(watch())
    change = named("slow 0.6")
    await cancel(lambda: slow.crud.update(db=slow.factory, redis=slow.cache, obj_in=change, id=ANN), now)
    assert time.thread_time() - started < 0.3
    await watching
    assert await slow.stored() == "slow 0.6"
    assert await slow.read() == Read("slow 0.6", from_cache=True)
    await settled(slow)


async def test_cancelled_commit_of_the_callers_runs_out(slow: World, cancel: Cancel) -> None:
    """The caller's own COMMIT cannot be protected: the hold runs out, and readers then see what became of it."""
    cache = slow.cache = slow.another_cache(hold_s=0.5)
    now = asyncio.Event()

    async def work() -> None:
        async with slow.factory() as session:
            await session.begin()
            await slow.crud.update(db=session, redis=cache, obj_in=named("slow 0.3"), id=ANN)
            await session.commit()

    async def watch() -> None:
        await committing(slow)
        now.set()

    watching = asyncio.create_task(watch())
    await cancel(work, now)
    await watching
    assert await slow.state() == HELD
    await settled(slow)
    assert (await slow.read()).name == await slow.stored()
    await until(is_state(slow, ABSENT))
    await slow.warm()
    assert (await slow.read()).name == await slow.stored()


async def test_callers_hold_that_is_cancelled_writes_nothing(
    world: World, private_redis: Callable[[], RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """The caller's commit is cancelled while the cache is asked to hold: no COMMIT is sent, the old row is served."""
    server = private_redis()
    world.redis_url = server.url
    cache = world.cache = world.another_cache(hold_s=0.5, timeout_s=10)
    await world.warm()
    async with world.factory() as session:
        await session.begin()
        await world.crud.update(db=session, redis=cache, obj_in=named("new"), id=ANN)
        server.pause()
        task = asyncio.create_task(session.commit())
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await session.close()
        server.resume()
    assert await world.stored() == "Ann"
    assert (await world.read()).name == "Ann"
    await until(is_free(world))
    await world.warm()
    assert await world.read() == STALE
    assert caplog.messages == []
    await until(_gives_back(world))


async def test_cancelled_autocommit_write_is_right(world: World, cancel: Cancel) -> None:
    """An AUTOCOMMIT statement that is cancelled: readers see what became of it."""
    cache = world.cache = world.another_cache(hold_s=0.5)
    engine = world.another_engine(isolation_level="AUTOCOMMIT")
    factory = async_sessionmaker(engine)
    await world.warm()
    now = asyncio.Event()
    await world.read(factory, email="nobody@x")

    def notice(*args: Any) -> None:
        if args[2].startswith("UPDATE"):
            now.set()

    event.listen(engine.sync_engine, "before_cursor_execute", notice)
    await cancel(lambda: world.crud.update(db=factory, redis=cache, obj_in=named("new"), id=ANN), now)
    assert (await world.read()).name == await world.stored()
    await until(is_free(world))
    await world.warm()
    assert (await world.read()).name == await world.stored()


async def test_cancelled_readers_leave_no_claim(world: World, cancel: Cancel) -> None:
    """A reader that is cancelled while it loads takes its claim away, and the next one loads at once."""
    await world.crud.invalidate(world.cache, id=ANN)
    now = when(world, "statement")
    await cancel(world.read, now)
    await until(_gives_back(world))
    await until(is_state(world, ABSENT))
    assert world.cache.flights == {}
    assert await world.read() == Read("Ann", from_cache=False)
    await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)


# Hanging.


@pytest.mark.parametrize("joined", [False, True], ids=["own", "joined"])
async def test_hold_is_renewed_while_commit_hangs(slow: World, joined: bool) -> None:
    """A COMMIT that takes longer than a hold lasts stays held: no reader caches the old row, and none sees it after."""
    cache = slow.cache = slow.another_cache(hold_s=0.3)
    name = "slow 1.2"

    async def work() -> None:
        async with slow.factory() as session:
            if joined:
                await session.begin()
            await slow.crud.update(db=session, redis=cache, obj_in=named(name), id=ANN)
            if joined:
                await session.commit()

    task = asyncio.create_task(work())
    await committing(slow)
    seen: list[str | None] = []
    while await ask(slow, COMMITTING) is not None:
        assert not (await slow.read()).from_cache or task.done()
        seen.append(await slow.state())
        await asyncio.sleep(0.05)
    await task
    assert len(seen) > 5
    assert set(seen[:5]) == {HELD}
    assert (await slow.read()).name == name
    await slow.warm()
    assert (await slow.read()).name == name


async def test_renewal_ends_with_the_write(slow: World) -> None:
    """After the release nothing renews: the entry of a deleted row stays free."""
    slow.cache = slow.another_cache(hold_s=0.2)
    await write(slow, "slow 0.5")
    await slow.crud.delete(db=slow.factory, redis=slow.cache, id=ANN)
    await asyncio.sleep(0.3)
    assert await slow.state() == ABSENT


async def test_write_finds_no_row_in_a_long_transaction(world: World) -> None:
    """A write that finds nothing in the caller's transaction leaves that one open and the cache alone."""
    await world.warm()
    async with world.factory() as session:
        async with session.begin():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=BOB)
            with pytest.raises(NotFound):
                await world.crud.delete(db=session, redis=world.cache, id=77)
        assert await world.stored(BOB) == "new"
    assert await world.read() == STALE
