"""What a read that misses costs by a primary alone, and by a pair of it and its replica.

``python -m benchmarks.replicas`` starts both servers, and prints microseconds of a ``get`` without a cache, as the best
of some rounds, and how often the primary's time that is.
"""

import asyncio
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from fastrdb import ReadWrite
from tests.models import Base, UserIn, user_crud
from tests.servers.replicated import ReplicatedPostgres

ROUNDS, READS = 9, 100


async def cost_us(read: Callable[[], Any], callers: int) -> float:
    """The time of one read, in microseconds, by so many callers at once."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(READS // callers):
            await asyncio.gather(*(read() for _ in range(callers)))
        best = min(best, time.perf_counter() - began)
    return best / (READS // callers * callers) * 1e6


async def measure(server: ReplicatedPostgres) -> None:
    """Print a line for each side and number of callers."""
    primary = create_async_engine(server.url, pool_size=20)
    replica = create_async_engine(server.url_of_replica, pool_size=20)
    autocommit = create_async_engine(server.url_of_replica, pool_size=20, isolation_level="AUTOCOMMIT")
    async with primary.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)

    def sessions(engine: AsyncEngine) -> Any:
        return async_sessionmaker(engine, expire_on_commit=False)

    crud = user_crud()
    id = (await crud.create(sessions(primary), None, UserIn(email="ann@x"))).id
    sides = {
        "primary alone": sessions(primary),
        "pair": ReadWrite(sessions(primary), sessions(replica)),
        "pair, replica in AUTOCOMMIT": ReadWrite(sessions(primary), sessions(autocommit)),
    }
    for callers in (1, 20):
        alone = 0.0
        for name, db in sides.items():
            await asyncio.to_thread(server.catch_up)
            cost = await cost_us(lambda db=db: crud.get(db, None, id=id), callers)
            alone = alone or cost
            print(f"{callers:3} callers  {name:28} {cost:8.0f} us  {cost / alone:.2f} x")
    for engine in (primary, replica, autocommit):
        await engine.dispose()


if __name__ == "__main__":
    started = ReplicatedPostgres.start()
    try:
        asyncio.run(measure(started))
    finally:
        started.stop()
