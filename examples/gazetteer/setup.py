"""Where the gazetteer lives: a database, a cache, and a count of the SQL statements that are sent."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from sqlalchemy import event
from sqlalchemy.engine import make_url
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import Cache

from .cruds import city_crud, country_crud
from .models import Base


@dataclass
class Statements:
    """How many SQL statements the cruds' engine has sent."""

    sent: int = 0

    def listen(self, engine: AsyncEngine) -> None:
        """Count what this engine sends from now on."""

        def count(*_: object) -> None:
            self.sent += 1

        event.listen(engine.sync_engine, "before_cursor_execute", count)


@dataclass(frozen=True)
class Setup:
    """What the tour and the server work with.

    Attributes:
        sessions: What the cruds get as ``db``: a session is opened only when SQL is needed.
        cache: What they get as ``redis``.
        checks: An engine of its own, for the plain SQL that answers are compared with.
        statements: Counts what *sessions* send, and not the checks.
        where: Database and cache in words.
    """

    sessions: async_sessionmaker[AsyncSession]
    cache: Cache
    checks: AsyncEngine
    where: str
    statements: Statements = field(default_factory=Statements)


@asynccontextmanager
async def opened(postgres: str | None = None, redis: str | None = None) -> AsyncIterator[Setup]:
    """Give an empty gazetteer: on SQLite and ``memory://``, or on the servers named; its tables go at the end."""
    with tempfile.TemporaryDirectory(prefix="gazetteer-") as folder:
        path = Path(folder, "gazetteer.db")
        url = f"sqlite+aiosqlite:///{path}" if postgres is None else _for_asyncpg(postgres)
        engine, checks = _engine(url), _engine(url)
        words = f"{engine.dialect.name} and {'redis' if redis else 'memory://'}"
        try:
            async with Cache.from_url(redis or "memory://", prefix="gazetteer:") as cache:
                setup = Setup(async_sessionmaker(engine), cache, checks, words)
                await _make_tables(engine, cache)
                setup.statements.listen(engine)
                yield setup
                await _drop_tables(engine)
        finally:
            await engine.dispose()
            await checks.dispose()


def _engine(url: str) -> AsyncEngine:
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        # SQLite's default waits for the disk at each COMMIT; with a write-ahead log it needs not.
        for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
            event.listen(engine.sync_engine, "connect", partial(_set, pragma))
    return engine


def _set(pragma: str, connection: DBAPIConnection, _: object) -> None:
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


async def _make_tables(engine: AsyncEngine, cache: Cache) -> None:
    await _drop_tables(engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    # An earlier run on this Redis left values of tables that have just been dropped behind fastrdb's back.
    for crud in (country_crud, city_crud):
        await crud.clear(cache)


async def _drop_tables(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.drop_all)


def _for_asyncpg(url: str) -> str:
    return make_url(url).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)
