"""A session for one block of code: committed at its end, rolled back after an error, closed in any case."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from sqlalchemy.ext.asyncio import AsyncSession

from . import defaults
from .routing import RoutingSession
from .sessions import SessionFactory, new_session


def with_async_session(
    sessionmaker: SessionFactory | None = None, auto_commit: bool = True, auto_rollback: bool = True
) -> AbstractAsyncContextManager[AsyncSession]:
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
    return _block(lambda: sessionmaker or defaults.sessionmaker(), auto_commit, auto_rollback)


async def one_session(
    choose: Callable[[], SessionFactory],
    auto_commit: bool = True,
    auto_rollback: bool = True,
    to_primary: bool = False,
) -> AsyncGenerator[AsyncSession, None]:
    """Yield one session, and end it; what every block and every dependency is made of.

    Args:
        choose: Gives the factory, once the session is needed.
        auto_commit: As ``with_async_session`` has it.
        auto_rollback: As ``with_async_session`` has it.
        to_primary: Where sessions are routed, all of this one goes to the primary.
    """
    async with new_session(choose()) as session:
        if to_primary and isinstance(session.sync_session, RoutingSession):
            session.sync_session.use_primary()
        try:
            yield session
        except BaseException:
            if auto_rollback:
                await session.rollback()
            raise
        if auto_commit:
            await session.commit()


_block = asynccontextmanager(one_session)
