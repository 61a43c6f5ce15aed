"""What becomes of the holds of each write, as its own process saw it: from this the judge knows the write's window.

Every note leaves the process at once, over a pipe that outlives it: what a killed writer has seen is not lost.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from enum import Enum
from typing import NamedTuple

from fastrdb.cache.protocol import is_hold, parse_hold
from fastrdb.cache.store import Command, Get, HoldCell, HoldTable, Release, ReleaseTable, RenewTable, Reply, Store
from fastrdb.errors import CacheError, CacheFull

DEED: ContextVar[str] = ContextVar("DEED", default="")
SETTING = "fastrdb_harness.deed"  # of a database connection: which deed its transactions belong to


class Seen(Enum):
    """What was seen of an act, the holds and releases of one transaction."""

    ASKED = "a hold was asked for"
    UNHELD = "a hold was not granted, or its reply did not come"
    OVER = "COMMIT had returned"
    INTACT = "all holds were there when COMMIT had returned"
    LOST = "a hold was gone when COMMIT had returned"
    CLOSED = "the release, or the kept invalidation, has arrived"
    ENDED = "the deed has ended"


class Note(NamedTuple):
    """One thing that was seen.

    Attributes:
        deed: One write as a writer decides on it; its transactions are marked with it.
        act: The holder's name in the cells; empty for ``ENDED``, which concerns all acts of the deed.
        seen: What.
        at: When, by ``time.monotonic``.
    """

    deed: str
    act: str
    seen: Seen
    at: float


class Act:
    """The holds of one transaction.

    Attributes:
        deed: Whose it is.
        cells: What it holds, or was to hold, and its tables' tokens.
        held: What of it is looked for when COMMIT has returned.
        over: COMMIT has returned, or the deed has ended.
        unheld: A hold was not granted.
        renewed: It was held again: that it is there does not show that it was there all the time.
    """

    def __init__(self, deed: str) -> None:
        self.deed = deed
        self.cells: set[bytes] = set()
        self.held: set[bytes] = set()
        self.over = self.unheld = self.renewed = self.looked = False


class Ledger:
    """Follows the commands of a writer's process.

    Args:
        tell: Takes each note.
    """

    def __init__(self, tell: Callable[[Note], None]) -> None:
        self._tell = tell
        self._acts: dict[bytes, Act] = {}

    async def follow(
        self, store: Store, commands: Sequence[Command], send: Callable[[], Awaitable[list[Reply]]]
    ) -> list[Reply]:
        """Send commands, and note what this does to acts.

        Before a release it is looked whether the holds are still there: COMMIT has returned, so holds that are there
        now were there all the time.
        """
        asking = self._asking(commands)
        releasing = {name for name in map(_releases, commands) if name in self._acts}
        for name in releasing:
            await self._look(store, name)
        over = [name for name, act in self._acts.items() if act.over]
        replies, full = list[Reply](), None
        try:
            replies = await send()
        except CacheFull as error:  # some values were not stored; all holds are placed, or released
            full = error
        except CacheError:
            for name in asking:
                self._acts[name].unheld = True
                self._note(name, Seen.UNHELD)
            raise
        dropped = {command.key for command in commands if isinstance(command, Release)}
        for name in over:
            if name in self._acts and (name in releasing or self._is_dropped(self._acts[name], dropped)):
                self._close(name)
        if full is not None:
            raise full
        return replies

    def renewing(self, commands: Sequence[Command]) -> None:
        """Note that holds are renewed."""
        for command in commands:
            if isinstance(command, RenewTable) and command.writer in self._acts:
                self._acts[command.writer].renewed = True

    def end(self, deed: str, *, undelivered: bool) -> None:
        """Note the end of a deed: what was not released by now is left to run out, or kept, or was never committed."""
        for name, act in list(self._acts.items()):
            if act.deed == deed:
                act.over = True
                if act.unheld and not undelivered:
                    self._close(name)  # it was kept and delivered while the deed had not ended, or rolled back
        self._tell(Note(deed, "", Seen.ENDED, time.monotonic()))

    def _asking(self, commands: Sequence[Command]) -> set[bytes]:
        asking = set()
        for command in commands:
            if isinstance(command, HoldTable):
                act = self._act(command.writer)
                act.cells |= {command.any_key, command.all_key}
                act.held.add(command.any_key)
            elif isinstance(command, HoldCell) and not command.again:
                act = self._act(command.writer)
                act.cells.add(command.key)
                act.held.add(command.key)
            else:
                continue
            asking.add(command.writer)
        return asking

    def _act(self, name: bytes) -> Act:
        act = self._acts.get(name)
        if act is None:
            act = self._acts[name] = Act(DEED.get())
            self._note(name, Seen.ASKED)
        return act

    async def _look(self, store: Store, name: bytes) -> None:
        act = self._acts[name]
        if not act.over:
            act.over = True
            self._note(name, Seen.OVER)
        if act.unheld or act.renewed or act.looked:
            return
        try:
            cells = await store.run([Get(key) for key in act.held])
        except CacheError:
            return
        act.looked = True
        there = all(isinstance(cell, bytes) and is_hold(cell) and name in parse_hold(cell).writers for cell in cells)
        self._note(name, Seen.INTACT if there else Seen.LOST)

    def _is_dropped(self, act: Act, dropped: set[bytes]) -> bool:
        """Tell whether all of an act was dropped by others: the courier, or a replay."""
        act.cells -= dropped
        return not act.cells

    def _close(self, name: bytes) -> None:
        self._note(name, Seen.CLOSED)
        del self._acts[name]

    def _note(self, name: bytes, seen: Seen) -> None:
        self._tell(Note(self._acts[name].deed, name.decode(), seen, time.monotonic()))


def _releases(command: Command) -> bytes | None:
    return command.writer if isinstance(command, (Release, ReleaseTable)) else None
