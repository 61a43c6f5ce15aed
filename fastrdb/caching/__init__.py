"""SmartCache: a namespaced key-value cache for whatever is not a row."""

from ..db.defaults import get_redis_client
from .counts import SmartStats
from .names import Id
from .smart import SmartCache

__all__ = ["Id", "SmartCache", "SmartStats", "get_redis_client"]
