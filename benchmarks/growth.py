"""Whether fastrdb's cost grows with rows, keys and callers: ``python -m benchmarks.growth --help``."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import random
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from .contest import Contestant, Work, hold
from .pages import GROWTH_DATA, write_page
from .peers.report import SHARED
from .report import machine
from .servers import Servers, servers
from .users import UserUpdate
from .world import Scale, World, world

_MOST_CACHED = 1_000  # rows that are read; more would only take longer to be cached
_FILL = """
    INSERT INTO {table} (email, name, group_id, bio, is_active)
    SELECT 'user' || at || '@example.com', 'User Number ' || at, at % 10, 'Reads much, writes little.', true
    FROM generate_series({first}, {last}) AS at
"""
Call = Callable[[int], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Sizes:
    """What grows, and how long each size is measured."""

    rows: tuple[int, ...] = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
    keys: tuple[int, ...] = (10, 100, 1_000, 10_000, 100_000, 1_000_000)
    callers: tuple[int, ...] = (1, 4, 16, 64, 256, 512)
    rounds: int = 11
    turn_s: float = 0.05


QUICK = Sizes(rows=(10, 100), keys=(10, 100), callers=(1, 8), rounds=2, turn_s=0.002)


@dataclass(frozen=True, slots=True)
class Grown:
    """One point: *ratio* is the median of fastrdb's time to the hand-written code's at the same moment."""

    axis: str
    size: int
    work: str
    ratio: float
    low: float
    high: float
    seconds: float


async def measure(on: Servers, sizes: Sizes) -> list[Grown]:
    """Measure all sizes of all axes, each from the smallest on."""
    points: list[Grown] = []
    start = Scale(users=sizes.rows[0], rounds=sizes.rounds, turn_s=sizes.turn_s)
    async with world(on.postgres_url, on.redis_url, start) as there:
        async for size, grown in _with_rows(there, sizes.rows):
            points += await _points("rows", size, grown, sizes, 1)
    small = replace(start, users=min(_MOST_CACHED, sizes.rows[-1]))
    async with world(on.postgres_url, on.redis_url, small) as there:
        for size in sizes.callers:
            points += await _points("callers", size, there, sizes, size)
        for size in sizes.keys:
            async with there.foreign_keys(size):
                points += await _points("keys", size, there, sizes, 1)
    return points


async def _with_rows(there: World, sizes: tuple[int, ...]) -> AsyncIterator[tuple[int, World]]:
    table, last = there.users.table.name, sizes[0]
    for size in sizes:
        async with there.admin.connect() as connection:
            autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
            if size > last:
                await autocommit.exec_driver_sql(_FILL.format(table=table, first=last + 1, last=size))
            await autocommit.exec_driver_sql(f"VACUUM ANALYZE {table}")
        last = size
        # The ids that are read lie in the table's first rows, which are as far from its root as the others.
        yield size, replace(there, scale=replace(there.scale, users=min(size, _MOST_CACHED)))


async def _points(axis: str, size: int, there: World, sizes: Sizes, callers: int) -> list[Grown]:
    print(f"{size:,} {axis} …", file=sys.stderr, flush=True)

    async def rename(user_id: int) -> object:
        return await there.by_hand.update(user_id, UserUpdate(name=f"Name {random.random()}"))

    async def rename_by_crud(user_id: int) -> object:
        obj_in = UserUpdate(name=f"Name {random.random()}")
        return await there.crud.update(db=there.sessions, redis=there.cache, obj_in=obj_in, id=user_id)

    async def get_by_crud(user_id: int) -> object:
        return await there.crud.get(db=there.sessions, redis=there.cache, id=user_id)

    for user_id in there.user_ids:
        await there.by_hand.get(user_id)
        await get_by_crud(user_id)
    works = (("cached get", there.by_hand.get, get_by_crud), ("update", rename, rename_by_crud))
    found = []
    for title, by_hand, by_crud in works:
        work = Work(
            name=title,
            title=title,
            target=None,
            by_hand=_contestant(there, by_hand, callers),
            fastrdb=_contestant(there, by_crud, callers),
            around=nullcontext,
            step=callers,
        )
        (figure,) = await hold(work, sizes.rounds, sizes.turn_s)
        found.append(Grown(axis, size, title, figure.ratio, figure.low, figure.high, figure.seconds))
    return found


def _contestant(there: World, call: Call, callers: int) -> Contestant:
    async def caller(times: int) -> None:
        for user_id in random.choices(there.user_ids, k=times):
            await call(user_id)

    async def run(count: int) -> None:
        await asyncio.gather(*(caller(count // callers) for _ in range(callers)))

    return Contestant(run)


def conditions(on: Servers, shared: bool) -> str:
    """Say when, on what, and with which versions."""
    named = ", ".join(f"{name} {number}" for name, number in on.versions.items())
    date = datetime.now(UTC).date().isoformat()
    said = f"{date}, on {machine()}; Python {platform.python_version()}, {named}."
    return f"{said} {SHARED}" if shared else said


def table(points: list[Grown]) -> str:
    """Give the points as a Markdown table of ratios."""
    lines = ["| what grows | size | work | ratio to hand-written | quartiles |", "|---|---|---|---|---|"]
    lines += [f"| {p.axis} | {p.size:,} | {p.work} | {p.ratio:.2f} | {p.low:.2f} to {p.high:.2f} |" for p in points]
    return "\n".join(lines)


def main() -> None:
    """Measure, and report."""
    parser = argparse.ArgumentParser(prog="benchmarks.growth", description=__doc__)
    parser.add_argument("--postgres", metavar="URL", help="a server to use instead of a private one")
    parser.add_argument("--redis", metavar="URL", help="the same")
    parser.add_argument("--rounds", type=int, help="turns of each contestant")
    parser.add_argument("--quick", action="store_true", help="small sizes only: a smoke test")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures to a file, too")
    parser.add_argument("--write", action="store_true", help="write the plots of the docs, too")
    parser.add_argument("--shared", action="store_true", help="say in the report that the machine was shared")
    options = parser.parse_args()
    sizes = QUICK if options.quick else Sizes()
    if options.rounds:
        sizes = replace(sizes, rounds=options.rounds)
    with servers(options.postgres, options.redis) as on, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        points = runner.run(measure(on, sizes))
        said = conditions(on, options.shared)
    print(said, table(points), sep="\n\n")
    figures = [asdict(point) for point in points]
    if options.json:
        options.json.write_text(json.dumps({"conditions": said, "figures": figures}, indent=1))
    if options.write:
        for figure in figures:
            del figure["seconds"]  # times of this machine: only ratios are kept
        GROWTH_DATA.parent.mkdir(exist_ok=True)
        GROWTH_DATA.write_text(json.dumps({"conditions": said, "tables": table(points), "figures": figures}, indent=1))
        write_page()


if __name__ == "__main__":
    main()
