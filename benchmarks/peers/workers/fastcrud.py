"""FastCRUD, as in its documentation: a session per call, models of the response schema. It has no cache."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastcrud import FastCRUD
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from .rows import Place, UserResponse, UserUpdate, mapped


class ByFastCrud:
    """Users by FastCRUD."""

    def __init__(self, crud: Any, sessions: async_sessionmaker[AsyncSession]) -> None:
        self._crud, self._sessions = crud, sessions

    async def get(self, user_id: int) -> UserResponse:
        async with self._sessions() as session:
            return await self._crud.get(session, schema_to_select=UserResponse, return_as_model=True, id=user_id)

    async def list(self, limit: int) -> list[UserResponse]:
        async with self._sessions() as session:
            page = await self._crud.get_multi(
                session,
                limit=limit,
                schema_to_select=UserResponse,
                sort_columns="id",
                return_as_model=True,
                return_total_count=False,
            )
            return page["data"]

    async def update(self, user_id: int, name: str) -> None:
        async with self._sessions() as session:
            await self._crud.update(session, UserUpdate(name=name), id=user_id)


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[ByFastCrud]:
    """Give the peer."""
    engine = create_async_engine(place.postgres_url)
    try:
        yield ByFastCrud(FastCRUD(mapped(place.table)), async_sessionmaker(engine, expire_on_commit=False))
    finally:
        await engine.dispose()
