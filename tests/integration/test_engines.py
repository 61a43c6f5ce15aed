"""Engines: URLs, settings, and what each database is told at connection."""

import asyncio
import logging
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import NullPool, StaticPool, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession

from fastrdb.db import create_async_engine, create_async_sessionmaker
from fastrdb.db import urls as urls_module
from fastrdb.errors import MissingExtra, SettingRefused, UrlRefused

SECRET = "hunter2"


@asynccontextmanager
async def engine_on(url: str | None, **options: Any) -> AsyncIterator[AsyncEngine]:
    """An engine that is disposed of at the end."""
    engine = create_async_engine(url, **options)
    try:
        yield engine
    finally:
        await engine.dispose()


async def ask(engine: AsyncEngine, statement: str) -> Any:
    """The first value that a statement gives."""
    async with engine.connect() as connection:
        return (await connection.execute(text(statement))).scalar()


@pytest.mark.parametrize(
    ("given", "driver"),
    [
        ("postgresql://u@h/d", "postgresql+asyncpg"),
        ("postgres://u@h/d", "postgresql+asyncpg"),
        (" postgresql+asyncpg://u@h/d\n", "postgresql+asyncpg"),
        ("sqlite://", "sqlite+aiosqlite"),
        ("sqlite:///file.db", "sqlite+aiosqlite"),
    ],
)
def test_url_gets_an_async_driver(given: str, driver: str) -> None:
    """A URL without a driver gets the async one, and one with it keeps it."""
    assert create_async_engine(given).url.drivername == driver


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+asyncmy"])
def test_mysql_without_its_driver_names_the_extra(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver that is not installed is named with the extra that brings it, as an ImportError."""
    monkeypatch.setattr(urls_module, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'fastrdb\[mysql\]'") as caught:
        create_async_engine(f"{scheme}://u:{SECRET}@h/d")
    assert isinstance(caught.value, MissingExtra)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (f"postgresql+psycopg2://u:{SECRET}@h/d", r"write postgresql\+asyncpg://"),
        (f"postgresql+nonsense://u:{SECRET}@h/d", r"write postgresql\+asyncpg://"),
        ("sqlite+pysqlite:///x.db", r"write sqlite\+aiosqlite://"),
        (f"mysql+pymysql://u:{SECRET}@h/d", r"write mysql\+asyncmy://"),
        (f"oracle://u:{SECRET}@h/d", "no database 'oracle'"),
        (f"postgresql://u:{SECRET}@h:port/d", "malformed"),
        (f"u:{SECRET}@h/d", "malformed"),
        (f"postgresql://u:p@{SECRET}@h/d", "%40"),
    ],
)
def test_unusable_url_is_refused_without_its_password(given: str, message: str) -> None:
    """A URL that cannot work says what to write, and repeats no password, in its causes neither."""
    with pytest.raises(UrlRefused, match=message) as caught:
        create_async_engine(given)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_seed_defaults_of_the_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without settings there are 20 connections and 30 more, 30 seconds of patience, and an hour of life."""
    for name in ("DB_POOL_SIZE", "DB_MAX_OVERFLOW", "DB_POOL_RECYCLE", "DB_POOL_TIMEOUT", "SQLALCHEMY_ECHO"):
        monkeypatch.delenv(name, raising=False)
    engine = create_async_engine("postgresql://u@h/d")
    assert pool_of(engine) == (20, 30, 30, 3600, True)
    assert engine.echo is False


def test_argument_wins_over_url_over_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each setting comes from the argument, else the URL, else the environment."""
    for name, value in {
        "DB_POOL_SIZE": "1",
        "DB_MAX_OVERFLOW": "2",
        "DB_POOL_TIMEOUT": "3",
        "DB_POOL_RECYCLE": "4",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("SQLALCHEMY_ECHO", "true")
    url = "postgresql://u@h/d?max_overflow=20&pool_timeout=30&pool_pre_ping=no&echo=off"
    engine = create_async_engine(url, pool_timeout=300)
    assert pool_of(engine) == (1, 20, 300, 4, False)
    assert engine.echo is False
    assert engine.url.query == {}


def pool_of(engine: AsyncEngine) -> tuple[Any, ...]:
    """Size, overflow, timeout, recycle and pre-ping of a pool."""
    pool: Any = engine.pool
    return pool.size(), pool._max_overflow, pool._timeout, pool._recycle, pool._pre_ping


def test_meaningless_setting_in_a_url_is_refused() -> None:
    """A setting in the URL that means nothing is named."""
    with pytest.raises(SettingRefused, match="pool_size: the URL says 'many'"):
        create_async_engine("postgresql://u@h/d?pool_size=many")


async def test_dm_2_engine_of_a_server_and_of_a_file(database_url: str) -> None:
    """Engines for PostgreSQL and for a SQLite file can be built with the pool's arguments, and used."""
    async with engine_on(database_url, pool_size=2, max_overflow=1, pool_recycle=60, pool_pre_ping=True) as engine:
        assert await ask(engine, "SELECT 1") == 1


async def test_postgresql_is_told_who_connects(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PostgreSQL sees APP_NAME, and compiles nothing just in time."""
    monkeypatch.setenv("APP_NAME", "shop")
    async with engine_on(postgres_url) as engine:
        assert await ask(engine, "SHOW application_name") == "shop"
        assert await ask(engine, "SHOW jit") == "off"


async def test_connect_args_are_merged(postgres_url: str) -> None:
    """The caller's connect_args win one by one, and leave the other defaults as they are."""
    arguments = {"command_timeout": 0.3, "server_settings": {"application_name": "mine", "work_mem": "8MB"}}
    async with engine_on(postgres_url, connect_args=arguments) as engine:
        assert await ask(engine, "SHOW application_name") == "mine"
        assert await ask(engine, "SHOW work_mem") == "8MB"
        assert await ask(engine, "SHOW jit") == "off"
        with pytest.raises((TimeoutError, DBAPIError)):
            await ask(engine, "SELECT pg_sleep(30)")


async def test_sslmode_of_a_url_reaches_the_driver(postgres_url: str) -> None:
    """``?sslmode=disable``, as hosting services write it, does not break asyncpg."""
    async with engine_on(f"{postgres_url}?sslmode=disable") as engine:
        assert await ask(engine, "SELECT 1") == 1


async def test_no_prepared_statement_is_kept_for_pgbouncer(postgres_url: str) -> None:
    """With ``pgbouncer=True`` connections are not kept, and statements have names that nobody else uses."""
    async with engine_on(postgres_url, pgbouncer=True) as engine:
        assert isinstance(engine.pool, NullPool)
        async with engine.connect() as connection:
            names = await connection.execute(text("SELECT name FROM pg_prepared_statements"))
            assert all(name.startswith("__fastrdb_") for (name,) in names)
            assert (await connection.execute(text("SHOW application_name"))).scalar() == "fastrdb"
    assert pool_of(create_async_engine(postgres_url + "?pgbouncer=true", pool_size=3))[0] == 3


async def test_sqlite_file_is_set_up(sqlite_url: str) -> None:
    """A SQLite file has a write-ahead log, foreign keys that are checked, and writers that wait."""
    async with engine_on(sqlite_url) as engine:
        assert await ask(engine, "PRAGMA journal_mode") == "wal"
        assert await ask(engine, "PRAGMA foreign_keys") == 1
        assert await ask(engine, "PRAGMA busy_timeout") == 5000


async def test_sqlite_writers_wait_for_each_other(sqlite_url: str) -> None:
    """Twenty sessions that write to one file at once all succeed."""
    async with engine_on(sqlite_url) as engine:
        await twenty_writes(engine)


async def twenty_writes(engine: AsyncEngine) -> None:
    """Write from twenty sessions at once, and count."""
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE t (n INTEGER)"))

    async def write(n: int) -> None:
        async with AsyncSession(engine) as session, session.begin():
            await session.execute(text("INSERT INTO t VALUES (:n)"), {"n": n})
            await session.execute(text("SELECT n FROM t"))

    await asyncio.gather(*map(write, range(20)))
    assert await ask(engine, "SELECT count(*) FROM t") == 20


@pytest.mark.parametrize("url", ["sqlite+aiosqlite:///:memory:", "sqlite://"])
async def test_memory_is_shared_by_sessions(url: str) -> None:
    """Sessions on an in-memory engine see the same rows, at once too, and foreign keys are checked."""
    async with engine_on(url) as engine:
        await twenty_writes(engine)
        assert await ask(engine, "PRAGMA foreign_keys") == 1


async def test_session_in_memory_keeps_its_work_when_another_closes() -> None:
    """A session that reads and closes takes nothing of what another one is writing, and does not see it."""
    async with engine_on("sqlite://") as engine:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE t (n INTEGER)"))
        async with AsyncSession(engine) as writer:
            await writer.execute(text("INSERT INTO t VALUES (1)"))
            assert await ask(engine, "SELECT count(*) FROM t") == 0
            await writer.commit()
        assert await ask(engine, "SELECT count(*) FROM t") == 1


async def test_memory_ends_with_its_engine() -> None:
    """Two in-memory engines share nothing, and after dispose() nothing is left, on disk neither."""
    async with engine_on("sqlite://") as one, engine_on("sqlite://") as other:
        async with one.begin() as connection:
            await connection.execute(text("CREATE TABLE t (n INTEGER)"))
            folder = Path((await connection.exec_driver_sql("PRAGMA database_list")).one()[2]).parent
        assert await ask(other, "SELECT count(*) FROM sqlite_master") == 0
        assert folder in scratch_folders()
        await one.dispose()
        assert folder not in scratch_folders()
        assert await ask(one, "SELECT count(*) FROM sqlite_master") == 0


def scratch_folders() -> list[Path]:
    """The folders of in-memory databases, of whatever process."""
    return list(Path(tempfile.gettempdir()).glob("fastrdb-*"))


async def test_own_pool_leaves_memory_as_sqlalchemy_has_it() -> None:
    """A pool of the caller's own is used as it is."""
    async with engine_on("sqlite://", poolclass=StaticPool) as engine, engine.connect() as connection:
        assert (await connection.exec_driver_sql("PRAGMA database_list")).one()[2] == ""


async def test_objects_stay_readable_after_a_commit(sqlite_url: str) -> None:
    """A session of ``create_async_sessionmaker`` does not expire its objects, unless told to."""
    async with engine_on(sqlite_url) as engine:
        assert create_async_sessionmaker(engine)().sync_session.expire_on_commit is False
        assert create_async_sessionmaker(engine, expire_on_commit=True)().sync_session.expire_on_commit is True


async def test_password_is_in_no_log_and_no_repr(postgres_url: str, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the engine's repr nor anything logged has the password, wherever in the URL it stands."""
    caplog.set_level(logging.DEBUG)
    given = make_url(postgres_url).set(password=SECRET)
    in_query = make_url(postgres_url).update_query_dict({"password": SECRET})
    for url in (given, in_query):
        async with engine_on(url.render_as_string(hide_password=False), echo="debug") as engine:
            assert await ask(engine, "SELECT 1") == 1
            assert SECRET not in repr(engine) + str(engine.url) + repr(engine.pool)
    assert SECRET not in caplog.text
