"""``RedisStore``: the cells in a Redis or Valkey server, over two connections of our own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import redis.asyncio
from redis import exceptions as redis_errors

from fastrdb.errors import RedisRefused

from .bound import Bound, BoundStore
from .dial import Dialer, Server
from .lane import Lane, Notice
from .requests import Call, FollowingCall
from .store import Command, Found, Read, Reply
from .wire import Wire


class RedisStore(BoundStore["_Pair"]):
    """A store on a Redis (7 or newer) or Valkey server.

    It opens two connections when they are first needed, one for small values and one for large ones, and
    keeps them until the event loop ends. It belongs to one event loop at a time: when that loop was closed,
    it may be used in another one. A forked process opens connections of its own.

    Args:
        pool: A pool of redis-py; its settings are used (server, credentials, TLS), not its connections.
        timeout_s: Seconds from a call to its reply.
        epoch: What stands for the server's run id where its user may not call INFO.
        before_use: What is done whenever a connection was opened, before it is used; raising closes it.
    """

    def __init__(
        self,
        pool: redis.asyncio.ConnectionPool,
        *,
        timeout_s: float = 1.0,
        epoch: str | None = None,
        before_use: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        super().__init__(timeout_s)
        self._dialer = Dialer(pool, timeout_s, epoch, before_use=before_use)

    @classmethod
    def factory_from_client(
        cls, client: redis.asyncio.Redis, *, timeout_s: float = 1.0, epoch: str | None = None
    ) -> Callable[..., RedisStore]:
        """Give what builds stores with the settings of a client, which is not kept alive.

        Closing the client closes nothing here.

        Raises:
            RedisRefused: It is no ``redis.asyncio.Redis``.
        """
        pool: Any = getattr(client, "connection_pool", None)
        if not isinstance(client, redis.asyncio.Redis) or not isinstance(pool, redis.asyncio.ConnectionPool):
            raise RedisRefused(f"redis must be a redis.asyncio.Redis, not {type(client).__qualname__}")
        return partial(cls, pool, timeout_s=timeout_s, epoch=epoch)

    @classmethod
    def factory_from_url(
        cls, url: str, *, timeout_s: float = 1.0, epoch: str | None = None
    ) -> Callable[..., RedisStore]:
        """Give what builds stores for a ``redis://``, ``rediss://`` or ``unix://`` URL of redis-py.

        Raises:
            ValueError: Another scheme, or a wrong value in the URL.
        """
        return partial(cls, redis.asyncio.ConnectionPool.from_url(url), timeout_s=timeout_s, epoch=epoch)

    @property
    def dialer(self) -> Dialer:
        """What opens its connections."""
        return self._dialer

    def __repr__(self) -> str:
        return f"<RedisStore on {self._dialer.where}>"

    def read(self, entry: bytes, tokens: tuple[bytes, ...], *, bulk: bool = False) -> Awaitable[Found]:
        """Read an entry and the tokens of its scopes, sharing the round trip with others.

        Raises:
            CacheUnavailable: No answer in time, a connection lost twice, or an error reply (the cause).
            ServerRefused: The protocol cannot work on this server.
            CacheClosed: After ``aclose``, or when the loop is shutting down.
        """
        return self._lane(bulk).read(entry, tokens)

    def reader(self, *, bulk: bool = False) -> Read:
        """Give what reads in the running event loop: a hit is spared the question whether it still runs."""
        return self._lane(bulk).read

    def post(self, commands: Sequence[Command], *, bulk: bool = False) -> Awaitable[list[Reply]]:
        """Enqueue commands now; awaiting the replies is optional."""
        return self._lane(bulk).post(commands)

    def _lane(self, bulk: bool) -> Lane:
        bound = self._bound
        if bound is None or bound.loop is not asyncio.get_running_loop():
            bound = self._bind()
        return bound.bulk if bulk else bound.small

    def _open(self) -> _Pair:
        return _Pair(self._dialer, self._timeout_s)


class _Pair(Bound):
    """The two lanes of one event loop."""

    def __init__(self, dialer: Dialer, timeout_s: float) -> None:
        super().__init__()
        self._dialer = dialer
        call = FollowingCall if dialer.follows else Call
        notice = Notice()
        self.small = Lane(self._dial_small, timeout_s, notice, call=call)
        self.bulk = Lane(self._dial_bulk, timeout_s, notice, call=call)

    async def _dial_small(self) -> Wire:
        return self._note(await self._dialer.dial(), self.bulk)

    async def _dial_bulk(self) -> Wire:
        return self._note(await self._dialer.dial(), self.small)

    def _note(self, server: Server, other: Lane) -> Wire:
        """Keep both lanes on one server: a value is stamped with the run id of the one that answered."""
        if server.epoch != self.epoch:
            self.epoch = server.epoch
            other.leave(redis_errors.ConnectionError("the server was replaced by another one"))
        return server.wire

    async def look(self) -> None:
        """Leave a server that has stepped down."""
        for lane in (self.small, self.bulk):
            await lane.look(self._same)

    async def _same(self, wire: Wire) -> bool:
        return await self._dialer.same(Server(wire, self.epoch))

    async def close(self) -> None:
        """Close both."""
        await asyncio.gather(self.small.aclose(), self.bulk.aclose())
