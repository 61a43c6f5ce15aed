"""What is kept in a database for caches whose Redis was away: read again, and delivered, before anything is served.

A write that cannot reach Redis leaves its invalidation in the transaction that it commits. Each process looks there

- whenever it has opened a connection to Redis, before that connection is used: a Redis that was away may hold values
  from before such a write, and its writer may be dead;
- every few seconds: the process may not have noticed that Redis was away for another one.

A look delivers all that it finds, whoever else may be doing so: rows that somebody has locked are not delivered yet,
and to pass over them would mean to serve what they age. To drop a value twice harms nobody.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import weakref
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from contextvars import Context
from typing import Any, NamedTuple, Protocol, cast, runtime_checkable

from ..errors import CacheError, CacheUnavailable
from .protocol import random_name
from .store import Release, Store

logger = logging.getLogger("fastrdb.cache")

LOOK_S = 10.0  # how long a look may take before its connection is given up; others are answered from SQL meanwhile
_COMMANDS = 1_000  # that are sent in one round trip
_CLOSE_S = 2.0  # how long closing waits for a look that is under way


class KeptRow(NamedTuple):
    """An invalidation that a committed write has left: its name, and the keys that it drops."""

    id: str
    keys: Sequence[bytes]


@runtime_checkable
class Outbox(Protocol):
    """Invalidations that lie in a database until they are delivered.

    Attributes:
        look_every_s: Seconds from one look to the next.
    """

    look_every_s: float

    async def read(self, namespace: str, after: str) -> Sequence[KeptRow]:
        """Give the next rows of a namespace that are committed, in the order of their ids; none after the last."""
        ...

    async def delete(self, ids: Collection[str]) -> None:
        """Delete rows that are delivered; those that are gone already are no error."""
        ...


class Replay:
    """Looks into an outbox for one event loop.

    Args:
        outbox: Where to look.
        namespace: Whose rows are delivered.
        make_store: Gives a store to deliver over, whose connections wait for no look.
    """

    def __init__(self, outbox: Outbox, namespace: str, make_store: Callable[[], Store]) -> None:
        self._outbox, self._namespace, self._make_store = outbox, namespace, make_store
        self._one = asyncio.Lock()
        self._delivered: set[str] = set()
        self._failing: set[str] = set()
        self._closing, self._pid = False, os.getpid()
        self._wake = asyncio.Event()
        loop = asyncio.get_running_loop()
        self._patrol = loop.create_task(self._look_again_and_again(), name="fastrdb-outbox", context=Context())
        # A loop that is closed without cancelling its tasks: nothing is lost, so nothing is logged.
        cast("Any", self._patrol)._log_destroy_pending = False

    async def look(self) -> None:
        """Deliver all that was committed before this call.

        Raises:
            CacheUnavailable: The database did not give it, or Redis did not take it.
        """
        await self._look()
        if self._delivered:  # deleted by another task: who waits here may be a writer that keeps others from writing
            self.soon()

    def soon(self) -> None:
        """Look now rather than later."""
        self._wake.set()

    async def aclose(self) -> None:
        """Stop; what is not delivered is left to others."""
        self._closing = True
        self._wake.set()
        await asyncio.wait([self._patrol], timeout=_CLOSE_S)
        self._patrol.cancel()
        await asyncio.wait([self._patrol])

    def cancel(self) -> None:
        """Stop looking, from any thread; a child process stops nothing of its parent's."""
        loop = self._patrol.get_loop()
        if self._pid == os.getpid() and not loop.is_closed():
            loop.call_soon_threadsafe(self._patrol.cancel)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(LOOK_S), self._one:
                await self._deliver()
        except CacheError:
            raise
        except Exception as error:  # whatever a driver raises
            self._tell("read", error)
            raise CacheUnavailable(f"the outbox could not be read: {type(error).__name__}") from error
        self._tell("read", None)

    async def _deliver(self) -> None:
        rows = await self._outbox.read(self._namespace, "")
        if not rows:
            return
        store, count = self._make_store(), 0
        try:
            while rows:
                await _drop(store, list(dict.fromkeys(key for row in rows for key in row.keys)))
                self._delivered.update(row.id for row in rows)
                count += len(rows)
                rows = await self._outbox.read(self._namespace, rows[-1].id)
        finally:
            await store.aclose()
        logger.warning("the outbox had the invalidations of %d writes: they are delivered", count)

    async def _look_again_and_again(self) -> None:
        while not self._closing:
            pause_s = self._outbox.look_every_s * random.uniform(0.8, 1.0)  # apart from other processes
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):  # wait_for would swallow a cancellation
                    await self._wake.wait()
            self._wake.clear()
            with suppress(CacheError):  # the next look comes
                if not self._closing:
                    await self._look()
            await self._clear()

    async def _clear(self) -> None:
        done = list(self._delivered)
        if not done:
            return
        try:
            await self._outbox.delete(done)
        except Exception as error:  # whatever a driver raises: they are delivered once more
            self._tell("emptied", error)
        else:
            self._tell("emptied", None)
            self._delivered.difference_update(done)

    def _tell(self, deed: str, error: Exception | None) -> None:
        if error is None:
            self._failing.discard(deed)
        elif deed not in self._failing:
            self._failing.add(deed)
            logger.warning("the outbox cannot be %s: %s; it is tried again", deed, type(error).__name__)


def abandon(replay: weakref.ref[Replay]) -> None:
    """Stop the looks for a cache that nobody has any more."""
    if (found := replay()) is not None:
        found.cancel()


async def _drop(store: Store, keys: Sequence[bytes]) -> None:
    nobody = random_name()
    for start in range(0, len(keys), _COMMANDS):
        await store.run([Release(key, nobody) for key in keys[start : start + _COMMANDS]])
