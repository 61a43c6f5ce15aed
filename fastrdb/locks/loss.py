"""What tells the holder of a lock that it holds it no longer."""

from __future__ import annotations

import asyncio
import logging
import math
import time

logger = logging.getLogger("fastrdb.locks")


class Loss:
    """True from the moment when a lock was lost while it was held; ``await loss.wait()`` waits for that.

    A process that was stopped, or whose event loop was blocked, beyond the lock's life finds it true at once when it
    goes on: truth asks the clock, too.

    Attributes:
        reason: Why the lock counts as lost; ``None`` as long as it does not.
    """

    def __init__(self, name: str, until: float = math.inf) -> None:
        self.reason: str | None = None
        self._name, self._until = name, until
        self._event = asyncio.Event()

    def __bool__(self) -> bool:
        return self.is_set()

    def is_set(self) -> bool:
        """Tell whether the lock was lost."""
        if self.reason is None and self.left_s <= 0:
            self.declare("it ran out before it was renewed")
        return self.reason is not None

    async def wait(self) -> None:
        """Return when the lock is lost; never, if it is released before."""
        await self._event.wait()

    @property
    def left_s(self) -> float:
        """Seconds until the lock runs out, if nobody renews it."""
        return self._until - time.monotonic()

    def put_off(self, until: float) -> None:
        """Count the lock as held until a time of this process's monotonic clock."""
        self._until = until

    def declare(self, reason: str) -> None:
        """Count the lock as lost from now on."""
        if self.reason is None:
            self.reason = reason
            logger.warning("lock %r was lost: %s", self._name, reason)
            self._event.set()

    def settle(self) -> None:
        """Leave it at what is known now: the lock is released."""
        if not self.is_set():
            self._until = math.inf

    def __repr__(self) -> str:
        return f"<Loss {self.reason or 'not lost'}>"
