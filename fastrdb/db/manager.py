"""A database that is started and shut down with the service."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Any

from sqlalchemy import URL, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from ..errors import DatabaseUnavailable, NotStarted
from . import defaults, environment
from .blocks import with_async_session
from .engines import create_async_engine, create_async_sessionmaker
from .pools import PoolStatus, pool_status
from .urls import Target


class DatabaseManager:
    """An engine and its sessions, from ``startup()`` to ``shutdown()``, or for an ``async with`` block.

    While it runs it is the default database of its event loop, for ``get_db()`` say, unless there is another one or
    ``configure`` named one.

    Args:
        url: As ``create_async_engine`` takes it; that of the environment if it is left out.
        engine_kwargs: Further arguments of ``create_async_engine``.
        session_kwargs: Arguments of ``create_async_sessionmaker``.

    Raises:
        UrlRefused: The URL is malformed, or its driver is unknown or sync.
    """

    def __init__(
        self,
        url: str | URL | None = None,
        engine_kwargs: Mapping[str, Any] | None = None,
        session_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self._url = url or environment.database_url()
        self._shown = repr(Target.of(self._url).url)
        self._engine_kwargs, self._session_kwargs = dict(engine_kwargs or {}), dict(session_kwargs or {})
        self._engine: AsyncEngine | None = None
        self._sessionmaker: async_sessionmaker[AsyncSession] | None = None

    def __repr__(self) -> str:
        return f"<DatabaseManager {self._shown} {'started' if self._engine is not None else 'not started'}>"

    async def startup(self) -> None:
        """Build the engine, and see that the database answers. Does nothing if it was done before.

        Raises:
            DatabaseUnavailable: It does not answer; nothing was started.
        """
        if self._engine is not None:
            return
        engine = create_async_engine(self._url, **self._engine_kwargs)
        try:
            async with engine.connect() as connection:
                await connection.execute(text("SELECT 1"))
        except (SQLAlchemyError, OSError) as error:
            await engine.dispose()
            raise DatabaseUnavailable(f"{self._shown} does not answer: {type(error).__name__}") from error
        except BaseException:
            await engine.dispose()
            raise
        self._engine, self._sessionmaker = engine, create_async_sessionmaker(engine, **self._session_kwargs)
        defaults.adopt(self._engine, self._sessionmaker)

    async def shutdown(self) -> None:
        """Close the connections. Does nothing if it was not started; it may be started again."""
        engine, self._engine, self._sessionmaker = self._engine, None, None
        if engine is not None:
            defaults.withdraw(engine)
            await engine.dispose()

    @property
    def engine(self) -> AsyncEngine:
        """The engine.

        Raises:
            NotStarted: Before ``startup()``, or after ``shutdown()``. It is a RuntimeError, too.
        """
        if self._engine is None:
            raise NotStarted(f"{self!r}: await startup() first, or use it in async with")
        return self._engine

    @property
    def sessionmaker(self) -> async_sessionmaker[AsyncSession]:
        """The factory of sessions. Raises as ``engine`` does."""
        if self._sessionmaker is None:
            raise NotStarted(f"{self!r}: await startup() first, or use it in async with")
        return self._sessionmaker

    def session(
        self, auto_commit: bool = True, auto_rollback: bool = True
    ) -> AbstractAsyncContextManager[AsyncSession]:
        """Give ``async with`` a session, as ``with_async_session`` does. Raises as ``engine`` does."""
        return with_async_session(self.sessionmaker, auto_commit, auto_rollback)

    def pool_status(self) -> PoolStatus:
        """Give the numbers of the pool. Raises as ``engine`` does."""
        return pool_status(self.engine)

    async def __aenter__(self) -> DatabaseManager:
        await self.startup()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown()
