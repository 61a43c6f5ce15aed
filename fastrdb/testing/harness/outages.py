"""What goes wrong with a Redis while processes read and write: made by whoever has the server, run by the harness."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from random import Random
from typing import Protocol

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from fastrdb.testing.faults import Proxy

from .windows import FOREVER, Span

READY_S = 30.0
JUNK = "fastrdb_harness_junk:"
_JUNK_BYTES, _JUNK_LIFE_S = 1_000, 60
_ROOM = 150_000  # bytes that a server under memory pressure may still take


class Server(Protocol):
    """A server process; ``fastrdb.testing.faults.ServerProcess`` is one."""

    def pause(self) -> None:
        """Stop it."""
        ...

    def resume(self) -> None:
        """Let it go on."""
        ...

    def kill(self) -> None:
        """End it at once."""
        ...

    def restart(self) -> None:
        """Start it again."""
        ...


def nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Outage:
    """Something that goes wrong for a while. Its functions are called in a thread of the parent process.

    Attributes:
        name: For the report.
        begin: Lets it go wrong.
        end: Mends it; returns when Redis answers again.
        lasts_s: Seconds from the return of one to the call of the other.
        loses: Redis may lose data in that time: holds, too. Only then may a lost hold explain a stale read.
        prepare: Called before *begin*, when nothing is wrong yet.
    """

    name: str
    begin: Callable[[], None]
    end: Callable[[], None] = nothing
    lasts_s: float = 0.5
    loses: bool = False
    prepare: Callable[[], None] = nothing


def paused(server: Server, lasts_s: float = 5.0) -> Outage:
    """The server hangs: connections stay open, and nobody answers."""
    return Outage(f"paused {lasts_s:g} s", server.pause, server.resume, lasts_s)


def restarted_empty(server: Server, url: str, away_s: float = 0.5) -> Outage:
    """The server, which keeps nothing on disk, is killed and started again."""

    def end() -> None:
        server.restart()
        wait_until_it_answers(url)

    return Outage("restarted empty", server.kill, end, away_s, loses=True)


def restarted_old(server: Server, url: str, dump: Path, *, age_s: float = 0.5, away_s: float = 0.5) -> Outage:
    """The server saves its data, goes on for *age_s*, is killed, and comes back with what it saved.

    Args:
        server: One that saves nothing by itself.
        url: Where it listens.
        dump: The file in which it saves; it is gone afterwards, so that another restart is an empty one.
        age_s: Age of the data.
        away_s: Seconds for which it is dead.
    """

    def save() -> None:
        with client(url) as connection:
            connection.save()
        time.sleep(age_s)

    def end() -> None:
        server.restart()
        wait_until_it_answers(url)
        dump.unlink()

    return Outage("restarted with old data", server.kill, end, away_s, loses=True, prepare=save)


def evicting(url: str, lasts_s: float = 2.0, policy: str = "allkeys-random") -> Outage:
    """The server's memory is full, and somebody else goes on to fill it: anything may be evicted, holds, too."""
    over, fillers = threading.Event(), list[threading.Thread]()

    def fill() -> None:
        with client(url) as connection:
            for number in count():
                with suppress(redis.RedisError):
                    connection.set(f"{JUNK}{number}", b"x" * _JUNK_BYTES, ex=_JUNK_LIFE_S)
                if over.wait(0.001):
                    return

    def begin() -> None:
        with client(url) as connection:
            used = int(connection.info("memory")["used_memory"])
            connection.config_set("maxmemory-policy", policy)
            connection.config_set("maxmemory", used + _ROOM)
        over.clear()
        fillers.append(threading.Thread(target=fill, name="fastrdb-junk"))
        fillers[-1].start()

    def end() -> None:
        over.set()
        fillers.pop().join()
        with client(url) as connection:
            connection.config_set("maxmemory", 0)

    return Outage(f"evicting {policy}", begin, end, lasts_s, loses=True)


