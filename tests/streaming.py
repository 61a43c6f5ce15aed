"""How much memory it takes to read all rows of a table. Run as a program, so that nothing else is in the figure."""

import asyncio
import resource
import sys
import tracemalloc
from contextlib import aclosing

from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastrdb import Crud
from tests.drawers import ShoutOut, Thing, ThingOut


class LabelOut(ThingOut):
    """A row of some size."""

    label: str


async def read(url: str, way: str) -> None:
    """Stream, or fetch all of, the things of a database, and print their number and the bytes that it took."""
    engine = create_async_engine(url)
    sessions = async_sessionmaker(engine)
    plain = Crud(Thing, LabelOut, max_limit=10_000_000)  # type: ignore[var-annotated]  # no schemas to write
    shouting = Crud(Thing, ShoutOut)  # type: ignore[var-annotated]  # as above
    crud = shouting if way == "entities" else plain
    async with aclosing(crud.stream(sessions, where=Thing.id < 1_500)) as first:  # what is loaded once, and kept
        async for _ in first:
            pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    count = 0
    if way == "list":
        count = len(await plain.get_multi(sessions, None, limit=10_000_000))
    else:
        async with aclosing(crud.stream(sessions, order_by=["rank", "id"])) as rows:
            async for _ in rows:
                count += 1
    _, peak = tracemalloc.get_traced_memory()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    print(count, peak, grown)
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(read(*sys.argv[1:]))
