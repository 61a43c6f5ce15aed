"""The writers: processes that update through a peer without end, killed at random moments if asked to be.

``python -P -m workers.writing PEER PLACE OPTIONS``. Writers are forked from this process, which has imported everything
and opened nothing, so that a killed one is replaced at once. Says when all of them write; ends, with the writers, when
its input ends, and says how many it killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import select
import signal
import sys
from dataclasses import dataclass
from importlib import import_module
from itertools import count as numbers
from time import monotonic
from typing import Any, TextIO

import uvloop

from .rows import Place

LIFE_S = 0.25  # of a writer that is to be killed, at most, from its first write on
PAUSE_S = 0.005  # between two writes, at most


@dataclass(slots=True)
class Writer:
    """A process, and the end of the pipe on which it tells of its first write.

    Attributes:
        doomed: When it is to be killed, by the monotonic clock; ``None`` before its first write.
    """

    pid: int
    first_write: int
    doomed: float | None = None


def writer(module: Any, place: Place, rows: int) -> Writer:
    """Fork one writer."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Writer(pid, reading)
    try:
        random.seed()
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_write(module, place, rows, writing))
    finally:
        os._exit(1)


async def _write(module: Any, place: Place, rows: int, first_write: int) -> None:
    async with module.opened(place) as peer:
        for number in numbers():
            await peer.update(random.randint(1, rows), f"Name {os.getpid()} {number}")
            if number == 0:
                os.write(first_write, b"1")
            await asyncio.sleep(random.uniform(0, PAUSE_S))


def storm(module: Any, place: Place, answers: TextIO, *, writers: int, rows: int, kill: bool) -> int:
    """Keep so many writers writing until the input ends; give how many were killed before."""
    running = [writer(module, place, rows) for _ in range(writers)]
    killed, told = 0, False
    try:
        while not select.select([sys.stdin], [], [], 0.002)[0]:
            for at, one in enumerate(running):
                if one.doomed is None and select.select([one.first_write], [], [], 0)[0]:
                    one.doomed = monotonic() + random.uniform(0, LIFE_S)
                if kill and told and one.doomed is not None and monotonic() >= one.doomed:
                    _end(one)
                    killed += 1
                    running[at] = writer(module, place, rows)
            if not told and all(one.doomed is not None for one in running):
                print(json.dumps({"writing": True}), file=answers, flush=True)
                told = True
    finally:
        for one in running:
            _end(one)
    return killed


def _end(one: Writer) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(one.pid, signal.SIGKILL)
    os.waitpid(one.pid, 0)
    os.close(one.first_write)


def main() -> None:
    """Write until the input ends, then print how many writers were killed."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    peer_name, place, options = sys.argv[1:]
    module = import_module(f"workers.{peer_name}")
    killed = storm(module, Place(**json.loads(place)), answers, **json.loads(options))
    print(json.dumps({"killed": killed}), file=answers, flush=True)


if __name__ == "__main__":
    main()