class ProxyThread:
    """A ``Proxy`` in a thread with a loop of its own, for a harness that has none.

    Attributes:
        proxy: What ``call`` may be used on.
    """

    def __init__(self, proxy: Proxy, loop: asyncio.AbstractEventLoop) -> None:
        self.proxy, self._loop = proxy, loop

    @classmethod
    @contextmanager
    def to(cls, host: str, port: int) -> Iterator[ProxyThread]:
        """Listen on a free port until the end of the block."""
        loop, over = asyncio.new_event_loop(), asyncio.Event()
        ready, proxies = threading.Event(), list[Proxy]()

        async def serve() -> None:
            async with Proxy.to(host, port) as proxy:
                proxies.append(proxy)
                ready.set()
                await over.wait()

        thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), name="fastrdb-proxy", daemon=True)
        thread.start()
        ready.wait(READY_S)
        try:
            yield cls(proxies[0], loop)
        finally:
            loop.call_soon_threadsafe(over.set)
            thread.join()
            loop.close()

    def call(self, deed: Callable[[], None]) -> None:
        """Do something to the proxy, in its own thread."""
        done = threading.Event()

        def do() -> None:
            deed()
            done.set()

        self._loop.call_soon_threadsafe(do)
        done.wait(READY_S)


def replies_cut(thread: ProxyThread, lasts_s: float = 2.0, every_s: float = 0.05, most: int = 4_000) -> Outage:
    """Connections through the proxy end in the middle of a reply, again and again.

    Args:
        thread: The proxy.
        lasts_s: For how long.
        every_s: Seconds from one cut to the next.
        most: Bytes that pass before it, at most.
    """
    proxy, over, cutters, random = thread.proxy, threading.Event(), list[threading.Thread](), Random()

    def cut() -> None:
        while not over.wait(every_s):
            thread.call(lambda: setattr(proxy, "reply_bytes", random.randrange(most)))

    def begin() -> None:
        over.clear()
        cutters.append(threading.Thread(target=cut, name="fastrdb-cutter"))
        cutters[-1].start()

    def end() -> None:
        over.set()
        cutters.pop().join()
        thread.call(lambda: setattr(proxy, "reply_bytes", None))

    return Outage("replies cut", begin, end, lasts_s)


class Conductor:
    """Runs outages in turn, in a thread of its own.

    Args:
        outages: What goes wrong.
        every_s: Mean time between two.
        random: Source of the pauses.

    Attributes:
        spans: Each outage so far, and its time by ``time.monotonic``; one that is not over has no end.
        failure: What went wrong with one, other than it should.
    """

    def __init__(self, outages: Sequence[Outage], every_s: float, random: Random) -> None:
        self._outages, self._every_s, self._random = outages, every_s, random
        self.spans: list[tuple[Outage, Span]] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._conduct, name="fastrdb-outages", daemon=True)
        self.failure: BaseException | None = None

    @property
    def over(self) -> int:
        """How many outages are over."""
        return sum(span.end != FOREVER for _, span in self.spans)

    def start(self) -> None:
        """Begin, where there is anything to do."""
        if self._outages:
            self._thread.start()

    def stop(self) -> None:
        """Mend what is wrong just now, and end."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _conduct(self) -> None:
        try:
            for outage in cycle(self._outages):
                if self._over.wait(self._every_s * self._random.uniform(0.5, 1.5)):
                    return
                outage.prepare()
                began = time.monotonic()
                self.spans.append((outage, Span(began, FOREVER)))
                outage.begin()
                self._over.wait(outage.lasts_s)
                outage.end()
                self.spans[-1] = outage, Span(began, time.monotonic())
        except BaseException as failure:
            self.failure = failure


def client(url: str) -> redis.Redis:
    """Give a client that tries again for a short time only."""
    return redis.Redis.from_url(url, socket_timeout=5, retry=Retry(ConstantBackoff(0.05), 3))


def wait_until_it_answers(url: str) -> None:
    """Wait for a server that was started.

    Raises:
        TimeoutError: It does not answer in time.
    """
    until = time.monotonic() + READY_S
    with client(url) as connection:
        while True:
            try:
                connection.ping()
            except redis.RedisError as error:  # also while it loads its data
                if time.monotonic() > until:
                    raise TimeoutError("the Redis that was restarted does not answer") from error
                time.sleep(0.02)
            else:
                return
