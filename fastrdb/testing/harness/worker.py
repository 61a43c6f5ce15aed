"""A reader or a writer process, from its first breath to its last."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
import time
import traceback
from collections import Counter
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from random import Random
from typing import Any, NamedTuple

from sqlalchemy import MetaData
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from fastrdb.cache.cache import Cache, store_factory
from fastrdb.writes.outbox import Outbox, outbox_table

from .deeds import Ledger, Note
from .reading import Found, Reader
from .scenario import Scenario, Stale
from .storm import Sky, StormyStore, cut, deafen, evict, make_statements_late, plain_client
from .subject import Subject
from .truth import Truth, name_deeds
from .windows import Doubt
from .writing import Writer

NEWS_S = 0.1
LANES = 4  # of a reader process
TASKS = 2  # of a writer process
CONNECTIONS = 6
POOL_TIMEOUT_S = 600.0  # while Redis is away all reads want one: on a busy machine that takes long, and is no failure
LOCK_TIMEOUT_MS = 500  # shorter than PostgreSQL's own look for deadlocks, which holds everybody up


class Orders(NamedTuple):
    """What one process is to do.

    Attributes:
        scenario: That of the run.
        schema: Where the side tables are.
        prefix: Leads the cache's keys.
        reads: It is a reader, else a writer.
        number: Which of its kind.
        life: How many processes were started before it in this run.
        began: When the run began, by ``time.monotonic``.
        outages: There are some, which are not this process's business: stale reads may be explained.
    """

    scenario: Scenario
    schema: str
    prefix: str
    reads: bool
    number: int
    life: int
    began: float
    outages: bool = False

    @property
    def name(self) -> str:
        """What reports call the process."""
        return f"{'reader' if self.reads else 'writer'} {self.number}"

    def subject(self) -> Subject:
        """Build what it reads or writes."""
        subjects = self.scenario.subjects
        return subjects[self.number % len(subjects)]()


@dataclass(slots=True)
class News:
    """What a process tells its parent, again and again; what became of a write's holds it tells apart, and at once.

    Attributes:
        reads, stale, bounded, writes, cache: Counts since the last time.
        longest_lag_s: The longest that a bounded answer was outdated, so far.
        examples: The first stale reads since the last time.
        slowest_hold_s: The longest hold so far.
        doubts: The stale reads since the last time that windows may explain; where there are outages.
        keys: The cells that it has seen; in the last of its messages.
        failure: A traceback: the process ends.
    """

    reads: int = 0
    stale: int = 0
    bounded: int = 0
    longest_lag_s: float = 0.0
    examples: list[Stale] = field(default_factory=list)
    writes: Counter[str] = field(default_factory=Counter)
    cache: Counter[str] = field(default_factory=Counter)
    slowest_hold_s: float = 0.0
    doubts: list[tuple[Stale, Doubt]] = field(default_factory=list)
    keys: list[bytes] = field(default_factory=list)
    failure: str | None = None


def work(orders: Orders, pipe: Connection) -> None:
    """Be a process, until the parent says stop, or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    logging.getLogger("fastrdb").addHandler(logging.NullHandler())  # that Redis is away is what is wanted here
    asyncio.run(_Worker(orders, pipe).run())


