"""Checks of what may lie in a cell: tokens, claims, values, holds."""

from __future__ import annotations

import asyncio

from fastrdb.cache.protocol import claim_mark, is_hold, parse_hold
from fastrdb.cache.store import Claim, Fill, HoldCell, Mint, Put, Release, Unclaim

from .store_probe import LONG_MS, SHORT_MS, SHORT_S, Probe


class TokenChecks(Probe):
    """Tokens are minted once, and live long enough."""

    async def the_first_token_stays(self) -> None:
        """Whoever mints second gets the token of the first."""
        assert await self.do(Mint(self.token, b"first", LONG_MS)) == b"first"
        assert await self.do(Mint(self.token, b"second", LONG_MS)) == b"first"

    async def minting_lengthens_a_life_and_never_shortens_it(self) -> None:
        """A token lives as long as the longest life that was asked for."""
        await self.do(Mint(self.token, b"token", LONG_MS))
        await self.do(Mint(self.token, b"other", SHORT_MS))
        assert await self.life_ms(self.token) > LONG_MS / 2
        await self.do(Mint(self.token, b"other", 2 * LONG_MS))
        assert await self.life_ms(self.token) > LONG_MS

    async def minting_leaves_a_hold_alone(self) -> None:
        """A held token is not replaced, nor does its hold last longer."""
        held = await self.hold(self.token, b"w1")
        assert await self.do(Mint(self.token, b"token", 3 * LONG_MS)) == held
        assert await self.life_ms(self.token) <= LONG_MS

    async def tokens_end(self) -> None:
        """A token is gone when its life is over, and another one is minted."""
        await self.do(Mint(self.token, b"old", SHORT_MS))
        await self.pass_time(SHORT_S)
        assert await self.cell(self.token) is None
        assert await self.do(Mint(self.token, b"new", LONG_MS)) == b"new"


