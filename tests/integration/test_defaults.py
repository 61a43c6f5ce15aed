"""The process-wide defaults: where they come from, whose they are, and how they end."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text

from fastrdb.db import defaults, environment
from fastrdb.db.clients import create_redis_client
from fastrdb.db.defaults import configure, configure_redis, get_redis_client, get_redis_pool, redis_health_check
from fastrdb.errors import ConfigurationError, SettingRefused, UrlRefused

PARTS = ("DATABASE_URL", "DB_HOST", "DB_PORT", "DB_NAME", "DB_USER", "DB_PASSWORD", "DB_DRIVER", "REDIS_URL")


@pytest.fixture(autouse=True)
async def clean(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """No variable is set before a test, and no default is left after it."""
    for name in PARTS:
        monkeypatch.delenv(name, raising=False)
    yield
    await defaults.reset()


async def test_engine_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch, postgres_url: str) -> None:
    """Without ``configure`` the default engine is that of DATABASE_URL, and its factory makes sessions on it."""
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    async with defaults.sessionmaker()() as session:
        assert await session.scalar(text("SELECT 1")) == 1
        assert session.bind is defaults.engine()


async def test_configure_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch, sqlite_url: str) -> None:
    """What was configured is used, whatever the environment says."""
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@nowhere/none")
    configure(url=sqlite_url)
    assert defaults.engine().dialect.name == "sqlite"


async def test_parts_make_a_url(monkeypatch: pytest.MonkeyPatch) -> None:
    """DB_HOST and the rest add up to a URL, in which a password may have any characters."""
    for name, value in {"DB_HOST": "db", "DB_NAME": "shop", "DB_USER": "ann", "DB_PASSWORD": "p@s:s/w"}.items():
        monkeypatch.setenv(name, value)
    assert environment.get_database_url_from_env() == "postgresql+asyncpg://ann:p%40s%3As%2Fw@db/shop"
    monkeypatch.setenv("DB_PORT", "6543")
    assert environment.database_url().endswith("@db:6543/shop")


async def test_missing_parts_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """An incomplete set of parts is a ValueError that names what is missing."""
    monkeypatch.setenv("DB_HOST", "db")
    with pytest.raises(ValueError, match="DB_NAME: not set"):
        environment.get_database_url_from_env()


async def test_nothing_set_says_what_to_set() -> None:
    """Without any setting the error names the variable and the call."""
    with pytest.raises(SettingRefused, match=r"DATABASE_URL.*configure"):
        defaults.engine()
    with pytest.raises(SettingRefused, match=r"REDIS_URL.*configure"):
        defaults.redis_client()


@pytest.mark.parametrize(
    ("name", "value", "read"),
    [
        ("DB_POOL_SIZE", "many", environment.pool_size),
        ("DB_POOL_SIZE", "-1", environment.pool_size),
        ("DB_POOL_TIMEOUT", "soon", environment.pool_timeout),
        ("SQLALCHEMY_ECHO", "maybe", environment.echo),
    ],
)
async def test_meaningless_variable_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, read: object
) -> None:
    """A variable whose value means nothing is named, with what it takes."""
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingRefused, match=f"{name}: .* is needed, not '{value}'"):
        read()  # type: ignore[operator]  # one of the readers above


async def test_configure_after_first_use_is_refused(valkey_url: str) -> None:
    """A setting that would come too late raises; the same setting again does not, nor does one after a reset."""
    configure(redis_url=valkey_url)
    client = get_redis_client()
    configure(redis_url=valkey_url)
    with pytest.raises(ConfigurationError, match="await reset"):
        configure_redis(max_connections=3)
    await defaults.reset()
    configure_redis(valkey_url, max_connections=3, decode_responses=True)
    assert get_redis_client() is not client
    assert get_redis_pool().max_connections == 3
    assert await get_redis_client().set("a", "b")
    assert await get_redis_client().get("a") == "b"


async def test_more_callers_than_connections_wait(valkey_url: str) -> None:
    """A pool of two connections serves fifty callers at once."""
    configure_redis(valkey_url, max_connections=2)
    counts = await asyncio.gather(*(get_redis_client().incr("n") for _ in range(50)))
    assert sorted(counts) == list(range(1, 51))


async def test_second_loop_gets_its_own(valkey_url: str, postgres_url: str) -> None:
    """A second event loop gets an engine and a client that work there, and resets only those."""
    configure(url=postgres_url, redis_url=valkey_url)
    mine = (defaults.engine(), defaults.redis_client())

    async def elsewhere() -> tuple[object, object]:
        async with defaults.engine().connect() as connection:
            assert (await connection.execute(text("SELECT 1"))).scalar() == 1
        assert await redis_health_check()
        other = (defaults.engine(), defaults.redis_client())
        await defaults.reset()
        return other

    theirs = await asyncio.to_thread(asyncio.run, elsewhere())
    assert theirs[0] is not mine[0]
    assert theirs[1] is not mine[1]
    assert (defaults.engine(), defaults.redis_client()) == mine
    assert await redis_health_check()


async def test_client_of_an_import_is_taken_over(monkeypatch: pytest.MonkeyPatch, valkey_url: str) -> None:
    """A client that a module made at import, without a loop, is the one that the first loop gets."""
    monkeypatch.setenv("REDIS_URL", valkey_url)
    early = await asyncio.to_thread(get_redis_client)
    assert get_redis_client() is early
    assert await redis_health_check()


async def test_health_check_of_a_dead_server(private_redis: object) -> None:
    """A Redis that is not there, or not named, is not healthy; nothing is raised."""
    assert not await redis_health_check()
    server = private_redis()  # type: ignore[operator]  # the fixture's function
    configure_redis(server.url)
    assert await redis_health_check()
    server.kill()
    assert not await redis_health_check()


async def test_malformed_redis_url_hides_its_password() -> None:
    """The error for a malformed URL does not repeat it, nor does its cause."""
    with pytest.raises(UrlRefused, match="redis://user:password@host") as caught:
        create_redis_client("redis://ann:hun:ter2@host:port/x")
    assert "ter2" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None
