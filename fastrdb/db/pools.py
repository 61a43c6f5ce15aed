"""How busy a pool of connections is."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import AsyncAdaptedQueuePool
from sqlalchemy.ext.asyncio import AsyncEngine


class PoolStatus(NamedTuple):
    """Numbers of connections; ``None`` where the kind of pool does not know.

    Attributes:
        size: How many are kept.
        checked_out: How many are in use.
        checked_in: How many are open and free.
        overflow: How many are open beyond *size*.
        waiting: How many callers wait for one.
    """

    size: int | None
    checked_out: int | None
    checked_in: int | None
    overflow: int | None
    waiting: int | None


def pool_status(engine: AsyncEngine) -> PoolStatus:
    """Give the numbers of an engine's pool as they are now. Costs no I/O."""
    pool = engine.pool
    if not isinstance(pool, AsyncAdaptedQueuePool):
        return PoolStatus(None, None, None, None, None)
    return PoolStatus(
        size=pool.size(),
        checked_out=pool.checkedout(),
        checked_in=pool.checkedin(),
        overflow=max(0, pool.overflow()),
        waiting=_waiting(pool),
    )


def _waiting(pool: AsyncAdaptedQueuePool) -> int | None:
    # Neither SQLAlchemy nor asyncio tells; ours to lose if their insides change.
    queue: Any = getattr(pool, "_pool", None)
    getters = getattr(getattr(queue, "_queue", None), "_getters", None)
    return None if getters is None else sum(not getter.done() for getter in getters)
