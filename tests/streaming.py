"""How much memory it takes to read all rows of a table. Run as a program, so that nothing else is in the figure."""

import asyncio
import resource
import sys
import tracemalloc
from collections.abc import Sequence
from contextlib import aclosing

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastrdb import Crud
from tests.drawers import ShoutOut, Thing, ThingOut


class LabelOut(ThingOut):
    """A row of some size."""

    label: str


async def measure(url: str, ways: Sequence[str]) -> None:
    """Stream, or fetch at once, the things of a database; print for each way how many, and the bytes it took."""
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine)
    plain = Crud(Thing, LabelOut, max_limit=10_000_000)  # type: ignore[var-annotated]  # no schemas to write
    shouting = Crud(Thing, ShoutOut)  # type: ignore[var-annotated]  # as above
    for crud in (plain, shouting):  # what is loaded once, and kept
        async with aclosing(crud.stream(sessions, where=Thing.id < 1_500)) as first:
            async for _ in first:
                pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for way in ways:
        tracemalloc.start()
        count = await read(shouting if way == "entities" else plain, sessions, way)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        print(count, peak, grown)
    await engine.dispose()


async def read(crud: Crud, sessions: async_sessionmaker, way: str) -> int:  # type: ignore[type-arg]  # any will do
    """The number of the things, all of them read."""
    if way == "list":
        return len(await crud.get_multi(sessions, None, limit=10_000_000))
    count = 0
    async with aclosing(crud.stream(sessions, order_by=["rank", "id"])) as rows:
        async for _ in rows:
            count += 1
    return count


if __name__ == "__main__":
    asyncio.run(measure(sys.argv[1], sys.argv[2:]))
