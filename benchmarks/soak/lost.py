"""Lost invalidations: outages while processes write; when all is delivered, the cache must equal the database."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from itertools import cycle
from multiprocessing.connection import Connection
from random import Random
from typing import Any

from sqlalchemy import MetaData, func, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastrdb import Cache, Outbox, outbox_table
from fastrdb.errors import UniqueViolation
from fastrdb.testing.harness import Outage, Subject
from fastrdb.testing.harness.builtin import Builtin
from fastrdb.testing.harness.outages import paused, restarted_empty

from .part import Grounds, Outcome, Verdict
from .servers import Place, place

OUTAGES, KINDS = 100, 3
ROWS = 8
WRITERS = 3
CACHES = 2  # that read, as processes of their own would
TIMEOUT_S, HOLD_S, LOOK_S = 0.5, 1.0, 0.2
BEFORE_S, AFTER_S = 0.1, 0.1  # of writing, before and after an outage
PATIENCE_S = 60.0
WRITE, SETTLE = "write", "settle"
SCHEMA = "soak"
TABLE = outbox_table(MetaData(), schema=SCHEMA)


@dataclass(frozen=True, slots=True)
class Order:
    """What a writer's process is told."""

    database: str
    redis: str
    outbox: bool
    number: int


@dataclass(slots=True)
class Count:
    """What was found.

    Attributes:
        lost: Reads that were not what the database has.
        checked: Reads that were compared.
        hits: How many of these the cache answered.
        writes, kept: Writes, and how many of them could not hold.
        left: Rows that lay in the outbox when an outage ended.
        kills: Writers that were killed.
        outages: How many.
    """

    lost: int = 0
    checked: int = 0
    hits: int = 0
    writes: int = 0
    kept: int = 0
    left: int = 0
    kills: int = 0
    outages: int = 0
    examples: list[str] = field(default_factory=list)


def lose(grounds: Grounds, *, outbox: bool, kills: bool) -> Outcome:
    """Count invalidations that are lost over the outages.

    Args:
        grounds: What there is.
        outbox: All have one.
        kills: Writers are killed before an outage ends; without an outbox that loses what they have kept.
    """
    with grounds.postgres.database() as url, place(proxied=True) as there, crew(url, there.url, outbox) as writers:
        found = asyncio.run(Checker(url, there, writers, grounds, outbox=outbox, kills=kills).check())
    said = f"{found.lost} of {found.checked} reads ({found.hits} hits) after {found.outages} outages; "
    if kills:  # nobody is left to tell what the writers did
        said += f"{found.kills} kills, {found.left} rows in the outbox"
    else:
        said += f"{found.writes} writes, {found.kept} without Redis"
    done = found.outages >= grounds.wanted(OUTAGES, least=KINDS) and found.hits > 0 and found.kept + found.left > 0
    verdict = Verdict.MISSED if found.lost else Verdict.MET if done else Verdict.SHORT
    return Outcome(said, verdict, "\n".join(found.examples[:10]))


# Writers.


class Writer:
    """A process that writes while it is told to."""

    def __init__(self, order: Order) -> None:
        self.order, self._context = order, multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([__name__])
        self._start()

    def _start(self) -> None:
        self.pipe, theirs = self._context.Pipe()
        self.process = self._context.Process(target=write, args=(self.order, theirs), daemon=True)
        self.process.start()
        theirs.close()

    def tell(self, word: str) -> None:
        """Tell it to write, or to settle, and start it again if it was killed."""
        if not self.process.is_alive():
            self.pipe.close()
            self._start()
        self.pipe.send(word)

    def kill(self) -> None:
        """End it with SIGKILL, and wait for that."""
        self.process.kill()
        self.process.join()

    def answer(self) -> tuple[int, int]:
        """Wait until it has begun, or has nothing to deliver; give its writes, and how many could not hold."""
        if not self.pipe.poll(PATIENCE_S):
            raise TimeoutError(f"writer {self.order.number} does not begin, or cannot deliver what it has kept")
        found: tuple[int, int] = self.pipe.recv()
        return found


@contextmanager
def crew(url: str, redis_url: str, outbox: bool) -> Iterator[Sequence[Writer]]:
    """Start writers, which end with the block."""
    writers = [Writer(Order(url, redis_url, outbox, number)) for number in range(WRITERS)]
    try:
        yield writers
    finally:
        for writer in writers:
            writer.kill()


def write(order: Order, pipe: Connection) -> None:
    """Be a writer's process."""
    logging.getLogger("fastrdb").addHandler(logging.NullHandler())
    with suppress(EOFError, OSError):  # the parent has ended
        asyncio.run(obey(order, pipe))


async def obey(order: Order, pipe: Connection) -> None:
    """Write until told to settle; then deliver all, and tell the writes, and how many could not hold."""
    async with opened(order.database, order.redis, order.outbox) as (subject, sessions, cache):
        while True:
            assert await asyncio.to_thread(pipe.recv) == WRITE
            over = asyncio.ensure_future(asyncio.to_thread(pipe.recv))
            pipe.send((0, 0))  # it has begun
            writes = await write_until(over, subject, sessions, cache)
            while cache.undelivered:  # noqa: ASYNC110  # it has no event
                await asyncio.sleep(0.01)
            pipe.send((writes, cache.stats.reasons["hold: unreachable"]))
            cache.stats.reset()


async def write_until(over: asyncio.Future[Any], subject: Subject, sessions: Any, cache: Cache) -> int:
    """Write rows at random; a write that is under way is not cut. Gives how many."""
    random, writes = Random(), 0
    while not over.done():
        change = subject.change(random, random.randrange(2**62))
        with suppress(UniqueViolation):  # the name is another one's
            await subject.crud.update(sessions, cache, change, id=random.randint(1, ROWS))
            writes += 1
        await asyncio.sleep(random.random() * 0.02)
    over.result()
    return writes


