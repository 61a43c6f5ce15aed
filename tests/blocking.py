"""Notices callbacks that hold an event loop for long, on a machine that may be busy with other things."""

import asyncio
import gc
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

CPU_S = 1.0  # of this thread's own work: hardly grows when others take the processor
WALL_S = 2.0  # sleeping or waiting in a blocking call; generous, because others do make this grow


def verdict(cpu_s: float, wall_s: float) -> str | None:
    """What was wrong with a callback that took so long; None when nothing."""
    if cpu_s > CPU_S:
        return f"computed for {cpu_s:.1f} s"
    if wall_s > WALL_S:
        return f"blocked for {wall_s:.1f} s"
    return None


class Collector:
    """How long the garbage collector has run: on the heap of a whole test run it takes long, and is nobody's fault."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._begun = 0.0

    def __call__(self, phase: str, info: dict[str, Any]) -> None:
        if phase == "start":
            self._begun = time.monotonic()
        else:
            self.spent_s += time.monotonic() - self._begun

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the collections in the block."""
        gc.callbacks.append(self)
        try:
            yield
        finally:
            gc.callbacks.remove(self)


@contextmanager
def watched_loops() -> Iterator[list[str]]:
    """A list that grows by each callback of asyncio's own loops that holds its loop for long.

    asyncio's debug mode would tell, too, but by wall time only, and it makes everything slower. uvloop's
    callbacks are not seen.
    """
    found: list[str] = []
    collector = Collector()
    original = asyncio.Handle._run

    def run(handle: asyncio.Handle) -> None:
        cpu, wall, collected = time.thread_time(), time.monotonic(), collector.spent_s
        original(handle)
        collected = collector.spent_s - collected
        problem = verdict(time.thread_time() - cpu - collected, time.monotonic() - wall - collected)
        if problem:
            found.append(f"{handle} {problem}")

    with collector.timed(), patch.object(asyncio.Handle, "_run", run):
        yield found
