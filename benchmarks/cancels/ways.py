"""The ways in which a request is cancelled, each after a number of turns of the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import anyio

Work = Callable[[], Awaitable[Any]]


class Ending(NamedTuple):
    """What became of a request.

    Attributes:
        asked: It was told to stop before it had ended.
        stopped: It ended as cancelled.
        result: What it gave, if it came to its end.
        turns: Turns of the loop from its start to its end.
    """

    asked: bool
    stopped: bool
    result: Any
    turns: int


class Turns:
    """Counts the turns of the loop, which meanwhile never rests, and calls something in one of them.

    Args:
        at: The turn; ``None``: none.
        then: What is called; ``False`` from it says that nothing is left to be stopped.
    """

    def __init__(self, at: int | None, then: Callable[[], object]) -> None:
        self.passed, self.rung = 0, False
        self._at, self._then = at, then
        self._loop = asyncio.get_running_loop()
        self._next = self._loop.call_soon(self._turn)

    def stop(self) -> None:
        """Count no more."""
        self._next.cancel()

    def _turn(self) -> None:
        if self.passed == self._at:
            self.rung = self._then() is not False
        self.passed += 1
        self._next = self._loop.call_soon(self._turn)


async def by_task(work: Work, turns: int | None, *, again: int | None = None) -> Ending:
    """``task.cancel()``; with *again* once more so many turns later."""
    task: asyncio.Future[Any] = asyncio.ensure_future(work())
    counts = [Turns(turns, task.cancel)]
    if again is not None and turns is not None:
        counts.append(Turns(turns + again, task.cancel))
    try:
        await asyncio.wait([task])
    finally:
        for count in counts:
            count.stop()
    stopped = task.cancelled()
    return Ending(counts[0].rung, stopped, None if stopped else task.result(), counts[0].passed)


async def by_timeout(work: Work, turns: int | None) -> Ending:
    """``asyncio.timeout``."""
    result, stopped = None, False
    async with asyncio.timeout(None) as limit:
        count = Turns(turns, lambda: limit.reschedule(0))
        try:
            result = await work()
        except asyncio.CancelledError:
            stopped = True
        finally:
            count.stop()
    return Ending(limit.expired(), stopped, result, count.passed)


async def by_scope(work: Work, turns: int | None) -> Ending:
    """A cancel scope of anyio's, which cancels at every ``await`` until it is left."""
    result = None
    with anyio.CancelScope() as scope:
        count = Turns(turns, scope.cancel)
        try:
            result = await work()
        finally:
            count.stop()
    # What ended before the scope could tell it was not cancelled, and that is no fault.
    return Ending(scope.cancelled_caught, scope.cancelled_caught, result, count.passed)


async def by_impatience(work: Work, turns: int | None) -> Ending:
    """``task.cancel()`` in one turn, and in the third after it."""
    return await by_task(work, turns, again=3)


WAYS: dict[str, Callable[[Work, int | None], Awaitable[Ending]]] = {
    "task": by_task,
    "twice": by_impatience,
    "timeout": by_timeout,
    "scope": by_scope,
}
