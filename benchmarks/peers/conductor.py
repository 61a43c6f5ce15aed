"""The conductor's end of a worker: starts its process, asks, and gets answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .catalogue import Peer
from .environments import environment
from .workers.rows import Place

_PATIENCE_S = 30


class WorkerFailed(Exception):
    """A worker reported an error, or ended."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """A peer that can be run.

    Attributes:
        python: Of its environment.
    """

    peer: Peer
    python: Path

    def command(self, module: str, place: Place, *arguments: str) -> list[str]:
        """Give the command line of one of the modules in workers/."""
        return [
            str(self.python), "-P", "-m", f"workers.{module}", self.peer.name, json.dumps(asdict(place)), *arguments
        ]  # fmt: skip

    def start(self, module: str, place: Place, *arguments: str) -> subprocess.Popen[str]:
        """Start one of the modules in workers/, with pipes to talk through."""
        return subprocess.Popen(
            self.command(module, place, *arguments),
            env=environment(self.peer),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


class Worker:
    """A running worker that answers one request at a time."""

    def __init__(self, contestant: Contestant, process: subprocess.Popen[str]) -> None:
        self.contestant, self._process = contestant, process

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        """Give the answer; raise WorkerFailed if it is an error."""
        self.send(do, **request)
        return self.answer()

    def send(self, do: str, **request: Any) -> None:
        """Send a request whose answer is taken later."""
        print(json.dumps({"do": do, **request}), file=self._process.stdin, flush=True)

    def answer(self) -> dict[str, Any]:
        """Wait for the answer to what was sent."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: dict[str, Any] = json.loads(line) if line else {"error": "it ended"}
        if "error" in answer:
            raise WorkerFailed(f"{self.contestant.peer.title}: {answer['error']}")
        return answer


@contextmanager
def ended(process: subprocess.Popen[str]) -> Iterator[subprocess.Popen[str]]:
    """End the process with the block: its input is closed; after half a minute it is killed."""
    try:
        yield process
    finally:
        try:
            if process.returncode is None:
                process.communicate(timeout=_PATIENCE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def workers(contestants: Sequence[Contestant], places: Sequence[Place]) -> Iterator[list[Worker]]:
    """Have one worker per contestant; all end with the block."""
    with ExitStack() as stack:
        yield [
            Worker(contestant, stack.enter_context(ended(contestant.start("talking", place))))
            for contestant, place in zip(contestants, places, strict=True)
        ]
