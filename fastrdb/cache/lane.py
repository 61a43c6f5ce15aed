"""A connection with its queue: reads that share round trips, pipelined commands, one timer for them all."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from itertools import chain
from math import inf
from typing import Final

from redis import exceptions as redis_errors

from fastrdb.errors import CacheClosed, CacheError

from .breaker import Breaker, State
from .requests import Batch, Call, Waiter, gather
from .store import Command, Found, Reply
from .wire import Failure, Wire, fail, unavailable

logger = logging.getLogger("fastrdb.cache")

Dial = Callable[[], Awaitable[Wire]]

# Two round trips under way: who comes while the server works on one need not wait for its end. A third would only make
# them smaller. Measured with 8 to 512 callers: 15 to 25 % faster than one.
_TRIPS: Final = 2
_WORTH_SENDING: Final = 32  # reads, before this turn of the loop is over
_GRACE_S: Final = 0.02  # a loop that was blocked looks at its sockets once more before the server is blamed


class Notice:
    """Says in the log that a server does not answer, or does again: once, whichever of its connections finds out."""

    def __init__(self) -> None:
        self._answers = True

    def tell(self, answers: bool, failure: Failure) -> None:
        """Take what one of the connections has found; *failure* says why there is no answer."""
        if answers is self._answers:
            return
        self._answers = answers
        if answers:
            logger.warning("Redis answers again")
        else:
            error = failure()
            logger.warning(
                "Redis does not answer: %s. Nobody waits for it until it does",
                str(error.__cause__ or error).rstrip("."),
            )


class Lane:
    """One connection of the running event loop, opened when it is needed, and again after it was lost.

    Args:
        dial: Opens a connection.
        timeout_s: Seconds from a call to its reply.
        notice: That of its server, which other connections share.
        batch, call: How reads are asked for together, and commands.
        on_trouble: Called when the connection was lost, or could not be opened.

    Attributes:
        shared: Reads that nobody cancels, which are enqueued and not yet sent: others may wait for them, too.
    """

    def __init__(
        self,
        dial: Dial,
        timeout_s: float,
        notice: Notice,
        *,
        batch: type[Batch] = Batch,
        call: type[Call] = Call,
        on_trouble: Callable[[], None] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._context = Context()  # callbacks are no caller's: they keep no context variables alive
        self._dial, self._timeout_s = dial, timeout_s
        self._batch, self._call, self._on_trouble = batch, call, on_trouble
        self.shared: dict[tuple[bytes, ...], asyncio.Future[Found]] = {}
        self._pid = os.getpid()
        self._closed = False
        self._notice = notice
        self._wire: Wire | None = None
        self._inherited: list[Wire | None] = []
        self._connecting: asyncio.Task[None] | None = None
        self._new: list[Waiter] = []
        self._again: list[Waiter] = []
        self._since = 0.0  # when the oldest of the waiting reads was enqueued
        self._flying = 0  # batches of reads under way
        self._queued: list[Call] = []  # until there is a connection
        self._timer: asyncio.TimerHandle | None = None
        self._breaker = Breaker(failures=1, clock=self._loop.time, changed=self._tell)
        self._refusal: Failure = partial(unavailable, redis_errors.ConnectionError("the connection was lost"))

    def read(self, entry: bytes, tokens: tuple[bytes, ...]) -> asyncio.Future[Found]:
        """Read an entry and tokens, together with whoever else reads in this turn of the loop."""
        future: asyncio.Future[Found] = self._loop.create_future()
        new = self._new
        new.append((future, entry, tokens))
        many = len(new)
        if many == 1:
            self._first()
        elif many == _WORTH_SENDING and self._flying < _TRIPS:
            self._flush()  # the server works on them while the others of this turn are on their way to here
        return future

    def post(self, commands: Sequence[Command], kind: type[Call] | None = None) -> asyncio.Future[list[Reply]]:
        """Send commands now, or as soon as there is a connection."""
        call = (kind or self._call)(self, commands, self._loop)
        if self._closed:
            call.fail(self._refusal)
        elif not commands:
            call.future.set_result([])
        elif self._wire is not None and os.getpid() == self._pid:
            self._wire.send(call.packed(), (call,))
            self._arm()
        else:
            self._queued.append(call)
            self._arm()
            self._connect()
        return call.future

    def repeat(self, call: Call) -> None:
        """Send a call once more, whose scripts the server had forgotten."""
        if self._wire is not None:
            self._wire.send(call.packed(), (call,))

    def again(self, batch: Batch) -> None:
        """Read once more what a lost connection did not answer."""
        self._flying -= 1
        self._since = min(self._since, batch.since) if self._new or self._again else batch.since
        self._again += batch.waiters

    def landed(self) -> None:
        """Note that a batch was answered; those who came meanwhile go next."""
        self._flying -= 1
        if self._flying < _TRIPS and self._new:
            self._soon(self._flush)

    def leave_soon(self, cause: Exception) -> None:
        """Give the connection up when all replies at hand are read."""
        self._soon(self.leave, cause)

    def leave(self, cause: Exception) -> None:
        """Give the connection up: its server has become a replica, or was replaced by another one."""
        if self._wire is not None:
            self._wire.lose(cause)

    async def open(self) -> None:
        """Connect, unless that is done; at once, however often it failed before.

        Raises:
            CacheError: It cannot be reached, or is refused.
        """
        if self._wire is None and not self._closed:
            self._breaker.hurry()
            self._connect()
            if (connecting := self._connecting) is not None:
                await asyncio.wait([connecting])
        if self._wire is None:
            raise self._refusal()

    async def look(self, same: Callable[[Wire], Awaitable[bool]]) -> None:
        """Give the connection up if its server is not the same any more; one that is slow just now stays."""
        wire = self._wire
        if wire is None:
            return
        with suppress(CacheError):
            if not await same(wire):
                wire.lose(redis_errors.ConnectionError("the server is not the primary any more that it was"))

    async def aclose(self, failure: Failure | None = None) -> None:
        """Close the connection; who waits gets ``CacheClosed``, or another failure."""
        closed = failure or partial(CacheClosed, "the cache was closed")
        self._closed, self._refusal = True, closed
        if self._timer is not None:
            self._timer.cancel()
        if (connecting := self._connecting) is not None:
            connecting.cancel()
            await asyncio.wait([connecting])
        wire, self._wire, self._refusal = self._wire, None, closed
        self._fail_waiting(closed)
        if wire is not None:
            await wire.aclose(closed)

    def _soon(self, callback: Callable[..., None], *args: object) -> None:
        self._loop.call_soon(callback, *args, context=self._context)

    def _first(self) -> None:
        if self._breaker.state is not State.CLOSED:
            self._connect()  # it is told now: a turn of the loop later others would have the database's connections
            return
        if not self._again:
            self._since = self._loop.time()
        self._arm()
        if self._flying < _TRIPS:
            self._soon(self._flush)

    def _flush(self) -> None:
        if os.getpid() != self._pid:
            self._after_fork()
        if self._wire is None:
            self._connect()
        elif self._flying < _TRIPS and (self._new or self._again):
            new, self._new, again, self._again = self._new, [], self._again, []
            self.shared = {}
            batches = [*gather(self, self._since, new, kind=self._batch)]
            if again:
                batches += gather(self, self._since, again, last_try=True, kind=self._batch)
            self._flying += len(batches)
            self._wire.send(b"".join([batch.packed() for batch in batches]), batches)

    def _connect(self) -> None:
        if os.getpid() != self._pid:
            self._after_fork()
        if self._closed:
            self._fail_waiting(self._refusal)
            return
        if (self._connecting is None or self._connecting.done()) and self._breaker.allows():
            self._connecting = self._loop.create_task(self._open(), name="fastrdb-connect", context=Context())
        if self._breaker.state is not State.CLOSED:
            self._fail_waiting(self._refusal)  # to connect is the trial: nobody waits for its end

    async def _open(self) -> None:
        try:
            self._wire = await self._dial()
        except CacheError as error:
            self._refusal = partial(copied, error)
            self._breaker.failed()
            self._fail_waiting(self._refusal)
            self._trouble()
        else:
            self._wire.on_lost = self._lost
            self._breaker.succeeded()
            queued, self._queued = self._queued, []
            for call in queued:
                self._wire.send(call.packed(), (call,))
            self._flush()
        finally:
            self._connecting = None

    def _lost(self) -> None:
        self._wire = None
        if self._new or self._again:
            self._connect()
        self._trouble()

    def _trouble(self) -> None:
        if self._on_trouble is not None and not self._closed:
            self._on_trouble()

    def _tell(self, answers: bool) -> None:
        self._notice.tell(answers, self._refusal)

    def _fail_waiting(self, failure: Failure) -> None:
        waiting, queued = [*self._again, *self._new], self._queued
        self._again, self._new, self._queued, self.shared = [], [], [], {}
        for future, _, _ in waiting:
            fail(future, failure)
        for call in queued:
            call.fail(failure)

    def _arm(self) -> None:
        if self._timer is None:
            self._watch_in(self._timeout_s)

    def _watch_in(self, delay_s: float, late: float | None = None, until: float = inf) -> None:
        self._timer = self._loop.call_later(delay_s, self._watch, late, until, context=self._context)

    def _watch(self, late: float | None, until: float) -> None:
        """Look whether the oldest request is too old: one timer for all, set again only when it has fired."""
        self._timer = None
        oldest = self._oldest()
        if oldest is None:
            return
        now = self._loop.time()
        left_s = oldest + self._timeout_s - now
        if left_s > 0:
            self._watch_in(left_s)
        elif oldest != late and now < until:  # others get on, but not for ever
            self._watch_in(_GRACE_S, oldest, min(until, now + self._timeout_s))
        else:
            self._time_out()

    def _oldest(self) -> float | None:
        pending = self._wire.pending if self._wire is not None else ()
        since = [request.since for request in chain(pending, self._queued)]
        if self._new or self._again:
            since.append(self._since)
        return min(since, default=None)

    def _time_out(self) -> None:
        cause = redis_errors.TimeoutError(f"no reply within {self._timeout_s} s")
        failure = partial(unavailable, cause)
        wire, self._wire = self._wire, None
        self._refusal = failure
        self._breaker.failed()
        self._fail_waiting(failure)
        if wire is not None:
            wire.drop(failure)  # whatever it still answers would go to the wrong requests
        self._flying = 0
        self._trouble()

    def _after_fork(self) -> None:
        """Start anew in a child process. The parent's socket is kept: closing it could say goodbye for it."""
        self._pid = os.getpid()
        self._inherited.append(self._wire)
        self._wire = self._connecting = None
        self._flying = 0


def copied(error: CacheError) -> CacheError:
    """Give an error of the same text: each who waited gets one of their own."""
    copy = type(error)(*error.args)
    copy.__cause__ = error.__cause__
    return copy
