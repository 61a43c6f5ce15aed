"""The process-wide defaults: the database and the Redis of code that names none.

Values come from ``configure``, else from a ``DatabaseManager`` that was started, else from the environment. What they
describe is built at first use, once for each event loop: connections belong to the loop that opened them. Without a
running loop, at import say, one is built that the first loop to ask takes over. Everything else in fastrdb takes its
connections as arguments, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Generic, NamedTuple, TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.exceptions import RedisError
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from ..errors import ConfigurationError
from . import environment
from .clients import create_redis_client
from .engines import create_async_engine, create_async_sessionmaker

T = TypeVar("T")


@dataclass(frozen=True)
class _Settings:
    url: str | URL | None = field(default=None, repr=False)
    redis_url: str | None = field(default=None, repr=False)
    engine_kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    session_kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)
    redis_kwargs: Mapping[str, Any] = field(default_factory=dict, repr=False)


class _Database(NamedTuple):
    engine: AsyncEngine
    sessionmaker: async_sessionmaker[AsyncSession]
    ours: bool  # built here, so disposed of here


class _PerLoop(Generic[T]):
    """One object for each event loop, and one without a loop until a loop asks."""

    def __init__(self) -> None:
        self._of: dict[asyncio.AbstractEventLoop | None, T] = {}

    def __bool__(self) -> bool:
        self._prune()
        return bool(self._of)

    def get(self, build: Callable[[], T]) -> T:
        """Give this loop's, built if there is none."""
        found = self.current()
        return found if found is not None else self.put(build())

    def current(self) -> T | None:
        """Give this loop's, if there is one."""
        self._prune()
        loop = _running()
        if loop not in self._of and None in self._of:
            self._of[loop] = self._of.pop(None)
        return self._of.get(loop)

    def put(self, value: T) -> T:
        """Set this loop's."""
        self._of[_running()] = value
        return value

    def take(self) -> T | None:
        """Give this loop's away."""
        self.current()
        return self._of.pop(_running(), None)

    def _prune(self) -> None:
        # A weak dictionary would keep them: connections refer to the loop.
        for loop in [loop for loop in self._of if loop is not None and loop.is_closed()]:
            del self._of[loop]


class _Defaults:
    """What is configured and built."""

    def __init__(self) -> None:
        self.settings = _Settings()
        self.databases: _PerLoop[_Database] = _PerLoop()
        self.clients: _PerLoop[Redis] = _PerLoop()
        self.dependencies: object = None

    def database(self) -> _Database:
        return self.databases.get(self._build_database)

    def client(self) -> Redis:
        return self.clients.get(self._build_client)

    def _build_database(self) -> _Database:
        engine = create_async_engine(self.settings.url, **self.settings.engine_kwargs)
        return _Database(engine, create_async_sessionmaker(engine, **self.settings.session_kwargs), ours=True)

    def _build_client(self) -> Redis:
        return create_redis_client(self.settings.redis_url, **self.settings.redis_kwargs)


_defaults = _Defaults()  # the one mutable module state of fastrdb; reset() empties it