class ClaimChecks(Probe):
    """Of readers that load, one fills, and only what it claimed."""

    async def one_reader_gets_the_claim(self) -> None:
        """Of many readers that claim an entry at once, one gets it, and all are told who."""
        marks = [claim_mark(b"r%d" % number) for number in range(20)]
        claims = [self.do(Claim(self.entry, mark, LONG_MS)) for mark in marks]
        (winner,) = set(await asyncio.gather(*claims))
        assert winner in marks

    async def a_claim_replaces_a_value(self) -> None:
        """A value that turned out to be stale gives way to a claim."""
        await self.put(self.entry, b"stale")
        assert await self.do(Claim(self.entry, b'"?r1"', LONG_MS)) == b'"?r1"'

    async def a_claim_may_be_renewed(self) -> None:
        """A reader that claims again keeps its claim, and for longer."""
        await self.do(Claim(self.entry, b'"?r1"', SHORT_MS))
        assert await self.do(Claim(self.entry, b'"?r1"', LONG_MS)) == b'"?r1"'
        assert await self.life_ms(self.entry) > SHORT_MS

    async def a_claim_ends(self) -> None:
        """The claim of a reader that was killed makes room for another one."""
        await self.do(Claim(self.entry, b'"?dead"', SHORT_MS))
        await self.pass_time(SHORT_S)
        assert await self.do(Claim(self.entry, b'"?r2"', LONG_MS)) == b'"?r2"'

    async def a_held_entry_cannot_be_claimed(self) -> None:
        """A reader that finds a hold is told so, and the hold stays."""
        held = await self.hold(self.entry, b"w1")
        assert await self.do(Claim(self.entry, b'"?r1"', LONG_MS)) == held
        assert await self.cell(self.entry) == held

    async def a_fill_goes_where_the_claim_lies(self) -> None:
        """The reader that holds the claim stores its value, for as long as it says."""
        await self.do(Claim(self.entry, b'"?r1"', SHORT_MS))
        assert await self.do(Fill(self.entry, b'"?r1"', b"value", LONG_MS)) == b"value"
        assert await self.cell(self.entry) == b"value"
        assert LONG_MS / 2 < await self.life_ms(self.entry) <= LONG_MS

    async def a_value_ends(self) -> None:
        """A value is gone when its life is over."""
        await self.put(self.entry, b"value", SHORT_MS)
        await self.pass_time(SHORT_S)
        assert await self.cell(self.entry) is None
        assert await self.life_ms(self.entry) == -2

    async def a_late_fill_is_refused(self) -> None:
        """A reader that lost the race to a writer cannot bring the old row back."""
        await self.do(Claim(self.entry, b'"?r1"', LONG_MS))
        held = await self.hold(self.entry, b"w1")
        assert await self.do(Fill(self.entry, b'"?r1"', b"old", LONG_MS)) == held
        await self.do(Release(self.entry, b"w1"))
        assert await self.do(Fill(self.entry, b'"?r1"', b"old", LONG_MS)) is None
        assert await self.cell(self.entry) is None

    async def a_fill_after_the_claim_ended_is_refused(self) -> None:
        """A reader that was too slow does not overwrite what the next reader claimed."""
        await self.do(Claim(self.entry, b'"?slow"', SHORT_MS))
        await self.pass_time(SHORT_S)
        assert await self.do(Fill(self.entry, b'"?slow"', b"old", LONG_MS)) is None
        await self.do(Claim(self.entry, b'"?r2"', LONG_MS))
        assert await self.do(Fill(self.entry, b'"?slow"', b"old", LONG_MS)) == b'"?r2"'

    async def a_put_takes_the_claim_away(self) -> None:
        """A value that was put stays, whatever a reader that began before would fill in."""
        await self.do(Claim(self.entry, b'"?r1"', LONG_MS))
        assert await self.do(Put(self.entry, b"new", LONG_MS)) is None
        assert await self.do(Fill(self.entry, b'"?r1"', b"old", LONG_MS)) == b"new"
        assert LONG_MS / 2 < await self.life_ms(self.entry) <= LONG_MS

    async def a_put_may_ask_for_an_empty_cell(self) -> None:
        """Of several values that are put only where nothing lies, one stays, an equal one included."""
        puts = [self.do(Put(self.entry, value, LONG_MS, only_if_empty=True)) for value in (b"one", b"two", b"one")]
        replies = await asyncio.gather(*puts)
        assert replies.count(None) == 1
        assert {reply for reply in replies if reply is not None} == {await self.cell(self.entry)}

    async def a_hold_keeps_a_put_out(self) -> None:
        """A writer's hold stays, and is told to who would put a value."""
        held = await self.hold(self.entry, b"w1")
        assert await self.do(Put(self.entry, b"value", LONG_MS)) == held
        assert await self.cell(self.entry) == held

    async def a_reader_takes_its_own_claim_away(self) -> None:
        """Giving up removes one's own claim, and nothing else."""
        await self.do(Claim(self.entry, b'"?r1"', LONG_MS))
        assert await self.do(Unclaim(self.entry, b'"?r2"')) == b'"?r1"'
        assert await self.do(Unclaim(self.entry, b'"?r1"')) is None
        assert await self.cell(self.entry) is None
        await self.put(self.entry, b"value")
        assert await self.do(Unclaim(self.entry, b'"?r1"')) == b"value"


