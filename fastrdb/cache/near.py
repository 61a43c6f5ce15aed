"""The near tier: hits without a round trip, from copies in this process that Redis's client tracking keeps right."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, cast, runtime_checkable

from ..errors import ConfigurationError
from .copies import Copies, Ticket
from .dial import Dialer
from .many import look
from .reads import Stamps, hit
from .stats import Stats
from .store import Command, Found, Get, Life, Read, Reply, Store, keys_of
from .tracking import Tracking

_LEAST_SIZE = 65_536

# The stamps of a value's kind, its entry, the tokens of its scopes.
Wanted: TypeAlias = tuple[Stamps, bytes, tuple[bytes, ...]]


@dataclass(frozen=True, slots=True)
class NearTier:
    """Turns the near tier of a ``Cache`` on: ``Cache.from_url(url, near=NearTier())``.

    What was read from Redis is kept in this process, too, and served without asking again. Redis tells what changes
    over a connection of its own, so what another process wrote is seen as soon as that message is read; what this
    process wrote, at once. Should the message not come, because the link is cut, ``max_age_s`` is the limit.

    Attributes:
        max_size: Bytes of memory for each Cache: keys, values and tokens, with what Python needs to keep them.
        max_age_s: Seconds that a copy is served at most after it was read, whatever happens to the link, or to the
            process.
    """

    max_size: int = 64 * 1024 * 1024
    max_age_s: float = 5.0

    def __post_init__(self) -> None:
        if not isinstance(self.max_size, int) or self.max_size < _LEAST_SIZE:
            raise ConfigurationError(f"max_size: {self.max_size!r}; it is bytes, {_LEAST_SIZE} or more")
        if not isinstance(self.max_age_s, (int, float)) or not 0.01 <= self.max_age_s <= 3_600:
            raise ConfigurationError(f"max_age_s: {self.max_age_s!r}; it is seconds, from 0.01 to 3600")


@runtime_checkable
class Trackable(Protocol):
    """A store on one server, to which another connection can be opened."""

    @property
    def dialer(self) -> Dialer:
        """What opens connections."""
        ...


class Near:
    """The near tier of one Cache in one process, for all of its event loops.

    The connection belongs to the loop that needed it first; when that ends, to the next one that does.

    Attributes:
        copies: What is kept.
        hit: Gives the bytes of a value that lies near and may be served, and counts it; ``None`` where there is none.
    """

    def __init__(self, tier: NearTier, prefix: str, stats: Stats) -> None:
        self.tier = tier
        self.copies = Copies(tier.max_size, tier.max_age_s, stats)
        self.hit = self.copies.hit
        self._stats = stats
        self._prefix_length = len(prefix.encode())
        self._tokens = b"fastrdb:t:" + prefix.encode(), b"fastrdb:{" + prefix.encode()
        self._pid = os.getpid()
        self._link: Tracking | None = None
        self._inherited: list[Tracking | None] = []
        self._opening = threading.Lock()
        self._ending: weakref.finalize[[], Near] | None = None

    async def read(self, store: Store, stamps: Stamps, entry: bytes, tokens: tuple[bytes, ...], bulk: bool) -> Found:
        """Give copies where they are a hit, else what the store has, of which a hit is kept; raises as the store."""
        if (near := self._nearby(store, stamps, entry, tokens)) is not None:
            return near
        ticket = self._ticket(store, entry)
        found = await store.read(entry, tokens, bulk=bulk)
        self._keep(ticket, store, stamps, entry, tokens, found)
        return found

    async def look(self, store: Store, wanted: Sequence[Wanted]) -> list[Found | None]:
        """The same for many entries; ``None`` where nobody answered."""
        found = [self._nearby(store, *each) for each in wanted]
        away = [at for at, near in enumerate(found) if near is None]
        tickets = [self._ticket(store, wanted[at][1]) for at in away]
        looked = await look(store, [wanted[at][1:] for at in away])
        for at, ticket, there in zip(away, tickets, looked, strict=True):
            if there is not None:
                self._keep(ticket, store, *wanted[at], there)
                found[at] = there
        return found

    def holds(self, entry: bytes, tokens: tuple[bytes, ...]) -> bool:
        """Tell whether an entry lies near, with its tokens."""
        return self.copies.found(entry, tokens) is not None

    def watched(self, store: Store) -> Store:
        """Give a store whose commands drop what they touch.

        Raises:
            ConfigurationError: Its server cannot tell what changes.
        """
        if not isinstance(store, Trackable):
            raise ConfigurationError("near: it needs one Redis or Valkey server, or a Sentinel's; leave it out")
        return _Watched(store, self.copies)

    async def aclose(self) -> None:
        """Forget everything, and close the connection."""
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()
        self.copies.flush()

    def _nearby(self, store: Store, stamps: Stamps, entry: bytes, tokens: tuple[bytes, ...]) -> Found | None:
        """Give copies, and count them, where they are a hit."""
        near = self.copies.found(entry, tokens)
        if near is None or hit(stamps, near, store.epoch) is None:
            return None
        self._stats.near_hits += 1
        return near

    def _keep(
        self,
        ticket: Ticket | None,
        store: Store,
        stamps: Stamps,
        entry: bytes,
        tokens: tuple[bytes, ...],
        found: Found,
    ) -> None:
        """Keep what was read, if it is a hit."""
        epoch = self.copies.epoch
        if ticket is not None and store.epoch == epoch and hit(stamps, found, epoch) is not None:
            self.copies.keep(ticket, entry, tokens, found)

    def _ticket(self, store: Store, entry: bytes) -> Ticket | None:
        """Begin a read; ``None`` where what it finds cannot be kept."""
        link = self._link
        if link is None or link.ended:
            link = self._open(store)
        root = entry[: entry.index(b":", self._prefix_length) + 1]
        if not link.confirms(root):
            link.want(root)
            return None
        epoch = store.epoch
        if epoch != link.epoch:  # one of them has found another server
            if epoch:
                link.leave()
            return None
        self.copies.epoch = epoch
        return self.copies.ticket()

    def _open(self, store: Store) -> Tracking:
        if self._pid != os.getpid():  # a child process: the parent's connection is kept, and not touched
            self._pid, self._opening = os.getpid(), threading.Lock()
            self._inherited.append(self._link)
            self._link = None
        with self._opening:
            if self._link is None or self._link.ended:
                dialer = cast("_Watched", store).dialer
                self._link = Tracking(dialer, self.copies, self._tokens, self.tier.max_age_s)
                if self._ending is not None:
                    self._ending.detach()  # of a link that has ended, and its event loop
                self._ending = weakref.finalize(self, self._link.cancel)
                self._ending.atexit = False
            return self._link


class _Watched:
    """A store whose commands drop the copies of what they touch: before they are sent, and when they are answered.

    So a write of this process, which holds before its COMMIT, leaves no older copy to anybody: what is read after the
    hold was answered finds the hold, and a reply to an earlier read is not kept.
    """

    def __init__(self, store: Store, copies: Copies) -> None:
        self._store, self._copies = store, copies

    @property
    def epoch(self) -> bytes:
        """That of the store."""
        return self._store.epoch

    @property
    def dialer(self) -> Dialer:
        """What opens connections to its server."""
        return cast("Trackable", self._store).dialer

    def reader(self, *, bulk: bool = False) -> Read:
        """Give what reads from the store."""
        return self._store.reader(bulk=bulk)

    def read(self, entry: bytes, tokens: tuple[bytes, ...], *, bulk: bool = False) -> Awaitable[Found]:
        """Read from the store."""
        return self._store.read(entry, tokens, bulk=bulk)

    async def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Reply]:
        """Run commands, and drop what they touch."""
        keys = _changed(commands)
        self._copies.drop(keys)
        try:
            return await self._store.run(commands, bulk=bulk)
        finally:
            self._copies.drop(keys)

    def post(self, commands: Sequence[Command], *, bulk: bool = False) -> Awaitable[list[Reply]]:
        """Send commands, and drop what they touch."""
        keys = _changed(commands)
        self._copies.drop(keys)
        posted = asyncio.ensure_future(self._store.post(commands, bulk=bulk))
        posted.add_done_callback(lambda _: self._copies.drop(keys))  # before those who await it go on
        return posted

    async def aclose(self) -> None:
        """Close the store."""
        await self._store.aclose()

    def __repr__(self) -> str:
        return repr(self._store)


def _changed(commands: Sequence[Command]) -> list[bytes]:
    return [key for command in commands if not isinstance(command, (Get, Life)) for key in keys_of(command)]
