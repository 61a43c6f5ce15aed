"""Locks that processes share: in Redis with fencing numbers, and PostgreSQL's advisory locks."""

from .loss import Loss
from .postgres import PgAdvisoryLock, advisory_number, pg_advisory_lock
from .redis import RedisLock, redis_lock

__all__ = ["Loss", "PgAdvisoryLock", "RedisLock", "advisory_number", "pg_advisory_lock", "redis_lock"]
