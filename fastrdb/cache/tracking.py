"""The connection over which a server tells what has changed: client tracking in broadcasting mode, RESP3."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable
from contextvars import Context
from functools import partial
from typing import Any, Final, NoReturn, cast

from hiredis import HiredisError, PushNotification
from redis import exceptions as redis_errors

from fastrdb.errors import CacheClosed, CacheError, ServerRefused

from .copies import Copies
from .dial import Dialer
from .wire import NOTHING, Wire, unavailable

logger = logging.getLogger("fastrdb.cache")

_FIRST_PAUSE_S: Final = 0.05
_LAST_PAUSE_S: Final = 2.0
_REFUSED_PAUSE_S: Final = 30.0


class PushWire(Wire):
    """A connection on which the server also speaks without having been asked.

    Attributes:
        on_push: Told what it says.
    """

    on_push: Callable[[list[Any]], None]

    def listen(self, on: bool) -> None:
        """Take what arrives, or leave it in the network as a link that is cut would: for tests."""
        if not self.gone:
            (self._transport.resume_reading if on else self._transport.pause_reading)()

    def data_received(self, data: bytes) -> None:
        """Hand each reply to the request at the head, and each push to ``on_push``."""
        try:
            self._reader.feed(data)
            while (reply := self._reader.gets()) is not NOTHING:
                if isinstance(reply, PushNotification):
                    self.on_push(cast("list[Any]", reply))
                elif not self.pending:
                    raise redis_errors.InvalidResponse("a reply that nobody asked for")
                elif self.pending[0].feed(reply):
                    self.pending.popleft()
        except (redis_errors.InvalidResponse, HiredisError) as error:
            self.lose(error)


class Tracking:
    """Drops from copies what the server says has changed, and all of them when it can no longer say so.

    It belongs to the event loop in which it was made, and connects by itself, again and again.

    Args:
        dialer: Opens the connection.
        copies: What is kept.
        tokens: The prefixes of tokens.
        max_age_s: A link that is silent for so long is noticed before that.

    Attributes:
        loop: Its event loop.
        epoch: The run of the server that tells; empty while nobody does.
    """

    def __init__(self, dialer: Dialer, copies: Copies, tokens: Iterable[bytes], max_age_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.epoch = b""
        self._pid = os.getpid()
        self._dialer = dialer.speaking(PushWire)
        self._copies = copies
        self._silence_s = max_age_s / 3  # until it is asked, and then until it must have answered
        self._wanted = {*tokens}
        self._asked: tuple[bytes, ...] = ()
        self._confirmed = frozenset[bytes]()
        self._wire: Wire | None = None
        self._news = asyncio.Event()
        self._told = False
        self._pause_s = _FIRST_PAUSE_S
        self._task = self.loop.create_task(self._run(), name="fastrdb-tracking", context=Context())
        # As with the keeper of a store: a loop that is closed without cancelling its tasks has lost nothing.
        cast("Any", self._task)._log_destroy_pending = False

    @property
    def ended(self) -> bool:
        """Nobody connects any more: it was closed, its loop was, or this is a forked child."""
        return self._task.done() or self.loop.is_closed() or self._pid != os.getpid()

    def confirms(self, prefix: bytes) -> bool:
        """Tell whether the server has said that it tells changes of all keys with this prefix, and still does."""
        return prefix in self._confirmed

    def want(self, prefix: bytes) -> None:
        """Ask for the changes of keys with this prefix, too; from any thread."""
        if prefix not in self._wanted and not self.ended:
            self.loop.call_soon_threadsafe(self._want, prefix)

    def leave(self) -> None:
        """Forget everything, and connect anew: somebody has found another server; from any thread."""
        self._off()
        if not self.ended:
            self.loop.call_soon_threadsafe(self._lose, "another server answers")

    def cancel(self) -> None:
        """Forget everything, and end; from any thread."""
        self._off()
        if not self.ended:
            self.loop.call_soon_threadsafe(self._task.cancel)

    async def aclose(self) -> None:
        """End, and wait for it where that is this loop's affair."""
        self.cancel()
        if not self.ended and self.loop is asyncio.get_running_loop():
            await asyncio.wait([self._task])

    def _want(self, prefix: bytes) -> None:
        self._wanted.add(prefix)
        self._news.set()

    async def _run(self) -> None:
        try:
            while True:
                pause_s = await self._once()
                await asyncio.sleep(pause_s)
        finally:
            self._off()

    async def _once(self) -> float:
        """Connect, and listen until that ends; give how long to wait before the next time."""
        try:
            await self._follow()
        except ServerRefused as error:
            self._tell(error)
            return _REFUSED_PAUSE_S
        except CacheError:
            pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _LAST_PAUSE_S)
            return pause_s
        finally:
            self._off()
            wire, self._wire = self._wire, None
            if wire is not None:
                wire.drop(partial(CacheClosed, "the near tier has closed its connection"))

    async def _follow(self) -> NoReturn:
        """Connect, and listen until that ends; never returns.

        Raises:
            CacheUnavailable: The connection was lost, or is silent.
            ServerRefused: The server cannot tell, or may not be asked to.
        """
        server = await self._dialer.dial()
        assert isinstance(server.wire, PushWire)
        wire = self._wire = server.wire
        wire.on_push, wire.on_lost = self._pushed, self._lost
        self._asked = minimal(self._wanted)
        wanted = frozenset(self._wanted)
        await self._ask((b"HELLO", 3), _tracking(self._asked))
        self._copies.flush()  # readers take no ticket before the next line; a late one is void
        self.epoch, self._confirmed = server.epoch, wanted
        self._told, self._pause_s = False, _FIRST_PAUSE_S
        while True:
            try:
                async with asyncio.timeout(self._silence_s):
                    await self._news.wait()
            except TimeoutError:
                await self._ask((b"PING",))
            self._news.clear()
            if wire.gone:
                raise unavailable(redis_errors.ConnectionError("the near tier's connection was lost"))
            await self._widen()

    async def _widen(self) -> None:
        """Ask for what is wanted since; prefixes of one connection must not overlap, and none is ever taken back."""
        wanted = frozenset(self._wanted)
        if wanted == self._confirmed:
            return
        needed = minimal(wanted)
        if not set(self._asked) <= set(needed):
            raise unavailable(redis_errors.ConnectionError("a shorter prefix is asked for over a new connection"))
        if more := tuple(prefix for prefix in needed if prefix not in self._asked):
            await self._ask(_tracking(more))
            self._asked = needed
        self._confirmed = wanted

    async def _ask(self, *commands: tuple[bytes | int, ...]) -> None:
        wire = self._wire
        assert wire is not None
        try:
            async with asyncio.timeout(self._silence_s):
                replies = await wire.ask(commands)
        except TimeoutError as error:
            raise unavailable(redis_errors.TimeoutError("the near tier's connection is silent")) from error
        for reply in replies:
            if isinstance(reply, redis_errors.ConnectionError):  # it is loading, or shutting down
                raise unavailable(reply)
            if isinstance(reply, Exception):
                raise ServerRefused(
                    f"the near tier is off, because the server refused client tracking ({reply}): it needs RESP3 and, "
                    "in an ACL, +hello +client|tracking +ping; a proxy in between may know none of them. Leave out "
                    "near= where it cannot be had"
                ) from reply

    def _pushed(self, push: list[Any]) -> None:
        if push[0] != b"invalidate":
            return
        if push[1] is None:
            self._copies.flush()
        else:
            self._copies.drop(push[1])

    def _lost(self) -> None:
        self._off()
        self._news.set()  # whereupon it is found out

    def _lose(self, why: str) -> None:
        if self._wire is not None:
            self._wire.lose(redis_errors.ConnectionError(why))

    def _off(self) -> None:
        self.epoch, self._confirmed = b"", frozenset()
        self._copies.flush()

    def _tell(self, error: ServerRefused) -> None:
        if not self._told:
            self._told = True
            logger.warning("%s", error)


def minimal(prefixes: Iterable[bytes]) -> tuple[bytes, ...]:
    """Give those prefixes that no other one of them begins: together they cover the same keys."""
    kept: list[bytes] = []
    for prefix in sorted(prefixes):  # what begins others comes right before them
        if not kept or not prefix.startswith(kept[-1]):
            kept.append(prefix)
    return tuple(kept)


def _tracking(prefixes: Iterable[bytes]) -> tuple[bytes, ...]:
    asked = [part for prefix in prefixes for part in (b"PREFIX", prefix)]
    return (b"CLIENT", b"TRACKING", b"ON", b"BCAST", *asked)
