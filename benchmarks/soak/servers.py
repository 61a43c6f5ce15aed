"""A Redis that may be killed, restored and replaced by a replica, behind a proxy where its address must stay."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from redis import RedisError

from fastrdb.testing.harness import Outage, ProxyThread
from tests.servers.cluster import address, say, wait_until
from tests.servers.redis import RedisServer

LAG_S = 0.3  # what a replica lacks when it takes over
_OPTIONS = ("--repl-diskless-sync-delay", "0", "--repl-diskless-load", "swapdb")


class Place:
    """Where there is a Redis, whichever process it is.

    Attributes:
        server: The primary.
        url: Where clients find it.
        proxy: What stands before it.
        dump: Where it saves its data, if told to.
    """

    def __init__(self, folder: Path, stack: ExitStack, *, proxied: bool) -> None:
        self._folder, self._stack = folder, stack
        self.dump = folder / "dump.rdb"
        self.server = self._start()
        self.url = self.server.url
        self.proxy: ProxyThread | None = None
        if proxied:
            host, port = address(self.server).split(":")
            self.proxy = stack.enter_context(ProxyThread.to(host, int(port)))
            self.url = self.proxy.proxy.through(self.url)

    def _start(self) -> RedisServer:
        server = RedisServer.start("valkey", "--dir", str(self._folder), *_OPTIONS)
        self._stack.callback(server.stop)
        return server

    def pause(self) -> None:
        """Stop the primary."""
        self.server.pause()

    def resume(self) -> None:
        """Let it go on."""
        self.server.resume()

    def kill(self) -> None:
        """End it."""
        with suppress(OSError, RedisError):
            self.server.kill()

    def restart(self) -> None:
        """Start it again."""
        self.server.restart()

    def failed_over(self, away_s: float = 0.5) -> Outage:
        """The primary is killed, and a replica takes its place that lacks the last moments."""
        replicas: list[RedisServer] = []

        def prepare() -> None:
            replicas.append(self._start())
            say(replicas[0], "REPLICAOF", *address(self.server).split(":"))
            wait_until(lambda: b"master_link_status:up" in glance_at(replicas[0]))
            say(self.server, "ACL", "SETUSER", "default", "-psync", "-sync")
            say(self.server, "CLIENT", "KILL", "TYPE", "replica")
            time.sleep(LAG_S)

        def end() -> None:
            replica = replicas.pop()
            say(replica, "REPLICAOF", "NO", "ONE")
            self.server = replica
            assert self.proxy is not None
            proxy, (host, port) = self.proxy.proxy, address(replica).split(":")
            self.proxy.call(lambda: setattr(proxy, "target", (host, int(port))))
            self.proxy.call(proxy.cut)

        return Outage("failed over", self.kill, end, away_s, loses=True, prepare=prepare)

    def unreachable(self, away_s: float = 0.5) -> Outage:
        """Who comes through the proxy does not reach it; others do."""
        assert self.proxy is not None
        thread, proxy = self.proxy, self.proxy.proxy

        def begin() -> None:
            thread.call(lambda: setattr(proxy, "refuses", True))
            thread.call(proxy.cut)

        return Outage("cut off", begin, lambda: thread.call(lambda: setattr(proxy, "refuses", False)), away_s)


def glance_at(server: RedisServer) -> bytes:
    """What it says of its replication."""
    found: bytes = say(server, "INFO", "replication")
    return found


@contextmanager
def place(*, proxied: bool = False) -> Iterator[Place]:
    """Start a Redis, which ends with the block."""
    folder = Path(tempfile.mkdtemp(prefix="fastrdb-soak-"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        yield Place(folder, stack, proxied=proxied)
