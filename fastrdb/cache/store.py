"""What the cache needs of a store: read cells together, and run small atomic commands on them.

Each command is a named tuple. ``apply`` says what it does to its cells, as pure calls of ``protocol``: the memory store
runs just that, the Redis store a Lua script of the same meaning. Every command touches one key, or the two
of one hash tag (``any`` and ``all`` of a table). Replies are the contents after the command, unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from . import protocol
from .protocol import ALL_PARTS, Cell, Parts


class Write(NamedTuple):
    """A cell's new content, and its remaining life in milliseconds: ``None`` leaves the life as it is."""

    cell: Cell
    ttl_ms: int | None = None


class Outcome(NamedTuple):
    """What a command writes, one for each of its keys (``None``: untouched), and what it answers."""

    writes: tuple[Write | None, ...]
    reply: Cell | tuple[Cell, ...]


class Mint(NamedTuple):
    """Put a fresh token where none is, and let any token live at least *ttl_ms* from now. A hold stays as it is."""

    key: bytes
    fresh: bytes
    ttl_ms: int

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        after = protocol.mint(cells[0], self.fresh)
        write = None if protocol.is_hold(after) else Write(after, self.ttl_ms)
        return Outcome((write,), after)


class Claim(NamedTuple):
    """Claim an entry for a load, unless it is held or claimed. The reply equals *mark* for who got it."""

    key: bytes
    mark: bytes
    ttl_ms: int

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        after = protocol.claim(cells[0], self.mark)
        return Outcome((Write(after, self.ttl_ms) if after == self.mark else None,), after)


class Fill(NamedTuple):
    """Put a value where our claim still lies. The reply is the value, or what was found instead."""

    key: bytes
    mark: bytes
    value: bytes
    ttl_ms: int
    parts: Parts = ALL_PARTS

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        after = protocol.fill(cells[0], self.mark, self.value, self.parts)
        return Outcome((Write(after, self.ttl_ms) if after == self.value else None,), after)


class Put(NamedTuple):
    """Put a value whatever lies there, a reader's claim too, or only where nothing does. A hold stays.

    The reply is what kept it out, or ``None``.
    """

    key: bytes
    value: bytes
    ttl_ms: int
    only_if_empty: bool = False

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        if protocol.keeps_out(cells[0], self.only_if_empty):
            return Outcome((None,), cells[0])
        return Outcome((Write(self.value, self.ttl_ms),), None)


class Unclaim(NamedTuple):
    """Take our claim away."""

    key: bytes
    mark: bytes

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        after = protocol.unclaim(cells[0], self.mark)
        return Outcome((Write(after) if after != cells[0] else None,), after)


class HoldCell(NamedTuple):
    """Hold one entry or token for *ttl_ms*. ``again`` renews a hold."""

    key: bytes
    writer: bytes
    ttl_ms: int
    again: bool = False

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        after = protocol.hold(cells[0], self.writer, now_ms, now_ms + self.ttl_ms, again=self.again)
        return Outcome((Write(after, protocol.latest(after) - now_ms),), after)


class HoldTable(NamedTuple):
    """List our templates, hold ``any``, then read ``all``. The reply is the pair (``any``, ``all``)."""

    any_key: bytes
    all_key: bytes
    writer: bytes
    ttl_ms: int
    templates: tuple[bytes, ...]
    fresh: bytes
    token_ttl_ms: int
    parts: Parts = ALL_PARTS

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        listed = protocol.list_templates(cells[0], cells[1], self.templates, self.fresh, now_ms, self.parts)
        held = protocol.hold(cells[0], self.writer, now_ms, now_ms + self.ttl_ms)
        write = None if protocol.is_hold(listed) else Write(listed, self.token_ttl_ms)
        return Outcome((Write(held, protocol.latest(held) - now_ms), write), (held, listed))


class ListTemplates(NamedTuple):
    """List templates in ``all``, which is minted if missing. The reply is ``all``."""

    any_key: bytes
    all_key: bytes
    templates: tuple[bytes, ...]
    fresh: bytes
    token_ttl_ms: int
    parts: Parts = ALL_PARTS

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        listed = protocol.list_templates(cells[0], cells[1], self.templates, self.fresh, now_ms, self.parts)
        return Outcome((None, None if protocol.is_hold(listed) else Write(listed, self.token_ttl_ms)), listed)


class Release(NamedTuple):
    """Let go of a cell; *replacement* (a value, or a fresh token) goes in only where we held alone all the time.

    The life of what is left: *ttl_ms* for the replacement, its writers' last deadline for a co-writer's hold.
    """

    key: bytes
    writer: bytes
    replacement: bytes | None = None
    ttl_ms: int = 0
    parts: Parts = ALL_PARTS

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        after = protocol.release(cells[0], self.writer, now_ms, self.replacement, self.parts)
        if after is None:
            return Outcome((Write(None),), None)
        held = protocol.is_hold(after)
        return Outcome((Write(after, protocol.latest(after) - now_ms if held else self.ttl_ms),), after)


