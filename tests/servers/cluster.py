"""A cluster of Valkey servers: three masters that share the slots, and replicas where a test wants them."""

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import redis

from tests.servers.errors import ServerUnavailable
from tests.servers.process import free_port
from tests.servers.redis import RedisServer, client

MASTERS = 3
SLOTS = 16_384
NODE_TIMEOUT_MS = 1_000  # of a node that is silent, until the others elect its replica
READY_S = 30.0


class Cluster:
    """A private cluster on free ports.

    Attributes:
        masters: The servers that got the slots at first, in the order of these.
        replicas: Those that follow them, the first the first.
        url: ``redis+cluster://HOST:PORT,…`` of the masters.
    """

    flavour = "valkey cluster"

    def __init__(self, masters: Sequence[RedisServer], replicas: Sequence[RedisServer]) -> None:
        self.masters, self.replicas = list(masters), list(replicas)
        self.version, self.source = self.masters[0].version, self.masters[0].source

    @classmethod
    def start(cls, replicas: int = 0, *options: str) -> "Cluster":
        """Start it, with replicas of the first masters, and wait until all nodes agree that it works."""
        with ThreadPoolExecutor(MASTERS + replicas) as pool:
            servers = list(pool.map(lambda _: start_node(*options), range(MASTERS + replicas)))
        cluster = cls(servers[:MASTERS], servers[MASTERS:])
        try:
            cluster._join()
        except BaseException:
            cluster.stop()
            raise
        return cluster

    @property
    def servers(self) -> list[RedisServer]:
        """All nodes."""
        return [*self.masters, *self.replicas]

    @property
    def url(self) -> str:
        """``redis+cluster://HOST:PORT,HOST:PORT,…``."""
        return f"redis+cluster://{','.join(address(server) for server in self.masters)}"

    def _join(self) -> None:
        for number, server in enumerate(self.masters):
            first, last = (SLOTS * at // MASTERS for at in (number, number + 1))
            say(server, "CLUSTER", "ADDSLOTSRANGE", first, last - 1)
            say(server, "CLUSTER", "SET-CONFIG-EPOCH", number + 1)
        for server in self.servers[1:]:
            host, port = address(self.masters[0]).split(":")
            say(server, "CLUSTER", "MEET", host, port, bus_port(self.masters[0]))
        wait_until(lambda: all(len(nodes_seen(server)) == len(self.servers) for server in self.servers))
        for replica, master in zip(self.replicas, self.masters, strict=False):
            name = say(master, "CLUSTER", "MYID").decode()
            wait_until(lambda replica=replica, name=name: any(name in line for line in nodes_seen(replica)))
            say(replica, "CLUSTER", "REPLICATE", name)
        wait_until(lambda: all(self.works_for(server) for server in self.servers))
        wait_until(lambda: all(in_step(replica) for replica in self.replicas))

    def works_for(self, server: RedisServer) -> bool:
        """Whether a node says that all slots are served."""
        return b"cluster_state:ok" in say(server, "CLUSTER", "INFO")

    def owner(self, key: bytes) -> RedisServer:
        """The server that has a key."""
        slot = say(self.masters[0], "CLUSTER", "KEYSLOT", key)
        for server in self.servers:
            for first, last, (_, port, *_), *_ in say(server, "CLUSTER", "SLOTS"):
                if first <= slot <= last:
                    return next(each for each in self.servers if address(each).endswith(f":{port}"))
        raise AssertionError(f"nobody has slot {slot}")

    def clean(self) -> None:
        """Empty it for the next test."""
        for server in self.servers:
            with client(server.url) as connection:
                if connection.role()[0] == b"master":
                    connection.flushall()
                    connection.script_flush()

    @property
    def alive(self) -> bool:
        """Whether all of its processes exist."""
        return all(server.alive for server in self.servers)

    def forbidden_calls(self) -> Counter[str]:
        """What its nodes were made to do and should not have been."""
        return sum((server.forbidden_calls() for server in self.servers), start=Counter())

    def stop(self) -> None:
        """End all processes."""
        for server in self.servers:
            server.stop()


def start_node(*options: str) -> RedisServer:
    """A server that is to be a node; the port of its bus is a free one, too."""
    for _ in range(5):
        try:
            return RedisServer.start(
                "valkey",
                *("--cluster-enabled", "yes", "--cluster-port", str(free_port())),
                *("--cluster-node-timeout", str(NODE_TIMEOUT_MS), "--cluster-replica-validity-factor", "0"),
                *("--repl-diskless-sync-delay", "0", *options),
            )
        except ServerUnavailable as failure:  # somebody was faster at one of the ports
            last = failure
    raise last


def say(server: RedisServer, *command: Any) -> Any:
    """Send one command; the reply as the server gives it."""
    with redis.Redis.from_url(server.url, protocol=2, socket_timeout=5) as connection:
        connection.response_callbacks.clear()
        return connection.execute_command(*command)


def address(server: RedisServer) -> str:
    """Such as ``127.0.0.1:16000``."""
    return server.url.removeprefix("redis://").removesuffix("/0")


def bus_port(server: RedisServer) -> str:
    """Where its cluster bus listens."""
    return say(server, "CONFIG", "GET", "cluster-port")[1].decode()


def nodes_seen(server: RedisServer) -> list[str]:
    """Its CLUSTER NODES, those that it is still to meet left out."""
    lines = say(server, "CLUSTER", "NODES").decode().splitlines()
    return [line for line in lines if "handshake" not in line and "noaddr" not in line]


def in_step(replica: RedisServer) -> bool:
    """Whether a replica has all that its master has."""
    with client(replica.url) as connection:
        return dict(connection.info("replication")).get("master_link_status") == "up"


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
