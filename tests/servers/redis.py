"""Redis and Valkey servers of a test run, and what they were asked to do."""

import signal
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.servers import programs
from tests.servers.errors import ServerUnavailable
from tests.servers.process import HOST, Process
from tests.servers.programs import Program

PROGRAMS = {"valkey": programs.valkey, "redis7": programs.redis7}
FORBIDDEN = ("KEYS", "SCAN", "FLUSHDB")


def client(url: str) -> redis.Redis:
    """A synchronous client that fails at once instead of trying again."""
    return redis.Redis.from_url(url, socket_timeout=5, retry=Retry(NoBackoff(), 0))


def info(url: str, section: str) -> dict[str, Any]:
    """One section of INFO.

    Raises:
        OSError: The server does not answer, or not yet.
    """
    try:
        with client(url) as connection:
            return dict(connection.info(section))
    except redis.RedisError as failure:
        raise OSError(f"{url}: {failure}") from failure


def commandstats(url: str) -> dict[str, int]:
    """Calls per command since the server started, scripts' calls included; names are lower case."""
    return {name.removeprefix("cmdstat_"): line["calls"] for name, line in info(url, "commandstats").items()}


class RedisServer:
    """A server of the Redis family: one of this run, or, without *process*, one that was given by URL.

    Attributes:
        url: ``redis://127.0.0.1:PORT/0``; the same after a restart.
        flavour: ``valkey``, ``redis7``, or ``given``.
        version: As the server says.
        source: Where its program comes from.
    """

    def __init__(self, url: str, flavour: str, source: str, process: Process | None = None) -> None:
        self.url, self.flavour, self.source, self.process = url, flavour, source, process
        self.version = self._read_version()
        self._earlier: Counter[str] = Counter()
        if process is None:
            self._earlier.subtract(self._forbidden_now())

    def __repr__(self) -> str:
        return f"<{self.flavour} {self.version} ({self.source}) {self.url}>"

    @classmethod
    def start(cls, flavour: str, *options: str) -> "RedisServer":
        """Start a private server without persistence, on a free port; *options* as on its command line."""
        program = PROGRAMS[flavour]()
        process = Process(flavour, lambda process: command(program, process, options), ready)
        process.start()
        return cls(f"redis://{HOST}:{process.port}/0", flavour, program.source, process)

    @classmethod
    def given(cls, url: str) -> "RedisServer":
        """The server of ``FASTRDB_TEST_REDIS_URL``, which the tests flush."""
        try:
            return cls(url, "given", "FASTRDB_TEST_REDIS_URL")
        except OSError as failure:
            raise ServerUnavailable(f"FASTRDB_TEST_REDIS_URL names a dead server: {failure}") from failure

    def _read_version(self) -> str:
        server = info(self.url, "server")
        return str(server.get("valkey_version") or server["redis_version"])

    @property
    def _own(self) -> Process:
        if self.process is None:
            raise RuntimeError(f"{self.url} was given by URL: it is not ours to stop; use private_redis")
        return self.process

    @property
    def pid(self) -> int:
        """The server's process; another one after a restart."""
        return self._own.pid

    @property
    def alive(self) -> bool:
        """Whether the process exists; a paused one does, a given one is taken to."""
        return self.process is None or self.process.alive

    def pause(self) -> None:
        """Stop the process from running (SIGSTOP): connections stay open, nothing is answered."""
        self._own.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused process run again (SIGCONT)."""
        self._own.send(signal.SIGCONT)

    def kill(self) -> None:
        """End the process with SIGKILL: all its data and connections are gone."""
        self._remember_calls()
        self._own.end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill the process, if it lives, and start an empty one on the same port."""
        self.kill()
        self._own.start()

    def stop(self) -> None:
        """End the process and remove its folder; a given server is left alone."""
        if self.process is not None:
            with suppress(OSError):
                self._remember_calls()
            self.process.remove()

    def clean(self) -> None:
        """Empty the server for the next test: data, scripts and functions; a killed one is started again."""
        if not self.alive:
            self._own.start()
        with client(self.url) as connection:
            connection.flushall()
            connection.script_flush()

    def forbidden_calls(self) -> Counter[str]:
        """How often this run had the server do what no library may: walk or drop a key space."""
        return self._earlier + self._forbidden_now()

    def _forbidden_now(self) -> Counter[str]:
        if not self.alive:
            return Counter()
        if self.process is not None:
            self.resume()
        calls = commandstats(self.url)
        return Counter({name: calls.get(name.lower(), 0) for name in FORBIDDEN})

    def _remember_calls(self) -> None:
        self._earlier.update(self._forbidden_now())


def command(program: Program, process: Process, options: Sequence[str]) -> list[str]:
    """The command line of a server that keeps nothing on disk."""
    place = ["--port", str(process.port), "--bind", HOST, "--dir", str(process.folder)]
    return [*program.argv, *place, "--save", "", "--appendonly", "no", *options]


def ready(process: Process) -> None:
    """Raise OSError until the server on the port answers, and is ours."""
    found = info(f"redis://{HOST}:{process.port}/0", "server")["process_id"]
    if found != process.pid:
        raise OSError(f"port {process.port} is served by another process, {found}")
