"""Streams: all rows in their order, in little memory, and a connection that can be used afterwards."""

import asyncio
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import event, insert, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastrdb import Crud, InputError, OutOfRange, SessionRefused, TransactionError, UnknownField
from tests.drawers import Base, Loose, Sessions, ShoutOut, Thing, ThingOut, shelf, things
from tests.world import until

ROOT = Path(__file__).parents[2]
COUNT = 2_345
ROWS: list[dict[str, Any]] = [{"id": at, "rank": at % 7, "age": at % 5 or None, "label": "x"} for at in range(COUNT)]


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Sessions]:
    """Some thousand things; at the end, no connection is out."""
    async with shelf(database_url, ROWS) as sessions:
        yield sessions
        assert checked_out(sessions) == 0


def checked_out(db: Sessions) -> int:
    """Connections that nobody gave back."""
    found: int = db.kw["bind"].pool.checkedout()
    return found


async def is_returned(db: Sessions) -> bool:
    """Whether all connections are back."""
    return checked_out(db) == 0


@pytest.mark.parametrize("batch", [1, 100, 1_000, 10_000])
async def test_all_rows_in_their_order(db: Sessions, batch: int) -> None:
    """Every row that matches comes once, in the order asked for, whatever the batch."""
    crud, count = things(max_limit=10_000), 200 if batch == 1 else COUNT
    asked: dict[str, Any] = {"order_by": ["-rank", "age"], "where": Thing.id < count, "rank": {"!=": 3}}
    whole = await crud.get_multi(db, None, limit=10_000, **asked)
    assert [row async for row in crud.stream(db, batch=batch, **asked)] == whole
    assert len(whole) > count // 2


async def test_no_rows(db: Sessions) -> None:
    """A stream of nothing ends at once."""
    assert [row async for row in things().stream(db, id=-1)] == []


async def test_instances(db: Sessions) -> None:
    """Responses that need a mapped instance are streamed like others."""
    crud: Crud[Any, Any, Any, ShoutOut] = Crud(Thing, ShoutOut)
    found = [row async for row in crud.stream(db, batch=100)]
    assert [row.id for row in found] == list(range(COUNT))
    assert {row.shout for row in found} == {"X"}


async def test_instances_do_not_pile_up(db: Sessions) -> None:
    """Of the instances that responses are made of, no more than two batches are ever alive."""
    alive: weakref.WeakSet[Thing] = weakref.WeakSet()
    most = 0

    def loaded(instance: Thing, *_: object) -> None:
        nonlocal most
        alive.add(instance)
        most = max(most, len(alive))

    crud: Crud[Any, Any, Any, ShoutOut] = Crud(Thing, ShoutOut)
    event.listen(Thing, "load", loaded)
    try:
        assert len([row async for row in crud.stream(db, batch=100)]) == COUNT
    finally:
        event.remove(Thing, "load", loaded)
    assert 0 < most <= 200


async def test_bad_arguments() -> None:
    """What is wrong raises where the stream is asked for, before its first row."""
    for batch in (0, -1, 10_001, 1.5, True, None):
        with pytest.raises(OutOfRange, match="batch"):
            things().stream(batch=batch)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(UnknownField):
        things().stream(order_by="nothing")
    with pytest.raises(InputError):
        things().stream(nothing=1)


async def test_factory_session_is_closed_at_the_end(db: Sessions) -> None:
    """With a factory, the connection is taken with the first row and given back after the last."""
    stream = things().stream(db)
    assert checked_out(db) == 0
    await anext(stream)
    assert checked_out(db) == 1
    async for _ in stream:
        pass
    assert checked_out(db) == 0


async def test_factory_session_is_closed_on_leaving(db: Sessions) -> None:
    """With ``aclosing``, a stream that is left early gives its connection back at once, and that can be used."""
    for _ in range(3):
        async with aclosing(things().stream(db, batch=10)) as rows:
            async for row in rows:
                if row.id == 25:
                    break
        assert checked_out(db) == 0
        assert await things().count(db) == COUNT


async def test_error_of_the_consumer(db: Sessions) -> None:
    """An error in the loop's body goes on, and the connection is given back."""

    async def consume() -> None:
        async with aclosing(things().stream(db, batch=10)) as rows:
            async for row in rows:
                1 / (row.id - 5)

    with pytest.raises(ZeroDivisionError):
        await consume()
    assert checked_out(db) == 0


