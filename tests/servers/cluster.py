"""A cluster of Valkey servers: three masters that share the slots, and one replica."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import redis

from tests.servers.errors import ServerUnavailable
from tests.servers.process import Port
from tests.servers.redis import RedisServer, client

MASTERS = 3
SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000  # of a node that is silent, until the others elect its replica
READY_S = 30.0


class Cluster:
    """Three masters that share the slots, and a replica of one of them, on free ports.

    A test may move slots and kill, pause and swap nodes: :meth:`settle` mends it for the next one.

    Attributes:
        servers: All nodes.
        url: ``redis+cluster://HOST:PORT,…`` of all nodes.
    """

    flavour = "cluster"

    def __init__(self, servers: Sequence[RedisServer], buses: Sequence[Port]) -> None:
        self.servers, self._buses = list(servers), buses
        self.version, self.source = servers[0].version, servers[0].source
        self.url = f"redis+cluster://{','.join(map(address, servers))}"

    @classmethod
    def start(cls) -> "Cluster":
        """Start it, and wait until all nodes agree that it works."""
        buses = [Port() for _ in range(MASTERS + 1)]
        with ThreadPoolExecutor(len(buses)) as pool:
            cluster = cls(list(pool.map(start_node, buses)), buses)
        try:
            cluster._join()
            cluster.settle()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    def _join(self) -> None:
        *masters, replica = self.servers
        for number, server in enumerate(masters):
            first, last = (SLOTS * at // MASTERS for at in (number, number + 1))
            say(server, "CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            say(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        host, port = address(masters[0]).split(":")
        for server in self.servers[1:]:
            say(server, "CLUSTER", "MEET", host, port, bus_port(masters[0]))
        wait_until(lambda: all(len(nodes_seen(server)) == len(self.servers) for server in self.servers))
        say(replica, "CLUSTER", "REPLICATE", name_of(masters[0]))

    def settle(self) -> None:
        """Start who is dead, wake who is paused, and wait until all agree, and the replica has all of its master."""
        for server in self.servers:
            server.resume()
            if not server.alive:
                server.restart()
        wait_until(self._is_whole)

    def _is_whole(self) -> bool:
        seen = [glance(server) for server in self.servers]
        masters = [role for _, (role, *_), _, _ in seen].count(b"master")
        agree = len({str(slots) for *_, slots, _ in seen}) == 1
        works = all(b"cluster_state:ok" in state for state, *_ in seen)
        return (
            masters == MASTERS and agree and works and not any(b"master_link_status:down" in link for *_, link in seen)
        )

    @property
    def masters(self) -> list[RedisServer]:
        """Those who are masters now."""
        return [server for server in self.servers if server.alive and role(server) == b"master"]

    @property
    def replica(self) -> RedisServer:
        """The one that is none."""
        return next(server for server in self.servers if server.alive and role(server) != b"master")

    @property
    def backed(self) -> RedisServer:
        """The master that has the replica."""
        port = say(self.replica, "ROLE")[2]
        return next(server for server in self.servers if address(server).endswith(f":{port}"))

    def owner(self, key: bytes, *, asked: RedisServer | None = None) -> RedisServer:
        """The server that has a key, as some node sees it."""
        asked = asked or self.servers[-1]
        slot = say(asked, "CLUSTER", "KEYSLOT", key)
        for first, last, (_, port, *_), *_ in say(asked, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(each for each in self.servers if address(each).endswith(f":{port}"))
        raise AssertionError(f"nobody has slot {slot}")

    def clean(self) -> None:
        """Mend it and empty it for the next test."""
        self.settle()
        for server in self.masters:
            with client(server.url) as connection:
                connection.flushall()
                connection.script_flush()

    def forbidden_calls(self) -> Counter[str]:
        """What its nodes were made to do and should not have been."""
        return sum((server.forbidden_calls() for server in self.servers), start=Counter())

    def stop(self) -> None:
        """End all processes."""
        for server in self.servers:
            server.stop()
        for bus in self._buses:
            bus.release()


def start_node(bus: Port) -> RedisServer:
    """A server that is to be a node, and whose bus is to have that port."""
    return RedisServer.start(
        "valkey",
        *("--cluster-enabled", "yes", "--cluster-port", str(bus.number)),
        *("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0"),
        *("--repl-diskless-sync-delay", "0"),
    )


def say(server: RedisServer, *command: Any) -> Any:
    """Send one command; the reply as the server gives it."""
    with plain(server) as connection:
        return connection.execute_command(*command)


def role(server: RedisServer) -> bytes:
    """``b"master"`` or ``b"slave"``."""
    found: bytes = say(server, "ROLE")[0]
    return found


def name_of(server: RedisServer) -> str:
    """Its name in the cluster."""
    name: str = say(server, "CLUSTER", "MYID").decode()
    return name


def address(server: RedisServer) -> str:
    """Such as ``127.0.0.1:16000``."""
    return server.url.removeprefix("redis://").removesuffix("/0")


def bus_port(server: RedisServer) -> str:
    """Where its cluster bus listens."""
    port: str = say(server, "CONFIG", "GET", "cluster-port")[1].decode()
    return port


def nodes_seen(server: RedisServer) -> list[str]:
    """Its CLUSTER NODES, those that it is still to meet left out."""
    lines = say(server, "CLUSTER", "NODES").decode().splitlines()
    return [line for line in lines if "handshake" not in line and "noaddr" not in line]


def glance(server: RedisServer) -> list[Any]:
    """What a node says of the cluster, of its role, of the slots and of its replication."""
    with plain(server) as connection, connection.pipeline(transaction=False) as pipeline:
        for command in (("CLUSTER", "INFO"), ("ROLE",), ("CLUSTER", "SLOTS"), ("INFO", "replication")):
            pipeline.execute_command(*command)
        found: list[Any] = pipeline.execute()
        return found


def plain(server: RedisServer) -> redis.Redis:
    """A client that gives replies as they come."""
    connection = redis.Redis.from_url(server.url, protocol=2, socket_timeout=5)
    connection.response_callbacks.clear()
    return connection


def wait_until(holds: Any) -> None:
    """Poll until it holds."""
    deadline = time.monotonic() + READY_S
    while True:
        with suppress(redis.RedisError):
            if holds():
                return
        if time.monotonic() > deadline:
            raise ServerUnavailable("the nodes of a cluster did not agree in time")
        time.sleep(0.02)
