"""Fixtures: databases with a few rows, and caches."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import create_async_engine

from fastrdb import Cache
from tests.commits import AT_COMMIT, TRIGGER
from tests.market import Market, market_in
from tests.shop import Shop, shop_in
from tests.teams import Base, Cruds, Elsewhere
from tests.world import World, opened


@pytest.fixture(params=["postgres_url", "sqlite_url", "mariadb_url"], ids=["postgresql", "sqlite", "mariadb"])
def database_url(request: pytest.FixtureRequest) -> str:
    """An empty database; a test that asks for it runs once on PostgreSQL, on a SQLite file and on MariaDB."""
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


@pytest.fixture
async def slow(postgres_url: str, valkey_url: str) -> AsyncIterator[World]:
    """A world on PostgreSQL, with Ann cached, where a user's name can make COMMIT slow, or refused."""
    async with opened(postgres_url, valkey_url) as world:
        await world.execute(AT_COMMIT, TRIGGER)
        await world.warm()
        yield world


@pytest.fixture
async def cruds(database_url: str, valkey_url: str) -> AsyncIterator[Cruds]:
    """A team (1) with members (1, 2), a badge (1) of the first, a pin on it, a room."""
    engine = create_async_engine(database_url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(Elsewhere.metadata.create_all)
        for statement in (
            "INSERT INTO teams (code, name) VALUES ('red', 'Red'), ('blue', 'Blue')",
            "INSERT INTO members (team_id, team_code, age) VALUES (1, 'red', 20), (1, 'red', 30)",
            "INSERT INTO badges (member_id, label) VALUES (1, 'gold')",
            "INSERT INTO pins (badge_id) VALUES (1)",
            "INSERT INTO rooms (name) VALUES ('hall')",
        ):
            await connection.exec_driver_sql(statement)
    async with Cache.from_url(valkey_url) as cache:
        yield Cruds(engine, cache)
    await engine.dispose()


@pytest.fixture
async def shop(database_url: str, valkey_url: str) -> AsyncIterator[Shop]:
    """People with countries, bosses, orders, tags and cars, and a cache."""
    async with shop_in(database_url, valkey_url) as found:
        yield found


@pytest.fixture
async def market(database_url: str, valkey_url: str) -> AsyncIterator[Market]:
    """Shops and wares, and a factory that is watched."""
    async with market_in(database_url, valkey_url) as found:
        yield found
