"""Cells as this process read them, kept as long as nobody is known to have changed them: the near tier without its I/O.

A reply and the push that says it is old come over two connections, in any order. So a reader takes a *ticket* before it
sends, which is the number of the last drop: what is named by a later drop is not kept from its reply. Then each
change falls into one of three cases, whatever overtakes what:

- its push came before the ticket: the change was made before the read, and the reply shows it;
- its push comes between ticket and reply: the reply is not kept, though it may show the change;
- its push comes after the reply: the copy is kept until then, and dropped.

Nothing is registered, so a reader that is cancelled leaves nothing behind. The numbers of the drops are remembered in a
table of fixed size, by hash: two keys in one slot cost a copy that could have been kept, and never keep one that
could not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterable
from typing import Final, Generic, NamedTuple, TypeVar

from .clock import CLOCK
from .forks import starts_anew
from .protocol import Cell
from .reads import Stamps, hit
from .stats import Stats
from .store import Found

K = TypeVar("K", bound=Hashable)
V = TypeVar("V", "EntryCopy", "ScopeCopy")

_SLOTS: Final = 8_192
_ENTRY_BYTES: Final = 400  # what an entry costs besides its texts: objects, slots of the dictionary while that grows
_SCOPE_BYTES: Final = 500
_TOKEN_BYTES: Final = 500  # of each token of a scope, a set that names its scopes among them
_SCOPES_SHARE: Final = 0.25  # of the size: they are small, and many entries share one


class Ticket(NamedTuple):
    """When a read began: the number of the last drop, and the time."""

    number: int
    at: float


class ScopeCopy:
    """The tokens of a scope, as they were read; those who still have it after it was dropped find its time over."""

    __slots__ = ("cells", "size", "until")

    def __init__(self, cells: tuple[Cell, ...], until: float, size: int) -> None:
        self.cells, self.until, self.size = cells, until, size


class EntryCopy:
    """An entry, as it was read.

    Attributes:
        valid_for: The stamps for which it was found to be a hit.
        scope: The tokens with which it was.
    """

    __slots__ = ("raw", "scope", "size", "until", "valid_for")

    def __init__(self, raw: bytes, until: float, size: int) -> None:
        self.raw, self.until, self.size = raw, until, size
        self.valid_for: Stamps | None = None
        self.scope: ScopeCopy | None = None


class Copies:
    """Entries and the tokens of their scopes, as they were read; any thread may use it.

    What was read longest ago goes first where there is no room: it has the least life left, and what is in use is read
    anew once in ``max_age_s`` anyway. So a hit has nothing to note, and takes no lock.

    Args:
        max_size: Bytes of keys and cells, with what Python needs to keep them.
        max_age_s: Seconds from the start of a read to the end of its copies.
        stats: Where hits are counted.
        clock: Seconds, never going back.

    Attributes:
        epoch: The run of the server whose cells are kept.
    """

    def __init__(
        self, max_size: int, max_age_s: float, stats: Stats | None = None, *, clock: Callable[[], float] = CLOCK
    ) -> None:
        self.epoch = b""
        self._stats = stats or Stats()
        self._max_age_s, self._clock = max_age_s, clock
        scopes = round(max_size * _SCOPES_SHARE)
        self._entries: _Shelf[bytes, EntryCopy] = _Shelf(max_size - scopes)
        self._scopes: _Shelf[tuple[bytes, ...], ScopeCopy] = _Shelf(scopes)
        self._scopes_of: dict[bytes, set[tuple[bytes, ...]]] = {}
        self._number = self._flushed = 0
        self._dropped = [0] * _SLOTS
        self._guard = threading.Lock()
        starts_anew(self)

    @property
    def size(self) -> int:
        """Bytes of what is kept, as ``max_size`` counts them."""
        return self._entries.size + self._scopes.size

    def __len__(self) -> int:
        return len(self._entries.kept)

    def hit(self, stamps: Stamps, entry: bytes, tokens: tuple[bytes, ...]) -> bytes | None:
        """Give, and count, what ``hit`` makes of the copies of an entry and its tokens.

        What is a hit for these stamps stays one as long as both copies do, so that is remembered. ``None`` where a copy
        is missing or too old.
        """
        copy = self._entries.kept.get(entry)
        if copy is None or (now := self._clock()) >= copy.until:
            return None
        scope = copy.scope
        if copy.valid_for is stamps and scope is not None and now < scope.until:
            self._stats.hits += 1
            self._stats.near_hits += 1
            return copy.raw
        scope = self._scopes.kept.get(tokens)
        if scope is None or now >= scope.until:
            return None
        raw = hit(stamps, (copy.raw, scope.cells), self.epoch)
        if raw is copy.raw:
            copy.valid_for = None  # for another thread, which may look in between
            copy.scope = scope
            copy.valid_for = stamps
        if raw is not None:
            self._stats.hits += 1
            self._stats.near_hits += 1
        return raw

    def found(self, entry: bytes, tokens: tuple[bytes, ...]) -> Found | None:
        """Give copies of an entry and its tokens; ``None`` where one is missing or too old."""
        copy, scope, now = self._entries.kept.get(entry), self._scopes.kept.get(tokens), self._clock()
        if copy is None or scope is None or now >= min(copy.until, scope.until):
            return None
        return copy.raw, scope.cells

    def ticket(self) -> Ticket:
        """Begin a read: to be called before it is sent."""
        return Ticket(self._number, self._clock())

    def keep(self, ticket: Ticket, entry: bytes, tokens: tuple[bytes, ...], found: Found) -> bool:
        """Keep what a read found, unless some of it was dropped since its ticket was taken; tell whether it is kept."""
        raw, cells = found
        if raw is None:
            return False
        with self._guard:
            dropped, number = self._dropped, ticket.number
            if number < self._flushed or any(dropped[hash(key) % _SLOTS] > number for key in (entry, *tokens)):
                return False
            until = ticket.at + self._max_age_s
            self._entries.put(entry, EntryCopy(raw, until, _ENTRY_BYTES + len(entry) + len(raw)))
            texts = sum(map(len, tokens)) + sum(len(cell or b"") for cell in cells)
            self._let_go(tokens)
            size = _SCOPE_BYTES + _TOKEN_BYTES * len(tokens) + texts
            for scope in self._scopes.put(tokens, ScopeCopy(cells, until, size)):
                self._unlist(scope)
            if tokens in self._scopes.kept:
                for token in tokens:
                    self._scopes_of.setdefault(token, set()).add(tokens)
            return True

    def drop(self, keys: Iterable[bytes]) -> None:
        """Forget these entries, and all scopes with one of these tokens; keep no reply to a read that has begun."""
        with self._guard:
            self._number += 1
            for key in keys:
                self._dropped[hash(key) % _SLOTS] = self._number
                self._entries.pop(key)
                for scope in tuple(self._scopes_of.get(key, ())):
                    self._let_go(scope)

    def flush(self) -> None:
        """Forget everything; keep no reply to a read that has begun."""
        with self._guard:
            self._number += 1
            self._flushed = self._number
            self._entries.clear()
            self._scopes.clear()
            self._scopes_of = {}

    def after_fork(self) -> None:
        """Start empty in a child process: nobody tells it what has changed. Another thread may have had the lock."""
        self._guard = threading.Lock()
        self.flush()

    def _let_go(self, scope: tuple[bytes, ...]) -> None:
        if self._scopes.pop(scope):
            self._unlist(scope)

    def _unlist(self, scope: tuple[bytes, ...]) -> None:
        for token in scope:
            listed = self._scopes_of.get(token)
            if listed is not None:
                listed.discard(scope)
                if not listed:
                    del self._scopes_of[token]

    def __repr__(self) -> str:
        return f"<Copies of {len(self)} entries, {self.size} bytes>"


class _Shelf(Generic[K, V]):
    """Copies by key, whose sizes together stay below a limit; the first that were put go first."""

    def __init__(self, limit: int) -> None:
        self.kept: dict[K, V] = {}
        self.size, self._limit = 0, limit

    def put(self, key: K, copy: V) -> list[K]:
        """Keep a copy, unless it alone is too large; give the keys of those that went for it."""
        self.pop(key)
        gone: list[K] = []
        if copy.size > self._limit:
            return gone
        while self.size + copy.size > self._limit:
            oldest = next(iter(self.kept))
            self.pop(oldest)
            gone.append(oldest)
        self.kept[key] = copy
        self.size += copy.size
        return gone

    def pop(self, key: K) -> bool:
        """Let a copy go, if there is one; tell whether there was."""
        found = self.kept.pop(key, None)
        if found is None:
            return False
        found.until = 0.0  # for those who have it at hand
        self.size -= found.size
        return True

    def clear(self) -> None:
        """Let all copies go."""
        for copy in self.kept.values():
            copy.until = 0.0
        self.kept, self.size = {}, 0  # replaced whole: readers take no lock
