"""The last values that were right, kept in this process for callers who accept an answer of some age. No I/O.

Nothing of it lies in Redis: it also helps where Redis is away. A value is kept with the time at which the read that
gave it was *sent*. What committed before that, the read has seen; what committed while it was under way, it may have
missed. So the value was right then or later, and counting its age from then on never makes it younger than it is.

A write of this process says, after its COMMIT and before it returns, what it touched. A value whose read was sent
before may lack the write, and is not given any more, whenever it is kept: a late reader brings nothing back.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final, NamedTuple

from .bounded import Bounded
from .clock import CLOCK
from .forks import starts_anew

logger = logging.getLogger("fastrdb.cache")

AGED_BYTES: Final = 32 * 2**20
_ALWAYS: Final = float("-inf")
_MOST_DROPS: Final = 10_000  # keys that are remembered one by one
_OWN_BYTES: Final = 250  # of a kept value, besides its text and its item's


class Kept(NamedTuple):
    """A value that was right at a time.

    Attributes:
        value: Its bytes, with or without a stamp.
        right_at: Seconds of the clock; since then it may have changed.
        scopes: Keys of its entry and of the tokens that age it: a write that touches one of them drops it.
        owner: Whatever must live as long as the value does: the templates by which writes name it.
    """

    value: bytes
    right_at: float
    scopes: tuple[bytes, ...]
    owner: object


class Aged:
    """The last values that were right; any thread may use it.

    Args:
        max_bytes: Of all that is kept, 1 or more.
        clock: Seconds of a clock that never goes back.

    Attributes:
        clock: The same.
        used: Somebody keeps values here: only then do writes say what they touch.
    """

    def __init__(self, max_bytes: int = AGED_BYTES, *, clock: Callable[[], float] = CLOCK) -> None:
        self.clock = clock
        self.used = False
        self._kept: Bounded[Kept] = Bounded(max_bytes)
        self._dropped: dict[bytes, float] = {}
        self._floor = _ALWAYS
        self._away: set[bytes] = set()
        self._guard = threading.Lock()
        starts_anew(self)

    def __len__(self) -> int:
        return len(self._kept)

    def begin(self) -> float:
        """Give the time at which a read is sent: call it before that."""
        self.used = True
        return self.clock()

    def keep(self, key: bytes, kept: Kept) -> None:
        """Keep a value, unless a younger one is there."""
        known = self._kept.get(key)
        if known is None or known.right_at <= kept.right_at:
            self._kept.put(key, kept, len(kept.value) + sum(map(len, kept.scopes)) + _OWN_BYTES)

    def give(self, key: bytes, max_age_s: float) -> bytes | None:
        """Give a value that was right at most so many seconds ago, and that no write of this process has touched."""
        kept = self._kept.get(key)
        if kept is None or kept.right_at < self.clock() - max_age_s:
            return None
        dropped = self._dropped  # first this, then the floor, which takes the place of what is forgotten
        last = max([dropped.get(scope, _ALWAYS) for scope in kept.scopes])
        return kept.value if kept.right_at > max(last, self._floor) else None

    def drop(self, keys: Iterable[bytes], *, lasting_s: float = 0.0) -> None:
        """Give nothing any more whose read was sent before now and that has one of these keys.

        Args:
            keys: Of entries, which take their values with them, and of tokens.
            lasting_s: Nothing whose read is sent in so many seconds from now, either.
        """
        if not self.used:
            return
        at = self.clock() + lasting_s
        with self._guard:
            for key in keys:
                self._dropped[key] = max(self._dropped.get(key, _ALWAYS), at)
            if len(self._dropped) > _MOST_DROPS:
                self._floor = max(self._floor, *self._dropped.values())
                self._dropped = {}

    def stood_in(self, database: bytes, error: Exception) -> None:
        """Note that a value was given because a database is away; the first one of an outage is logged."""
        if database not in self._away:
            self._away.add(database)
            # The error's own text shows statements and their parameters.
            name = type(getattr(error, "orig", None) or error).__name__
            logger.warning("the database cannot be read (%s): aged values are given to who accepts them", name)

    def answered(self, database: bytes) -> None:
        """Note that a database has answered."""
        if database in self._away:
            self._away.discard(database)
            logger.warning("the database can be read again")

    def after_fork(self) -> None:
        """Start empty in a child process: another thread may have had the locks."""
        self._guard = threading.Lock()
        self._kept.after_fork()
        self._dropped, self._floor = {}, self.clock()

    def __repr__(self) -> str:
        return f"<Aged {self._kept!r}>"


@dataclass(frozen=True, slots=True)
class Spare:
    """What one read may answer instead, and what it leaves for others.

    Attributes:
        aged: Where that is kept.
        entry: Key of its entry.
        context: What must be equal besides: schema, database, namespace.
        value_tokens: Keys of the tokens that age a value.
        null_tokens: Keys of those that age "there is no such row".
        max_age_s: What the caller accepts; ``None``: nothing but what is right now.
        owner: As in ``Kept``.
    """

    aged: Aged
    entry: bytes
    context: bytes
    value_tokens: tuple[bytes, ...]
    null_tokens: tuple[bytes, ...]
    max_age_s: float | None
    owner: object

    def note(self, value: bytes, sent: float, *, null: bool) -> None:
        """Leave a value, which a read that was sent then has given."""
        scopes = (self.entry, *(self.null_tokens if null else self.value_tokens))
        self.aged.keep(self._key, Kept(value, sent, scopes, self.owner))

    def answer(self) -> bytes | None:
        """Give a value that the caller accepts; ``None`` for none."""
        return None if self.max_age_s is None else self.aged.give(self._key, self.max_age_s)

    @property
    def _key(self) -> bytes:
        return self.entry + b"\n" + self.context  # no key of an entry has white space
