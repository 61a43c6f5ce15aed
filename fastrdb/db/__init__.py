"""Sessions: what a ``db`` argument may be, and dependencies for request handlers."""

from .dependencies import Dependency, Opened, async_get_db, get_redis
from .sessions import Database, SessionFactory

__all__ = ["Database", "Dependency", "Opened", "SessionFactory", "async_get_db", "get_redis"]
