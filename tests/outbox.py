"""A world whose cache has an outbox, and what lies in it; as a program: a process that writes until it is killed."""

import asyncio
import json
import sys
from typing import Any

from sqlalchemy import MetaData, select
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastrdb import Cache, Outbox, outbox_table
from tests.models import named, user_crud
from tests.servers.process import free_port
from tests.world import ANN, World, until

TABLE = outbox_table(MetaData())
TIMEOUT_S = 0.2
NEVER_S = 3600.0
NOWHERE = "redis://127.0.0.1:{}"


def cache_of(world: World, *, look_every_s: float = NEVER_S, **options: Any) -> Cache:
    """A cache with the outbox: what another process has that looks only when it connects, or at once, if told to."""
    engine = world.another_engine()
    outbox = Outbox(TABLE, async_sessionmaker(engine), look_every_s=look_every_s)
    return world.another_cache(**{"timeout_s": TIMEOUT_S, "hold_s": 0.5, "outbox": outbox, **options})


def cut_off(world: World) -> Cache:
    """A cache with the outbox whose way to Redis is cut, so that nothing of what it sends can arrive later."""
    outbox = Outbox(TABLE, async_sessionmaker(world.another_engine()), look_every_s=NEVER_S)
    return Cache.from_url(NOWHERE.format(free_port()), timeout_s=TIMEOUT_S, outbox=outbox)


async def rows_of(world: World) -> list[set[str]]:
    """The keys in each row of the outbox that is committed."""
    async with world.outside.connect() as connection:
        return [set(json.loads(keys)) for (keys,) in await connection.execute(select(TABLE.c["keys"]))]


async def emptied(world: World) -> None:
    """Wait until nothing lies in the outbox."""

    async def is_empty() -> bool:
        return not await rows_of(world)

    await until(is_empty)


async def served(world: World, cache: Cache, name: str, id: int = ANN) -> None:
    """Read a user until the cache answers; every answer must have this name."""

    async def is_served() -> bool:
        found = await world.read(cache=cache, id=id)
        assert found.name == name
        return found.from_cache

    await until(is_served)


async def write(url: str, redis_url: str, count: int) -> None:
    """Change Ann's name as often, say so after each, and wait for the end."""
    engine = create_async_engine(url)
    factory = async_sessionmaker(engine)
    cache = Cache.from_url(redis_url, timeout_s=TIMEOUT_S, outbox=Outbox(TABLE, factory))
    for number in range(count):
        await user_crud().update(db=factory, redis=cache, obj_in=named(f"new {number}"), id=ANN)
        print(number, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3])))
