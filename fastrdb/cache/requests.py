"""What a lane sends: batches of reads that share one ``MGET``, and calls of several commands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any, Final, Protocol, TypeAlias

from redis import exceptions as redis_errors

from fastrdb.errors import CacheFull, ServerRefused

from . import scripts
from .protocol import Cell
from .store import Command, Found, Get, Life, Reply, stores_more
from .wire import Failure, fail, unavailable

MOST_KEYS: Final = 256  # of one MGET: Redis serves nobody else meanwhile

Waiter: TypeAlias = tuple["asyncio.Future[Found]", bytes, tuple[bytes, ...]]


class Owner(Protocol):
    """The lane, as its requests see it."""

    def again(self, batch: Batch) -> None:
        """The connection was lost before the batch was answered."""
        ...

    def landed(self) -> None:
        """A batch was answered."""
        ...

    def repeat(self, call: Call) -> None:
        """A call has to be sent once more."""
        ...

    def leave_soon(self, cause: Exception) -> None:
        """The server is not one to stay with."""
        ...


class Batch:
    """Reads that share one ``MGET``: each key is asked for once, equal scopes share one tuple of tokens."""

    __slots__ = ("_index", "_last_try", "_owner", "_places", "_scopes", "since", "waiters")

    def __init__(self, owner: Owner, since: float, last_try: bool) -> None:
        self.since = since
        self.waiters: list[Waiter] = []
        self._owner, self._last_try = owner, last_try
        self._index: dict[bytes, int] = {}
        self._scopes: dict[tuple[bytes, ...], tuple[int, list[int]]] = {}
        self._places: list[tuple[int, int]] = []  # of each waiter: where its entry is, which scope it has

    def take(self, waiters: Iterable[Waiter]) -> Waiter | None:
        """Let waiters share the round trip; give the first whose keys do not fit any more.

        Who was cancelled is left out. One that alone has too many keys fits an empty batch.
        """
        index, taken, places = self._index, self.waiters, self._places
        known: tuple[bytes, ...] | None = None
        scope = 0
        for waiter in waiters:
            future, entry, tokens = waiter
            if future.done():
                continue
            if tokens is not known:  # most of those who come one after the other share the tuple
                if taken and len(index) + len(tokens) >= MOST_KEYS:
                    return waiter
                scope, known = self._scope(tokens), tokens
            elif len(index) >= MOST_KEYS:
                return waiter
            taken.append(waiter)
            places.append((index.setdefault(entry, len(index)), scope))
        return None

    def _scope(self, tokens: tuple[bytes, ...]) -> int:
        """Give the number of a scope, whose keys are asked for once."""
        found = self._scopes.get(tokens)
        if found is None:
            keys = [self._index.setdefault(token, len(self._index)) for token in tokens]
            found = self._scopes[tokens] = len(self._scopes), keys
        return found[0]

    def packed(self) -> bytes:
        """Give the bytes to send."""
        return scripts.pack((b"MGET", *self._index))

    def feed(self, reply: Any) -> bool:
        """Give each waiter what it asked for."""
        if isinstance(reply, Exception):
            self.fail(partial(unavailable, reply))
            return True
        tokens: list[tuple[Cell, ...]] = [tuple([reply[at] for at in keys]) for _, keys in self._scopes.values()]
        for (future, _, _), (at, scope) in zip(self.waiters, self._places, strict=True):
            if not future.done():
                future.set_result((reply[at], tokens[scope]))
        self._owner.landed()
        return True

    def lost(self, cause: Exception) -> None:
        """Try once more: reading twice harms nobody."""
        if self._last_try:
            self.fail(partial(unavailable, cause))
        else:
            self._owner.again(self)

    def fail(self, failure: Failure) -> None:
        """Fail each waiter with an error of its own."""
        for future, _, _ in self.waiters:
            fail(future, failure)
        self._owner.landed()


def gather(
    owner: Owner, since: float, waiters: Iterable[Waiter], *, last_try: bool = False, kind: type[Batch] = Batch
) -> Iterator[Batch]:
    """Cut reads into batches; who was cancelled is left out, and one read's keys stay together."""
    left = waiters
    while True:
        batch = kind(owner, since, last_try)
        left = iter(left)
        unfit = batch.take(left)
        if batch.waiters:
            yield batch
        if unfit is None:
            return
        left = chain((unfit,), left)