class HoldChecks(Probe):
    """Of writers, one leaves its value, and only when it held alone."""

    async def a_hold_takes_the_place_of_what_was_there(self) -> None:
        """A held entry has no value, a held token is none, and readers see the hold."""
        await self.put(self.entry, b"value")
        await self.do(Mint(self.token, b"token", LONG_MS))
        await self.store.run([HoldCell(key, b"w1", LONG_MS) for key in (self.entry, self.token)])
        cell, (token,) = await self.store.read(self.entry, (self.token,))
        assert is_hold(cell)
        assert is_hold(token)

    async def a_sole_writer_writes_through(self) -> None:
        """Who held alone all the time may leave the new value."""
        await self.hold(self.entry, b"w1")
        assert await self.do(Release(self.entry, b"w1", b"new", LONG_MS)) == b"new"
        assert await self.cell(self.entry) == b"new"
        assert LONG_MS / 2 < await self.life_ms(self.entry) <= LONG_MS

    async def nothing_is_written_through_a_shared_hold(self) -> None:
        """Neither of two writers that held together leaves a value: nobody knows whose is the newer."""
        await self.hold(self.entry, b"w1")
        await self.hold(self.entry, b"w2")
        left = await self.do(Release(self.entry, b"w1", b"one", LONG_MS))
        assert isinstance(left, bytes)
        assert parse_hold(left).shared
        assert set(parse_hold(left).writers) == {b"w2"}
        assert await self.do(Release(self.entry, b"w2", b"two", LONG_MS)) is None
        assert await self.cell(self.entry) is None

    async def a_hold_outlives_a_co_writers(self) -> None:
        """When one of two writers lets go, the cell stays held for as long as the other one asked."""
        await self.hold(self.entry, b"w1", 2 * LONG_MS)
        await self.hold(self.entry, b"w2")
        assert await self.life_ms(self.entry) > LONG_MS
        await self.do(Release(self.entry, b"w1"))
        assert 0 < await self.life_ms(self.entry) <= LONG_MS

    async def a_dead_writers_hold_ends(self) -> None:
        """The hold of a writer that was killed runs out by itself."""
        await self.hold(self.entry, b"dead", SHORT_MS)
        await self.pass_time(SHORT_S)
        assert await self.cell(self.entry) is None

    async def a_dead_co_writer_is_remembered(self) -> None:
        """A writer that shared its hold with one that died leaves no value, even after it renewed its own."""
        for renewed in (False, True):
            await self.hold(self.entry, b"dead", SHORT_MS)
            await self.hold(self.entry, b"w2")
            await self.pass_time(SHORT_S)
            if renewed:
                await self.hold(self.entry, b"w2", again=True)
            assert await self.do(Release(self.entry, b"w2", b"new", LONG_MS)) is None

    async def who_lost_its_hold_deletes_what_came(self) -> None:
        """Where a hold was lost, whatever was filled meanwhile may be old, and goes with the release."""
        await self.hold(self.entry, b"w1", SHORT_MS)
        await self.pass_time(SHORT_S)
        await self.put(self.entry, b"old")
        assert await self.do(Release(self.entry, b"w1", b"new", LONG_MS)) is None
        assert await self.cell(self.entry) is None

    async def who_lost_its_hold_leaves_a_later_writers(self) -> None:
        """A release by a writer whose hold was lost leaves the hold of one that came later."""
        await self.hold(self.entry, b"w1", SHORT_MS)
        await self.pass_time(SHORT_S)
        await self.hold(self.entry, b"w2")
        await self.do(Release(self.entry, b"w1", b"new", LONG_MS))
        cell = await self.cell(self.entry)
        assert cell is not None
        assert set(parse_hold(cell).writers) == {b"w2"}

    async def a_hold_that_was_lost_and_renewed_counts_as_shared(self) -> None:
        """A renewal that finds the hold gone holds again, and leaves no value when it lets go."""
        await self.hold(self.entry, b"w1", SHORT_MS)
        await self.pass_time(SHORT_S)
        await self.hold(self.entry, b"w1", again=True)
        assert await self.do(Release(self.entry, b"w1", b"new", LONG_MS)) is None

    async def a_hold_can_be_renewed(self) -> None:
        """A writer whose COMMIT takes long keeps its hold, and still counts as the only one."""
        await self.hold(self.entry, b"w1", SHORT_MS)
        await self.hold(self.entry, b"w1", again=True)
        await self.pass_time(SHORT_S)
        assert await self.do(Release(self.entry, b"w1", b"new", LONG_MS)) == b"new"

    async def letting_go_of_nothing_is_harmless(self) -> None:
        """A release of a cell that is not there leaves it so."""
        assert await self.do(Release(self.entry, b"w1", b"new", LONG_MS)) is None
        assert await self.cell(self.entry) is None
