"""Errors of locks."""

from __future__ import annotations

from .base import FastRDBError


class LockError(FastRDBError):
    """A lock could not do what was asked of it."""


class LockTimeout(LockError, TimeoutError):
    """Somebody else had the lock for as long as the caller was told to wait. Nothing is held.

    Attributes:
        name: The lock's name or key.
        waited_s: How long was waited, in seconds.
    """

    def __init__(self, name: str, waited_s: float) -> None:
        super().__init__(name, waited_s)
        self.name, self.waited_s = name, waited_s

    def __str__(self) -> str:
        return f"lock {self.name!r}: somebody else had it for all of {self.waited_s} s; wait longer, or try again later"


class LockNotAcquired(LockError):
    """Somebody else has the lock; or this object releases or renews one that it does not hold.

    Attributes:
        name: The lock's name or key.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"lock {self.name!r}: {self.problem}"


class LockUnavailable(LockError):
    """The lock's server did not answer. Whatever was asked of it may or may not have been done.

    A lock in Redis that was taken unnoticed ends by itself after its ttl; one in PostgreSQL, with its connection.

    Attributes:
        name: The lock's name or key.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        return f"lock {self.name!r}: the server could not be asked ({self.problem}); check that it runs, and try again"
