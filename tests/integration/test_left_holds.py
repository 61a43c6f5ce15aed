"""Writes that nobody releases, in sessions bound to a Connection or with an unknown COMMIT: what they drop is dropped."""

from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from fastrdb import Cache
from tests.models import named
from tests.servers.redis import RedisServer
from tests.world import ANN, Read, World, opened, until

HOLD_S = 0.3


@pytest.fixture
def server(private_redis: Callable[[], RedisServer]) -> RedisServer:
    """A Valkey that the test may stop."""
    return private_redis()


@pytest.fixture
async def world(postgres_url: str, server: RedisServer) -> AsyncIterator[World]:
    """Two users, and Ann cached."""
    async with opened(postgres_url, server.url) as world:
        world.cache = world.another_cache(timeout_s=0.3, hold_s=HOLD_S)
        await world.warm()
        yield world


async def change_bound(world: World, name: str) -> None:
    """Change Ann's name in a session that is bound to a Connection, which commits."""
    async with world.engine.begin() as connection, AsyncSession(connection) as session:
        await world.crud.update(db=session, redis=world.cache, obj_in=named(name), id=ANN)


async def test_bound_write_without_redis_is_not_lost(world: World, server: RedisServer) -> None:
    """A session bound to a Connection writes while Redis is away: its invalidation is kept, and delivered."""
    other = world.another_cache()
    assert await world.read(cache=other) == Read("Ann", from_cache=True)
    server.pause()
    await change_bound(world, "new")
    server.resume()

    async def is_new() -> bool:
        return (await world.read(cache=other)).name == "new"

    await until(is_new)
    assert (await world.read()).name == "new"