@asynccontextmanager
async def opened(url: str, redis_url: str, outbox: bool) -> AsyncIterator[tuple[Subject, Any, Cache]]:
    """Give a subject, sessions, and a cache of one's own."""
    engine = create_async_engine(url, pool_size=4)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    kept = Outbox(TABLE, async_sessionmaker(engine), look_every_s=LOOK_S) if outbox else None
    async with Cache.from_url(redis_url, timeout_s=TIMEOUT_S, hold_s=HOLD_S, outbox=kept) as cache:
        yield Builtin("old", ROWS, schema=SCHEMA)(), sessions, cache
    await engine.dispose()


# The checker.


class Checker:
    """Warms caches, breaks Redis while writers write, lets all be delivered, and compares."""

    def __init__(
        self, url: str, there: Place, writers: Sequence[Writer], grounds: Grounds, *, outbox: bool, kills: bool
    ) -> None:
        self._url, self._there, self._writers = url, there, writers
        self._grounds, self._outbox, self._kills = grounds, outbox, kills
        self._random, self.count = Random(grounds.seed), Count()

    async def check(self) -> Count:
        """Do it for each outage, as long as there is time."""
        kinds = cycle(outages(self._there))
        async with opened(self._url, self._there.server.url, self._outbox) as (self._subject, self._sessions, first):
            await self._set_up()
            async with opened(self._url, self._there.url, self._outbox) as (_, _, second):
                self._caches = [first, second]  # one is never cut off: it goes on to serve
                until, wanted = time.monotonic() + self._grounds.seconds, self._grounds.wanted(OUTAGES, least=KINDS)
                await self._round(next(kinds))
                while self.count.outages < wanted and time.monotonic() < until:
                    await self._round(next(kinds))
        return self.count

    async def _set_up(self) -> None:
        async with self._sessions() as session, session.begin():
            connection = await session.connection()
            await connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
            await connection.run_sync(self._subject.table.metadata.create_all)
            await connection.run_sync(TABLE.metadata.create_all)
            names = ("ann", "ben", "cat", "dan", "eve", "fay", "gus", "hal")
            rows = [
                {"id": id, "name": name, "group_id": 1, "flag": True, "mark": id} for id, name in enumerate(names, 1)
            ]
            await connection.execute(self._subject.table.insert(), rows)

    async def _round(self, outage: Outage) -> None:
        for _ in range(3):  # claimed, stored, found
            for cache in self._caches:
                await self._read_all(cache)
        for writer in self._writers:
            writer.tell(WRITE)
        for writer in self._writers:
            await asyncio.to_thread(writer.answer)
        reading = asyncio.create_task(self._go_on_reading())
        await asyncio.sleep(BEFORE_S)
        await asyncio.to_thread(outage.begin)
        await asyncio.sleep(outage.lasts_s)
        # All of them: what one kept drops the whole table, and would make up for what others lose.
        killed = self._writers if self._kills else ()
        for writer in killed:
            await asyncio.to_thread(writer.kill)
            self.count.kills += 1
        self.count.left += await self._left()
        await asyncio.to_thread(outage.end)
        await asyncio.sleep(AFTER_S)
        await self._settle([writer for writer in self._writers if writer not in killed])
        reading.cancel()
        with suppress(asyncio.CancelledError):
            await reading
        await self._compare()
        self.count.outages += 1
        if self.count.lost and not self.count.examples[-1].startswith("outage"):
            self.count.examples.append(f"outage {self.count.outages}: {outage.name}")

    async def _settle(self, writers: Sequence[Writer]) -> None:
        for writer in writers:
            writer.tell(SETTLE)
        for writer in writers:
            writes, kept = await asyncio.to_thread(writer.answer)
            self.count.writes += writes
            self.count.kept += kept
        until = time.monotonic() + PATIENCE_S
        while await self._left():
            if time.monotonic() > until:
                raise TimeoutError("the outbox is not emptied")
            await asyncio.sleep(0.02)

    async def _left(self) -> int:
        async with self._sessions() as session:
            return int(await session.scalar(select(func.count()).select_from(TABLE)) or 0)

    async def _go_on_reading(self) -> None:
        while True:
            for cache in self._caches:
                await self._read_all(cache)
            await asyncio.sleep(0.005)

    async def _read_all(self, cache: Cache) -> list[Any]:
        crud, sessions = self._subject.crud, self._sessions
        rows = [crud.get_or_none(sessions, cache, id=id) for id in range(1, ROWS + 1)]
        found: list[Any] = await asyncio.gather(*rows, crud.get_multi(sessions, cache, limit=ROWS))
        return found

    async def _compare(self) -> None:
        """Nobody writes now, and nothing is left to deliver."""
        async with self._sessions() as session:
            rows = (await session.execute(select(self._subject.table).order_by("id"))).all()
        truth = [tuple(row) for row in rows]
        for cache in self._caches * 2:
            before = cache.stats.hits
            *found, listed = await self._read_all(cache)
            self.count.hits += cache.stats.hits - before
            for got, wanted in zip([*found, *listed], [*truth, *truth], strict=True):
                self.count.checked += 1
                if tuple(got.model_dump().values()) != wanted:
                    self.count.lost += 1
                    self.count.examples.append(f"{got!r} instead of {wanted}")


def outages(there: Place) -> Sequence[Outage]:
    """Give the kinds, in turn: it crashes; it hangs; writers are cut off, while another process goes on to serve."""
    return [there.unreachable(), restarted_empty(there, there.server.url, 0.4), paused(there, 1.0)]
