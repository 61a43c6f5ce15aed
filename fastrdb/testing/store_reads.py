"""Checks of how a store answers: reads that share round trips, calls in their order, the end."""

from __future__ import annotations

import asyncio

from fastrdb.cache.protocol import Cell
from fastrdb.cache.store import Claim, Fill, Get, HoldCell, Life, Mint, Release
from fastrdb.errors import CacheClosed

from .store_probe import LONG_MS, Probe


class ReadChecks(Probe):
    """What a read finds."""

    async def nothing_is_there_before_it_is_put(self) -> None:
        """Missing cells read as None."""
        assert await self.store.read(self.entry, (self.token, self.all_key)) == (None, (None, None))

    async def cells_come_back_as_they_were_put(self) -> None:
        """A value is read back byte by byte, whatever it consists of."""
        for value in (b"", b"\r\n$-1\r\n", bytes(range(256)), b" \t{}", b"x" * 300_000):
            await self.put(self.entry, value)
            assert await self.cell(self.entry) == value
            assert await self.store.read(self.entry, (), bulk=True) == (value, ())

    async def tokens_come_in_the_order_asked(self) -> None:
        """A read gives its tokens in their order, one that is asked for twice twice."""
        other = self.token + b":other"
        await self.store.run([Mint(self.token, b"a", LONG_MS), Mint(other, b"b", LONG_MS)])
        found = await self.store.read(self.entry, (other, self.token, self.all_key, other))
        assert found == (None, (b"b", b"a", None, b"b"))

    async def readers_do_not_mix_up(self) -> None:
        """Each of many concurrent readers gets its own entry and its own tokens."""
        count = 700
        keys = [b"%s:%d" % (self.entry, number) for number in range(count)]
        fills = [Mint(key, b"v" + key, LONG_MS) for key in keys]
        await self.store.run(fills)
        scopes = [(keys[number], keys[-number - 1]) for number in range(7)]
        found = await asyncio.gather(*[self.store.read(key, scopes[number % 7]) for number, key in enumerate(keys)])
        for number, (cell, tokens) in enumerate(found):
            assert cell == b"v" + keys[number]
            assert tokens == tuple(b"v" + key for key in scopes[number % 7])

    async def a_read_may_have_many_tokens(self) -> None:
        """A read with more tokens than a round trip usually takes is answered all the same."""
        tokens = tuple(b"%s:%d" % (self.token, number) for number in range(600))
        await self.do(Mint(tokens[-1], b"last", LONG_MS))
        _, cells = await self.store.read(self.entry, tokens)
        assert cells == (*[None] * 599, b"last")

    async def a_cancelled_reader_harms_no_other(self) -> None:
        """One of several readers that share a round trip is cancelled; the others get their cells."""
        await self.put(self.entry, b"value")

        async def read() -> Cell:
            return await self.cell(self.entry)

        for turns in range(4):
            first, second, third = (asyncio.ensure_future(read()) for _ in range(3))
            for _ in range(turns):
                await asyncio.sleep(0)
            second.cancel()
            assert list(await asyncio.gather(first, third)) == [b"value", b"value"]
            await asyncio.wait([second])
        assert await self.cell(self.entry) == b"value"

    async def the_epoch_is_known_once_the_store_has_answered(self) -> None:
        """The epoch has a name after the first reply, and keeps it."""
        await self.cell(self.entry)
        epoch = self.store.epoch
        assert epoch
        await self.store.read(self.entry, (), bulk=True)
        assert self.store.epoch == epoch


class CallChecks(Probe):
    """The order of commands, and the end."""

    async def commands_run_in_their_order(self) -> None:
        """Each command of a call sees what the ones before it did, and the replies come in their order."""
        replies = await self.store.run(
            [
                Get(self.entry),
                Claim(self.entry, b'"?r1"', LONG_MS),
                Fill(self.entry, b'"?r1"', b"value", LONG_MS),
                Get(self.entry),
                HoldCell(self.entry, b"w1", LONG_MS),
                Release(self.entry, b"w1"),
                Get(self.entry),
            ]
        )
        assert replies[:4] == [None, b'"?r1"', b"value", b"value"]
        assert replies[5:] == [None, None]

    async def no_commands_give_no_replies(self) -> None:
        """An empty call is answered."""
        assert await self.store.run([]) == []
        assert await self.store.post([]) == []
        assert await self.cell(self.entry) is None

    async def a_read_sees_what_was_posted_before(self) -> None:
        """What was enqueued is done before a later read of its kind, though nobody awaited it."""
        for bulk in (False, True):
            for value in (b"one", b"two"):
                claim = Claim(self.entry, b'"?r1"', LONG_MS)
                posted = self.store.post([claim, Fill(self.entry, b'"?r1"', value, LONG_MS)], bulk=bulk)
                assert await self.store.read(self.entry, (), bulk=bulk) == (value, ())
                assert await posted == [b'"?r1"', value]
            await self.do(Release(self.entry, b"w1"))

    async def a_cancelled_call_leaves_no_reply_to_the_next(self) -> None:
        """A call is cancelled while it waits; the next one gets its own replies."""
        await self.do(Mint(self.token, b"token", LONG_MS))
        for turns in range(4):
            call = asyncio.ensure_future(self.store.run([Claim(self.entry, b'"?r1"', LONG_MS)]))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            assert await self.store.run([Get(self.token), Life(self.any_key)]) == [b"token", b"-2"]
            await asyncio.wait([call])

    async def a_closed_store_says_so(self) -> None:
        """After it was closed, a store raises CacheClosed; closing it twice is harmless."""
        await self.cell(self.entry)
        await self.store.aclose()
        await self.store.aclose()
        for attempt in (self.cell(self.entry), self.store.run([Get(self.entry)])):
            try:
                await attempt
            except CacheClosed:
                continue
            raise AssertionError("a closed store answered")
