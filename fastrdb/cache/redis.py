"""``RedisStore``: the cells in a Redis or Valkey server, over two connections of our own."""

from __future__ import annotations

import asyncio
import os
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial
from typing import Any, cast

import redis.asyncio
from redis import exceptions as redis_errors

from fastrdb.errors import CacheClosed, RedisRefused

from .dial import Dialer, Server
from .lane import Lane
from .store import Command, Found, Reply
from .wire import Wire


class RedisStore:
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
        if timeout_s <= 0:
            raise ValueError(f"timeout_s must be positive, not {timeout_s}")
        self._timeout_s = timeout_s
        self._dialer = Dialer(pool, timeout_s, epoch, before_use)
        self._bound: _Bound | None = None
        self._inherited: list[_Bound] = []
        self._closed = False

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

    def __repr__(self) -> str:
        return f"<RedisStore on {self._dialer.where}>"

    @property
    def epoch(self) -> bytes:
        """The run id of the server that answers now; empty before the first connection."""
        return self._bound.epoch if self._bound is not None else b""

    def read(self, entry: bytes, tokens: tuple[bytes, ...], *, bulk: bool = False) -> Awaitable[Found]:
        """Read an entry and the tokens of its scopes, sharing the round trip with others.

        Raises:
            CacheUnavailable: No answer in time, a connection lost twice, or an error reply (the cause).
            ServerRefused: The protocol cannot work on this server.
            CacheClosed: After ``aclose``, or when the loop is shutting down.
        """
        bound = self._bound
        if bound is None or bound.loop is not asyncio.get_running_loop():
            bound = self._bind()
        return (bound.bulk if bulk else bound.small).read(entry, tokens)

    async def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Reply]:
        """Run commands in one round trip. Raises as ``read`` does; some of the commands may have run."""
        return await self.post(commands, bulk=bulk)

    def post(self, commands: Sequence[Command], *, bulk: bool = False) -> Awaitable[list[Reply]]:
        """Enqueue commands now; awaiting the replies is optional."""
        bound = self._bound
        if bound is None or bound.loop is not asyncio.get_running_loop():
            bound = self._bind()
        return (bound.bulk if bulk else bound.small).post(commands)

    async def aclose(self) -> None:
        """Close the connections; what waits for a reply gets ``CacheClosed``."""
        self._closed = True
        bound = self._bound
        if bound is None or bound.pid != os.getpid() or bound.loop.is_closed():
            return
        if bound.loop is asyncio.get_running_loop():
            bound.keeper.cancel()
            await asyncio.wait([bound.keeper])
        else:
            bound.loop.call_soon_threadsafe(bound.keeper.cancel)

    def _bind(self) -> _Bound:
        if self._closed:
            raise CacheClosed("the cache was closed")
        if (old := self._bound) is not None:
            if old.pid != os.getpid():
                self._inherited.append(old)
            elif not old.loop.is_closed():
                raise CacheClosed("this store belongs to another event loop, still open: build one per loop")
        self._bound = bound = _Bound(self._dialer, self._timeout_s)
        weakref.finalize(self, _abandon, bound).atexit = False
        return bound


class _Bound:
    """What belongs to one event loop: the lanes, and the task that closes them when the loop ends."""

    def __init__(self, dialer: Dialer, timeout_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.pid = os.getpid()
        self.epoch = b""
        self._dialer = dialer
        self.small = Lane(self._dial_small, timeout_s)
        self.bulk = Lane(self._dial_bulk, timeout_s)
        self.keeper = self.loop.create_task(self._keep(), name="fastrdb-keeper", context=Context())
        # A loop that is closed without cancelling its tasks: nothing is lost, so nothing is logged.
        cast("Any", self.keeper)._log_destroy_pending = False

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

    async def _keep(self) -> None:
        try:
            await self.loop.create_future()
        finally:
            try:
                await self._close()
            except asyncio.CancelledError:  # a loop that shuts down cancels what closes, too, maybe before it began
                await self._close()
                raise

    async def _close(self) -> None:
        await asyncio.gather(self.small.aclose(), self.bulk.aclose())


def _abandon(bound: _Bound) -> None:
    """Close the connections of a store that nobody has any more."""
    if bound.pid == os.getpid() and not bound.loop.is_closed():
        bound.loop.call_soon_threadsafe(bound.keeper.cancel)
