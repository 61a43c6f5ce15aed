"""Notices callbacks that hold an event loop for long, on a machine that may be busy with other things."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

CPU_S = 0.5  # of this thread's own work: does not grow when others take the processor
WALL_S = 2.0  # sleeping or waiting in a blocking call; generous, because others do make this grow


def verdict(cpu_s: float, wall_s: float) -> str | None:
    """What was wrong with a callback that took so long; None when nothing."""
    if cpu_s > CPU_S:
        return f"computed for {cpu_s:.1f} s"
    if wall_s > WALL_S:
        return f"blocked for {wall_s:.1f} s"
    return None


@contextmanager
def watched_loops() -> Iterator[list[str]]:
    """A list that grows by each callback of asyncio's own loops that holds its loop for long.

    asyncio's debug mode would tell, too, but by wall time only, and it makes everything slower. uvloop's
    callbacks are not seen.
    """
    found: list[str] = []
    original = asyncio.Handle._run

    def run(handle: asyncio.Handle) -> None:
        cpu, wall = time.thread_time(), time.monotonic()
        original(handle)
        problem = verdict(time.thread_time() - cpu, time.monotonic() - wall)
        if problem:
            found.append(f"{handle} {problem}")

    with patch.object(asyncio.Handle, "_run", run):
        yield found
