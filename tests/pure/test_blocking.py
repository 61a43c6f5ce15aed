"""The watch over event loops that every test is held to."""

import asyncio
import gc
import time

import pytest

from tests.blocking import CPU_S, WALL_S, verdict, watched_loops


def spin(seconds: float) -> None:
    """Use the processor for so long."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


@pytest.mark.may_block("computes for longer than is allowed, to be noticed")
async def test_computing_is_noticed() -> None:
    """A callback that computes for long is reported."""
    with watched_loops() as blocked:
        asyncio.get_running_loop().call_soon(spin, CPU_S + 0.05)
        await asyncio.sleep(0.01)
    assert len(blocked) == 1
    assert "spin" in blocked[0]


async def test_waiting_is_not_blocking() -> None:
    """A coroutine may take as long as it likes, as long as it awaits."""
    with watched_loops() as blocked:
        await asyncio.sleep(CPU_S + 0.05)
    assert blocked == []


async def test_collecting_garbage_is_not_computing() -> None:
    """The time of a garbage collection is not put down to the callback in which it happened to run."""

    def burden(phase: str, info: object) -> None:
        if phase == "start":
            spin(CPU_S + 0.05)

    with watched_loops() as blocked:
        gc.callbacks.append(burden)  # after the watch's own: it counts as part of the collection
        try:
            asyncio.get_running_loop().call_soon(gc.collect)
            await asyncio.sleep(0.01)
        finally:
            gc.callbacks.remove(burden)
    assert blocked == []


@pytest.mark.parametrize(
    ("cpu_s", "wall_s", "guilty"),
    [(0.1, WALL_S - 0.1, False), (0.0, WALL_S + 0.1, True), (CPU_S + 0.1, CPU_S + 0.1, True)],
)
def test_a_busy_machine_is_no_offence(cpu_s: float, wall_s: float, guilty: bool) -> None:
    """Little work that took long is forgiven up to a generous limit, since others use the machine, too."""
    assert (verdict(cpu_s, wall_s) is not None) == guilty
