"""``ClusterStore``: the cells in a Redis or Valkey cluster, over two connections of our own to each master."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import RedisCluster
from redis.asyncio.connection import ConnectionPool, parse_url

from fastrdb.errors import RedisRefused

from .bound import BoundStore
from .dial import Dialer
from .nodes import Nodes
from .store import Command, Found, Read, Reply
from .topology import Address, Remap
from .trips import CallTrip, ReadTrip

SCHEMES: Final = ("redis+cluster", "rediss+cluster")
_PORT: Final = 6379


class ClusterStore(BoundStore[Nodes]):
    """A store on a cluster of Redis (7 or newer) or Valkey servers.

    It asks any node for the map of the slots, keeps two connections to each master, one for small values and one for
    large ones, and follows where slots move and replicas take over. One read is one round trip to each node that has
    a key of it; all reads of one turn of the event loop share them.

    Args:
        seeds: Addresses of some nodes.
        settings: Of the connections, as ``redis.asyncio.ConnectionPool`` takes them: credentials, TLS.
        timeout_s: Seconds from a call to its reply.
        epoch: What stands for each server's run id where its user may not call INFO.
        remap: Gives the address at which clients reach a node.
        before_use: What is done whenever a connection was opened, before it is used; raising closes it.
    """

    def __init__(
        self,
        seeds: Sequence[Address],
        settings: Mapping[str, Any],
        *,
        timeout_s: float = 1.0,
        epoch: str | None = None,
        remap: Remap | None = None,
        before_use: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(timeout_s)
        self._before_use = before_use
        self._seeds, self._settings, self._epoch, self._remap = tuple(seeds), settings, epoch, remap

    @classmethod
    def factory_from_client(
        cls, client: RedisCluster, *, timeout_s: float = 1.0, epoch: str | None = None
    ) -> Callable[[], ClusterStore]:
        """Give what builds stores with the settings of a client, which is not kept alive.

        Raises:
            RedisRefused: It reads from replicas, which may lag.
        """
        if client.read_from_replicas or client.load_balancing_strategy:
            raise RedisRefused("redis: a RedisCluster that reads from replicas; build one without that for the cache")
        manager = client.nodes_manager
        nodes = {**manager.startup_nodes, **manager.nodes_cache}
        settings = {**client.connection_kwargs}
        for ours in ("response_callbacks", "max_connections", "event_dispatcher", "redis_connect_func"):
            settings.pop(ours, None)
        seeds = [(node.host, int(node.port)) for node in nodes.values()]
        return partial(cls, seeds, settings, timeout_s=timeout_s, epoch=epoch, remap=manager.address_remap)

    @classmethod
    def factory_from_url(
        cls, url: str, *, timeout_s: float = 1.0, epoch: str | None = None
    ) -> Callable[[], ClusterStore]:
        """Give what builds stores for ``redis+cluster://[user:password@]host:port[,host:port…]``, or ``rediss+…``.

        Raises:
            ValueError: Another scheme, or a wrong value in the URL.
        """
        seeds, settings = parse_cluster_url(url)
        return partial(cls, seeds, settings, timeout_s=timeout_s, epoch=epoch)

    def __repr__(self) -> str:
        return f"<ClusterStore on {', '.join(f'{host}:{port}' for host, port in self._seeds)}>"

    def _open(self) -> Nodes:
        return Nodes(self._seeds, self._dialer, self._timeout_s, self._remap)

    def _dialer(self, address: Address) -> Dialer:
        settings = {**self._settings}
        connection_class = settings.pop("connection_class", None)
        named = {} if connection_class is None else {"connection_class": connection_class}
        pool: ConnectionPool = ConnectionPool(host=address[0], port=address[1], **named, **settings)
        return Dialer(pool, self._timeout_s, self._epoch, follows=True, before_use=self._before_use)

    def _here(self) -> Nodes:
        bound = self._bound
        if bound is None or bound.loop is not asyncio.get_running_loop():
            bound = self._bind()
        return bound

    def read(self, entry: bytes, tokens: tuple[bytes, ...], *, bulk: bool = False) -> Awaitable[Found]:
        """Read an entry and the tokens of its scopes, sharing round trips with others.

        Raises:
            CacheUnavailable: No answer in time, a connection lost twice, no master has a slot, or an error reply.
            ServerRefused: The protocol cannot work on this server.
            CacheClosed: After ``aclose``, or when the loop is shutting down.
        """
        return ReadTrip(self._here(), bulk, entry, tokens).start()

    def reader(self, *, bulk: bool = False) -> Read:
        """Give what reads in the running event loop."""
        return partial(self.read, bulk=bulk)

    def post(self, commands: Sequence[Command], *, bulk: bool = False) -> Awaitable[list[Reply]]:
        """Enqueue commands now, in order on each node; awaiting the replies is optional."""
        return CallTrip(self._here(), bulk, commands).start()


def parse_cluster_url(url: str) -> tuple[list[Address], dict[str, Any]]:
    """Give the addresses of a cluster's URL, and the settings of its connections.

    Raises:
        ValueError: Another scheme, a database, or a wrong value.
    """
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES or parts.path.strip("/") not in ("", "0"):
        raise ValueError("a cluster's URL is redis+cluster://host:port,host:port; it has no databases")
    credentials, at, hosts = parts.netloc.rpartition("@")
    scheme = parts.scheme.removesuffix("+cluster")
    each = [parse_url(urlunsplit((scheme, credentials + at + host, "", parts.query, ""))) for host in hosts.split(",")]
    seeds = [(str(one.get("host", "127.0.0.1")), int(one.get("port", _PORT))) for one in each]
    return seeds, {name: value for name, value in each[0].items() if name not in ("host", "port", "db")}