def answered(command: Command, reply: object) -> bool:
    """Tell whether a reply says what became of a command: it is no error, or there was no memory to store more."""
    if not isinstance(reply, Exception):
        return True
    return isinstance(reply, redis_errors.OutOfMemoryError) and stores_more(command)


class Call:
    """Commands that are sent together, and never again, but for scripts that the server had forgotten."""

    __slots__ = ("_commands", "_due", "_erred", "_fed", "_owner", "_repeated", "_replies", "future", "since")

    def __init__(self, owner: Owner, commands: Sequence[Command], loop: asyncio.AbstractEventLoop) -> None:
        self.since = loop.time()
        self.future: asyncio.Future[list[Reply]] = loop.create_future()
        self._owner, self._commands = owner, commands
        self._replies: list[Any] = [None] * len(commands)
        self._due: Sequence[int] = range(len(commands))
        self._fed = 0
        self._erred = self._repeated = False

    def packed(self) -> bytes:
        """Give the bytes to send: of what has to be repeated, the scripts themselves."""
        return b"".join([scripts.request(self._commands[at], by_text=self._repeated) for at in self._due])

    def feed(self, reply: Any) -> bool:
        """Take the next reply."""
        self._replies[self._due[self._fed]] = reply
        self._fed += 1
        self._erred |= isinstance(reply, Exception)
        if self._fed < len(self._due):
            return False
        if self._erred and (forgotten := self._forgotten()):
            self._due, self._fed, self._repeated = forgotten, 0, True
            self._owner.repeat(self)
        else:
            self._settle()
        return True

    def lost(self, cause: Exception) -> None:
        """Fail: some of the commands may have run."""
        self.fail(partial(unavailable, cause))

    def fail(self, failure: Failure) -> None:
        """Fail."""
        fail(self.future, failure)

    def _forgotten(self) -> list[int]:
        """Name the commands to repeat after SCRIPT FLUSH: those, and the reads that came after the first."""
        if self._repeated:
            return []
        lacking = [isinstance(reply, redis_errors.NoScriptError) for reply in self._replies]
        if True not in lacking:
            return []
        first = lacking.index(True)
        reads = (Get, Life)
        return [
            at
            for at, command in enumerate(self._commands)
            if lacking[at] or (at > first and isinstance(command, reads))
        ]

    def _settle(self) -> None:
        errors = [reply for reply in self._replies if isinstance(reply, Exception)] if self._erred else []
        error = errors[0] if errors else None
        if error is None:
            if not self.future.done():
                self.future.set_result(list(map(scripts.reply, self._commands, self._replies)))
        elif isinstance(error, redis_errors.ReadOnlyError):
            self.fail(self._demoted(error))
            self._owner.leave_soon(error)
        elif all(map(answered, self._commands, self._replies)):
            self.fail(partial(CacheFull, self._answers()))
        else:
            self.fail(partial(unavailable, error))

    def _answers(self) -> list[Any]:
        """Give the replies, errors among them."""
        return [
            answer if isinstance(answer, Exception) else scripts.reply(command, answer)
            for command, answer in zip(self._commands, self._replies, strict=True)
        ]

    def _demoted(self, error: Exception) -> Failure:
        return partial(ServerRefused, "this Redis is a replica: give the cache a client of the primary")


class FollowingCall(Call):
    """The same, where another dial finds the new primary: a server that has become a replica is out of reach."""

    __slots__ = ()

    def _demoted(self, error: Exception) -> Failure:
        return partial(unavailable, error)
