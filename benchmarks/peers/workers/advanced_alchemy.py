"""advanced-alchemy with its dogpile cache, as in its documentation: ``cache_config`` and ``auto_expunge``."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from advanced_alchemy.cache import CacheConfig
from advanced_alchemy.config import AsyncSessionConfig, SQLAlchemyAsyncConfig
from advanced_alchemy.filters import LimitOffset, OrderBy
from advanced_alchemy.repository import SQLAlchemyAsyncRepository

from .rows import EXP_S, Place, UserResponse, mapped


class ByRepository:
    """Users by a repository of advanced-alchemy."""

    def __init__(self, model: type[Any], config: SQLAlchemyAsyncConfig) -> None:
        self._config, self._model = config, model

        class Users(SQLAlchemyAsyncRepository[Any]):
            model_type = model

        self._repository = Users

    async def get(self, user_id: int) -> UserResponse:
        async with self._config.get_session() as session:
            found = await self._repository(session=session, auto_expunge=True).get(user_id)
            return UserResponse.model_validate(found)

    async def list(self, limit: int) -> list[UserResponse]:
        async with self._config.get_session() as session:
            users = self._repository(session=session, auto_expunge=True)
            found = await users.list(LimitOffset(limit, 0), OrderBy("id", "asc"))
            return [UserResponse.model_validate(user) for user in found]

    async def update(self, user_id: int, name: str) -> None:
        async with self._config.get_session() as session:
            users = self._repository(session=session, auto_expunge=True)
            await users.update(self._model(id=user_id, name=name))
            await session.commit()


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[ByRepository]:
    """Give the peer."""
    cache = CacheConfig(
        backend="dogpile.cache.redis",
        expiration_time=EXP_S,
        arguments=place.redis_parts,
        key_prefix=place.prefix,
    )
    config = SQLAlchemyAsyncConfig(
        connection_string=place.postgres_url,
        session_config=AsyncSessionConfig(expire_on_commit=False),
        cache_config=cache,
    )
    try:
        yield ByRepository(mapped(place.table), config)
    finally:
        await config.get_engine().dispose()