class _Worker:
    def __init__(self, orders: Orders, pipe: Connection) -> None:
        self._orders, self._pipe = orders, pipe
        self._scenario = orders.scenario
        self._random = Random(f"{orders.scenario.seed} {orders.name} {orders.life}")
        self._sky = Sky(orders.scenario, self._random, orders.began, mortal=not orders.reads)
        self._news = News()
        self._ledger = Ledger(self._note) if orders.outages and not orders.reads else None
        self._stop = asyncio.Event()

    async def run(self) -> None:
        """Work. Ends the process without tidying up: it might have been killed as well."""
        loop = asyncio.get_running_loop()
        threading.Thread(target=_obey, args=(self._pipe, loop, self._stop), daemon=True).start()
        try:
            self._cache = self._stormy_cache()
            tasks = [asyncio.ensure_future(job) for job in await self._jobs()]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        except BaseException:
            self._news.failure = f"{self._orders.name}:\n{traceback.format_exc()}"
        self._news.keys = [*self._sky.entries, *self._sky.tokens]
        self._tell()
        os._exit(self._news.failure is not None)

    def _stormy_cache(self) -> Cache:
        scenario = self._scenario
        make = store_factory(scenario.redis, timeout_s=scenario.timeout_s)

        def stormy(**options: Any) -> StormyStore:
            """Give a store in this weather; the options are an outbox's."""
            return StormyStore(make(**options), self._sky, self._ledger)

        return Cache(
            stormy,
            prefix=self._orders.prefix,
            hold_ms=round(scenario.hold_s * 1_000),
            outbox=self._outbox() if scenario.outbox else None,
            near=scenario.near if self._orders.reads else None,
            parts=scenario.parts,
        )

    def _outbox(self) -> Outbox:
        table = outbox_table(MetaData(), schema=self._orders.schema)
        return Outbox(table, _sessions(create_async_engine(self._scenario.postgres)))

    async def _jobs(self) -> list[Coroutine[Any, Any, None]]:
        engine = create_async_engine(
            self._scenario.postgres,
            pool_size=CONNECTIONS,
            pool_timeout=POOL_TIMEOUT_S,
            max_overflow=0,  # one that is opened anew costs more than ten reads
            connect_args={
                "server_settings": {"lock_timeout": str(LOCK_TIMEOUT_MS), "application_name": self._application}
            },
        )
        make_statements_late(engine, self._sky)
        jobs = self._reading(engine) if self._orders.reads else self._writing(engine)
        return [self._stop_when_told(), self._tell_for_ever(), *await jobs]

    @property
    def _application(self) -> str:
        return f"{self._orders.schema} {self._orders.name}"

    async def _reading(self, engine: AsyncEngine) -> list[Coroutine[Any, Any, None]]:
        subject, weather = self._orders.subject(), self._scenario.weather
        reader = Reader(
            subject,
            self._cache,
            _sessions(engine),
            _sessions(engine, "AUTOCOMMIT"),
            _sessions(engine, "REPEATABLE READ"),
            self._random,
            self._scenario.near.max_age_s if self._scenario.near is not None else 0.0,
        )
        truth = Truth(await self._on_time().connect(), subject, self._orders.schema)
        return [
            *(
                reader.judge_batches(
                    truth, self._scenario.batch, weather.cancelled, self._count, doubts=self._orders.outages
                )
                for _ in range(LANES)
            ),
            reader.keep_old_snapshots(self._sky.storm),
            evict(self._sky, plain_client(self._scenario.redis)),
            deafen(self._sky),
        ]

    async def _writing(self, engine: AsyncEngine) -> list[Coroutine[Any, Any, None]]:
        writer = Writer(
            self._orders.subject(),
            self._cache,
            _sessions(engine),
            _sessions(engine, "AUTOCOMMIT"),
            self._sky,
            self._orders.life,
            self._ledger,
        )
        if self._ledger is not None:
            name_deeds(engine)
        writer.done = self._news.writes
        return [
            *(writer.write_for_ever(self._scenario.ways, self._scenario.pause_s) for _ in range(TASKS)),
            cut(self._sky, await self._on_time().connect(), self._application),
        ]

    def _on_time(self) -> AsyncEngine:
        """Give an engine whose statements are not late."""
        return create_async_engine(self._scenario.postgres, isolation_level="AUTOCOMMIT")

    # -- news

    def _count(self, reads: int, stale: Sequence[Found], lags: Sequence[float]) -> None:
        news, after_s = self._news, time.monotonic() - self._orders.began
        news.reads += reads
        news.bounded += len(lags)
        news.longest_lag_s = max(news.longest_lag_s, *lags, 0.0)
        told = [(Stale(*found.text, self._orders.name, after_s), found.doubt) for found in stale]
        if self._orders.outages:
            news.doubts += told
        else:
            news.stale += len(told)
            news.examples += [example for example, _ in told[: 10 - len(news.examples)]]

    def _note(self, note: Note) -> None:
        self._pipe.send(note)

    async def _stop_when_told(self) -> None:
        await self._stop.wait()

    async def _tell_for_ever(self) -> None:
        while True:
            await asyncio.sleep(NEWS_S)
            self._tell()

    def _tell(self) -> None:
        news = self._news
        news.cache.update(self._cache.stats.snapshot())
        news.slowest_hold_s = self._sky.slowest_hold_s
        self._pipe.send(news)
        self._cache.stats.reset()
        for counts in (news.writes, news.cache):
            counts.clear()
        news.reads = news.stale = news.bounded = 0
        news.examples, news.doubts = [], []


def _sessions(engine: AsyncEngine, isolation: str | None = None) -> async_sessionmaker[AsyncSession]:
    if isolation is not None:
        engine = engine.execution_options(isolation_level=isolation)
    return async_sessionmaker(engine, expire_on_commit=False)


def _obey(pipe: Connection, loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    """Stop when told, and never outlive the parent: a thread, so that a busy loop does not keep us alive."""
    try:
        pipe.recv()
        loop.call_soon_threadsafe(stop.set)
        pipe.recv()
    except (EOFError, OSError):
        os._exit(1)