def configure(
    *,
    url: str | URL | None = None,
    redis_url: str | None = None,
    engine_kwargs: Mapping[str, Any] | None = None,
    session_kwargs: Mapping[str, Any] | None = None,
    redis_kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Set the defaults of this process; what is left out stays as it was.

    Args:
        url: Of the database; wins over the environment and over a ``DatabaseManager`` that is started later.
        redis_url: ``redis://``, ``rediss://`` or ``unix://``.
        engine_kwargs: For ``create_async_engine``.
        session_kwargs: For ``create_async_sessionmaker``.
        redis_kwargs: For ``create_redis_client``.

    Raises:
        ConfigurationError: What it would change is in use already: call this first, or ``await reset()`` before.
    """
    old = _defaults.settings
    given = {
        "url": url,
        "redis_url": redis_url,
        "engine_kwargs": engine_kwargs,
        "session_kwargs": session_kwargs,
        "redis_kwargs": redis_kwargs,
    }
    changes: dict[str, Any] = {
        name: value for name, value in given.items() if value is not None and value != getattr(old, name)
    }
    redis = {name for name in changes if name.startswith("redis")}
    if (redis and _defaults.clients) or (changes.keys() - redis and _defaults.databases):
        raise ConfigurationError(
            f"configure: {', '.join(changes)} after the first use; configure earlier, or await reset() first"
        )
    _defaults.settings = replace(old, **changes)


def engine() -> AsyncEngine:
    """Give the default engine of this event loop.

    Raises:
        SettingRefused: No URL was configured, and the environment has none.
    """
    return _defaults.database().engine


def sessionmaker() -> async_sessionmaker[AsyncSession]:
    """Give the factory of sessions on the default engine of this event loop. Raises as ``engine`` does."""
    return _defaults.database().sessionmaker


def redis_client() -> Redis:
    """Give the default Redis client of this event loop; never close it, ``reset`` does.

    Raises:
        SettingRefused: No URL was configured, and ``REDIS_URL`` is not set.
    """
    return _defaults.client()


def get_redis_client() -> Redis:
    """Give the default Redis client of this event loop. The same as ``redis_client``."""
    return redis_client()


def get_redis_pool() -> BlockingConnectionPool:
    """Give the pool of the default Redis client: callers above its size wait for a connection instead of failing."""
    pool = redis_client().connection_pool
    assert isinstance(pool, BlockingConnectionPool)
    return pool


def configure_redis(
    url: str | None = None, *, max_connections: int | None = None, timeout_s: float | None = None, **options: Any
) -> None:
    """Set how the default Redis client is built; what is left out stays as it was.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``.
        max_connections: Size of the pool.
        timeout_s: Seconds to wait for a free connection.
        options: Of redis-py's connections, such as ``decode_responses=True``.

    Raises:
        ConfigurationError: The client is in use already: call this first, or ``await reset_redis()`` before.
    """
    named = {"max_connections": max_connections, "timeout_s": timeout_s}
    given = options | {name: value for name, value in named.items() if value is not None}
    configure(redis_url=url, redis_kwargs={**_defaults.settings.redis_kwargs, **given})


async def redis_health_check(timeout_s: float = 1.0) -> bool:
    """Tell whether the default Redis answers within *timeout_s* seconds. ``fastrdb.health`` says why it does not."""
    try:
        async with asyncio.timeout(timeout_s):
            await redis_client().ping()
    except (RedisError, OSError, ConfigurationError):  # a TimeoutError is an OSError
        return False
    return True


async def reset_redis() -> None:
    """Forget how the default Redis client is built, and close that of this event loop."""
    client = _defaults.clients.take()
    _defaults.settings = replace(_defaults.settings, redis_url=None, redis_kwargs={})
    if client is not None:
        await client.aclose()


async def reset() -> None:
    """Forget all that was configured, and close what was built for this event loop.

    Another loop that is still open keeps what it has until it calls this itself.
    """
    await reset_redis()
    database = _defaults.databases.take()
    _defaults.settings, _defaults.dependencies = _Settings(), None
    if database is not None and database.ours:
        await database.engine.dispose()


def adopt(engine: AsyncEngine, sessionmaker: async_sessionmaker[AsyncSession]) -> None:
    """Make a manager's engine the default of this event loop, unless there is one, or one is configured."""
    if _defaults.settings.url is None and _defaults.databases.current() is None:
        _defaults.databases.put(_Database(engine, sessionmaker, ours=False))


def withdraw(engine: AsyncEngine) -> None:
    """Undo ``adopt``: the engine is about to be disposed of."""
    current = _defaults.databases.current()
    if current is not None and current.engine is engine:
        _defaults.databases.take()


def set_dependencies(dependencies: object) -> None:
    """Keep what ``configure_database_dependencies`` was given."""
    _defaults.dependencies = dependencies


def dependencies() -> object:
    """Give what ``set_dependencies`` was given last; ``None`` after a reset."""
    return _defaults.dependencies


def database_is_set() -> bool:
    """Tell whether there is a default database: built, configured or named by the environment."""
    if _defaults.settings.url is not None or _defaults.databases.current() is not None:
        return True
    return _resolves(environment.database_url)


def redis_is_set() -> bool:
    """Tell whether there is a default Redis: built, configured or named by the environment."""
    if _defaults.settings.redis_url is not None or _defaults.clients.current() is not None:
        return True
    return _resolves(environment.redis_url)


def _resolves(read: Callable[[], str]) -> bool:
    try:
        read()
    except ConfigurationError:
        return False
    return True


def _running() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
