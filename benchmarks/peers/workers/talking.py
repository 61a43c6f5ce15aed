"""A worker: does what the conductor asks for, one JSON line in, one out.

``python -P -m workers.talking PEER PLACE``, where PLACE is JSON. Requests: ``{"do": "get" | "list" | "update",
"count": …, "callers": …}`` for a timed turn, ``answers`` for what the peer says of the first rows, ``reads`` for
counted stale reads. Each is answered by one object; an error is ``{"error": …}``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import random
import sys
from collections.abc import Callable, Coroutine
from importlib import import_module
from itertools import count as numbers
from time import perf_counter, process_time
from typing import Any, TextIO

import uvloop

from .rows import Peer, Place
from .staleness import stale_reads

LISTED = 100
_SERIAL = numbers(1)


async def serve(peer_name: str, place: Place, answers: TextIO) -> None:
    """Answer requests until the input ends."""
    async with import_module(f"workers.{peer_name}").opened(place) as peer:
        loop = asyncio.get_running_loop()
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            try:
                answer = await _answer(peer, place, json.loads(line))
            except Exception as failure:  # whatever it is, the conductor names it
                answer = {"error": f"{type(failure).__name__}: {failure}"}
            print(json.dumps(answer), file=answers, flush=True)


async def _answer(peer: Peer, place: Place, request: dict[str, Any]) -> dict[str, Any]:
    match request.pop("do"):
        case "answers":
            listed = await peer.list(LISTED)
            return {
                "one": (await peer.get(1)).model_dump(mode="json"),
                "again": (await peer.get(1)).model_dump(mode="json"),
                "list": [user.model_dump(mode="json") for user in listed],
            }
        case "rename":
            await peer.update(request["user_id"], request["name"])
            return {}
        case "warm":
            for user_id in range(1, request["rows"] + 1):
                await peer.get(user_id)
            await peer.list(LISTED)
            return {}
        case "reads":
            return await stale_reads(peer, place, **request)
        case operation:
            return await _turn(_OPERATIONS[operation](peer, request["rows"]), request["count"], request["callers"])


def _get(peer: Peer, rows: int) -> Callable[[], Coroutine[Any, Any, Any]]:
    return lambda: peer.get(random.randint(1, rows))


def _list(peer: Peer, rows: int) -> Callable[[], Coroutine[Any, Any, Any]]:
    return lambda: peer.list(LISTED)


def _update(peer: Peer, rows: int) -> Callable[[], Coroutine[Any, Any, Any]]:
    return lambda: peer.update(random.randint(1, rows), f"Name {next(_SERIAL)}")


_OPERATIONS = {"get": _get, "list": _list, "update": _update}


async def _turn(operation: Callable[[], Coroutine[Any, Any, Any]], count: int, callers: int) -> dict[str, Any]:
    async def caller(times: int) -> None:
        for _ in range(times):
            await operation()

    each = max(1, count // callers)
    gc.collect()  # or one turn would clear up what another one left
    start, cpu = perf_counter(), process_time()
    if callers == 1:
        await caller(each)
    else:
        await asyncio.gather(*(caller(each) for _ in range(callers)))
    done = each * callers
    return {"elapsed": (perf_counter() - start) / done, "cpu": (process_time() - cpu) / done, "count": done}


def main() -> None:
    """Answer on what was the standard output; what a library prints goes nowhere."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(sys.argv[1], Place(**json.loads(sys.argv[2])), answers))


if __name__ == "__main__":
    main()
