"""What a cached read takes while Redis is away, beside the same read by SQL: ``python -m benchmarks.outage --help``."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import logging
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import quantiles
from time import perf_counter

import uvloop
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastrdb import Cache
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer

from .world import Scale, World, world

ALLOWED_S = 0.001  # what the p99 of a cached read may be above that of SQL
_TIMEOUT_S = 1.0
_SLACK_S = 0.2  # of the first read, beyond the time that Redis is given and that of SQL, which answers it then

Read = Callable[[int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Away:
    """How reads fared while Redis was away.

    Attributes:
        how: ``"killed"``: connections are refused; ``"paused"``: nobody answers.
        callers: How many read at once.
        reads: Of each kind.
        first_s: What the slowest of the first reads took, which found out.
        cached_p50_s, cached_p99_s: Of ``crud.get`` with a cache, once its breaker is open.
        sql_p50_s, sql_p99_s: Of the same with ``redis=None``.
        noise_s: How far apart the p99 of that and of its like were, which took turns with both: what the machine does.
    """

    how: str
    callers: int
    reads: int
    first_s: float
    cached_p50_s: float
    cached_p99_s: float
    sql_p50_s: float
    sql_p99_s: float
    noise_s: float

    @property
    def above_s(self) -> float:
        """How far the p99 of a cached read is above that of SQL."""
        return self.cached_p99_s - self.sql_p99_s

    @property
    def holds(self) -> bool:
        """The verdict; where the noise is greater than what is allowed, it says little either way."""
        return self.above_s <= ALLOWED_S and self.first_s <= _TIMEOUT_S + _SLACK_S + self.sql_p99_s

    def __str__(self) -> str:
        return (
            f"Redis {self.how}, {self.callers} callers, {self.reads:,} reads: p50 {_ms(self.cached_p50_s)} "
            f"(SQL {_ms(self.sql_p50_s)}), p99 {_ms(self.cached_p99_s)} (SQL {_ms(self.sql_p99_s)}), "
            f"{_ms(self.above_s)} more (noise {_ms(self.noise_s)}); first read {_ms(self.first_s)}: "
            f"{'met' if self.holds else 'NOT MET'}"
        )


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms"


async def measure(postgres_url: str, server: RedisServer, rounds: int, reads: int) -> list[Away]:
    """Take Redis away in both ways, for one caller and for 64.

    Args:
        postgres_url: A server.
        server: A private one: it is killed, and started again.
        rounds: Turns of each kind of read; they take turns, so that what else the machine does meets both.
        reads: Of each turn.
    """
    found = []
    # No more connections than are kept: to open one takes longer than to read.
    engine = create_async_engine(postgres_url, pool_size=16, max_overflow=0)
    async with world(postgres_url, server.url, Scale(users=200)) as there:
        there = replace(there, sessions=async_sessionmaker(engine, expire_on_commit=False))
        for how, away in (("paused", _paused), ("killed", _killed)):
            for callers in (1, there.scale.callers):
                async with Cache.from_url(server.url, prefix=there.cache.prefix, timeout_s=_TIMEOUT_S) as cache:
                    found.append(await _away(there, cache, how, away(server), callers, rounds, reads))
                    print(found[-1], file=sys.stderr, flush=True)
    await engine.dispose()
    return found


@contextmanager
def _paused(server: RedisServer) -> Iterator[None]:
    server.pause()
    try:
        yield
    finally:
        server.resume()


@contextmanager
def _killed(server: RedisServer) -> Iterator[None]:
    server.kill()
    try:
        yield
    finally:
        server.restart()


async def _away(
    there: World, cache: Cache, how: str, away: AbstractContextManager[None], callers: int, rounds: int, reads: int
) -> Away:
    async def cached(user_id: int) -> object:
        return await there.crud.get(db=there.sessions, redis=cache, id=user_id)

    async def by_sql(user_id: int) -> object:
        return await there.crud.get(db=there.sessions, redis=None, id=user_id)

    for read in (by_sql, cached, cached):
        await _turn(there, read, callers, callers * 4)
    gc.collect()
    gc.freeze()  # to look through all that the modules made takes 80 ms, and would be the p99 of whom it meets
    kinds = (cached, by_sql, by_sql)  # the last is the noise
    turns: tuple[list[float], ...] = ([], [], [])
    with away:
        first = await _turn(there, cached, callers, callers)
        for number in range(rounds):
            for place in range(len(kinds)):
                at = (number + place) % len(kinds)
                turns[at].extend(await _turn(there, kinds[at], callers, reads))
    own, sql, again = (quantiles(each, n=100) for each in turns)
    noise = abs(again[98] - sql[98])
    return Away(how, callers, rounds * reads, max(first), own[49], own[98], sql[49], sql[98], noise)


async def _turn(there: World, read: Read, callers: int, reads: int) -> list[float]:
    """Give what each read took."""
    took: list[float] = []

    async def caller() -> None:
        for user_id in random.choices(there.user_ids, k=reads // callers):
            start = perf_counter()
            await read(user_id)
            took.append(perf_counter() - start)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return took


def outage(postgres_url: str | None = None, *, rounds: int = 100, reads: int = 64) -> list[Away]:
    """Measure with a private Redis, and a private PostgreSQL unless one is given."""
    logging.getLogger("fastrdb").addHandler(logging.NullHandler())
    postgres = PostgresServer.given(postgres_url) if postgres_url else PostgresServer.start()
    server = RedisServer.start("valkey")
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(measure(postgres.url, server, rounds, reads))
    finally:
        server.stop()
        postgres.stop()


def main() -> None:
    """Measure, report, and fail if the target is missed."""
    parser = argparse.ArgumentParser(prog="benchmarks.outage", description=__doc__)
    parser.add_argument("--postgres", metavar="URL", help="a server to use instead of a private one")
    parser.add_argument("--rounds", type=int, default=100, help="turns of each kind of read")
    parser.add_argument("--reads", type=int, default=64, help="reads of one turn, a multiple of 64")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures to a file, too")
    options = parser.parse_args()
    found = outage(options.postgres, rounds=options.rounds, reads=options.reads)
    print(*found, sep="\n")
    if options.json:
        options.json.write_text(json.dumps([asdict(each) | {"holds": each.holds} for each in found], indent=1))
    sys.exit(not all(each.holds for each in found))


if __name__ == "__main__":
    main()