class ReleaseTable(NamedTuple):
    """Let go of ``any``; where our hold there was lost, release ``all``, too, which ages every value of the table.

    Releases that write values through come after this one. The reply is ``any``.
    """

    any_key: bytes
    all_key: bytes
    writer: bytes

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        after = protocol.release(cells[0], self.writer, now_ms)
        return Outcome((_left(after, now_ms), _unwatched(cells, self.writer, now_ms)), after)


class RenewTable(NamedTuple):
    """Renew the hold on ``any`` for *ttl_ms*; where it was lost, release ``all``, as ``ReleaseTable`` does.

    Renewals of what else is held, maybe ``all`` itself, come after this one. The reply is ``any``.
    """

    any_key: bytes
    all_key: bytes
    writer: bytes
    ttl_ms: int

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        after = protocol.hold(cells[0], self.writer, now_ms, now_ms + self.ttl_ms, again=True)
        return Outcome((_left(after, now_ms), _unwatched(cells, self.writer, now_ms)), after)


def _unwatched(cells: Sequence[Cell], writer: bytes, now_ms: int) -> Write | None:
    """Release ``all`` if templates may have been listed that did not wait for the writer."""
    any_cell, all_cell = cells
    if not protocol.lost(any_cell, writer, now_ms):
        return None
    return _left(protocol.release(all_cell, writer, now_ms), now_ms)


def _left(after: Cell, now_ms: int) -> Write:
    """Write what holds are left, until the last of them ends."""
    return Write(after, protocol.latest(after) - now_ms if after is not None else None)


class Get(NamedTuple):
    """Read one cell, in order with other commands."""

    key: bytes

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide."""
        return Outcome((None,), cells[0])


class Life(NamedTuple):
    """Ask for the remaining life of a cell; the reply is a decimal number of milliseconds, ``-2`` for no cell."""

    key: bytes

    def apply(self, cells: Sequence[Cell], now_ms: int) -> Outcome:
        """Decide; the store that keeps the lives answers."""
        raise NotImplementedError


OfTable: TypeAlias = HoldTable | ListTemplates | ReleaseTable | RenewTable
Command: TypeAlias = Mint | Claim | Fill | Put | Unclaim | HoldCell | Release | OfTable | Get | Life
Reply: TypeAlias = Cell | tuple[Cell, ...]
Found: TypeAlias = tuple[Cell, tuple[Cell, ...]]
Read: TypeAlias = Callable[[bytes, tuple[bytes, ...]], Awaitable[Found]]


def keys_of(command: Command) -> tuple[bytes, ...]:
    """Give the keys that a command touches."""
    if isinstance(command, OfTable):
        return (command.any_key, command.all_key)
    return (command.key,)


def stores_more(command: Command) -> bool:
    """Tell whether a server may refuse a command because it is out of memory: not what keeps old values out."""
    if isinstance(command, Release):
        return command.replacement is not None
    return isinstance(command, Mint | Claim | Fill | Put | ListTemplates)


class Store(Protocol):
    """Cells by key. One contract suite (``fastrdb.testing.stores``) holds for every store."""

    @property
    def epoch(self) -> bytes:
        """The run id of the server that answers now: values from another run are misses. Empty before the first."""
        ...

    def read(self, entry: bytes, tokens: tuple[bytes, ...], *, bulk: bool = False) -> Awaitable[Found]:
        """Read an entry and the tokens of its scopes.

        Reads of one turn of the event loop, and those that arrive while round trips are under way, share one.

        Args:
            entry: Key of the entry.
            tokens: Keys of the tokens; callers with equal scopes pass the same tuple object.
            bulk: The value is large (a list): it travels apart from the small ones.

        Returns:
            The cell of the entry, and those of the tokens in the order asked.

        Raises:
            CacheUnavailable: The server did not answer in time, or could not be reached.
        """
        ...

    def reader(self, *, bulk: bool = False) -> Read:
        """Give what reads as ``read`` does in the running event loop, for who sees himself that it is the same."""
        ...

    async def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Reply]:
        """Run commands in their order, each atomic, in one round trip.

        Raises:
            CacheUnavailable: As in ``read``; some of the commands may have run.
            CacheFull: The server is out of memory, and all of the commands have run but some that store something.
                Of those, ``Claim``, ``Fill``, ``Put`` and ``Release`` have left nothing in their places.
        """
        ...

    def post(self, commands: Sequence[Command], *, bulk: bool = False) -> Awaitable[list[Reply]]:
        """Enqueue commands now, before any later ``read`` of the same *bulk*; awaiting the replies is optional.

        A failure that nobody awaits is dropped silently.
        """
        ...

    async def aclose(self) -> None:
        """Close connections; what waits for a reply gets ``CacheClosed``."""
        ...
