"""A process with a crowd of tasks that read one key at the same time.

Run as ``python -m tests.crowd DATABASE_URL REDIS_URL TASKS``. It prints a line when it is ready; then for each line
that it gets, ``row``, ``list`` or ``aged``, lets all tasks read at once, and prints what came of it as JSON: the names
that were read, how many SELECTs of users were sent, and the reasons that the cache counted.
"""

import asyncio
import json
import sys
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastrdb import Cache, ReadOptions
from tests.models import User, user_crud

MINUTE = ReadOptions(max_stale=60)


async def main(url: str, redis_url: str, tasks: int) -> None:
    """Read whenever a line comes, until there is none."""
    engine = create_async_engine(url)
    crud, db, cache = user_crud(max_stale=60), async_sessionmaker(engine), Cache.from_url(redis_url)
    sent: list[str] = []
    event.listen(
        engine.sync_engine,
        "before_cursor_execute",
        lambda *args: sent.append(args[2]) if "FROM users" in args[2] else None,
    )

    async def read(what: str) -> str:
        if what == "list":
            return str([each.name for each in await crud.get_multi(db, cache, group_id=1)])
        options = MINUTE if what == "aged" else None
        return (await crud.get(db, cache, options=options, id=1)).name

    # What a process does once: imports, connections, what it asks of a database.
    async with db() as session:
        await session.execute(select(User).where(User.id == 1))
    await crud.get(db, cache, id=2)
    print("ready", flush=True)
    lines = iter(sys.stdin.readline, "")
    while what := (await asyncio.to_thread(next, lines, "")).strip():
        sent.clear()
        cache.stats.reset()
        names = await asyncio.gather(*[read(what) for _ in range(tasks)])
        told: dict[str, Any] = {"names": sorted({*names}), "sent": len(sent), "counts": cache.stats.snapshot()}
        print(json.dumps(told), flush=True)
    await cache.aclose()
    await engine.dispose()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
