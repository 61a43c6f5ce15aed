"""What one transaction does to one cache: hold before COMMIT, release after it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import Table

from ..cache.cache import Cache
from ..cache.protocol import Cell, is_hold, random_name
from ..cache.reads import Stamps
from ..cache.store import Command, Get, HoldCell, HoldTable, Mint, Release, ReleaseTable, RenewTable, Reply
from ..db.transactions import Transaction
from ..errors import CacheClosed, CacheError, CacheUnavailable
from .templates import Image, Listed, table_keys, templates_of

logger = logging.getLogger("fastrdb.cache")

MAX_CELLS = 256
_TOKEN_LIFE_MS = 24 * 3_600_000
_MAX_RENEWALS = 20


@dataclass(frozen=True, slots=True)
class Through:
    """A value to put in place of the old one, stamped with tokens that the write itself noted or made.

    Attributes:
        entry: Key of the entry; the write holds it.
        tokens: Keys of the value's tokens, the table's ``all`` first.
        listed: Its template, which must be confirmed in ``all`` before COMMIT.
        stamps: The stamps of its kind.
        dump: Gives the JSON, or ``None`` if it cannot be stored; called while the hold is on its way.
        ttl_ms: Its life.
    """

    entry: bytes
    tokens: tuple[bytes, ...]
    listed: bytes
    stamps: Stamps
    dump: Callable[[], bytes | None]
    ttl_ms: int


class TableWrite:
    """The rows of one table that a transaction wrote, before and after."""

    def __init__(self, table: Table, prefix: str) -> None:
        self.table = table
        self.any_key, self.all_key = table_keys(table, prefix)
        self.images: list[Image] = []
        self.everything = False
        self.named: set[bytes] = set()  # the templates whose cells are held at once

    def cells(self, templates: Iterable[Listed | None]) -> set[bytes] | None:
        """Give the keys that the images name; ``None`` if one cannot be named."""
        found: set[bytes] = set()
        for listed in templates:
            for image in self.images:
                key = listed.key(image) if listed is not None else None
                if key is None:
                    return None
                found.add(key)
        return found


class CacheEffects:
    """The cells that a transaction touches in one cache, and what becomes of them."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.writer = random_name()
        self.writes: dict[Table, TableWrite] = {}
        self.directories: set[bytes] = set()
        self.through: list[Through] = []
        self.held: list[bytes] = []
        self.complete = False
        self.renews = True
        self._asked: Awaitable[list[Reply]] | None = None
        self._to_note: dict[bytes, bytes | None] = {}
        self._asked_ms = 0.0
        self._noted: dict[bytes, Cell] = {}
        self._payloads: dict[bytes, bytes] = {}
        self._releasing: list[bytes] = []
        self._sent: Awaitable[list[Reply]] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._renewals = 0

    def table(self, table: Table) -> TableWrite:
        """Give the write of one table."""
        self._asked = None  # what was asked for so far is no longer all
        found = self.writes.get(table)
        if found is None:
            found = self.writes[table] = TableWrite(table, self.cache.prefix)
        return found

    def ask(self) -> None:
        """Send what holds every touched cell, without waiting: there is work to do until it is needed."""
        parts = self.cache.parts
        if not (parts.holds and parts.hold_first):
            return
        try:
            self._post_holds()
        except CacheUnavailable:
            self._unreachable()

    async def hold(self) -> None:
        """Hold every touched cell, and note the tokens that are not held. Redis that does not answer stops nobody."""
        if not self.cache.parts.holds:
            self.held = self._cells()
            return
        try:
            early = await self._look_early()
            if self._asked is None or time.monotonic() * 1000 > self._asked_ms + self.cache.hold_ms / 4:
                self._post_holds()
            assert self._asked is not None
            self._dump()
            await self._take_holds(await self._asked, early)
            self.complete = True
            if self.renews:
                self._arm()
        except CacheUnavailable:
            self._unreachable()

    def _unreachable(self) -> None:
        self.cache.stats.count("hold: unreachable")
        self.through.clear()

    def _cells(self) -> list[bytes]:
        """Name the cells of our own templates; too many to hold one by one become the table's ``all``."""
        found = dict.fromkeys(self.directories)
        for write in self.writes.values():
            cells = None
            if not write.everything and len(write.images) <= MAX_CELLS:
                ours = templates_of(write.table).in_use(self.cache.prefix)
                write.named = {listed.text for listed in ours}
                cells = write.cells(ours)
            if cells is None or len(cells) + len(found) > MAX_CELLS:
                write.everything = True
                cells = {write.all_key}
            found.update(dict.fromkeys([write.any_key, *sorted(cells)]))
        return list(found)

    async def _look_early(self) -> dict[bytes, Cell]:
        """Read the lists of templates before anything is held: what must not be done, for tests."""
        if self.cache.parts.hold_first:
            return {}
        keys = [write.all_key for write in self.writes.values()]
        return _paired(keys, await self.cache.run([Get(key) for key in keys]))

    def _post_holds(self) -> None:
        parts, hold_ms = self.cache.parts, self.cache.hold_ms
        self.held = self._cells()
        commands: list[Command] = []
        for write in self.writes.values():
            tokens = write.any_key, write.all_key
            ours = {t.listed for t in self.through if t.tokens[0] == write.all_key} if parts.through_listed else ()
            commands.append(HoldTable(*tokens, self.writer, hold_ms, tuple(ours), random_name(), _TOKEN_LIFE_MS, parts))
        tables = self._tables()
        commands += [HoldCell(key, self.writer, hold_ms) for key in self.held if key not in tables]
        self._asked_ms = time.monotonic() * 1000
        self._to_note = self._tokens_to_note()
        commands += [
            Get(key) if seen else Mint(key, random_name(), _TOKEN_LIFE_MS) for key, seen in self._to_note.items()
        ]
        self._asked = self.cache.store.post(commands)

    def _dump(self) -> None:
        """Make the JSON of what is written through, while the hold is on its way."""
        dumped = {dump: dump() for dump in {t.dump for t in self.through}}
        self._payloads = {t.entry: payload for t in self.through if (payload := dumped[t.dump]) is not None}

    async def _take_holds(self, replies: Sequence[Reply], early: dict[bytes, Cell]) -> None:
        listings = self._listings(replies, early)
        if self._to_note:
            self._note(replies[-len(self._to_note) :])
        await self._hold_listed(listings)

    def _tokens_to_note(self) -> dict[bytes, bytes | None]:
        """Name the tokens that must be noted, each as it was seen before if that is known to live long enough."""
        known = {*self.held, *(write.all_key for write in self.writes.values())}
        until_ms = self._asked_ms + max((t.ttl_ms for t in self.through), default=0)
        needed = dict.fromkeys(key for t in self.through for key in t.tokens if key not in known)
        return {key: self.cache.seen.get(key, until_ms) for key in needed}

    def _note(self, replies: Sequence[Reply]) -> None:
        seen, to_note = self.cache.seen, self._to_note
        self._noted |= _paired(list(to_note), replies)
        for key, before in to_note.items():
            if before is None:
                seen.note(key, self._noted[key], self._asked_ms + _TOKEN_LIFE_MS)
            elif self._noted[key] != before:
                seen.forget(key)  # the next write mints one, or lengthens the life of the one there is

    def _listings(self, replies: Sequence[Reply], early: dict[bytes, Cell]) -> dict[Table, Cell]:
        """Read ``all`` of each table from the replies, which come first and in the tables' order."""
        found: dict[Table, Cell] = {}
        for write, reply in zip(self.writes.values(), replies, strict=False):
            assert isinstance(reply, tuple)
            found[write.table] = early.get(write.all_key, reply[1]) if early else reply[1]
            self._noted[write.all_key] = reply[1]
        return found

    async def _hold_listed(self, listings: dict[Table, Cell]) -> None:
        """Hold what templates of other processes name; what cannot be named makes ``all`` held."""
        held = set(self.held)
        more: list[bytes] = []
        for write in self.writes.values():
            cells = self._foreign(write, listings[write.table])
            if cells is None or len(cells) + len(held) > MAX_CELLS:
                cells = {write.all_key}
            more += [key for key in sorted(cells) if key not in held]
        if more:
            self.held += more
            await self.cache.run([HoldCell(key, self.writer, self.cache.hold_ms) for key in more])

    def _foreign(self, write: TableWrite, listing: Cell) -> set[bytes] | None:
        if write.everything or listing is None or not self.cache.parts.lists:
            return set()
        if is_hold(listing):
            return None
        templates = templates_of(write.table).parse(listing).templates
        if not self.cache.parts.pending_counts:
            templates = {text: waiting for text, waiting in templates.items() if not waiting}
        others = [text for text in templates if text not in write.named]
        return write.cells(templates_of(write.table).see(others, self.cache.prefix))

    async def release(self, *, committed: bool) -> None:
        """Let go of everything, and wait for it."""
        await self.let_go(committed=committed)
        await self.released()

    async def let_go(self, *, committed: bool) -> None:
        """Send what lets go of everything; after a COMMIT, put the new values where that is safe."""
        self.stop_renewing()
        if not self.held:
            return
        if not self.complete and not committed:
            self.withdraw()
            return
        self._releasing, self.held = self.held, []
        try:
            commands = await self._releases(self._releasing, committed) if self.complete else self._drops()
            self._sent = self.cache.store.post(commands)
        except CacheError:
            self._keep(self._releasing)

    def withdraw(self) -> None:
        """Let go of what was asked for, if anything was: nothing has been written."""
        if self._asked is not None:
            self._asked, keys, self.held = None, self.held, []
            with suppress(CacheError):
                self.cache.drop(self.cache.store.post([Release(key, self.writer) for key in keys]))

    async def released(self) -> None:
        """Wait until all is let go; what cannot be delivered is kept by the cache, which then serves nothing."""
        sent, self._sent = self._sent, None
        try:
            if sent is not None:
                await sent
        except CacheError:
            self._keep(self._releasing)

    def _tables(self) -> dict[bytes, bytes]:
        """Give the key of ``all`` for that of ``any``, of each table written."""
        return {write.any_key: write.all_key for write in self.writes.values()}

    def _keep(self, held: list[bytes]) -> None:
        """Keep the invalidation of what was held, or was to be, and of the tables: their lists may not be known."""
        keys = self._with_tables(held)
        try:
            self.cache.keep(keys)
        except CacheClosed:
            # Nobody is left to deliver it. What was held runs out; what could not be held is served by others.
            logger.warning("the cache was closed with %d invalidations undelivered", len(keys))

    def _with_tables(self, held: list[bytes]) -> set[bytes]:
        tables = self._tables()
        return {*held, *tables, *tables.values()}

    def _drops(self) -> list[Command]:
        return [Release(key, self.writer) for key in self._with_tables(self._releasing)]

    async def _releases(self, held: list[bytes], committed: bool) -> list[Command]:
        parts, tables, values, fresh = self.cache.parts, self._tables(), {}, {}
        if committed and self.through:
            needed = {key for t in self.through for key in t.tokens}
            fresh = {key: random_name() for key in held if key in needed and key not in tables}
            if not parts.stamp_before_commit:
                await self._note_again()
            through = [t for t in self.through if t.entry in self._payloads]
            values = {t.entry: (value, t.ttl_ms) for t in through if (value := self._value(t, fresh))}
        tokens: list[Command] = []
        entries: list[Command] = []
        for key in held:
            if key in tables:
                tokens.append(ReleaseTable(key, tables[key], self.writer))
            elif key in values:
                entries.append(Release(key, self.writer, *values[key], parts))
            elif key in fresh:
                tokens.append(Release(key, self.writer, fresh[key], _TOKEN_LIFE_MS, parts))
            else:
                tokens.append(Release(key, self.writer))
        return tokens + entries

    async def _note_again(self) -> None:
        keys = list(self._noted)
        self._noted = _paired(keys, await self.cache.run([Get(key) for key in keys]))

    def _value(self, through: Through, fresh: dict[bytes, bytes]) -> bytes | None:
        """Stamp a value with the tokens noted before COMMIT and the fresh ones of our own releases."""
        cells: tuple[Cell, ...] = tuple(fresh.get(key) or self._noted.get(key) for key in through.tokens)
        all_cell = cells[0]
        if all_cell is None or is_hold(all_cell):
            return None
        table = next(write.table for write in self.writes.values() if write.all_key == through.tokens[0])
        if self.cache.parts.through_listed and not templates_of(table).parse(all_cell).confirmed(through.listed):
            self.cache.stats.count("not stored: the template is not confirmed yet")
            return None
        stamps, epoch = through.stamps, self.cache.store.epoch
        # A stamp under tokens that nobody has had yet is not worth remembering.
        header = stamps.stamp(cells, epoch) if fresh else stamps.headers(cells, epoch).value
        return header + self._payloads[through.entry] if header is not None else None

    def leave(self) -> None:
        """The outcome is unknown: never release. The holds run out by themselves, and readers bypass until then."""
        self.stop_renewing()
        if self.held and not self.complete:
            self._keep(self.held)
        self.held = []

    def _arm(self) -> None:
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self.cache.hold_ms / 2_000, self._renew)

    def stop_renewing(self) -> None:
        """Let the holds end by themselves, unless they are released."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _renew(self) -> None:
        """A COMMIT hangs: ask for more time. The hold then ends later, and is no other hold."""
        self._renewals += 1
        tables, hold_ms = self._tables(), self.cache.hold_ms
        again: list[Command] = [RenewTable(*keys, self.writer, hold_ms) for keys in tables.items()]
        again += [HoldCell(key, self.writer, hold_ms, again=True) for key in self.held if key not in tables]
        with suppress(CacheClosed):
            self.cache.drop(self.cache.store.post(again))
            if self._renewals < _MAX_RENEWALS:
                self._arm()


class Effects:
    """What one transaction on one connection does to the caches that were used in it.

    Attributes:
        reached_commit: The caches were asked to hold: a COMMIT was to be sent.
        sent: They have held, so that COMMIT was sent, as far as can be told.
    """

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.caches: dict[Cache, CacheEffects] = {}
        self.reached_commit = self.sent = False
        self._statements = -1

    def of(self, cache: Cache) -> CacheEffects:
        """Give the effects on one cache."""
        found = self.caches.get(cache)
        if found is None:
            found = self.caches[cache] = CacheEffects(cache)
        return found

    def let_run_out(self) -> None:
        """Nobody will release: the holds end by themselves, and are not renewed."""
        for effects in self.caches.values():
            effects.renews = False

    def write_through(self, cache: Cache, through: list[Through]) -> None:
        """Ask for values to be put in place, unless any statement follows on this connection before COMMIT."""
        self.of(cache).through = through
        self._statements = self.transaction.statements

    def ask(self) -> None:
        """Ask the caches to hold: COMMIT comes next."""
        for effects in self.caches.values():
            effects.ask()

    async def before_commit(self) -> None:
        """Hold. Called in the Connection's ``commit`` event."""
        if self.reached_commit:
            return
        self.reached_commit = True
        for effects in self.caches.values():
            if self.transaction.statements != self._statements:
                effects.through.clear()
            await effects.hold()
        self.sent = True

    def stop_renewing(self) -> None:
        """Let all holds end by themselves, unless they are released."""
        for effects in self.caches.values():
            effects.stop_renewing()

    async def release(self, *, committed: bool, meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
        """Let go in every cache.

        Args:
            committed: The COMMIT is done.
            meanwhile: What is done while the caches answer.
        """
        self.stop_renewing()  # of all, even if this is cancelled at the first
        for effects in self.caches.values():
            await effects.let_go(committed=committed)
        try:
            if meanwhile is not None:
                await meanwhile()
        finally:
            for effects in self.caches.values():
                await effects.released()

    def leave(self) -> None:
        """The outcome is unknown."""
        for effects in self.caches.values():
            effects.leave()

    def forget(self) -> None:
        """The transaction was rolled back before its COMMIT."""
        if not self.reached_commit:
            for effects in self.caches.values():
                effects.withdraw()
            self.caches.clear()


def _paired(keys: Sequence[bytes], replies: Sequence[Reply]) -> dict[bytes, Cell]:
    return {key: cell for key, cell in zip(keys, replies, strict=True) if not isinstance(cell, tuple)}
