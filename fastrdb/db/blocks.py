"""A session for one block of code: committed at its end, rolled back after an error, closed in any case."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from . import defaults
from .sessions import SessionFactory, new_session


@asynccontextmanager
async def with_async_session(
    sessionmaker: SessionFactory | None = None, auto_commit: bool = True, auto_rollback: bool = True
) -> AsyncGenerator[AsyncSession, None]:
    """Give ``async with`` a session of its own.

    Args:
        sessionmaker: An ``async_sessionmaker``, or any other callable that gives a new AsyncSession; the process-wide
            default if it is left out.
        auto_commit: Commit at the end of the block. Without, what the block has not committed itself is undone.
        auto_rollback: Roll back as soon as the block raises. Without, closing the session does it.

    Raises:
        SessionRefused: *sessionmaker* gives no AsyncSession.
        SettingRefused: It was left out, and there is no default.
    """
    async with new_session(sessionmaker or defaults.sessionmaker()) as session:
        try:
            yield session
        except BaseException:
            if auto_rollback:
                await session.rollback()
            raise
        if auto_commit:
            await session.commit()
