"""Models, engines and sessions: bases and mixins, what a ``db`` argument may be, and dependencies for handlers."""

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
from .models import (
    GUID,
    AuditMixin,
    Base,
    BaseModel,
    Conventions,
    FullAuditMixin,
    SoftDeleteAuditMixin,
    SoftDeleteMixin,
    SortableKeyMixin,
    TenantAuditMixin,
    TenantAwareMixin,
    TimestampMixin,
    UTCDateTime,
    VersionedMixin,
    create_check_constraint_name,
    create_foreign_key_name,
    create_index_name,
    create_unique_constraint_name,
    naming_convention,
    utc_now,
    uuid7,
)
from .pools import PoolStatus, pool_status
from .read_only import read_only_sessionmaker
from .replicas import ReadWrite
from .routing import create_routing_sessionmaker
from .savepoints import TransactionManager
from .sessions import Database, SessionFactory

__all__ = [
    "GUID",
    "AuditMixin",
    "Base",
    "BaseModel",
    "Conventions",
    "Database",
    "DatabaseDependencies",
    "DatabaseManager",
    "Dependency",
    "FullAuditMixin",
    "Opened",
    "PoolStatus",
    "ReadWrite",
    "SessionFactory",
    "SoftDeleteAuditMixin",
    "SoftDeleteMixin",
    "SortableKeyMixin",
    "TenantAuditMixin",
    "TenantAwareMixin",
    "TimestampMixin",
    "TransactionManager",
    "UTCDateTime",
    "VersionedMixin",
    "async_get_db",
    "configure",
    "configure_database_dependencies",
    "configure_redis",
    "create_async_engine",
    "create_async_sessionmaker",
    "create_check_constraint_name",
    "create_custom_session_dependency",
    "create_foreign_key_name",
    "create_index_name",
    "create_redis_client",
    "create_routing_sessionmaker",
    "create_unique_constraint_name",
    "get_database_dependencies",
    "get_database_url_from_env",
    "get_db",
    "get_read_session",
    "get_redis",
    "get_redis_client",
    "get_redis_pool",
    "get_write_session",
    "naming_convention",
    "pool_status",
    "read_only_sessionmaker",
    "redis_health_check",
    "reset_redis",
    "utc_now",
    "uuid7",
    "with_async_session",
]
