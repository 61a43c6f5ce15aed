"""Checks of a table's two tokens: ``any``, which its writers hold, and ``all``, which lists its templates."""

from __future__ import annotations

from fastrdb.cache.protocol import MAX_LISTED, parse_hold, parse_listing
from fastrdb.cache.store import ListTemplates, Mint, Release

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
        await self.do(Release(self.any_key, b"w1"))
        assert await self.listed(b"a:{x}") == {b"a:{x}": ()}

    async def a_template_does_not_wait_for_the_dead(self) -> None:
        """The hold of a killed writer ends, and with it what waited for it."""
        await self.hold_table(b"dead", ttl_ms=SHORT_MS)
        await self.hold_table(b"w2")
        assert await self.listed(b"a:{x}") == {b"a:{x}": (b"dead", b"w2")}
        await self.pass_time(SHORT_S)
        assert await self.listed(b"a:{x}") == {b"a:{x}": (b"w2",)}

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
