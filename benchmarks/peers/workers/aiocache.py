"""aiocache, as in its documentation: decorated functions with a key builder, pickles, ``delete`` by key."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from aiocache import Cache, cached
from aiocache.serializers import PickleSerializer
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from .rows import EXP_S, Place, UserResponse, mapped
from .statements import Sql


class ByAiocache:
    """Users by hand-written SQL behind aiocache."""

    def __init__(self, sql: Sql, prefix: str, redis: dict[str, Any]) -> None:
        self._sql = sql
        options: dict[str, Any] = dict(
            ttl=EXP_S,
            cache=Cache.REDIS,
            serializer=PickleSerializer(),
            namespace=prefix.rstrip(":"),
            endpoint=redis["host"],
            port=redis["port"],
            db=redis["db"],
        )

        @cached(key_builder=lambda function, user_id: f"user:{user_id}", **options)
        async def get(user_id: int) -> UserResponse:
            return await sql.get(user_id)

        @cached(key_builder=lambda function, limit: f"users:{limit}", **options)
        async def list_(limit: int) -> list[UserResponse]:
            return await sql.list(limit)

        self.get, self.list = get, list_

    async def update(self, user_id: int, name: str) -> None:
        await self._sql.update(user_id, name)
        await self.get.cache.delete(f"user:{user_id}")
        await self.list.cache.delete("users:100")

    async def close(self) -> None:
        """Close the connections of both decorators."""
        await self.get.cache.close()
        await self.list.cache.close()


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[ByAiocache]:
    """Give the peer."""
    engine = create_async_engine(place.postgres_url)
    users = ByAiocache(
        Sql(mapped(place.table), async_sessionmaker(engine, expire_on_commit=False)), place.prefix, place.redis_parts
    )
    try:
        yield users
    finally:
        await users.close()
        await engine.dispose()
