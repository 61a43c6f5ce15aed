"""``on_unreachable="refuse"``: a write that cannot tell Redis before COMMIT is not committed."""

from collections.abc import AsyncIterator, Callable

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from fastrdb import Cache, CacheUnavailable, ConfigurationError
from tests.models import UserIn, named
from tests.servers.redis import RedisServer
from tests.world import ANN, BOB, World, opened, until


@pytest.fixture
def server(private_redis: Callable[[], RedisServer]) -> RedisServer:
    """A Valkey that the test may stop."""
    return private_redis()


@pytest.fixture
async def world(database_url: str, server: RedisServer) -> AsyncIterator[World]:
    """Two users, Ann cached, and a cache whose writes are refused when Redis is away."""
    async with opened(database_url, server.url) as world:
        world.cache = world.another_cache(timeout_s=0.2, hold_s=0.5, on_unreachable="refuse")
        await world.warm()
        yield world


async def test_every_write_is_refused(world: World, server: RedisServer) -> None:
    """Creating, changing, deleting: each raises, and nothing is written; with Redis they work again."""
    server.pause()
    given = {"db": world.factory, "redis": world.cache}
    with pytest.raises(CacheUnavailable):
        await world.crud.create(obj_in=UserIn(email="carl@x", name="Carl"), **given)
    with pytest.raises(CacheUnavailable):
        await world.crud.update(obj_in=named("new"), id=ANN, **given)
    with pytest.raises(CacheUnavailable):
        await world.crud.delete(id=BOB, **given)
    assert [await world.stored(id) for id in (1, 2, 3)] == ["Ann", "Bob", None]
    assert (await world.read()).name == "Ann"
    server.resume()

    async def written() -> bool:
        try:
            await world.crud.update(obj_in=named("new"), id=ANN, **given)
        except CacheUnavailable:
            return False
        return True

    await until(written)
    assert (await world.read()).name == "new"
    assert world.leaked == 0


async def test_a_joined_write_refuses_the_callers_commit(world: World, server: RedisServer) -> None:
    """The caller's COMMIT raises and is not sent; the session can be used again."""
    async with world.factory() as session:
        await session.begin()
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        server.pause()
        with pytest.raises(CacheUnavailable):
            await session.commit()
        await session.rollback()
        assert (await world.read(session)).name == "Ann"
    server.resume()
    assert await world.stored() == "Ann"
    assert world.leaked == 0


async def test_autocommit_is_refused_before_the_statement(world: World, server: RedisServer) -> None:
    """Where each statement commits by itself, it is not sent."""
    engine = create_async_engine(world.url, isolation_level="AUTOCOMMIT")
    server.pause()
    factory = world.factory.__class__(engine)
    with pytest.raises(CacheUnavailable):
        await world.crud.update(db=factory, redis=world.cache, obj_in=named("new"), id=ANN)
    server.resume()
    assert await world.stored() == "Ann"
    await engine.dispose()


async def test_an_invalidation_by_hand_is_kept(world: World, server: RedisServer) -> None:
    """The change that it is for has happened: there is nothing to refuse, and nothing is served before it arrives."""
    await world.execute("UPDATE users SET name = 'new' WHERE id = 1")
    server.pause()
    await world.crud.invalidate(world.cache, id=ANN)
    server.resume()
    assert (await world.read()).name == "new"


def test_another_word_is_no_policy() -> None:
    """A policy that does not exist is named with those that do."""
    with pytest.raises(ConfigurationError, match="'proceed' or 'refuse'"):
        Cache.from_url("memory://", on_unreachable="ignore")  # type: ignore[arg-type]
