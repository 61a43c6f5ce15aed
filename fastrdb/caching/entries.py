"""The values of one SmartCache in one Cache: read, put, and judged by the tokens they carry."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ..cache.cache import Cache
from ..cache.protocol import STAMP_LENGTH, Cell, is_claim, random_name
from ..cache.reads import Stamps, hit
from ..cache.store import Command, Fill, Found, Get, Life, Mint, Put, Release, Reply, Unclaim
from .names import Id, Names
from .payload import unpack

_FIRST_POLL_S, _LAST_POLL_S = 0.002, 0.05
_TRIES: Final = 16  # of a put that others get in the way of
_REMEMBERED = 1_000
_AT_ONCE: Final = 128  # values of one round trip: Redis serves nobody else meanwhile

Tokens = tuple[bytes, bytes]


class Entries:
    """What lies in a cache under one namespace. Each method raises CacheUnavailable where Redis does not answer.

    Attributes:
        cache: Where the values lie.
        names: Their keys.
        stamps: Their stamps: each value carries the namespace's token and its directory's.
    """

    def __init__(self, cache: Cache, names: Names) -> None:
        self.cache, self.names = cache, names
        self.stamps = Stamps(b"smart 1", 2)
        self._cells: dict[Tokens, tuple[Cell, ...]] = {}

    async def read(self, kind: str, id: Id) -> bytes | None:
        """Give a value's bytes, stamp included; ``None`` for no value, or none that may be served."""
        found = await self.found(self.names.entry(kind, id), self.names.tokens(kind))
        return None if found is None else self.valid(found)

    async def found(self, entry: bytes, tokens: Tokens) -> Found | None:
        """Read cells; ``None`` while the cache may not be asked."""
        if self.cache.undelivered or not self.cache.serves:
            return None
        return await self.cache.store.read(entry, tokens)

    def valid(self, found: Found) -> bytes | None:
        """Give what lies in an entry, if it is a value that nothing has aged."""
        return found[0] if hit(self.stamps, found, self.cache.store.epoch) is not None else None

    async def life_ms(self, kind: str, id: Id) -> int:
        """Give the remaining life of a value; -2 for no value."""
        if await self.read(kind, id) is None:
            return -2
        (life,) = await self.cache.run([Life(self.names.entry(kind, id))])
        return int(_cell(life) or b"-2")

    async def expire(self, kind: str, id: Id, ttl_ms: int) -> bool:
        """Give a value another life; tell whether there is one."""
        raw, entry = await self.read(kind, id), self.names.entry(kind, id)
        if raw is None:
            return False
        *_, after = await self.cache.run([*self._mints(kind, ttl_ms), Fill(entry, raw, raw, ttl_ms)])
        return after == raw

    async def take(self, kind: str, id: Id) -> bool:
        """Drop a value, and the claim of who is loading it; tell whether a value was there."""
        entry, tokens = self.names.entry(kind, id), self.names.tokens(kind)
        reads: list[Command] = [Get(key) for key in (*tokens, entry)]
        *cells, raw, _ = await self.cache.run([*reads, Release(entry, random_name())])
        return self.valid((_cell(raw), tuple(map(_cell, cells)))) is not None

    async def drop(self, keys: Iterable[bytes]) -> None:
        """Drop tokens, which ages all that carries them, and entries."""
        await self.cache.run([Release(key, random_name()) for key in keys])

    async def put(self, kind: str, packed: Mapping[bytes, bytes], ttl_ms: int) -> bool:
        """Put values, in one or a few round trips; tell whether all of them lie there now."""
        entries = list(packed)
        some = [entries[at : at + _AT_ONCE] for at in range(0, len(entries), _AT_ONCE)]
        return all([await self._put(kind, [(entry, packed[entry]) for entry in each], ttl_ms) for each in some])

    async def _put(self, kind: str, packed: list[tuple[bytes, bytes]], ttl_ms: int) -> bool:
        """Put values under the tokens of now: in one round trip, where the tokens are those of the last time."""
        tokens = self.names.tokens(kind)
        mints, cells = self._mints(kind, ttl_ms), self._cells.get(tokens)
        guessed = self._stamp(cells) if cells is not None else None
        for _ in range(_TRIES):
            puts = [Put(entry, guessed + payload, ttl_ms) for entry, payload in packed] if guessed else []
            replies = await self.cache.run([*mints, *puts])
            cells = tuple(map(_cell, replies[: len(mints)]))
            stamp = self._stamp(cells)
            if stamp is None:
                return False
            if stamp == guessed:
                return not any(replies[len(mints) :])
            self._remember(tokens, cells)
            guessed = stamp
        return False

    async def put_if(self, kind: str, entry: bytes, payload: bytes, ttl_ms: int, *, absent: bool) -> bool:
        """Put a value only where none is, or only where one is: look, compare and set, again if that was too late."""
        for _ in range(_TRIES):
            *cells, lies = await self.cache.run([*self._mints(kind, ttl_ms), Get(entry)])
            stamp, old = self._stamp(cells), _cell(lies)
            if stamp is None or (old is not None and old.startswith(stamp)) is absent:
                return False
            value = stamp + payload
            if absent:  # what is aged, or a claim, goes first
                away = [Unclaim(entry, old)] if old is not None else []
                *_, kept_out = await self.cache.run([*away, Put(entry, value, ttl_ms, only_if_empty=True)])
                if kept_out is None:
                    return True
            elif old is not None and await self.cache.run([Fill(entry, old, value, ttl_ms)]) == [value]:
                return True
        return False

    async def of_another(self, entry: bytes, tokens: Tokens, until: float) -> bytes | None:
        """Wait while another process loads, until a time of the loop's clock; give what it has stored."""
        loop, pause = asyncio.get_running_loop(), _FIRST_POLL_S
        while (found := await self.found(entry, tokens)) is not None:
            if (raw := self.valid(found)) is not None:
                return raw
            if not is_claim(found[0]) or loop.time() >= until:
                return None
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LAST_POLL_S)
        return None

    def _mints(self, kind: str, ttl_ms: int) -> list[Command]:
        # Tokens outlive the values that carry them.
        return [Mint(key, random_name(), 2 * ttl_ms) for key in self.names.tokens(kind)]

    def _stamp(self, cells: Iterable[Reply]) -> bytes | None:
        return self.stamps.headers(tuple(map(_cell, cells)), self.cache.store.epoch).value

    def _remember(self, tokens: Tokens, cells: tuple[Cell, ...]) -> None:
        if len(self._cells) >= _REMEMBERED:
            self._cells.clear()
        self._cells[tokens] = cells


def value_of(raw: bytes) -> Any:
    """Give the value of an entry's bytes."""
    return unpack(raw[STAMP_LENGTH:])


def _cell(reply: Reply) -> Cell:
    assert not isinstance(reply, tuple)
    return reply
