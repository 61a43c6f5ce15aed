"""What all errors have in common."""

from __future__ import annotations

from collections.abc import Iterable


class FastRDBError(Exception):
    """Whatever fastrdb raises on its own account."""


def listed(said: Iterable[str], most: int = 10) -> str:
    """Join what is said of several things; of many, of the first ones alone."""
    every = list(said)
    rest = [f"and {len(every) - most} more"] if len(every) > most else []
    return "; ".join([*every[:most], *rest])
