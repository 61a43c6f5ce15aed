"""SQL by hand, for the peers that cache and leave SQL to the user: Core statements that are built once."""

from __future__ import annotations

from typing import Any

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from .rows import NAMES, UserResponse, by_row


class Sql:
    """Users in PostgreSQL; each call opens a session of its own."""

    def __init__(self, model: type[Any], sessions: async_sessionmaker[AsyncSession]) -> None:
        self._sessions = sessions
        table = model.__table__
        columns = [table.c[name] for name in NAMES]
        by_id = table.c.id == bindparam("user_id")
        self._select = select(*columns).where(by_id)
        self._page = select(*columns).order_by(table.c.id).limit(bindparam("limit"))
        self._update = update(table).where(by_id).values(name=bindparam("new_name"))

    async def get(self, user_id: int) -> UserResponse:
        """Select one user."""
        async with self._sessions() as session:
            return by_row((await session.execute(self._select, {"user_id": user_id})).one())

    async def list(self, limit: int) -> list[UserResponse]:
        """Select the first users by id."""
        async with self._sessions() as session:
            return [by_row(row) for row in (await session.execute(self._page, {"limit": limit})).all()]

    async def update(self, user_id: int, name: str) -> None:
        """Update one user, and commit."""
        async with self._sessions() as session:
            await session.execute(self._update, {"user_id": user_id, "new_name": name})
            await session.commit()
