"""cashews, as in its documentation: decorated functions, a deleted key for the row, a deleted tag for lists."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cashews import Cache
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from .rows import EXP_S, Place, UserResponse, mapped
from .statements import Sql


class ByCashews:
    """Users by hand-written SQL behind cashews."""

    def __init__(self, sql: Sql, cache: Cache, prefix: str) -> None:
        self._sql, self._cache = sql, cache
        self._key, self._tag = prefix + "user:{user_id}", prefix + "users"

        @cache(ttl=EXP_S, key=self._key)
        async def get(user_id: int) -> UserResponse:
            return await sql.get(user_id)

        @cache(ttl=EXP_S, key=prefix + "users:{limit}", tags=[self._tag])
        async def list_(limit: int) -> list[UserResponse]:
            return await sql.list(limit)

        self.get, self.list = get, list_

    async def update(self, user_id: int, name: str) -> None:
        await self._sql.update(user_id, name)
        await self._cache.delete(self._key.format(user_id=user_id))
        await self._cache.delete_tags(self._tag)


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[ByCashews]:
    """Give the peer."""
    engine = create_async_engine(place.postgres_url)
    cache = Cache()
    cache.setup(place.redis_url)
    try:
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        yield ByCashews(Sql(mapped(place.table), sessions), cache, place.prefix)
    finally:
        await cache.close()
        await engine.dispose()
