"""Requests per second, and CPU time per request, of a FastAPI app per peer: uvicorn on loopback, under load."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from .conductor import Contestant
from .environments import CHECKOUT, environment
from .scale import Scale
from .workers.rows import Place
from .works import Figure, figure

_START_S = 60
_MODELS, _BYTES = "/users", "/users.json"


class AppFailed(Exception):
    """An app did not start."""


@dataclass(frozen=True, slots=True)
class App:
    """A running app.

    Attributes:
        title: Of its peer.
        path: What is asked for.
    """

    title: str
    port: int
    path: str
    process: subprocess.Popen[bytes]

    def turn(self, scale: Scale) -> dict[str, Any]:
        """Put it under load; give requests per second, and CPU seconds per request where they can be known."""
        before = cpu_seconds(self.process.pid)
        command = [sys.executable, "-m", "benchmarks.peers.load", "--port", str(self.port), "--path", self.path]
        options = ["--connections", str(scale.connections), "--seconds", str(scale.load_s)]
        done = subprocess.run([*command, *options], cwd=CHECKOUT, capture_output=True, text=True)
        if done.returncode:
            raise AppFailed(f"{self.title}: {done.stderr}")
        said = json.loads(done.stdout)
        after = cpu_seconds(self.process.pid)
        cpu = None if before is None or after is None else (after - before) / said["requests"]
        return {"rate": said["requests"] / said["elapsed"], "cpu": cpu}


def served(contestants: Sequence[Contestant], places: Sequence[Place], scale: Scale) -> list[Figure]:
    """Give the figures of all apps; the first contestant is the hand-written one."""
    with ExitStack() as stack:
        apps = []
        for contestant, place in zip(contestants, places, strict=True):
            port, process = stack.enter_context(_app(contestant, place, scale.uvicorns))
            apps.append(App(contestant.peer.title, port, _MODELS, process))
            if contestant.peer.sends_bytes:
                apps.append(App(f"{contestant.peer.title}, cached bytes", port, _BYTES, process))
        turns: list[list[dict[str, Any]]] = [[] for _ in apps]
        for app in apps:
            app.turn(scale)  # warm
        for number in range(scale.load_rounds):
            for place_ in range(len(apps)):
                at = (number + place_) % len(apps)
                turns[at].append(apps[at].turn(scale))
    title = "requests/s of a FastAPI list of 100"
    return [
        figure(app.title, title, list(zip(own, turns[0], strict=True)), "rate")
        for app, own in zip(apps, turns, strict=True)
    ]


@contextmanager
def _app(contestant: Contestant, place: Place, uvicorns: int) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    command = contestant.command("app", place, str(port), str(uvicorns))
    process = subprocess.Popen(command, env=environment(contestant.peer), stdin=subprocess.DEVNULL)
    try:
        _await_port(contestant, process, port)
        yield port, process
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _await_port(contestant: Contestant, process: subprocess.Popen[bytes], port: int) -> None:
    end = monotonic() + _START_S
    while monotonic() < end and process.poll() is None:
        try:
            # A listening socket is not enough: the answer shows that a worker has it.
            with socket.create_connection(("127.0.0.1", port), timeout=_START_S) as connection:
                connection.sendall(b"GET /users HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if connection.recv(12) == b"HTTP/1.1 200":
                    return
        except OSError:
            pass
        sleep(0.05)
    raise AppFailed(f"the app of {contestant.peer.title} did not start")


def cpu_seconds(pid: int) -> float | None:
    """Give the CPU time of a process and its children, who are alive; ``None`` where there is no /proc."""
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return None
    user, system = stat.read_text().rpartition(")")[2].split()[11:13]
    children = Path(f"/proc/{pid}/task/{pid}/children")
    below = [int(child) for child in children.read_text().split()] if children.exists() else []
    own = (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
    return own + sum(cpu_seconds(child) or 0.0 for child in below)
