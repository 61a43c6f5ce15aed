"""Engines and sessions: what a ``db`` argument may be, how to build it, and dependencies for request handlers."""

from .blocks import with_async_session
from .clients import create_redis_client
from .defaults import configure, configure_redis, get_redis_client, get_redis_pool, redis_health_check, reset_redis
from .dependencies import Dependency, Opened, async_get_db, get_redis
from .engines import create_async_engine, create_async_sessionmaker
from .environment import get_database_url_from_env
from .handlers import (
    DatabaseDependencies,
    configure_database_dependencies,
    create_custom_session_dependency,
    get_database_dependencies,
    get_db,
    get_read_session,
    get_write_session,
)
from .manager import DatabaseManager
from .pools import PoolStatus, pool_status
from .read_only import read_only_sessionmaker
from .routing import create_routing_sessionmaker
from .savepoints import TransactionManager
from .sessions import Database, SessionFactory

__all__ = [
    "Database",
    "DatabaseDependencies",
    "DatabaseManager",
    "Dependency",
    "Opened",
    "PoolStatus",
    "SessionFactory",
    "TransactionManager",
    "async_get_db",
    "configure",
    "configure_database_dependencies",
    "configure_redis",
    "create_async_engine",
    "create_async_sessionmaker",
    "create_custom_session_dependency",
    "create_redis_client",
    "create_routing_sessionmaker",
    "get_database_dependencies",
    "get_database_url_from_env",
    "get_db",
    "get_read_session",
    "get_redis",
    "get_redis_client",
    "get_redis_pool",
    "get_write_session",
    "pool_status",
    "read_only_sessionmaker",
    "redis_health_check",
    "reset_redis",
    "with_async_session",
]