async def test_own_session_goes_on(db: Sessions) -> None:
    """In a session of the caller's, a stream shows what it wrote, and its transaction goes on, to its commit."""
    crud = things()
    async with db() as session, session.begin():
        await crud.update(session, None, Loose(rank=50), id=7)
        ranks = [row.rank async for row in crud.stream(session, order_by="-rank")]
        assert ranks[:2] == [50, 6]
        await crud.update(session, None, Loose(rank=51), id=8)
    assert [row.id for row in await crud.get_multi(db, None, limit=2, order_by="-rank")] == [8, 7]


async def test_own_session_flushes_first(db: Sessions) -> None:
    """What is pending in the caller's session is flushed before, as its own queries do."""
    async with db() as session:
        session.add(Thing(id=-5, rank=0, level=0))
        assert [row.id async for row in things().stream(session, id=-5)] == [-5]
        await session.rollback()


async def test_own_session_after_leaving(db: Sessions) -> None:
    """A stream that is left early leaves the caller's transaction as it was, with what was written before."""
    crud = things()
    async with db() as session:
        async with session.begin():
            await crud.update(session, None, Loose(rank=50), id=7)
            async with aclosing(crud.stream(session, batch=10)) as rows:
                async for row in rows:
                    if row.id == 12:
                        break
            assert await crud.count(session) == COUNT
            await crud.update(session, None, Loose(rank=51), id=8)
        assert not session.in_transaction()
    assert [row.id for row in await crud.get_multi(db, None, limit=2, order_by="-rank")] == [8, 7]


@pytest.mark.parametrize("own", [True, False], ids=["session", "factory"])
async def test_cancelled_between_rows(db: Sessions, own: bool) -> None:
    """A task that is cancelled in the loop's body closes its stream; a session of the caller's can be used on."""
    crud, reached = things(), asyncio.Event()

    async def consume(source: Any) -> None:
        async with aclosing(crud.stream(source, batch=10)) as rows:
            async for row in rows:
                if row.id == 15:
                    reached.set()
                    await asyncio.Event().wait()

    async with db() as session:
        task = asyncio.create_task(consume(session if own else db))
        await reached.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        if own:
            assert await crud.count(session) == COUNT
    assert checked_out(db) == 0
    assert await crud.count(db) == COUNT


async def test_cancelled_while_fetching(db: Sessions) -> None:
    """A task that is cancelled while it waits for a batch leaves the caller's session usable, with what it wrote."""
    crud = things()
    async with db() as session, session.begin():
        await crud.update(session, None, Loose(rank=50), id=7)
        for ticks in range(12):

            async def consume() -> None:
                async with aclosing(crud.stream(session, batch=50)) as rows:
                    async for _ in rows:
                        pass

            task = asyncio.create_task(consume())
            for _ in range(ticks * 3):
                await asyncio.sleep(0)
            if task.cancel():  # else it was at its end already
                with pytest.raises(asyncio.CancelledError):
                    await task
            assert await crud.count(session) == COUNT
    assert [row.id for row in await crud.get_multi(db, None, limit=1, order_by="-rank")] == [7]


async def test_cancelled_while_fetching_from_a_factory(db: Sessions) -> None:
    """A task that is cancelled while it waits for a batch gives its connection back, whenever that is."""
    for ticks in range(12):

        async def consume() -> None:
            async with aclosing(things().stream(db, batch=50)) as rows:
                async for _ in rows:
                    pass

        task = asyncio.create_task(consume())
        for _ in range(ticks * 3):
            await asyncio.sleep(0)
        if task.cancel():  # else it was at its end already
            with pytest.raises(asyncio.CancelledError):
                await task
        await until(lambda: is_returned(db))
    assert len([row async for row in things().stream(db)]) == COUNT


async def test_error_of_the_statement(db: Sessions) -> None:
    """A statement that the database refuses raises, and the connection is given back, with instances, too."""
    for schema in (ThingOut, ShoutOut):
        crud: Crud[Any, Any, Any, Any] = Crud(Thing, schema)
        with pytest.raises(DBAPIError):
            await anext(crud.stream(db, where=text("nothing = 1")))  # type: ignore[arg-type]  # any condition
        assert checked_out(db) == 0


