"""Through PgBouncer, which hands a server's connection to another client after each transaction."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from fastrdb.db import DatabaseDependencies, create_async_engine, create_async_sessionmaker
from fastrdb.locks import PgAdvisoryLock

REQUESTS = 60


@pytest.fixture
async def engine(pgbouncer_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine made for PgBouncer."""
    engine = create_async_engine(pgbouncer_url, pgbouncer=True)
    yield engine
    await engine.dispose()


async def test_requests_share_few_connections(engine: AsyncEngine) -> None:
    """Many requests at once, each of two transactions, get their own answers, and nobody meets another's statements."""
    get_db = DatabaseDependencies(create_async_sessionmaker(engine)).get_db

    async def request(number: int) -> tuple[int, int]:
        async with get_db() as session:
            first = await session.scalar(text("SELECT CAST(:number AS integer)"), {"number": number})
            await session.commit()
            second = await session.scalar(text("SELECT CAST(:number AS integer) + 1"), {"number": number})
            return first, second

    answers = await asyncio.gather(*(request(number) for number in range(REQUESTS)))
    assert answers == [(number, number + 1) for number in range(REQUESTS)]


async def test_lock_of_a_transaction(engine: AsyncEngine) -> None:
    """A lock of a transaction is one holder's at a time, and free when its block has ended."""
    async with (
        PgAdvisoryLock("import", db=engine, scope="transaction") as outer,
        PgAdvisoryLock("import", db=engine, scope="transaction") as inner,
    ):
        assert (outer.acquired, inner.acquired) == (True, False)
    async with PgAdvisoryLock("import", db=engine, scope="transaction") as again:
        assert again.acquired
