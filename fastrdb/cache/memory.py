"""``memory://``: the cells in a dictionary of this process. The same protocol, no server, one process."""

from __future__ import annotations

import heapq
import math
import os
import threading
import time
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

from fastrdb.errors import CacheClosed, CacheShared

from . import protocol
from .done import Done
from .lockfile import LockFile
from .protocol import Cell
from .store import Command, Found, HoldTable, Life, ListTemplates, Mint, Read, Reply, Write, keys_of

_TRIES = 32  # cells that one insertion looks at: what must go, or has run out, goes a few at a time


class _Kept(NamedTuple):
    cell: bytes
    until_ms: float


class MemoryStore:
    """A store in this process's memory, for one process; any thread and event loop may use it.

    Args:
        max_cells: How many cells are kept; beyond, those that were not used for longest go, live holds never.
        clock: Seconds of a clock that never goes back.
    """

    def __init__(self, max_cells: int = 100_000, *, clock: Callable[[], float] = time.monotonic) -> None:
        if max_cells < 1:
            raise ValueError(f"max_cells must be at least 1, not {max_cells}")
        self._max_cells, self._clock = max_cells, clock
        self._cells: OrderedDict[bytes, _Kept] = OrderedDict()  # the least recently used first
        self._ends: list[tuple[float, bytes]] = []  # a heap; may name cells that have got another life since
        self._guard = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._epoch = protocol.random_name()
        self._locks: dict[str, Callable[[], object]] = {}

    def __repr__(self) -> str:
        return f"<MemoryStore with {len(self._cells)} of {self._max_cells} cells>"

    def __len__(self) -> int:
        return len(self._cells)

    @property
    def epoch(self) -> bytes:
        """A random name of this store."""
        return self._epoch

    def reader(self, *, bulk: bool = False) -> Read:
        """Give ``read``: it is the same in every event loop."""
        return self.read

    async def read(self, entry: bytes, tokens: tuple[bytes, ...], *, bulk: bool = False) -> Found:
        """Read an entry and the tokens of its scopes.

        Raises:
            CacheClosed: After ``aclose``.
            CacheShared: In a process that was forked from the one that built this store.
        """
        self._refuse_fork()
        with self._guard:
            now_ms = self._now_ms()
            return self._find(entry, now_ms), tuple([self._find(token, now_ms) for token in tokens])

    async def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Reply]:
        """Run commands in their order, and nothing between them. Raises as ``read`` does."""
        return self._run(commands)

    def post(self, commands: Sequence[Command], *, bulk: bool = False) -> Awaitable[list[Reply]]:
        """Run commands now; awaiting the replies is optional."""
        try:
            return Done(self._run(commands))
        except Exception as error:
            return Done(error=error)

    def exclusive(self, name: str) -> None:
        """Make sure that no other process, and no other store of this one, serves what *name* names.

        Args:
            name: The database and the namespace, in any form that is the same for all who share them.

        Raises:
            CacheShared: Another store has it already.
        """
        with self._guard:  # two threads may come with one name
            if name not in self._locks:
                self._locks[name] = weakref.finalize(self, LockFile.take(name).release)

    async def aclose(self) -> None:
        """Forget all cells, and let another process have what this one had for itself."""
        with self._guard:
            self._closed = True
            self._cells.clear()
            self._ends.clear()
        while self._locks:
            self._locks.popitem()[1]()

    def _refuse_fork(self) -> None:  # before the guard, which another thread may have had when the process was forked
        if os.getpid() != self._pid:
            raise CacheShared(
                "memory:// was forked into a second process, which would not see the other's writes: "
                "open the cache in each process and share a Redis server"
            )

    def _now_ms(self) -> int:
        if self._closed:
            raise CacheClosed("this memory:// cache was closed")
        return int(self._clock() * 1000)

    def _run(self, commands: Sequence[Command]) -> list[Reply]:
        self._refuse_fork()
        with self._guard:
            now_ms = self._now_ms()
            return [self._apply(command, now_ms) for command in commands]

    def _apply(self, command: Command, now_ms: int) -> Reply:
        if isinstance(command, Life):
            return b"%d" % self._life_ms(command.key, now_ms)
        keys = keys_of(command)
        outcome = command.apply([self._find(key, now_ms) for key in keys], now_ms)
        lengthens = isinstance(command, (Mint, ListTemplates, HoldTable))
        for key, write in zip(keys, outcome.writes, strict=True):
            if write is not None:
                self._write(key, write, now_ms, lengthens=lengthens)
        return outcome.reply

    def _find(self, key: bytes, now_ms: int) -> Cell:
        kept = self._cells.get(key)
        if kept is None:
            return None
        if kept.until_ms <= now_ms:
            del self._cells[key]
            return None
        self._cells.move_to_end(key)
        return kept.cell

    def _life_ms(self, key: bytes, now_ms: int) -> int:
        if self._find(key, now_ms) is None:
            return -2
        until_ms = self._cells[key].until_ms
        return -1 if until_ms == math.inf else int(until_ms - now_ms)

    def _write(self, key: bytes, write: Write, now_ms: int, *, lengthens: bool) -> None:
        if write.cell is None:
            self._cells.pop(key, None)
            return
        before = self._cells.get(key)
        until_ms = math.inf if write.ttl_ms is None else float(now_ms + write.ttl_ms)
        if before is not None and (write.ttl_ms is None or (lengthens and not protocol.is_hold(write.cell))):
            until_ms = before.until_ms if write.ttl_ms is None else max(before.until_ms, until_ms)
        self._cells[key] = _Kept(write.cell, until_ms)
        self._cells.move_to_end(key)
        if until_ms != math.inf and (before is None or before.until_ms != until_ms):
            heapq.heappush(self._ends, (until_ms, key))
        self._bury(now_ms)
        self._make_room()

    def _bury(self, now_ms: int) -> None:
        """Drop a few of the cells that have run out and are never asked for again."""
        for _ in range(_TRIES):
            if not self._ends or self._ends[0][0] > now_ms:
                break
            _, key = heapq.heappop(self._ends)
            if (kept := self._cells.get(key)) is not None and kept.until_ms <= now_ms:
                del self._cells[key]
        if len(self._ends) > 2 * len(self._cells) + 1024:  # of cells that were written again and again
            self._ends = [(kept.until_ms, key) for key, kept in self._cells.items()]
            heapq.heapify(self._ends)

    def _make_room(self) -> None:
        for _ in range(_TRIES):
            if len(self._cells) <= self._max_cells:
                return
            key, kept = next(iter(self._cells.items()))
            if protocol.is_hold(kept.cell):
                self._cells.move_to_end(key)  # its writer lets go soon, or it runs out
            else:
                del self._cells[key]
