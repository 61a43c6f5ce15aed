"""What one transaction does to one cache: hold before COMMIT, release after it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from contextvars import Context

from sqlalchemy import Connection

from ..cache.cache import Cache
from ..cache.protocol import Cell, is_hold, random_name
from ..cache.store import Command, Get, HoldCell, HoldTable, Mint, Release, ReleaseTable, RenewTable, Reply
from ..errors import CacheClosed, CacheError, CacheUnavailable
from .outbox import Outbox
from .renewing import Renewing
from .touched import Through, Touched

logger = logging.getLogger("fastrdb.cache")

_TOKEN_LIFE_MS = 24 * 3_600_000


class CacheEffects:
    """The cells that a transaction touches in one cache, and what becomes of them.

    Attributes:
        through: Values to put in place of the old ones.
        renews: Somebody will release: while COMMIT hangs, the holds are renewed.
    """

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.through: list[Through] = []
        self.renews = True
        self._touched = Touched(cache.prefix)
        self._writer = random_name()
        self._held: list[bytes] = []
        self._complete = self._failed = False
        self._asked: Awaitable[list[Reply]] | None = None
        self._asked_ms = 0.0
        self._epoch = b""
        self._to_note: dict[bytes, bytes | None] = {}
        self._noted: dict[bytes, Cell] = {}
        self._payloads: dict[bytes, bytes] = {}
        self._prepared: list[Command] | None = None
        self._releasing: list[bytes] = []
        self._sent: Awaitable[list[Reply]] | None = None
        self._renewing: Renewing | None = None
        self._values_at = 0

    def touch(self) -> Touched:
        """Give what is touched so far, for more to be added."""
        self._asked = None  # what was asked for so far is no longer all
        return self._touched

    # -- before COMMIT

    def ask(self) -> None:
        """Send what holds every touched cell, without waiting: there is work to do until it is needed."""
        if self.cache.parts.holds and self.cache.parts.hold_first:
            with suppress(CacheUnavailable):
                self._post_holds()

    async def hold(self) -> CacheUnavailable | None:
        """Hold every touched cell, and note the tokens that are not held; give the error of a Redis that is away."""
        if not self.cache.parts.holds:
            self._held = self._touched.cells()
            return None
        try:
            early = [] if self.cache.parts.hold_first else await self._look_early()
            if self._asked is None or time.monotonic() * 1000 > self._asked_ms + self.cache.hold_ms / 4:
                self._post_holds()
            assert self._asked is not None
            self._dump()
            replies, lacking = await self.cache.answers(self._asked)
            if lacking:  # the holds are placed in any case, but there is no memory for tokens, nor for values
                self.cache.lack(len(self.through))
                self.through.clear()
            await self._take_holds(replies, early)
        except CacheUnavailable as error:
            self.cache.stats.count("hold: unreachable")
            self._failed = True
            self.through.clear()
            return error
        self._complete = True
        if self.renews:
            self._renewing = Renewing(self.cache, self._again)
        if self.through and self.cache.parts.stamp_before_commit:
            asyncio.get_running_loop().call_soon(self._prepare)  # when COMMIT is on its way, and nothing else to do
        return None

    def write_down(self, connection: Connection) -> None:
        """Leave in the open transaction what could not be held; what was held leaves no value behind by itself."""
        outbox = self.cache.outbox
        if not self._failed or not self._held or not isinstance(outbox, Outbox):
            return
        if not outbox.lies_in(connection):
            self.cache.stats.count("hold: the outbox lies in another database")
            return
        outbox.write(connection, self.cache.prefix, self._touched.with_tables(self._held))

    async def _look_early(self) -> Sequence[Reply]:
        """Read the lists of templates before anything is held: what must not be done, for tests."""
        return await self.cache.run([Get(key) for key in self._touched.all_of.values()])

    def _post_holds(self) -> None:
        parts, hold_ms, writer = self.cache.parts, self.cache.hold_ms, self._writer
        self._held = self._touched.cells()
        commands: list[Command] = []
        for any_key, all_key in self._touched.all_of.items():
            ours = {t.listed for t in self.through if t.tokens[0] == all_key} if parts.through_listed else ()
            listed = tuple(ours), random_name(), _TOKEN_LIFE_MS
            commands.append(HoldTable(any_key, all_key, writer, hold_ms, *listed, parts))
        commands += [HoldCell(key, writer, hold_ms) for key in self._held if key not in self._touched.all_of]
        self._asked_ms = time.monotonic() * 1000
        self._epoch = self.cache.store.epoch  # that of the tokens to note: a failover since then makes them another's
        if self.through:
            self._to_note = self._tokens_to_note()
            for key, seen in self._to_note.items():
                commands.append(Get(key) if seen else Mint(key, random_name(), _TOKEN_LIFE_MS))
        self._asked = self.cache.store.post(commands)

    def _tokens_to_note(self) -> dict[bytes, bytes | None]:
        """Name the tokens that must be noted, each as it was seen before if that is known to live long enough."""
        known = {*self._held, *self._touched.all_of.values()}
        until_ms = self._asked_ms + max(t.ttl_ms for t in self.through)
        needed = dict.fromkeys(key for t in self.through for key in t.tokens if key not in known)
        return {key: self.cache.seen.get(key, until_ms) for key in needed}

    def _dump(self) -> None:
        """Make the JSON of what is written through, while the hold is on its way."""
        dumped = {dump: dump() for dump in {t.dump for t in self.through}}
        self._payloads = {t.entry: payload for t in self.through if (payload := dumped[t.dump]) is not None}

    async def _take_holds(self, replies: Sequence[Reply], early: Sequence[Reply]) -> None:
        """Note the tokens, and hold what the templates of other processes name."""
        listings = []
        for all_key, reply in zip(self._touched.all_of.values(), replies, strict=False):
            assert isinstance(reply, tuple)
            self._noted[all_key] = reply[1]
            listings.append(reply[1])
        if self._to_note:
            self._note(replies[-len(self._to_note) :])
        if not self.cache.parts.lists:
            return
        listings = [cell for cell in early if not isinstance(cell, tuple)] or listings
        more = self._touched.listed_cells(listings, self._held, pending=self.cache.parts.pending_counts)
        if more:
            self._held += more
            await self.cache.run([HoldCell(key, self._writer, self.cache.hold_ms) for key in more])

    def _note(self, replies: Sequence[Reply]) -> None:
        seen = self.cache.seen
        for (key, before), cell in zip(self._to_note.items(), replies, strict=True):
            assert not isinstance(cell, tuple)
            self._noted[key] = cell
            if before is None:
                seen.note(key, cell, self._asked_ms + _TOKEN_LIFE_MS)
            elif cell != before:
                seen.forget(key)  # the next write mints one, or lengthens the life of the one there is

    # -- after it

    async def release(self, *, committed: bool) -> None:
        """Let go of everything, and wait for it."""
        await self.let_go(committed=committed)
        await self.released()

    async def let_go(self, *, committed: bool) -> None:
        """Send what lets go of everything; after a COMMIT, put the new values where that is safe."""
        self.stop_renewing()
        if not self._held:
            return
        if committed:
            self.drop_aged()
        if not self._complete and not committed:
            self.withdraw()
            return
        self._releasing, self._held = self._held, []
        try:
            if committed and not self.cache.parts.stamp_before_commit:
                await self._note_again()
            commands = (committed and self._prepared) or self._releases(self._releasing, committed)
            self._sent = self.cache.store.post(commands)
        except CacheError:
            self._keep(self._releasing)

    async def released(self) -> None:
        """Wait until all is let go; what cannot be delivered is kept by the cache, which then serves nothing."""
        sent, self._sent = self._sent, None
        try:
            if sent is not None:
                _, lacking = await self.cache.answers(sent)
                self.cache.lack(sum(at >= self._values_at for at in lacking))
        except CacheError:
            self._keep(self._releasing)

    def withdraw(self) -> None:
        """Let go of what was asked for, if anything was: nothing has been written."""
        if self._asked is not None:
            self._asked, keys, self._held = None, self._held, []
            with suppress(CacheError):
                self.cache.drop(self.cache.store.post([Release(key, self._writer) for key in keys]))

    def leave(self) -> None:
        """The outcome is unknown: never release. The holds run out by themselves, and readers bypass until then."""
        self.stop_renewing()
        self.drop_aged()
        if self._held and not self._complete:
            self.keep_twice()
        self._held = []

    def keep_twice(self) -> None:
        """Keep what could not be held, where nobody will learn when COMMIT is over: now, and when a hold would end.

        What is delivered at once may come before that COMMIT, and others may load the old row in between.
        """
        held = self._held
        self._keep(held)
        asyncio.get_running_loop().call_later(self.cache.hold_ms / 1_000, self._keep, held, context=Context())

    def _keep(self, held: list[bytes]) -> None:
        """Keep the invalidation of what was held, or was to be, and of the tables: their lists may not be known."""
        keys = self._touched.with_tables(held)
        try:
            self.cache.keep(keys)
        except CacheClosed:
            # Nobody is left to deliver it. What was held runs out; what could not be held is served by others.
            logger.warning("the cache was closed with %d invalidations undelivered", len(keys))

    def drop_aged(self, *, lasting_s: float = 0.0) -> None:
        """Let this process forget what it keeps of the touched values: the write is about to return."""
        if self.cache.aged.used:
            known = self._held if self._complete else self._touched.with_tables(self._held)
            self.cache.aged.drop(known, lasting_s=lasting_s)

    def _prepare(self) -> None:
        """Make what lets go after a COMMIT, unless that is done already."""
        if self._held:
            self._prepared = self._releases(self._held, committed=True)

    def _releases(self, held: list[bytes], committed: bool) -> list[Command]:
        parts, all_of, writer = self.cache.parts, self._touched.all_of, self._writer
        if not self._complete:
            return [Release(key, writer) for key in self._touched.with_tables(held)]
        fresh: dict[bytes, bytes] = {}
        values: dict[bytes, tuple[bytes, int]] = {}
        if committed and self.through:
            needed = {key for t in self.through for key in t.tokens}
            fresh = {key: random_name() for key in held if key in needed and key not in all_of}
            values = {t.entry: (value, t.ttl_ms) for t in self.through if (value := self._value(t, fresh))}
        tokens: list[Command] = []
        entries: list[Command] = []
        for key in held:
            if key in all_of:
                tokens.append(ReleaseTable(key, all_of[key], writer))
            elif key in values:
                entries.append(Release(key, writer, *values[key], parts))
            elif key in fresh:
                tokens.append(Release(key, writer, fresh[key], _TOKEN_LIFE_MS, parts))
            else:
                tokens.append(Release(key, writer))
        self._values_at = len(tokens)
        return tokens + entries

    async def _note_again(self) -> None:
        """Note the tokens after COMMIT: what must not be done, for tests."""
        keys = list(self._noted)
        replies = await self.cache.run([Get(key) for key in keys])
        self._noted = {key: cell for key, cell in zip(keys, replies, strict=True) if not isinstance(cell, tuple)}

    def _value(self, through: Through, fresh: dict[bytes, bytes]) -> bytes | None:
        """Stamp a value with the tokens noted before COMMIT and the fresh ones of our own releases."""
        parts, payload = self.cache.parts, self._payloads.get(through.entry)
        cells: tuple[Cell, ...] = tuple([fresh.get(key) or self._noted.get(key) for key in through.tokens])
        all_cell = cells[0]
        if payload is None or all_cell is None or is_hold(all_cell):
            return None
        if parts.through_listed and not self._touched.confirmed(through.listed, through.tokens[0], all_cell):
            self.cache.stats.count("not stored: the template is not confirmed yet")
            return None
        stamps, epoch = through.stamps, self._epoch or self.cache.store.epoch
        # A stamp under tokens that nobody has had yet is not worth remembering.
        header = stamps.stamp(cells, epoch) if fresh else stamps.headers(cells, epoch).value
        return header + payload if header is not None else None

    # -- while COMMIT hangs

    def stop_renewing(self) -> None:
        """Let the holds end by themselves, unless they are released."""
        if self._renewing is not None:
            self._renewing.stop()
            self._renewing = None

    def _again(self) -> list[Command]:
        all_of, hold_ms = self._touched.all_of, self.cache.hold_ms
        again: list[Command] = [RenewTable(*keys, self._writer, hold_ms) for keys in all_of.items()]
        return again + [HoldCell(key, self._writer, hold_ms, again=True) for key in self._held if key not in all_of]
