"""FastRDB 0.0.3, as in its tutorial: a session per call, one pattern for all that an update invalidates."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import FastRDB

from .rows import EXP_S, Place, UserResponse, UserUpdate, mapped


class FastRDB003:
    """Users by FastRDB 0.0.3."""

    def __init__(self, crud: Any, sessions: async_sessionmaker[AsyncSession], redis: Redis) -> None:
        self._crud, self._sessions, self._redis = crud, sessions, redis

    async def get(self, user_id: int) -> UserResponse:
        async with self._sessions() as session:
            return await self._crud.get(session, self._redis, id=user_id)

    async def list(self, limit: int) -> list[UserResponse]:
        async with self._sessions() as session:
            return await self._crud.get_multi(session, self._redis, limit=limit, order_by="id")

    async def update(self, user_id: int, name: str) -> None:
        async with self._sessions() as session:
            await self._crud.update(session, self._redis, UserUpdate(name=name), id=user_id)


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[FastRDB003]:
    """Give the peer."""
    engine = create_async_engine(place.postgres_url)
    redis = Redis(connection_pool=BlockingConnectionPool.from_url(place.redis_url))
    crud: Any = FastRDB(
        mapped(place.table),
        UserResponse,
        pattern=place.prefix + "user:{id}",
        list_pattern=place.prefix + "user:list:{limit}:{page}",
        exp=EXP_S,
        invalidate_pattern_prefix=place.prefix + "user:*",
    )
    try:
        yield FastRDB003(crud, async_sessionmaker(engine, expire_on_commit=False), redis)
    finally:
        await redis.aclose(close_connection_pool=True)
        await engine.dispose()
