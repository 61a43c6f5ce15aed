"""Fixtures: worlds of a database, a cache and two users."""

from collections.abc import AsyncIterator

import pytest

from tests.world import World, opened


@pytest.fixture(params=["postgres_url", "sqlite_url"], ids=["postgresql", "sqlite"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database; a test that asks for it runs once on PostgreSQL and once on a SQLite file."""
    url: str = request.getfixturevalue(request.param)
    return url


@pytest.fixture
async def world(database_url: str, valkey_url: str) -> AsyncIterator[World]:
    """Two users in a database, once PostgreSQL and once SQLite, and a cache."""
    async with opened(database_url, valkey_url) as world:
        yield world


@pytest.fixture
async def pg_world(postgres_url: str, valkey_url: str) -> AsyncIterator[World]:
    """Two users in PostgreSQL, and a cache."""
    async with opened(postgres_url, valkey_url) as world:
        yield world
