"""Engines and factories of sessions, with settings that a service can go live with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import sqlalchemy.ext.asyncio as sa
from sqlalchemy import URL, AsyncAdaptedQueuePool, NullPool
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from . import environment, sqlite
from .settings import Settings
from .urls import Target

COMMAND_TIMEOUT_S = 60


def create_async_engine(
    url: str | URL | None = None,
    *,
    pool_size: int | None = None,
    max_overflow: int | None = None,
    pool_recycle: int | None = None,
    pool_pre_ping: bool | None = None,
    pool_timeout: float | None = None,
    echo: bool | str | None = None,
    pgbouncer: bool | None = None,
    connect_args: Mapping[str, Any] | None = None,
    **kwargs: Any,
) -> AsyncEngine:
    """Give an engine, which connects when it is first used.

    What is left out is taken from the URL's query (``?pool_size=5``), else from the environment, else from the
    defaults in brackets.

    Args:
        url: With or without a driver: ``postgresql://``, ``postgres://``, ``mysql://``, ``mariadb://``, ``sqlite://``;
            ``DATABASE_URL``, or the ``DB_…`` variables, if it is left out.
        pool_size: Connections that are kept (20; ``DB_POOL_SIZE``).
        max_overflow: Connections beyond these, closed after use (30; ``DB_MAX_OVERFLOW``).
        pool_recycle: Seconds after which a connection is replaced (3600, never for SQLite; ``DB_POOL_RECYCLE``).
        pool_pre_ping: Try a connection before it is used (yes, but not for SQLite).
        pool_timeout: Seconds to wait for a free connection (30; ``DB_POOL_TIMEOUT``).
        echo: Log statements (no; ``SQLALCHEMY_ECHO``); ``"debug"`` logs rows, too.
        pgbouncer: PgBouncer in transaction mode stands before PostgreSQL (no): no prepared statement outlives its use,
            and PgBouncer keeps the connections, unless *pool_size* is given.
        connect_args: For the driver; wins over the defaults, one by one, those in ``server_settings`` as well.
        kwargs: As SQLAlchemy's function of this name takes them; *poolclass* replaces the pool described here.

    Raises:
        UrlRefused: The URL is malformed, or its driver is unknown or sync. The message never has a password in it.
        SettingRefused: There is no URL, or a setting in the URL or the environment means nothing.
        MissingExtra: The driver is not installed.
    """
    target = Target.of(url or environment.database_url())
    arguments = {
        "pool_size": pool_size,
        "max_overflow": max_overflow,
        "pool_recycle": pool_recycle,
        "pool_pre_ping": pool_pre_ping,
        "pool_timeout": pool_timeout,
        "echo": echo,
        "pgbouncer": pgbouncer,
    }
    local = target.url.get_backend_name() == "sqlite"
    settings = Settings.of(arguments, target.settings, local=local)
    given = {**target.connect_args, **(connect_args or {})}
    private = local and "poolclass" not in kwargs and sqlite.in_memory(target.url)
    engine = sa.create_async_engine(
        target.url,
        echo=settings.echo,
        connect_args=_connect_args(target.url.get_driver_name(), settings, given),
        **{**_pool(settings, kwargs), **kwargs},
    )
    if local:
        sqlite.prepare(engine.sync_engine, private=private)
    return engine


def create_async_sessionmaker(engine: AsyncEngine | None = None, **kwargs: Any) -> async_sessionmaker[AsyncSession]:
    """Give a factory of sessions whose objects stay readable after a commit.

    Args:
        engine: What its sessions use; may be left out where *binds* or a session class says it.
        kwargs: As SQLAlchemy's ``async_sessionmaker`` takes them; they win.
    """
    return async_sessionmaker(engine, **{"expire_on_commit": False, **kwargs})


def _pool(settings: Settings, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    every = {"pool_pre_ping": settings.pool_pre_ping, "pool_recycle": settings.pool_recycle}
    if "poolclass" in kwargs and kwargs["poolclass"] is not AsyncAdaptedQueuePool:
        return every
    if settings.pool_size is None:
        return {"poolclass": NullPool}
    return {
        **every,
        "poolclass": AsyncAdaptedQueuePool,
        "pool_size": settings.pool_size,
        "max_overflow": settings.max_overflow,
        "pool_timeout": settings.pool_timeout,
    }


def _connect_args(driver: str, settings: Settings, given: dict[str, Any]) -> dict[str, Any]:
    if driver == "asyncpg":
        ours = _asyncpg_arguments(settings)
        server = {**ours["server_settings"], **(given.get("server_settings") or {})}
        return {**ours, **given, "server_settings": server}
    if driver.startswith("psycopg"):
        ours = {"application_name": settings.application_name}
        return {**ours, **({"prepare_threshold": None} if settings.pgbouncer else {"options": "-c jit=off"}), **given}
    return given


def _asyncpg_arguments(settings: Settings) -> dict[str, Any]:
    server = {"application_name": settings.application_name}
    if not settings.pgbouncer:
        return {"command_timeout": COMMAND_TIMEOUT_S, "server_settings": {**server, "jit": "off"}}
    # PgBouncer refuses start-up parameters that it does not know, such as jit. A statement that was prepared on one
    # server connection is unknown on the next, or is another one of the same name: SQLAlchemy, "Prepared Statement
    # Name with PGBouncer".
    return {
        "command_timeout": COMMAND_TIMEOUT_S,
        "server_settings": server,
        "statement_cache_size": 0,
        "prepared_statement_cache_size": 0,
        "prepared_statement_name_func": lambda: f"__fastrdb_{uuid4()}__",
    }
