"""Errors of connections and transactions."""

from __future__ import annotations

from .base import FastRDBError


class DatabaseUnavailable(FastRDBError, ConnectionError):
    """The database cannot be reached, or refuses the connection; the driver's error is the cause."""


class TransactionError(FastRDBError):
    """A transaction is not in the state that the call needs; nothing was sent."""
