"""fastrdb, as in its documentation: a ``Crud``, a session factory and a ``Cache``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import Cache, Crud

from .rows import EXP_S, Place, UserCreate, UserResponse, UserUpdate, mapped


class Ours:
    """Users by fastrdb."""

    def __init__(self, model: type[Any], sessions: async_sessionmaker[AsyncSession], cache: Cache) -> None:
        self._sessions, self._cache = sessions, cache
        self._crud = Crud[object, UserCreate, UserUpdate, UserResponse](
            model,
            UserResponse,
            pattern="user:id:{id}",
            list_pattern="user:page:{page}:limit:{limit}",
            exp=EXP_S,
            create_schema=UserCreate,
            update_schema=UserUpdate,
        )

    async def get(self, user_id: int) -> UserResponse:
        return await self._crud.get(db=self._sessions, redis=self._cache, id=user_id)

    async def list(self, limit: int) -> Sequence[UserResponse]:
        return await self._crud.get_multi(db=self._sessions, redis=self._cache, limit=limit)

    async def list_json(self, limit: int) -> bytes:
        """Give the list as the bytes that are cached."""
        return await self._crud.get_multi_json(db=self._sessions, redis=self._cache, limit=limit)

    async def update(self, user_id: int, name: str) -> None:
        await self._crud.update(db=self._sessions, redis=self._cache, obj_in=UserUpdate(name=name), id=user_id)


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[Ours]:
    """Give the peer."""
    engine = create_async_engine(place.postgres_url)
    try:
        async with Cache.from_url(place.redis_url, prefix=place.prefix) as cache:
            yield Ours(mapped(place.table), async_sessionmaker(engine, expire_on_commit=False), cache)
    finally:
        await engine.dispose()
