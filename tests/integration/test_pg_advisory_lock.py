"""PgAdvisoryLock: who has it, on which connection, and what goes back to the pool."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from typing import Any

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import FastRDBError
from fastrdb.db import defaults
from fastrdb.errors import (
    EmptyInput,
    LockError,
    LockNotAcquired,
    LockTimeout,
    LockUnavailable,
    SessionRefused,
    ValueRefused,
)
from fastrdb.locks import PgAdvisoryLock, advisory_number, pg_advisory_lock
from tests.servers.postgres import PostgresServer
from tests.world import PATIENCE_S, until

OURS = "locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
COUNT = f"SELECT count(*) FROM pg_locks WHERE {OURS}"
ENDED = f"SELECT pg_terminate_backend(pid) FROM pg_locks WHERE {OURS}"


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine with a single connection."""
    engine = create_async_engine(postgres_url, pool_size=1, max_overflow=0, pool_timeout=0.2)
    yield engine
    await engine.dispose()


@pytest.fixture
async def outside(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine of somebody else, who looks at the server and wants locks, too."""
    engine = create_async_engine(postgres_url, isolation_level="AUTOCOMMIT")
    yield engine
    await engine.dispose()


async def held(outside: AsyncEngine) -> int:
    """How many advisory locks the server keeps in this test's database."""
    async with outside.connect() as connection:
        return int(await connection.scalar(text(COUNT)) or 0)


async def nobody_holds(outside: AsyncEngine) -> None:
    """Wait until the server has noticed that a connection is closed."""

    async def none() -> bool:
        return await held(outside) == 0

    await until(none)


async def soon(waiting: Awaitable[object]) -> None:
    """Wait for what is about to happen."""
    async with asyncio.timeout(PATIENCE_S):
        await waiting


@pytest.fixture(params=["session", "transaction"])
def scope(request: pytest.FixtureRequest) -> Any:
    """Both ways to hold a lock with a connection of one's own."""
    return request.param


async def test_one_holder_at_a_time(engine: AsyncEngine, outside: AsyncEngine, scope: Any) -> None:
    """While one has the lock another does not get it, and it does when the first lets go."""
    first, second = PgAdvisoryLock("job", db=engine, scope=scope), PgAdvisoryLock("job", db=outside, scope=scope)
    async with first:
        assert first.acquired
        async with second:
            assert not second.acquired
    async with second:
        assert second.acquired
    assert await held(outside) == 0


async def test_dm_7_a_number_is_enough(postgres_url: str, outside: AsyncEngine) -> None:
    """``PgAdvisoryLock(12345)`` needs no session: it takes a connection of the process's default engine."""
    defaults.configure(url=postgres_url)
    try:
        async with PgAdvisoryLock(12345) as lock:
            assert lock.acquired
            async with PgAdvisoryLock(12345) as other:
                assert not other.acquired
        assert await held(outside) == 0
    finally:
        await defaults.reset()


async def test_dm_7_no_lock_survives_in_the_pool(engine: AsyncEngine, outside: AsyncEngine, scope: Any) -> None:
    """Whatever happens in the block, the connection that the pool has afterwards holds no lock."""
    with pytest.raises(ZeroDivisionError):
        async with PgAdvisoryLock("job", db=engine, scope=scope):
            raise ZeroDivisionError
    async with engine.connect() as connection:
        assert await connection.scalar(select(1)) == 1
        assert await held(outside) == 0


async def test_the_connection_is_used_again(engine: AsyncEngine, scope: Any) -> None:
    """A lock that is released gives its connection back to the pool, as it was."""
    async with engine.connect() as connection:
        before = await connection.scalar(select(func.pg_backend_pid()))
    async with PgAdvisoryLock("job", db=engine, scope=scope):
        pass
    async with engine.connect() as connection:
        assert await connection.scalar(select(func.pg_backend_pid())) == before
        assert await connection.get_isolation_level() == "READ COMMITTED"
        assert connection.in_transaction()


async def test_who_waits_keeps_no_connection(engine: AsyncEngine, outside: AsyncEngine, scope: Any) -> None:
    """Others use the pool's only connection while somebody waits for a lock with it, and the wait succeeds."""
    first = PgAdvisoryLock("job", db=outside)
    await first.acquire()
    second = PgAdvisoryLock("job", db=engine, scope=scope, wait=None)
    waiting = asyncio.create_task(second.acquire())
    for _ in range(5):
        async with engine.connect() as connection:
            await connection.scalar(select(1))
    assert not waiting.done()
    await first.release()
    await soon(waiting)
    assert await second.release()


async def test_waiting_ends_with_the_time(engine: AsyncEngine, outside: AsyncEngine) -> None:
    """A caller that waits for a time gets False when it is over; the function form raises."""
    async with PgAdvisoryLock("job", db=outside):
        assert not await PgAdvisoryLock("job", db=engine, wait=0.05).acquire()
        with pytest.raises(LockTimeout):
            async with pg_advisory_lock("job", db=engine, wait=0.05):
                raise AssertionError("the block ran")
        with pytest.raises(LockNotAcquired):
            async with pg_advisory_lock("job", db=engine):
                raise AssertionError("the block ran")
    async with pg_advisory_lock("job", db=engine) as lock:
        assert lock.acquired


async def test_shared_holders_go_together(engine: AsyncEngine, outside: AsyncEngine, scope: Any) -> None:
    """Several have a shared lock at once, and while one of them has it nobody has it alone."""
    async with PgAdvisoryLock("job", db=engine, shared=True, scope=scope) as one:
        async with PgAdvisoryLock("job", db=outside, shared=True, scope=scope) as two:
            assert one.acquired
            assert two.acquired
        async with PgAdvisoryLock("job", db=outside, scope=scope) as alone:
            assert not alone.acquired
    assert await held(outside) == 0


async def test_a_text_is_the_number_that_sql_computes(engine: AsyncEngine) -> None:
    """The documented expression gives, in SQL, the number of a text's lock; an int is itself."""
    for key in ("job", "import:users", "ä", "x" * 300):
        async with engine.connect() as connection:
            found = await connection.scalar(text("SELECT ('x' || left(md5(:key), 16))::bit(64)::bigint"), {"key": key})
        assert found == advisory_number(key)
    assert [advisory_number(key) for key in (0, -(2**63), 2**63 - 1)] == [0, -(2**63), 2**63 - 1]


async def test_a_lock_in_a_session_ends_with_its_transaction(outside: AsyncEngine, engine: AsyncEngine) -> None:
    """A lock in a caller's transaction outlasts its block, and goes with the rollback or the commit."""
    async with async_sessionmaker(engine)() as session:
        async with PgAdvisoryLock("job", db=session, scope="transaction") as lock:
            assert lock.acquired
        assert await held(outside) == 1
        with pytest.raises(LockError, match="commit"):
            await lock.release()
        await session.commit()
        assert await held(outside) == 0


async def test_a_session_does_not_hold_a_session_lock(engine: AsyncEngine) -> None:
    """A session's connection goes back to the pool when it commits: a lock that outlasts that is refused."""
    async with AsyncSession(engine) as session:
        with pytest.raises(SessionRefused, match="transaction"):
            PgAdvisoryLock("job", db=session)


async def test_a_session_in_autocommit_is_refused(outside: AsyncEngine, engine: AsyncEngine) -> None:
    """Without a transaction there is nothing that could hold the lock."""
    async with AsyncSession(engine.execution_options(isolation_level="AUTOCOMMIT")) as session:
        with pytest.raises(SessionRefused, match="AUTOCOMMIT"):
            await PgAdvisoryLock("job", db=session, scope="transaction").acquire()


async def test_an_engine_in_autocommit_holds_locks(outside: AsyncEngine) -> None:
    """On an engine whose statements commit by themselves, a transaction's lock is held for the block, too."""
    async with PgAdvisoryLock("job", db=outside, scope="transaction"):
        assert await held(outside) == 1
    assert await held(outside) == 0


async def test_a_lost_connection_is_a_lost_lock(engine: AsyncEngine, outside: AsyncEngine, scope: Any) -> None:
    """When the server ends the holder's connection, ``lost`` is set, and the pool gets none that is broken."""
    async with PgAdvisoryLock("job", db=engine, scope=scope) as lock:
        async with outside.connect() as connection:
            await connection.execute(text(ENDED))
        await soon(lock.lost.wait())
        assert lock.lost
    async with engine.connect() as connection:
        assert await connection.scalar(select(1)) == 1


async def test_releasing_a_lost_lock_says_so(engine: AsyncEngine, outside: AsyncEngine, scope: Any) -> None:
    """``release`` gives False for a lock whose connection was lost, and another may have it."""
    lock = PgAdvisoryLock("job", db=engine, scope=scope)
    await lock.acquire()
    async with outside.connect() as connection:
        await connection.execute(text(ENDED))
    await soon(lock.lost.wait())
    assert not await lock.release()
    async with PgAdvisoryLock("job", db=outside) as other:
        assert other.acquired


async def test_a_lock_that_was_let_go_by_hand_is_lost(engine: AsyncEngine, outside: AsyncEngine) -> None:
    """Where the server says on release that there was no lock, the connection is closed, not given back."""
    lock = PgAdvisoryLock("job", db=engine)
    await lock.acquire()
    assert lock._holding is not None
    await lock._holding._connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")
    assert not await lock.release()
    assert lock.lost
    await nobody_holds(outside)


async def test_cancelled_in_the_block(engine: AsyncEngine, outside: AsyncEngine, scope: Any) -> None:
    """A block that is cancelled lets go of its lock before the cancellation goes on."""
    inside = asyncio.Event()

    async def hold() -> None:
        async with PgAdvisoryLock("job", db=engine, scope=scope):
            inside.set()
            await asyncio.Event().wait()

    holder = asyncio.create_task(hold())
    await soon(inside.wait())
    holder.cancel()
    with pytest.raises(asyncio.CancelledError):
        await holder
    assert await held(outside) == 0


async def test_cancelled_while_acquiring(engine: AsyncEngine, outside: AsyncEngine, scope: Any) -> None:
    """Wherever the cancellation comes in, no lock and no connection is left behind."""
    for turns in range(60):
        lock = PgAdvisoryLock("job", db=engine, scope=scope)
        acquiring = asyncio.create_task(lock.acquire())
        for _ in range(turns):
            await asyncio.sleep(0)
        if acquiring.done():
            await lock.release()
            break
        acquiring.cancel()
        with pytest.raises(asyncio.CancelledError):
            await acquiring
        async with engine.connect() as connection:
            await connection.scalar(select(1))
        await nobody_holds(outside)


async def test_contenders_count_right(postgres_url: str, scope: Any) -> None:
    """Twenty tasks on a pool of three read a number, take a turn, and write the next one: none is lost."""
    engine = create_async_engine(postgres_url, pool_size=3, max_overflow=0)
    number = 0

    async def count() -> None:
        nonlocal number
        async with pg_advisory_lock("number", db=engine, scope=scope, wait=PATIENCE_S):
            seen = number
            async with engine.connect() as connection:
                await connection.scalar(select(1))
            number = seen + 1

    await asyncio.gather(*[count() for _ in range(20)])
    await engine.dispose()
    assert number == 20


async def test_a_server_that_is_away_is_no_busy_lock(postgres: PostgresServer, engine: AsyncEngine) -> None:
    """Where the database, or its pool, cannot be asked, acquiring raises instead of giving False."""
    nowhere = create_async_engine("postgresql+asyncpg://nobody:secret@127.0.0.1:1/nothing")
    with pytest.raises(LockUnavailable) as caught:
        await PgAdvisoryLock("job", db=nowhere).acquire()
    assert "secret" not in str(caught.value)
    async with engine.connect():
        with pytest.raises(LockUnavailable, match="TimeoutError"):
            await PgAdvisoryLock("job", db=engine).acquire()


async def test_only_a_holder_releases(engine: AsyncEngine) -> None:
    """Releasing a lock that was not acquired raises, and one object is one holder."""
    lock = PgAdvisoryLock("job", db=engine)
    with pytest.raises(LockNotAcquired):
        await lock.release()
    async with lock:
        with pytest.raises(LockError, match="of its own"):
            await lock.acquire()


@pytest.mark.parametrize(
    ("key", "options", "error"),
    [
        ("", {}, EmptyInput),
        (2**63, {}, ValueRefused),
        (-(2**63) - 1, {}, ValueRefused),
        (True, {}, ValueRefused),
        (1.5, {}, ValueRefused),
        (None, {}, ValueRefused),
        (1, {"scope": "row"}, ValueRefused),
        (1, {"wait": -1}, ValueRefused),
        (1, {"db": "postgresql://localhost"}, SessionRefused),
        (1, {"db": async_sessionmaker()}, SessionRefused),
        (1, {"db": create_async_engine("sqlite+aiosqlite://")}, SessionRefused),
    ],
)
def test_bad_input_is_refused(key: Any, options: dict[str, Any], error: type[FastRDBError]) -> None:
    """What cannot be a lock is refused at once; so is a database that has no such locks."""
    with pytest.raises(error):
        PgAdvisoryLock(key, **options)


def test_other_databases_are_told_what_to_use() -> None:
    """The refusal of SQLite names the lock that works there."""
    with pytest.raises(SessionRefused, match="sqlite; use a RedisLock"):
        PgAdvisoryLock(1, db=create_async_engine("sqlite+aiosqlite://"))