async def test_cancelled_by_anyio(db: Sessions) -> None:
    """A cancel scope of anyio around a stream ends it, and its connection is given back."""
    with anyio.CancelScope() as scope:
        async with aclosing(things().stream(db, batch=10)) as rows:
            async for row in rows:
                if row.id == 15:
                    scope.cancel()
    assert scope.cancelled_caught
    await until(lambda: is_returned(db))
    assert await things().count(db) == COUNT


async def test_forgotten_stream(db: Sessions) -> None:
    """A stream that is left without ``aclosing`` gives its connection back once Python collects it."""
    async for _ in things().stream(db, batch=10):
        break
    await until(lambda: is_returned(db))


async def test_several_at_once(db: Sessions) -> None:
    """Streams from one factory run beside each other, each on a connection of its own."""

    async def count() -> int:
        return len([row async for row in things().stream(db, batch=100)])

    assert await asyncio.gather(*(count() for _ in range(4))) == [COUNT] * 4


async def test_one_snapshot(db: Sessions) -> None:
    """Rows that others insert while a stream runs do not come into it."""
    if db.kw["bind"].dialect.name == "sqlite":
        return  # a reader keeps writers waiting there
    seen = []
    async with aclosing(things().stream(db, batch=10)) as rows:
        async for row in rows:
            if row.id == 0:
                await things().create(db, None, Loose(id=COUNT, rank=0, level=0))
            seen.append(row.id)
    assert seen == list(range(COUNT))


async def test_mariadb_session_is_used_meanwhile(mariadb_url: str) -> None:
    """On MariaDB, whose driver drops the rest of the rows then, another statement makes the stream raise, not end."""
    async with shelf(mariadb_url, ROWS) as db, db() as session:
        stream = things().stream(session, batch=10)
        for _ in range(10):
            await anext(stream)
        with pytest.warns(UserWarning, match="left incomplete"):
            await things().count(session)
        with pytest.raises(TransactionError, match="factory"):
            await anext(stream)
        assert await things().count(session) == COUNT


async def test_session_is_used_meanwhile(postgres_url: str, sqlite_url: str) -> None:
    """On PostgreSQL and SQLite the session can be used between the rows, for reads and writes."""
    for url in (postgres_url, sqlite_url):
        async with shelf(url, ROWS) as db, db() as session, session.begin():
            seen = 0
            async for row in things().stream(session, batch=100):
                seen += 1
                if row.id % 500 == 0:
                    assert await things().count(session) == COUNT
                    await things().update(session, None, Loose(rank=1), id=row.id)
            assert seen == COUNT


async def test_autocommit(database_url: str) -> None:
    """An engine that commits each statement streams from a factory; in a session, PostgreSQL is refused."""
    engine = create_async_engine(database_url, isolation_level="AUTOCOMMIT")
    db = async_sessionmaker(engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(insert(Thing), [{"level": 0, **row} for row in ROWS[:100]])
    assert len([row async for row in things().stream(db, batch=10)]) == 100
    async with db() as session:
        if engine.dialect.name == "postgresql":
            with pytest.raises(SessionRefused, match="factory"):
                await anext(things().stream(session))
        else:
            assert len([row async for row in things().stream(session, batch=10)]) == 100
        await things().update(session, None, Loose(rank=50), id=7)
    assert (await things().get(db, None, id=7)).rank == 50
    await engine.dispose()


def memory(url: str, *ways: str) -> Iterator[tuple[int, int]]:
    """For each way, the rows that a process of its own read, and how much memory they took at most, in bytes."""
    command = [sys.executable, "-m", "tests.streaming", url, *ways]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for way, line in zip(ways, done.stdout.splitlines(), strict=True):
        count, peak, grown = map(int, line.split())
        assert grown < 40 * 2**20 or way == "list"
        yield count, peak


async def test_memory(database_url: str) -> None:
    """A stream of 40 000 rows takes 8 MB at most, of instances, too; to fetch them at once takes far more."""
    count, bound = 40_000, 8 * 2**20
    async with shelf(database_url) as db, db.begin() as session:
        for start in range(0, count, 10_000):
            rows = [{"id": at, "rank": at % 7, "level": 0, "label": f"{at:060}"} for at in range(start, start + 10_000)]
            await session.execute(insert(Thing), rows)
    measured = await asyncio.to_thread(lambda: list(memory(database_url, "rows", "entities", "list")))
    assert [read for read, _ in measured] == [count] * 3
    rows, entities, fetched = (peak for _, peak in measured)
    assert max(rows, entities) < bound
    assert fetched > 4 * bound
