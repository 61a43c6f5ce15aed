"""Checks of a table's two tokens: ``any``, which its writers hold, and ``all``, which lists its templates."""

from __future__ import annotations

from fastrdb.cache.protocol import MAX_LISTED, Cell, parse_hold, parse_listing
from fastrdb.cache.store import ListTemplates, Mint, ReleaseTable, RenewTable

from .store_probe import LONG_MS, SHORT_MS, SHORT_S, Probe


class TableChecks(Probe):
    """A template is confirmed when every writer knows of it."""

    async def a_table_is_held_after_its_templates_are_listed(self) -> None:
        """A writer's first command lists its templates as confirmed, holds ``any`` and reads ``all``."""
        held, listed = await self.hold_table(b"w1", b"a:{x}", b"b:{x}")
        assert held is not None
        assert listed is not None
        assert set(parse_hold(held).writers) == {b"w1"}
        assert parse_listing(listed).templates == {b"a:{x}": (), b"b:{x}": ()}
        assert await self.store.read(self.any_key, (self.all_key,)) == (held, (listed,))

    async def a_template_waits_for_the_writers_of_its_time(self) -> None:
        """A template is confirmed when those who held ``any`` at its listing let go; later ones do not matter."""
        await self.hold_table(b"w1")
        assert await self.listed(b"a:{x}") == {b"a:{x}": (b"w1",)}
        await self.hold_table(b"w2")
        assert await self.listed(b"a:{x}") == {b"a:{x}": (b"w1",)}
        assert parse_hold(await self._release_table(b"w1") or b"").writers.keys() == {b"w2"}
        assert await self.listed(b"a:{x}") == {b"a:{x}": ()}

    async def a_template_does_not_wait_for_the_dead(self) -> None:
        """The hold of a killed writer ends, and with it what waited for it."""
        await self.hold_table(b"dead", ttl_ms=SHORT_MS)
        await self.hold_table(b"w2")
        assert await self.listed(b"a:{x}") == {b"a:{x}": (b"dead", b"w2")}
        await self.pass_time(SHORT_S)
        assert await self.listed(b"a:{x}") == {b"a:{x}": (b"w2",)}

    async def who_held_a_table_all_the_time_leaves_its_list(self) -> None:
        """A writer that renews its hold in time, and lets go in time, ages no value of the table."""
        _, listed = await self.hold_table(b"w1", b"a:{x}", ttl_ms=SHORT_MS)
        await self._renew_table(b"w1")
        await self.pass_time(SHORT_S)
        assert await self._release_table(b"w1") is None
        assert await self._cells() == (None, listed)

    async def who_lost_a_table_drops_its_list(self) -> None:
        """A writer whose hold ended does not know what was listed since: values under those templates age."""
        for co_writers in ([], [b"w2"]):
            await self.hold_table(b"w1", ttl_ms=SHORT_MS)
            for writer in co_writers:
                await self.hold_table(writer)
            await self.pass_time(SHORT_S)
            await self.listed(b"first:{x}")
            left = await self._release_table(b"w1")
            assert set(parse_hold(left or b"").writers) == set(co_writers)
            assert await self._cells() == (left, None)

    async def who_renews_a_lost_table_drops_its_list(self) -> None:
        """A renewal that finds its hold ended holds again, and values under templates listed meanwhile age."""
        await self.hold_table(b"w1", ttl_ms=SHORT_MS)
        await self.pass_time(SHORT_S)
        await self.listed(b"first:{x}")
        held = await self._renew_table(b"w1")
        assert await self._cells() == (held, None)
        assert LONG_MS / 2 < await self.life_ms(self.any_key) <= LONG_MS
        assert await self.listed(b"first:{x}") == {b"first:{x}": (b"w1",)}
        assert await self._release_table(b"w1") is None
        assert await self.listed(b"first:{x}") == {b"first:{x}": ()}

    async def who_lost_a_table_leaves_a_held_list(self) -> None:
        """Where a co-writer holds ``all``, its hold stays, and leaves no token of its own when it lets go."""
        keys = self.any_key, self.all_key
        for command in (ReleaseTable(*keys, b"w1"), RenewTable(*keys, b"w1", LONG_MS)):
            await self.hold(self.all_key, b"w1")
            await self.hold(self.all_key, b"w2", SHORT_MS)
            await self.do(command)
            left = parse_hold(await self.cell(self.all_key) or b"")
            assert left.shared
            assert set(left.writers) == {b"w2"}
            assert await self.life_ms(self.all_key) <= SHORT_MS
            await self.pass_time(SHORT_S)
            await self._release_table(b"w1")

    async def what_is_listed_stays(self) -> None:
        """Listing keeps the token and the other templates, and lengthens their life only."""
        listing = ListTemplates(self.any_key, self.all_key, (b"a",), b"token", LONG_MS)
        assert await self.do(listing) == b"token\na\t"
        again = ListTemplates(self.any_key, self.all_key, (b"b",), b"other", SHORT_MS)
        assert await self.do(again) == b"token\na\t\nb\t"
        assert await self.life_ms(self.all_key) > LONG_MS / 2
        await self.do(again._replace(token_ttl_ms=2 * LONG_MS))
        assert await self.life_ms(self.all_key) > LONG_MS
        assert await self.do(Mint(self.all_key, b"other", LONG_MS)) == b"token\na\t\nb\t"

    async def a_held_all_lists_nothing(self) -> None:
        """While a writer holds ``all``, nothing can be confirmed."""
        held = await self.hold(self.all_key, b"w1")
        assert await self.do(ListTemplates(self.any_key, self.all_key, (b"a",), b"fresh", LONG_MS)) == held
        assert (await self.hold_table(b"w2", b"a"))[1] == held

    async def a_full_list_starts_again_under_another_token(self) -> None:
        """A list that has no room ages every value of the table and lists what was asked for."""
        many = tuple(b"t%d" % number for number in range(MAX_LISTED))
        await self.do(ListTemplates(self.any_key, self.all_key, many, b"old", LONG_MS))
        reply = await self.do(ListTemplates(self.any_key, self.all_key, (b"more",), b"new", LONG_MS))
        assert reply == b"new\nmore\t"

    async def _release_table(self, writer: bytes) -> Cell:
        reply = await self.do(ReleaseTable(self.any_key, self.all_key, writer))
        assert not isinstance(reply, tuple)
        return reply

    async def _renew_table(self, writer: bytes) -> Cell:
        reply = await self.do(RenewTable(self.any_key, self.all_key, writer, LONG_MS))
        assert not isinstance(reply, tuple)
        return reply

    async def _cells(self) -> tuple[Cell, Cell]:
        any_cell, (all_cell,) = await self.store.read(self.any_key, (self.all_key,))
        return any_cell, all_cell
