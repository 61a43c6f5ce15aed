"""Hand-written: ``redis.get`` and ``model_validate_json``, else SQL and ``set``; ``delete`` after the commit."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from redis.asyncio import BlockingConnectionPool, Redis
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from .rows import EXP_S, LIST, Place, UserResponse, mapped
from .statements import Sql


class ByHand:
    """Users by hand."""

    def __init__(self, sql: Sql, redis: Redis, prefix: str) -> None:
        self._sql, self._redis, self._prefix = sql, redis, prefix

    async def get(self, user_id: int) -> UserResponse:
        key = f"{self._prefix}user:{user_id}"
        if (raw := await self._redis.get(key)) is not None:
            return UserResponse.model_validate_json(raw)
        user = await self._sql.get(user_id)
        await self._redis.set(key, user.model_dump_json(), ex=EXP_S)
        return user

    async def list(self, limit: int) -> list[UserResponse]:
        return LIST.validate_json(await self.list_json(limit))

    async def list_json(self, limit: int) -> bytes:
        """Give the list as the bytes that are cached."""
        key = f"{self._prefix}users:{limit}"
        if (raw := await self._redis.get(key)) is None:
            raw = LIST.dump_json(await self._sql.list(limit))
            await self._redis.set(key, raw, ex=EXP_S)
        return raw

    async def update(self, user_id: int, name: str) -> None:
        await self._sql.update(user_id, name)
        await self._redis.delete(f"{self._prefix}user:{user_id}", f"{self._prefix}users:100")


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[ByHand]:
    """Give the peer."""
    engine = create_async_engine(place.postgres_url)
    redis = Redis(connection_pool=BlockingConnectionPool.from_url(place.redis_url))
    try:
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        yield ByHand(Sql(mapped(place.table), sessions), redis, place.prefix)
    finally:
        await redis.aclose(close_connection_pool=True)
        await engine.dispose()
