"""Counts stale reads: each reader asks PostgreSQL for a row's version first, then reads the row through the peer.

A trigger of the table counts each row's updates in its column *version*, under the row's lock: a smaller version is an
older row. The version that PostgreSQL gave before the read began was committed, so a read that gives a smaller one
is stale.
"""

from __future__ import annotations

import asyncio
import random
from time import monotonic
from typing import Any

import asyncpg

from .rows import Peer, Place


async def stale_reads(peer: Peer, place: Place, *, seconds: float, readers: int, rows: int) -> dict[str, Any]:
    """Read for so long with so many readers, and count reads, stale ones, and different versions seen."""
    counted = {"reads": 0, "stale": 0, "changes": 0}
    end = monotonic() + seconds
    async with asyncpg.create_pool(
        place.postgres_url.replace("+asyncpg", ""), min_size=1, max_size=min(readers, 16)
    ) as pool:
        truth = f"SELECT version FROM {place.table} WHERE id = $1"

        async def reader() -> None:
            last = 0
            while monotonic() < end:
                user_id = random.randint(1, rows)
                committed = await pool.fetchval(truth, user_id)
                found = (await peer.get(user_id)).version
                counted["reads"] += 1
                counted["stale"] += found < committed
                counted["changes"] += found != last
                last = found

        await asyncio.gather(*(reader() for _ in range(readers)))
    return counted
