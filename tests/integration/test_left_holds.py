"""Writes that nobody releases, as in sessions bound to a Connection: what they could not drop is dropped later."""

import asyncio
import gc
from collections.abc import AsyncIterator
from typing import NamedTuple

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import await_only

from fastrdb import Cache, CacheUnavailable
from fastrdb.testing.faults import Proxy
from fastrdb.writes.renewing import Renewing
from tests.models import named
from tests.world import ANN, Read, World, opened, until

HOLD_S = 3.0
STALE = Read("Ann", from_cache=True)


class There(NamedTuple):
    """A world whose own cache talks through a proxy, and another process's cache that does not; both have Ann."""

    world: World
    proxy: Proxy
    other: Cache

    async def change(self, name: str) -> None:
        """Change Ann's name in a session that is bound to a Connection, which commits."""
        world = self.world
        async with world.engine.begin() as connection, AsyncSession(connection) as session:
            await world.crud.update(db=session, redis=world.cache, obj_in=named(name), id=ANN)

    async def is_delivered(self) -> bool:
        """Whether nothing is kept any more."""
        return not self.world.cache.undelivered

    async def has_reloaded(self) -> bool:
        """Whether the other process has the row as it was, once more."""
        return await self.world.read(cache=self.other) == STALE

    async def follows(self) -> bool:
        """Whether the other process reads the new row."""
        return (await self.world.read(cache=self.other)).name == "new"


@pytest.fixture
async def there(postgres_url: str, valkey_url: str) -> AsyncIterator[There]:
    """Two users, Ann cached, and a process that can be cut off."""
    host, _, port = valkey_url.removeprefix("redis://").partition("/")[0].partition(":")
    async with opened(postgres_url, valkey_url) as world, Proxy.to(host, int(port)) as proxy:
        other, world.redis_url = world.cache, proxy.through(valkey_url)
        world.cache = world.another_cache(timeout_s=1, hold_s=HOLD_S)  # a COMMIT must not take longer
        await world.warm()
        yield There(world, proxy, other)
        await world.close()


async def test_bound_write_that_is_cut_off_is_not_lost(there: There) -> None:
    """A session bound to a Connection writes while its process cannot reach Redis: the invalidation is kept."""
    there.proxy.refuses = True
    there.proxy.cut()
    await there.change("new")
    assert there.world.cache.undelivered
    assert await there.world.read(cache=there.other) == STALE
    there.proxy.refuses = False
    await until(there.follows)
    assert (await there.world.read()).name == "new"


async def test_invalidation_that_comes_before_its_commit_comes_again(there: There) -> None:
    """What is delivered while that COMMIT is under way does not stay old: it is delivered again after a hold's time."""

    async def meanwhile() -> None:
        there.proxy.refuses = False
        await until(there.is_delivered)
        await until(there.has_reloaded)

    def committing(connection: Connection) -> None:  # called after fastrdb's listener
        await_only(meanwhile())

    event.listen(there.world.engine.sync_engine, "commit", committing, once=True)
    there.proxy.refuses = True
    there.proxy.cut()
    await there.change("new")
    await until(there.follows)


async def test_write_that_is_refused_keeps_nothing(there: There) -> None:
    """``on_unreachable="refuse"`` rolls back, also in a session that is bound to a Connection."""
    there.world.cache.on_unreachable = "refuse"
    there.proxy.refuses = True
    there.proxy.cut()
    with pytest.raises(CacheUnavailable):
        await there.change("new")
    assert not there.world.cache.undelivered
    assert await there.world.stored() == "Ann"


async def test_a_session_that_is_cancelled_after_its_commit_renews_nothing(there: There) -> None:
    """A caller that is cancelled while the connection goes back to the pool leaves holds that end by themselves."""
    world, engine = there.world, there.world.engine.sync_engine

    def cancelled(*_: object) -> None:
        raise asyncio.CancelledError

    session = world.factory()

    async def write() -> None:
        async with session.begin():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
            event.listen(engine, "reset", cancelled)

    with pytest.raises(asyncio.CancelledError):
        await write()
    event.remove(engine, "reset", cancelled)
    await session.close()
    renewing = [each for each in gc.get_objects() if isinstance(each, Renewing) and each._cache is world.cache]
    assert all(each._timer.cancelled() for each in renewing)
    assert (await world.read()).name == "new"
    await until(there.follows)
    async with session.begin():  # which is no part of that
        await session.rollback()
    assert (await world.read()).name == "new"
