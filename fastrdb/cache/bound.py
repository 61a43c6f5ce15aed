"""What a store has in one event loop, and the task that closes it when the loop ends."""

from __future__ import annotations

import asyncio
import os
import weakref
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Sequence
from contextvars import Context
from typing import Any, Final, Generic, TypeVar, cast

from fastrdb.errors import CacheClosed

from .store import Command, Reply

LOOK_S: Final = 5.0  # how long a primary that has stepped down, and closes nothing, may go unnoticed


class Bound(ABC):
    """The connections of a store in one event loop of one process.

    Attributes:
        epoch: Names the run of the server, or of the servers, that answer now; empty before the first.
    """

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self.epoch = b""
        self.keeper = self.loop.create_task(self._keep(), name="fastrdb-keeper", context=Context())
        # A loop that is closed without cancelling its tasks: nothing is lost, so nothing is logged.
        cast("Any", self.keeper)._log_destroy_pending = False

    async def _keep(self) -> None:
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                await self.look()
        finally:
            try:
                await self.close()
            except asyncio.CancelledError:  # a loop that shuts down cancels what closes, too, maybe before it began
                await self.close()
                raise

    @abstractmethod
    async def look(self) -> None:
        """Leave servers that are no longer the primaries they were: one that steps down may keep its connections."""

    @abstractmethod
    async def close(self) -> None:
        """Close the connections; who waits gets ``CacheClosed``."""


B = TypeVar("B", bound=Bound)


class BoundStore(ABC, Generic[B]):
    """A store that belongs to one event loop at a time: its connections, when they are needed, and their end.

    When that loop was closed, it may be used in another one. A forked process opens connections of its own.

    Args:
        timeout_s: Seconds from a call to its reply.
    """

    def __init__(self, timeout_s: float) -> None:
        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be positive, not {timeout_s}")
        self._timeout_s = timeout_s
        self._bound: B | None = None
        self._inherited: list[B] = []
        self._closed = False

    @abstractmethod
    def _open(self) -> B:
        """Give what belongs to the running event loop."""

    @property
    def epoch(self) -> bytes:
        """The run that answers now; empty before the first connection."""
        return self._bound.epoch if self._bound is not None else b""

    @abstractmethod
    def post(self, commands: Sequence[Command], *, bulk: bool = False) -> Awaitable[list[Reply]]:
        """Enqueue commands now; awaiting the replies is optional."""

    async def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Reply]:
        """Run commands in one round trip. Raises as ``read`` does; some of the commands may have run."""
        return await self.post(commands, bulk=bulk)

    async def aclose(self) -> None:
        """Close the connections; what waits for a reply gets ``CacheClosed``."""
        self._closed = True
        bound = self._bound
        if bound is None or bound.pid != os.getpid() or bound.loop.is_closed():
            return
        if bound.loop is asyncio.get_running_loop():
            bound.keeper.cancel()
            await asyncio.wait([bound.keeper])
            await bound.close()  # a keeper that was cancelled before it began has closed nothing
        else:
            bound.loop.call_soon_threadsafe(bound.keeper.cancel)

    def _bind(self) -> B:
        if self._closed:
            raise CacheClosed("the cache was closed")
        if (old := self._bound) is not None:
            if old.pid != os.getpid():
                self._inherited.append(old)
            elif not old.loop.is_closed():
                raise CacheClosed("this store belongs to another event loop, still open: build one per loop")
        self._bound = bound = self._open()
        weakref.finalize(self, _abandon, bound).atexit = False
        return bound


def _abandon(bound: Bound) -> None:
    """Close the connections of a store that nobody has any more."""
    if bound.pid == os.getpid() and not bound.loop.is_closed():
        bound.loop.call_soon_threadsafe(bound.keeper.cancel)
