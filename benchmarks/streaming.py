"""How much memory a stream of many rows takes: ``python -m benchmarks.streaming``."""

from __future__ import annotations

import argparse
import asyncio
import resource
import tracemalloc
from contextlib import aclosing
from time import perf_counter

from fastrdb import Crud

from .servers import servers
from .users import UserResponse, Users
from .world import QUICK, world

_FILL = """
    INSERT INTO {table} (email, name, group_id, bio, is_active)
    SELECT 'stream' || at || '@example.com', 'User Number ' || at, 1, 'Reads much, writes little.', true
    FROM generate_series(1, {rows}) AS at
"""


async def measure(postgres_url: str, redis_url: str, rows: int, *, traced: bool) -> str:
    """Stream a table, and say what it took."""
    async with world(postgres_url, redis_url, QUICK) as there:
        async with there.admin.begin() as connection:
            await connection.exec_driver_sql(_FILL.format(table=there.bulk.table.name, rows=rows))
        crud = there.bulk_crud
        await _streamed(there.sessions, crud, there.bulk, limit=5_000)  # what is loaded once, and kept
        before, start = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, perf_counter()
        if traced:
            tracemalloc.start()
        count = await _streamed(there.sessions, crud, there.bulk)
        took = perf_counter() - start
        added = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        peak = f", {tracemalloc.get_traced_memory()[1] / 2**20:.1f} MB of Python objects at most" if traced else ""
        return f"{count:,} rows in {took:.1f} s: {added:.1f} MB of memory added to the process{peak}"


async def _streamed(sessions: object, crud: Crud, users: Users, limit: int | None = None) -> int:
    count = 0
    where = users.table.c.id <= limit if limit is not None else None
    async with aclosing(crud.stream(sessions, where=where)) as rows:
        async for row in rows:
            assert isinstance(row, UserResponse)
            count += 1
    return count


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.streaming", description=__doc__)
    parser.add_argument("--postgres", metavar="URL", help="a server to use instead of a private one")
    parser.add_argument("--redis", metavar="URL", help="the same")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--traced", action="store_true", help="count Python's objects, too, which takes longer")
    options = parser.parse_args()
    with servers(options.postgres, options.redis) as on:
        print(asyncio.run(measure(on.postgres_url, on.redis_url, options.rows, traced=options.traced)))


if __name__ == "__main__":
    main()
