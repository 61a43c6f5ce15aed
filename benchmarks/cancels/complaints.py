"""What nobody raises: tasks left behind, coroutines never awaited, errors never retrieved, logged warnings."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
import warnings
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

REQUEST: ContextVar[str] = ContextVar("request", default="no request")  # its kind, also in the tasks that it starts

_SETTLE_S = 5.0

# What drivers do when a caller is cancelled a second time, while SQLAlchemy closes the connection of the first: a
# plain session does the same.
_DRIVERS = (
    # asyncpg forgets the future of the connection over which it was about to tell the server to stop.
    "Future exception was never retrieved (ConnectionError: unexpected connection_lost() call)",
    # asyncpg is given two seconds to say goodbye, by a task that nobody awaits any more.
    "Task exception was never retrieved of _terminate_graceful_close (TimeoutError: )",
    # aiosqlite's close() waits for a thread that stop() has ended meanwhile. Here: in the caller's own COMMIT.
    "a task is left: _terminate_graceful_close",
    # The caller's own transaction: SQLAlchemy's pool logs that its rollback was cancelled, and drops the connection.
    "Exception during reset or similar in transaction (CancelledError)",
)


class Complaints(logging.Handler):
    """Counts what is said, by its text.

    Attributes:
        found: All of it.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: Counter[str] = Counter()

    def of_drivers(self) -> Counter[str]:
        """Give what drivers are known to do by themselves."""
        return Counter({text: count for text, count in self.found.items() if text.endswith(_DRIVERS)})

    def emit(self, record: logging.LogRecord) -> None:
        """Note a record."""
        error = record.exc_info and record.exc_info[1]
        why = " (CancelledError)" if isinstance(error, asyncio.CancelledError) else _why(error)
        self.found[f"{record.name}: {record.getMessage()[:300]} in {REQUEST.get()}{why}"] += 1

    def of_loop(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Note what the loop's exception handler is told."""
        task = context.get("task") or context.get("future")
        of = f" of {_name(task)}" if isinstance(task, asyncio.Task) else ""
        self.found[f"loop: {context.get('message')}{of}{_why(context.get('exception'))}"] += 1

    def unraisable(self, unraisable: Any) -> None:
        """Note an exception that could not be raised."""
        self.found[f"unraisable: {unraisable.err_msg} {unraisable.object!r}{_why(unraisable.exc_value)}"] += 1


def _name(task: asyncio.Task[Any]) -> str:
    return getattr(task.get_coro(), "__name__", "?")


def _why(error: object) -> str:
    return f" ({type(error).__name__}: {str(error)[:200]})" if isinstance(error, BaseException) else ""


@asynccontextmanager
async def complaints() -> AsyncIterator[Complaints]:
    """Listen to all of it until the end of the block, where no task may be left that was not there before."""
    heard, loop, root = Complaints(), asyncio.get_running_loop(), logging.getLogger()
    tasks, handler, hook = asyncio.all_tasks(), loop.get_exception_handler(), sys.unraisablehook
    root.addHandler(heard)
    loop.set_exception_handler(heard.of_loop)
    sys.unraisablehook = heard.unraisable
    try:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            yield heard
            left = asyncio.all_tasks() - tasks
            if left:
                _, left = await asyncio.wait(left, timeout=_SETTLE_S)
            heard.found.update(f"a task is left: {_name(task)}" for task in left)
            gc.collect()
        heard.found.update(f"{each.category.__name__}: {each.message}"[:300] for each in warned)
    finally:
        sys.unraisablehook = hook
        loop.set_exception_handler(handler)
        root.removeHandler(heard)
