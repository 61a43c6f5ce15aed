"""Errors of the cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .base import FastRDBError


class CacheError(FastRDBError):
    """The cache could not do what was asked of it."""


class CacheUnavailable(CacheError):
    """Redis could not be reached, or did not answer in time. Reads are answered from SQL instead."""


class CacheFull(CacheUnavailable):
    """Redis is out of memory: some of the values were not stored, and nothing older was left in their places.

    All else that was asked for has been done. Free memory, raise ``maxmemory``, or let Redis evict (``allkeys-lru``).

    Args:
        replies: What the commands answered, errors among it.

    Attributes:
        replies: What the commands answered, in their order; ``None`` where one was refused.
        refused: The places of those that were refused.
    """

    def __init__(self, replies: Sequence[Any]) -> None:
        super().__init__(replies)
        self.replies = [None if isinstance(reply, Exception) else reply for reply in replies]
        self.refused = frozenset(at for at, reply in enumerate(replies) if isinstance(reply, Exception))

    def __str__(self) -> str:
        return f"Redis is out of memory: {len(self.refused)} of {len(self.replies)} commands were refused"


class CacheClosed(CacheError):
    """The cache was closed, or belongs to an event loop that has ended: build a new one."""


class CacheShared(CacheError):
    """A second process opened the same ``memory://`` cache: use a Redis server to share one."""


class ServerRefused(CacheError):
    """The Redis server is too old for the protocol, or a setting of it would break the promise."""


class SerializationFailed(CacheError):
    """A value has no form that could be stored; nothing was.

    Attributes:
        key: What it was to be stored under.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key, self.problem = key, problem

    def __str__(self) -> str:
        return f"the value for {self.key!r} is not JSON ({self.problem}): pass plain data, such as model_dump() gives"
