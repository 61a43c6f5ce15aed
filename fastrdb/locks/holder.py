"""One holder of a lock: what every kind of lock does alike when it is acquired."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

from ..errors import LockError, LockNotAcquired, LockTimeout
from .loss import Loss
from .waiting import UNSET, Unset, Wait, chosen_wait, keep_trying, waiting_time


class Holder(ABC):
    """Acquires a lock once at a time, and as a block.

    Args:
        label: What errors and logs call the lock.
        wait: Seconds to wait for it, a timedelta, or ``None`` for as long as it takes.
    """

    def __init__(self, label: str, wait: Wait) -> None:
        self.wait_s = waiting_time("wait", wait)
        self.acquired = False
        self.lost = Loss(label)
        self._label = label
        self._acquiring = False

    async def acquire(self, timeout: Wait | Unset = UNSET, blocking: bool | None = None) -> bool:
        """Take the lock; tell whether that succeeded.

        Args:
            timeout: Seconds to wait, a timedelta, or ``None`` for as long as it takes; by default the lock's *wait*.
            blocking: ``False`` tries once; ``True`` without a timeout waits for as long as it takes.

        Raises:
            LockError: This object holds the lock already, or is acquiring it in another task.
            LockUnavailable: The server did not answer, or a pool has no connection left; in a caller's session
                SQLAlchemy's own errors pass through.
        """
        wait_s = chosen_wait(self.wait_s, timeout, blocking)
        if self.acquired or self._acquiring:
            raise LockError(f"lock {self._label!r}: this object has it already; every holder needs one of its own")
        self._acquiring = True
        try:
            return await keep_trying(self._try, wait_s)
        except asyncio.CancelledError:
            await self._undo()
            raise
        finally:
            self._acquiring = False

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go of what is held."""

    @abstractmethod
    async def _try(self) -> bool:
        """Try once."""

    @abstractmethod
    async def _undo(self) -> None:
        """Let go of a lock whose answer came together with the caller's cancellation."""

    def _must_hold(self, verb: str) -> None:
        if not self.acquired:
            raise LockNotAcquired(self._label, f"nothing to {verb}: call acquire() first, and see that it gives True")

    def must_have_acquired(self) -> None:
        """Raise for a lock that somebody else has.

        Raises:
            LockNotAcquired: Nobody waited for it.
            LockTimeout: Waiting was in vain.
        """
        if self.acquired:
            return
        if self.wait_s:
            raise LockTimeout(self._label, self.wait_s)
        raise LockNotAcquired(self._label, "somebody else has it; try again later, or pass wait= to wait for it")
