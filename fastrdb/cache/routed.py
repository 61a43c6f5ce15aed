"""What a lane to a node of a cluster sends: reads without ``MGET`` over several slots, calls whose errors are data."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from fastrdb.errors import CacheUnavailable

from . import scripts
from .requests import Batch, Call, Owner
from .store import Command, Reply
from .wire import Failure, fail, unavailable

_ASKING = scripts.pack((b"ASKING",))


class NodeBatch(Batch):
    """Reads that share one pipeline: a cluster takes no ``MGET`` over several slots.

    ``MGET`` of one key each, not ``GET``, which fails where another program has put a list.
    """

    __slots__ = ("_cells",)

    def __init__(self, owner: Owner, since: float, last_try: bool) -> None:
        super().__init__(owner, since, last_try)
        self._cells: list[Any] = []

    def packed(self) -> bytes:
        """Give the bytes to send."""
        return b"".join([scripts.pack((b"MGET", key)) for key in self._index])

    def feed(self, reply: Any) -> bool:
        """Take the next reply; with the last one, give each waiter what it asked for."""
        cells = self._cells
        cells.append(reply if isinstance(reply, Exception) else reply[0])
        if len(cells) < len(self._index):
            return False
        self._fail_the_misled()
        return super().feed(cells)

    def _fail_the_misled(self) -> None:
        """Fail those who asked for a key that the node did not give; the error has its reply as the cause."""
        misled = {key: cell for key, cell in zip(self._index, self._cells, strict=True) if isinstance(cell, Exception)}
        for future, entry, tokens in self.waiters if misled else ():
            errors = [misled[key] for key in (entry, *tokens) if key in misled]
            if errors:
                fail(future, partial(unavailable, errors[0]))


class Unsent(CacheUnavailable):
    """There was no connection: the commands have certainly not run."""


class NodeCall(Call):
    """Commands for one node. Its errors stand among the replies: that of one command says nothing of another."""

    __slots__ = ("_is_sent",)

    def __init__(self, owner: Owner, commands: Sequence[Command], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(owner, commands, loop)
        self._is_sent = False

    def packed(self) -> bytes:
        """Give the bytes to send."""
        self._is_sent = True
        return super().packed()

    def fail(self, failure: Failure) -> None:
        """Fail; with ``Unsent`` if another attempt is safe."""
        error = failure()
        if not self._is_sent and isinstance(error, CacheUnavailable):
            unsent = Unsent(*error.args)
            unsent.__cause__ = error.__cause__
            error = unsent
        fail(self.future, lambda: error)

    def _settle(self) -> None:
        if not self.future.done():
            self.future.set_result(cast("list[Reply]", self._answers()))


class AskingCall(NodeCall):
    """Commands for the node that a slot is being moved to: ``ASKING`` goes before each."""

    __slots__ = ("_announced",)

    def __init__(self, owner: Owner, commands: Sequence[Command], loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(owner, commands, loop)
        self._announced = False

    def packed(self) -> bytes:
        """Give the bytes to send."""
        self._is_sent = True
        due = [scripts.request(self._commands[at], by_text=self._repeated) for at in self._due]
        return b"".join([_ASKING + request for request in due])

    def feed(self, reply: Any) -> bool:
        """Take the next reply; every other one is that to ``ASKING``."""
        self._announced = not self._announced
        return False if self._announced else super().feed(reply)
