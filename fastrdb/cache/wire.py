"""One connection to Redis: bytes out, replies in, each to the request that asked for it.

redis-py opens the connection (TLS, unix sockets, AUTH, SELECT); then this takes the transport over. What is
left of a round trip is a ``write``, hiredis and the callbacks of the event loop: no task, no stream, no lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, Protocol, Self, TypeAlias, cast

from hiredis import HiredisError, Reader
from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection, DefaultParser

from fastrdb.errors import CacheError, CacheUnavailable, ServerRefused

from .scripts import pack

NOTHING: Final = object()
_CLOSE_S = 0.5  # how long a connection may take to say goodbye

Failure: TypeAlias = Callable[[], CacheError]


def unavailable(cause: BaseException) -> CacheUnavailable:
    """Give the error of a request that Redis did not answer, or answered with an error."""
    said_no = isinstance(cause, redis_errors.ResponseError)
    what = "Redis answered with an error" if said_no else "Redis did not answer"
    error = CacheUnavailable(f"{what}: {cause}")
    error.__cause__ = cause
    return error


def fail(future: asyncio.Future[Any], failure: Failure) -> None:
    """Fail a future, unless it was cancelled; nothing is logged when nobody awaits it."""
    if not future.done():
        future.set_exception(failure())
        future.exception()


class Request(Protocol):
    """Something that was sent, and waits for its replies."""

    @property
    def since(self) -> float:
        """When it was enqueued, by the loop's clock."""
        ...

    def feed(self, reply: Any) -> bool:
        """Take the next reply, an error of redis-py perhaps; tell whether it was the last one."""
        ...

    def lost(self, cause: Exception) -> None:
        """The connection went away under it."""
        ...

    def fail(self, failure: Failure) -> None:
        """There will be no reply."""
        ...


class Ask:
    """Commands whose replies, errors among them, are wanted as they come."""

    def __init__(self, loop: asyncio.AbstractEventLoop, count: int) -> None:
        self.since = loop.time()
        self.future: asyncio.Future[list[Any]] = loop.create_future()
        self._count, self._replies = count, list[Any]()

    def feed(self, reply: Any) -> bool:
        """Take the next reply."""
        self._replies.append(reply)
        if len(self._replies) < self._count:
            return False
        if not self.future.done():
            self.future.set_result(self._replies)
        return True

    def lost(self, cause: Exception) -> None:
        """Fail: what asks in this way tries no second time."""
        self.fail(partial(unavailable, cause))

    def fail(self, failure: Failure) -> None:
        """Fail."""
        fail(self.future, failure)


class Wire(asyncio.Protocol):
    """A connection whose replies come back in the order of the requests.

    Attributes:
        pending: What waits for replies, in order.
        on_lost: Called once, when the connection was lost, after every pending request was told.
        gone: Nothing can be sent any more.
    """

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.pending: deque[Request] = deque()
        self.on_lost: Callable[[], None] | None = None
        self._loop = asyncio.get_running_loop()
        self._writer = writer  # since Python 3.12 one that is collected closes the transport
        self._transport = cast("asyncio.Transport", writer.transport)
        self._reader = Reader(
            protocolError=redis_errors.InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=NOTHING,
        )
        self.gone = False
        self._closed: asyncio.Future[None] = self._loop.create_future()

    @classmethod
    def take_over(cls, connection: AbstractConnection) -> Self:
        """Take the transport away from a connection of redis-py that has finished its handshake.

        Raises:
            redis.ConnectionError: The server has closed it already.
            ServerRefused: There is no transport: the client is an imitation.
        """
        reader, writer = connection._reader, connection._writer
        if reader is None or writer is None:
            raise redis_errors.ConnectionError("the connection was closed during its handshake")
        if not hasattr(writer, "transport"):
            raise ServerRefused("this client has no connection to a server (fakeredis?): use memory:// in tests")
        connection._reader = connection._writer = None
        wire = cls(writer)
        wire._transport.set_protocol(wire)
        if reader.at_eof() or wire._transport.is_closing():
            wire._transport.abort()
            raise redis_errors.ConnectionError("the server closed the connection during its handshake")
        if read_ahead := bytes(cast("Any", reader)._buffer):  # there is no public way
            wire.data_received(read_ahead)
        return wire

    def send(self, data: bytes, requests: Iterable[Request]) -> None:
        """Write commands, and enqueue those who wait for their replies."""
        self.pending.extend(requests)
        if not self._transport.is_closing():  # else they are told in a moment, and asyncio would log each further write
            self._transport.write(data)

    async def ask(self, commands: Iterable[tuple[bytes | int, ...]]) -> list[Any]:
        """Send commands together; the replies may be errors of redis-py.

        Raises:
            CacheUnavailable: The connection was lost.
        """
        if self.gone:
            raise unavailable(redis_errors.ConnectionError("the connection was lost"))
        packed = [pack(command) for command in commands]
        ask = Ask(self._loop, len(packed))
        self.send(b"".join(packed), (ask,))
        return await ask.future

    def data_received(self, data: bytes) -> None:
        """Hand each reply to the request at the head."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not NOTHING:
                if not self.pending:
                    raise redis_errors.InvalidResponse("a reply that nobody asked for")
                if self.pending[0].feed(reply):
                    self.pending.popleft()
        except (redis_errors.InvalidResponse, HiredisError) as error:
            self.lose(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell those who wait."""
        if not self._closed.done():
            self._closed.set_result(None)
        self.lose(exc or redis_errors.ConnectionError("the server closed the connection"))

    def lose(self, cause: Exception) -> None:
        """Give the connection up: what is pending may try another one."""
        if self.gone:
            return
        for request in self._end():
            request.lost(cause)
        self._transport.abort()
        if self.on_lost is not None:
            self.on_lost()

    def drop(self, failure: Failure) -> None:
        """Give the connection up, and fail what is pending."""
        if not self.gone:
            for request in self._end():
                request.fail(failure)
            self._transport.abort()

    async def aclose(self, failure: Failure) -> None:
        """Write what is buffered, close, and wait for it."""
        if not self.gone:
            for request in self._end():
                request.fail(failure)
            self._transport.close()
        await asyncio.wait([self._closed], timeout=_CLOSE_S)
        if not self._closed.done():
            self._transport.abort()
            await asyncio.wait([self._closed], timeout=_CLOSE_S)

    def _end(self) -> deque[Request]:
        self.gone = True
        pending, self.pending = self.pending, deque()
        return pending
