"""What the checks of a store stand on: keys of their own, and short ways to run one command."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from fastrdb.cache.protocol import Cell, claim_mark, parse_listing, random_name
from fastrdb.cache.store import Claim, Command, Fill, HoldCell, HoldTable, Life, ListTemplates, Reply, Store

LONG_MS = 60_000
SHORT_MS = 60
SHORT_S = 0.1  # longer than SHORT_MS


class Probe:
    """One store, and random keys in it that no other probe uses.

    Attributes:
        store: The store.
        pass_time: Lets so many seconds go by, for the store.
        entry: Key of an entry.
        token: Key of a directory's token.
        any_key: Key of a table's token ``any``.
        all_key: Key of the same table's ``all``.
    """

    def __init__(self, store: Store, pass_time: Callable[[float], Awaitable[object]]) -> None:
        self.store, self.pass_time = store, pass_time
        name = random_name()
        self.entry, self.token = b"contract:" + name, b"fastrdb:t:" + name
        self.any_key, self.all_key = b"fastrdb:{%s}:any" % name, b"fastrdb:{%s}:all" % name

    async def do(self, command: Command) -> Reply:
        """Run one command, and give its reply."""
        (reply,) = await self.store.run([command])
        return reply

    async def cell(self, key: bytes) -> Cell:
        """Read one cell."""
        found, _ = await self.store.read(key, ())
        return found

    async def put(self, key: bytes, value: bytes, ttl_ms: int = LONG_MS) -> None:
        """Put a value, as a reader does."""
        mark = claim_mark(random_name())
        await self.store.run([Claim(key, mark, ttl_ms), Fill(key, mark, value, ttl_ms)])

    async def hold(self, key: bytes, writer: bytes, ttl_ms: int = LONG_MS, *, again: bool = False) -> Cell:
        """Hold a cell; give the hold."""
        reply = await self.do(HoldCell(key, writer, ttl_ms, again))
        assert isinstance(reply, bytes)
        return reply

    async def life_ms(self, key: bytes) -> int:
        """Give the remaining life of a cell; -2 for none."""
        reply = await self.do(Life(key))
        assert isinstance(reply, bytes)
        return int(reply)

    async def listed(self, *templates: bytes) -> dict[bytes, tuple[bytes, ...]]:
        """List templates; give the whole list, and whom each one waits for."""
        reply = await self.do(ListTemplates(self.any_key, self.all_key, templates, random_name(), LONG_MS))
        assert isinstance(reply, bytes)
        return parse_listing(reply).templates

    async def hold_table(self, writer: bytes, *templates: bytes, ttl_ms: int = LONG_MS) -> tuple[Cell, ...]:
        """Begin a write to the table; give what lies in ``any`` and ``all`` then."""
        table = HoldTable(self.any_key, self.all_key, writer, ttl_ms, templates, random_name(), LONG_MS)
        reply = await self.do(table)
        assert isinstance(reply, tuple)
        return reply
