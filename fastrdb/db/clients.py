"""Redis clients that wait for a free connection instead of failing."""

from __future__ import annotations

from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis

from ..errors import UrlRefused
from . import environment

MAX_CONNECTIONS = 50


def create_redis_client(
    url: str | None = None, *, max_connections: int | None = None, timeout_s: float | None = 20.0, **options: Any
) -> Redis:
    """Give a client with a pool of its own, which connects when it is used and is closed with it.

    Args:
        url: ``redis://``, ``rediss://`` or ``unix://``; ``REDIS_URL`` if it is left out.
        max_connections: Size of the pool; ``REDIS_MAX_CONNECTIONS``, or 50, if it is left out.
        timeout_s: Seconds to wait for a free connection; ``None`` for ever.
        options: Of redis-py's connections, such as ``decode_responses=True``.

    Raises:
        SettingRefused: No URL was given, and ``REDIS_URL`` is not set.
        UrlRefused: The URL is malformed.
    """
    size = max_connections or environment.redis_max_connections() or MAX_CONNECTIONS
    url = url or environment.redis_url()
    try:
        pool = BlockingConnectionPool.from_url(url, max_connections=size, timeout=timeout_s, **options)
    except ValueError:  # whose text may have the password in it
        pool = None
    if pool is None:
        raise UrlRefused("redis_url", "malformed; write redis://user:password@host:6379/0, rediss:// or unix://")
    return Redis.from_pool(pool)
