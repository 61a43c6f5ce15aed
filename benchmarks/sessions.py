"""A session for each request: what ``fastrdb.db`` costs beside SQLAlchemy's own engines and factories."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import sqlalchemy.ext.asyncio as sa
from sqlalchemy import literal, select

from fastrdb.db import DatabaseDependencies, create_async_engine, create_async_sessionmaker, with_async_session

from .contest import Contestant, Work
from .world import World

_POOL = {"pool_size": 20, "max_overflow": 30, "pool_recycle": 3_600, "pool_pre_ping": True, "pool_timeout": 30}
_STATEMENT = select(literal(1))


def sessions(world: World) -> list[Work]:
    """Give the works that open a session for one statement, both sides with the same pool and connection settings."""
    url = world.admin.url
    connect_args = {"command_timeout": 60, "server_settings": {"application_name": "by-hand", "jit": "off"}}
    engine = sa.create_async_engine(url, connect_args=connect_args, **_POOL)
    by_hand = sa.async_sessionmaker(engine, expire_on_commit=False)
    limited = sa.async_sessionmaker(engine.execution_options(postgresql_readonly=True), expire_on_commit=False)
    our_engine = create_async_engine(url)
    factory = create_async_sessionmaker(our_engine)
    dependencies = DatabaseDependencies(factory)

    async def plain() -> None:
        async with by_hand() as session:
            await session.execute(_STATEMENT)
            await session.commit()

    async def reading() -> None:
        async with limited() as session:
            await session.execute(_STATEMENT)

    async def get_db() -> None:
        async with dependencies.get_db() as session:
            await session.execute(_STATEMENT)

    async def get_read_session() -> None:
        async with dependencies.get_read_session() as session:
            await session.execute(_STATEMENT)

    async def block() -> None:
        async with with_async_session(factory) as session:
            await session.execute(_STATEMENT)

    @asynccontextmanager
    async def disposed() -> AsyncIterator[None]:
        yield
        await engine.dispose()
        await our_engine.dispose()

    return [
        Work(
            name="session",
            title="a request's session, `get_db`",
            target=1.05,
            by_hand=_again(plain),
            fastrdb=_again(get_db),
            around=disposed,
            beside={"by `with_async_session`": _again(block)},
        ),
        Work(
            name="read_session",
            title="a request's read-only session",
            target=1.05,
            by_hand=_again(reading),
            fastrdb=_again(get_read_session),
            around=disposed,
        ),
    ]


def _again(use: Callable[[], Awaitable[None]]) -> Contestant:
    async def run(count: int) -> None:
        for _ in range(count):
            await use()

    return Contestant(run)
