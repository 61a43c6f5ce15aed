"""The same readers and writers on a real store, one step at a time: along a path, or at random.

Every reply is compared with what the commands' own decisions say; a store that differs fails at that step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

from fastrdb.cache.protocol import ALL_PARTS, Cell, Parts, is_hold, parse_hold
from fastrdb.cache.store import Command, Get, HoldTable, ListTemplates, Release, Store, Unclaim

from .configurations import Configuration
from .exploring import Event, Evict, Expire, Pure, events, start, steps
from .readers import reader_steps
from .tables import HOLDS
from .world import NOW_MS, Answer, Look, Request, Setup, StaleRead, Step, World, stamped_header
from .writers import writer_steps


class StoreDiffers(AssertionError):
    """A real store answered something else than the command's own decision."""


class Replayed(NamedTuple):
    """What came of a path: the steps that were taken, and the stale read, if there was one."""

    steps: tuple[str, ...]
    broken: str | None


class Walked(NamedTuple):
    """What a random walk did: steps, and reads by how they ended."""

    steps: int
    hits: int
    misses: int
    bypasses: int


class Stage:
    """Readers and writers on a real store.

    Args:
        store: The store; commands go there one at a time.
        configuration: Who takes part.
        parts: The parts of the protocol, for readers, writers and commands alike.
        prefix: Leads every key. Cells that lie under it are not cleared first.
    """

    def __init__(self, store: Store, configuration: Configuration, parts: Parts, prefix: bytes) -> None:
        self.setup = Setup(configuration, parts, stamped_header)
        self.world = start(self.setup)
        self.done: list[str] = []
        self._store, self._prefix, self._pure = store, prefix, Pure()

    async def lay(self) -> None:
        """Put what the configuration finds at first into the store."""
        for key, cell in zip(KEYS, self.setup.configuration.cells, strict=True):
            if cell is not None:
                await self._run(Fill(key, b"", cell, LIFE_MS, Parts(claims=False)))

    async def take(self, step: Step) -> None:
        """Take a step. Raises ``StaleRead``, and ``StoreDiffers``."""
        self.done.append(step.label)
        asked, expected = self._pure.ask(self.world, step.request)
        found = await self._ask(step.request)
        if _plain(found) != _plain(expected):
            raise StoreDiffers(f"{step.request}: {found!r} instead of {expected!r}, after {self.done}")
        self.world, note = step.then(asked, found)
        if note:
            self.done[-1] += f": {note}"

    async def suffer(self, event: Event) -> None:
        """Let something happen to a cell."""
        self.done.append(event.label)
        if isinstance(event.what, Expire):  # its writer is not heard of again, so it may as well let go
            await self._run(Release(event.what.key, event.what.writer))
        else:
            cell = await self._run(Get(event.what.key))
            assert isinstance(cell, bytes)
            await self._run(Unclaim(event.what.key, cell))
        self.world = event.after

    async def finish(self) -> None:
        """Let all that are left go on, in turn, until none can."""
        while following := list(_plain_steps(self.setup, self.world)):
            await self.take(following[len(self.done) % len(following)])

    async def _ask(self, request: Request) -> Answer:
        if request is None:
            return None
        if isinstance(request, Look):
            tokens = tuple(self._prefix + key for key in request.tokens)
            return await self._store.read(self._prefix + request.entry, tokens)
        return await self._run(request)

    async def _run(self, command: Command) -> Answer:
        (reply,) = await self._store.run([self._named(command)])
        return reply

    def _named(self, command: Command) -> Command:
        if isinstance(command, (HoldTable, ListTemplates)):
            keys = {"any_key": self._prefix + command.any_key, "all_key": self._prefix + command.all_key}
            return command._replace(**keys)
        return command._replace(key=self._prefix + command.key)
