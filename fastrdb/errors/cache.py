"""Errors of the cache."""

from __future__ import annotations

from .base import FastRDBError


class CacheError(FastRDBError):
    """The cache could not do what was asked of it."""


class CacheUnavailable(CacheError):
    """Redis could not be reached, or did not answer in time. Reads are answered from SQL instead."""


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
