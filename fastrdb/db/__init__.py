"""Engines and sessions: what a ``db`` argument may be, how to build it, and dependencies for request handlers."""

from .clients import create_redis_client
from .defaults import configure, configure_redis, get_redis_client, get_redis_pool, redis_health_check, reset_redis
from .dependencies import Dependency, Opened, async_get_db, get_redis
from .engines import create_async_engine, create_async_sessionmaker
from .environment import get_database_url_from_env
from .sessions import Database, SessionFactory

__all__ = [
    "Database",
    "Dependency",
    "Opened",
    "SessionFactory",
    "async_get_db",
    "configure",
    "configure_redis",
    "create_async_engine",
    "create_async_sessionmaker",
    "create_redis_client",
    "get_database_url_from_env",
    "get_redis",
    "get_redis_client",
    "get_redis_pool",
    "redis_health_check",
    "reset_redis",
]
