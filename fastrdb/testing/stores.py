"""The contract that every store keeps, as checks: for the stores of fastrdb, and for yours.

::

    @pytest.mark.parametrize("check", StoreContract.checks())
    async def test_my_store(check: str) -> None:
        await StoreContract(MyStore).run(check)

Each check is one claim, its docstring. Keys are random, so that checks may share a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastrdb.cache.protocol import (
    MAX_LISTED,
    Cell,
    claim_mark,
    is_hold,
    parse_hold,
    parse_listing,
    random_name,
)
from fastrdb.cache.store import (
    Claim,
    Command,
    Fill,
    Get,
    HoldCell,
    HoldTable,
    Life,
    ListTemplates,
    Mint,
    Release,
    Reply,
    Store,
    Unclaim,
)
from fastrdb.errors import CacheClosed

LONG_MS = 60_000
SHORT_MS = 60
SHORT_S = 0.1  # longer than SHORT_MS


class StoreContract:
    """Checks of one store, which is opened anew for each of them.

    Args:
        open_store: Gives a new store; called inside the running event loop.
        pass_time: Lets so many seconds go by, for the store; a store with a clock of its own need not wait.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        pass_time: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._open_store, self._pass_time = open_store, pass_time

    @classmethod
    def checks(cls) -> list[str]:
        """Name the checks, in their order."""
        return [name for name in vars(_Checks) if not name.startswith("_")]

    async def run(self, check: str) -> None:
        """Run one check.

        Raises:
            AssertionError: The store breaks the contract.
        """
        store = self._open_store()
        try:
            await getattr(_Checks(store, self._pass_time), check)()
        finally:
            await store.aclose()


class _Checks:
    def __init__(self, store: Store, pass_time: Callable[[float], Awaitable[object]]) -> None:
        self._store, self._pass_time = store, pass_time
        name = random_name()
        self._entry, self._token = b"contract:" + name, b"fastrdb:t:" + name
        self._any, self._all = b"fastrdb:{%s}:any" % name, b"fastrdb:{%s}:all" % name

    async def _do(self, command: Command) -> Reply:
        (reply,) = await self._store.run([command])
        return reply

    async def _cell(self, key: bytes) -> Cell:
        found, _ = await self._store.read(key, ())
        return found

    async def _put(self, key: bytes, value: bytes, ttl_ms: int = LONG_MS) -> None:
        mark = claim_mark(random_name())
        await self._store.run([Claim(key, mark, ttl_ms), Fill(key, mark, value, ttl_ms)])

    async def _hold(self, key: bytes, writer: bytes, ttl_ms: int = LONG_MS, *, again: bool = False) -> Cell:
        reply = await self._do(HoldCell(key, writer, ttl_ms, again))
        assert isinstance(reply, bytes)
        return reply

    async def _life_ms(self, key: bytes) -> int:
        reply = await self._do(Life(key))
        assert isinstance(reply, bytes)
        return int(reply)

    async def _list(self, *templates: bytes) -> dict[bytes, tuple[bytes, ...]]:
        reply = await self._do(ListTemplates(self._any, self._all, templates, random_name(), LONG_MS))
        assert isinstance(reply, bytes)
        return parse_listing(reply).templates

    async def _hold_table(self, writer: bytes, *templates: bytes, ttl_ms: int = LONG_MS) -> tuple[Cell, ...]:
        table = HoldTable(self._any, self._all, writer, ttl_ms, templates, random_name(), LONG_MS)
        reply = await self._do(table)
        assert isinstance(reply, tuple)
        return reply

    # Reading

    async def nothing_is_there_before_it_is_put(self) -> None:
        """Missing cells read as None."""
        assert await self._store.read(self._entry, (self._token, self._all)) == (None, (None, None))

    async def cells_come_back_as_they_were_put(self) -> None:
        """A value is read back byte by byte, whatever it consists of."""
        for value in (b"", b"\r\n$-1\r\n", bytes(range(256)), b" \t{}", b"x" * 300_000):
            await self._put(self._entry, value)
            assert await self._cell(self._entry) == value
            assert await self._store.read(self._entry, (), bulk=True) == (value, ())

    async def tokens_come_in_the_order_asked(self) -> None:
        """A read gives its tokens in their order, one that is asked for twice twice."""
        other = self._token + b":other"
        await self._store.run([Mint(self._token, b"a", LONG_MS), Mint(other, b"b", LONG_MS)])
        found = await self._store.read(self._entry, (other, self._token, self._all, other))
        assert found == (None, (b"b", b"a", None, b"b"))

    async def readers_do_not_mix_up(self) -> None:
        """Each of many concurrent readers gets its own entry and its own tokens."""
        count = 700
        keys = [b"%s:%d" % (self._entry, number) for number in range(count)]
        fills = [Mint(key, b"v" + key, LONG_MS) for key in keys]
        await self._store.run(fills)
        scopes = [(keys[number], keys[-number - 1]) for number in range(7)]
        found = await asyncio.gather(*[self._store.read(key, scopes[number % 7]) for number, key in enumerate(keys)])
        for number, (cell, tokens) in enumerate(found):
            assert cell == b"v" + keys[number]
            assert tokens == tuple(b"v" + key for key in scopes[number % 7])

    async def a_read_may_have_many_tokens(self) -> None:
        """A read with more tokens than a round trip usually takes is answered all the same."""
        tokens = tuple(b"%s:%d" % (self._token, number) for number in range(600))
        await self._do(Mint(tokens[-1], b"last", LONG_MS))
        _, cells = await self._store.read(self._entry, tokens)
        assert cells == (*[None] * 599, b"last")

    async def a_cancelled_reader_harms_no_other(self) -> None:
        """One of several readers that share a round trip is cancelled; the others get their cells."""
        await self._put(self._entry, b"value")

        async def read() -> Cell:
            return await self._cell(self._entry)

        for turns in range(4):
            first, second, third = (asyncio.ensure_future(read()) for _ in range(3))
            for _ in range(turns):
                await asyncio.sleep(0)
            second.cancel()
            assert list(await asyncio.gather(first, third)) == [b"value", b"value"]
            await asyncio.wait([second])
        assert await self._cell(self._entry) == b"value"

    async def the_epoch_is_known_once_the_store_has_answered(self) -> None:
        """The epoch has a name after the first reply, and keeps it."""
        await self._cell(self._entry)
        epoch = self._store.epoch
        assert epoch
        await self._store.read(self._entry, (), bulk=True)
        assert self._store.epoch == epoch

    # Tokens

    async def the_first_token_stays(self) -> None:
        """Whoever mints second gets the token of the first."""
        assert await self._do(Mint(self._token, b"first", LONG_MS)) == b"first"
        assert await self._do(Mint(self._token, b"second", LONG_MS)) == b"first"

    async def minting_lengthens_a_life_and_never_shortens_it(self) -> None:
        """A token lives as long as the longest life that was asked for."""
        await self._do(Mint(self._token, b"token", LONG_MS))
        await self._do(Mint(self._token, b"other", SHORT_MS))
        assert await self._life_ms(self._token) > LONG_MS / 2
        await self._do(Mint(self._token, b"other", 2 * LONG_MS))
        assert await self._life_ms(self._token) > LONG_MS

    async def minting_leaves_a_hold_alone(self) -> None:
        """A held token is not replaced, nor does its hold last longer."""
        held = await self._hold(self._token, b"w1")
        assert await self._do(Mint(self._token, b"token", 3 * LONG_MS)) == held
        assert await self._life_ms(self._token) <= LONG_MS

    async def tokens_end(self) -> None:
        """A token is gone when its life is over, and another one is minted."""
        await self._do(Mint(self._token, b"old", SHORT_MS))
        await self._pass_time(SHORT_S)
        assert await self._cell(self._token) is None
        assert await self._do(Mint(self._token, b"new", LONG_MS)) == b"new"

    # Claims and fills

    async def one_reader_gets_the_claim(self) -> None:
        """Of many readers that claim an entry at once, one gets it, and all are told who."""
        marks = [claim_mark(b"r%d" % number) for number in range(20)]
        claims = [self._do(Claim(self._entry, mark, LONG_MS)) for mark in marks]
        (winner,) = set(await asyncio.gather(*claims))
        assert winner in marks

    async def a_claim_replaces_a_value(self) -> None:
        """A value that turned out to be stale gives way to a claim."""
        await self._put(self._entry, b"stale")
        assert await self._do(Claim(self._entry, b'"?r1"', LONG_MS)) == b'"?r1"'

    async def a_claim_may_be_renewed(self) -> None:
        """A reader that claims again keeps its claim, and for longer."""
        await self._do(Claim(self._entry, b'"?r1"', SHORT_MS))
        assert await self._do(Claim(self._entry, b'"?r1"', LONG_MS)) == b'"?r1"'
        assert await self._life_ms(self._entry) > SHORT_MS

    async def a_claim_ends(self) -> None:
        """The claim of a reader that was killed makes room for another one."""
        await self._do(Claim(self._entry, b'"?dead"', SHORT_MS))
        await self._pass_time(SHORT_S)
        assert await self._do(Claim(self._entry, b'"?r2"', LONG_MS)) == b'"?r2"'

    async def a_held_entry_cannot_be_claimed(self) -> None:
        """A reader that finds a hold is told so, and the hold stays."""
        held = await self._hold(self._entry, b"w1")
        assert await self._do(Claim(self._entry, b'"?r1"', LONG_MS)) == held
        assert await self._cell(self._entry) == held

    async def a_fill_goes_where_the_claim_lies(self) -> None:
        """The reader that holds the claim stores its value, for as long as it says."""
        await self._do(Claim(self._entry, b'"?r1"', SHORT_MS))
        assert await self._do(Fill(self._entry, b'"?r1"', b"value", LONG_MS)) == b"value"
        assert await self._cell(self._entry) == b"value"
        assert LONG_MS / 2 < await self._life_ms(self._entry) <= LONG_MS

    async def a_value_ends(self) -> None:
        """A value is gone when its life is over."""
        await self._put(self._entry, b"value", SHORT_MS)
        await self._pass_time(SHORT_S)
        assert await self._cell(self._entry) is None
        assert await self._life_ms(self._entry) == -2

    async def a_late_fill_is_refused(self) -> None:
        """A reader that lost the race to a writer cannot bring the old row back."""
        await self._do(Claim(self._entry, b'"?r1"', LONG_MS))
        held = await self._hold(self._entry, b"w1")
        assert await self._do(Fill(self._entry, b'"?r1"', b"old", LONG_MS)) == held
        await self._do(Release(self._entry, b"w1"))
        assert await self._do(Fill(self._entry, b'"?r1"', b"old", LONG_MS)) is None
        assert await self._cell(self._entry) is None

    async def a_fill_after_the_claim_ended_is_refused(self) -> None:
        """A reader that was too slow does not overwrite what the next reader claimed."""
        await self._do(Claim(self._entry, b'"?slow"', SHORT_MS))
        await self._pass_time(SHORT_S)
        assert await self._do(Fill(self._entry, b'"?slow"', b"old", LONG_MS)) is None
        await self._do(Claim(self._entry, b'"?r2"', LONG_MS))
        assert await self._do(Fill(self._entry, b'"?slow"', b"old", LONG_MS)) == b'"?r2"'

    async def a_reader_takes_its_own_claim_away(self) -> None:
        """Giving up removes one's own claim, and nothing else."""
        await self._do(Claim(self._entry, b'"?r1"', LONG_MS))
        assert await self._do(Unclaim(self._entry, b'"?r2"')) == b'"?r1"'
        assert await self._do(Unclaim(self._entry, b'"?r1"')) is None
        assert await self._cell(self._entry) is None
        await self._put(self._entry, b"value")
        assert await self._do(Unclaim(self._entry, b'"?r1"')) == b"value"

    # Holds and releases

    async def a_hold_takes_the_place_of_what_was_there(self) -> None:
        """A held entry has no value, a held token is none, and readers see the hold."""
        await self._put(self._entry, b"value")
        await self._do(Mint(self._token, b"token", LONG_MS))
        await self._store.run([HoldCell(key, b"w1", LONG_MS) for key in (self._entry, self._token)])
        cell, (token,) = await self._store.read(self._entry, (self._token,))
        assert is_hold(cell)
        assert is_hold(token)

    async def a_sole_writer_writes_through(self) -> None:
        """Who held alone all the time may leave the new value."""
        await self._hold(self._entry, b"w1")
        assert await self._do(Release(self._entry, b"w1", b"new", LONG_MS)) == b"new"
        assert await self._cell(self._entry) == b"new"
        assert LONG_MS / 2 < await self._life_ms(self._entry) <= LONG_MS

    async def nothing_is_written_through_a_shared_hold(self) -> None:
        """Neither of two writers that held together leaves a value: nobody knows whose is the newer."""
        await self._hold(self._entry, b"w1")
        await self._hold(self._entry, b"w2")
        left = await self._do(Release(self._entry, b"w1", b"one", LONG_MS))
        assert isinstance(left, bytes)
        assert parse_hold(left).shared
        assert set(parse_hold(left).writers) == {b"w2"}
        assert await self._do(Release(self._entry, b"w2", b"two", LONG_MS)) is None
        assert await self._cell(self._entry) is None

    async def a_hold_outlives_a_co_writers(self) -> None:
        """When one of two writers lets go, the cell stays held for as long as the other one asked."""
        await self._hold(self._entry, b"w1", 2 * LONG_MS)
        await self._hold(self._entry, b"w2")
        assert await self._life_ms(self._entry) > LONG_MS
        await self._do(Release(self._entry, b"w1"))
        assert 0 < await self._life_ms(self._entry) <= LONG_MS

    async def a_dead_writers_hold_ends(self) -> None:
        """The hold of a writer that was killed runs out by itself."""
        await self._hold(self._entry, b"dead", SHORT_MS)
        await self._pass_time(SHORT_S)
        assert await self._cell(self._entry) is None

    async def a_dead_co_writer_is_remembered(self) -> None:
        """A writer that shared its hold with one that died leaves no value, even after it renewed its own."""
        for renewed in (False, True):
            await self._hold(self._entry, b"dead", SHORT_MS)
            await self._hold(self._entry, b"w2")
            await self._pass_time(SHORT_S)
            if renewed:
                await self._hold(self._entry, b"w2", again=True)
            assert await self._do(Release(self._entry, b"w2", b"new", LONG_MS)) is None

    async def who_lost_its_hold_deletes_what_came(self) -> None:
        """Where a hold was lost, whatever was filled meanwhile may be old, and goes with the release."""
        await self._hold(self._entry, b"w1", SHORT_MS)
        await self._pass_time(SHORT_S)
        await self._put(self._entry, b"old")
        assert await self._do(Release(self._entry, b"w1", b"new", LONG_MS)) is None
        assert await self._cell(self._entry) is None

    async def who_lost_its_hold_leaves_a_later_writers(self) -> None:
        """A release by a writer whose hold was lost leaves the hold of one that came later."""
        await self._hold(self._entry, b"w1", SHORT_MS)
        await self._pass_time(SHORT_S)
        await self._hold(self._entry, b"w2")
        await self._do(Release(self._entry, b"w1", b"new", LONG_MS))
        cell = await self._cell(self._entry)
        assert cell is not None
        assert set(parse_hold(cell).writers) == {b"w2"}

    async def a_hold_that_was_lost_and_renewed_counts_as_shared(self) -> None:
        """A renewal that finds the hold gone holds again, and leaves no value when it lets go."""
        await self._hold(self._entry, b"w1", SHORT_MS)
        await self._pass_time(SHORT_S)
        await self._hold(self._entry, b"w1", again=True)
        assert await self._do(Release(self._entry, b"w1", b"new", LONG_MS)) is None

    async def a_hold_can_be_renewed(self) -> None:
        """A writer whose COMMIT takes long keeps its hold, and still counts as the only one."""
        await self._hold(self._entry, b"w1", SHORT_MS)
        await self._hold(self._entry, b"w1", again=True)
        await self._pass_time(SHORT_S)
        assert await self._do(Release(self._entry, b"w1", b"new", LONG_MS)) == b"new"

    async def letting_go_of_nothing_is_harmless(self) -> None:
        """A release of a cell that is not there leaves it so."""
        assert await self._do(Release(self._entry, b"w1", b"new", LONG_MS)) is None
        assert await self._cell(self._entry) is None

    # The table's two tokens

    async def a_table_is_held_after_its_templates_are_listed(self) -> None:
        """A writer's first command lists its templates as confirmed, holds ``any`` and reads ``all``."""
        held, listed = await self._hold_table(b"w1", b"a:{x}", b"b:{x}")
        assert held is not None
        assert listed is not None
        assert set(parse_hold(held).writers) == {b"w1"}
        assert parse_listing(listed).templates == {b"a:{x}": (), b"b:{x}": ()}
        assert await self._store.read(self._any, (self._all,)) == (held, (listed,))

    async def a_template_waits_for_the_writers_of_its_time(self) -> None:
        """A template is confirmed when those who held ``any`` at its listing let go; later ones do not matter."""
        await self._hold_table(b"w1")
        assert await self._list(b"a:{x}") == {b"a:{x}": (b"w1",)}
        await self._hold_table(b"w2")
        assert await self._list(b"a:{x}") == {b"a:{x}": (b"w1",)}
        await self._do(Release(self._any, b"w1"))
        assert await self._list(b"a:{x}") == {b"a:{x}": ()}

    async def a_template_does_not_wait_for_the_dead(self) -> None:
        """The hold of a killed writer ends, and with it what waited for it."""
        await self._hold_table(b"dead", ttl_ms=SHORT_MS)
        await self._hold_table(b"w2")
        assert await self._list(b"a:{x}") == {b"a:{x}": (b"dead", b"w2")}
        await self._pass_time(SHORT_S)
        assert await self._list(b"a:{x}") == {b"a:{x}": (b"w2",)}

    async def what_is_listed_stays(self) -> None:
        """Listing keeps the token and the other templates, and lengthens their life only."""
        listing = ListTemplates(self._any, self._all, (b"a",), b"token", LONG_MS)
        assert await self._do(listing) == b"token\na\t"
        again = ListTemplates(self._any, self._all, (b"b",), b"other", SHORT_MS)
        assert await self._do(again) == b"token\na\t\nb\t"
        assert await self._life_ms(self._all) > LONG_MS / 2
        await self._do(again._replace(token_ttl_ms=2 * LONG_MS))
        assert await self._life_ms(self._all) > LONG_MS
        assert await self._do(Mint(self._all, b"other", LONG_MS)) == b"token\na\t\nb\t"

    async def a_held_all_lists_nothing(self) -> None:
        """While a writer holds ``all``, nothing can be confirmed."""
        held = await self._hold(self._all, b"w1")
        assert await self._do(ListTemplates(self._any, self._all, (b"a",), b"fresh", LONG_MS)) == held
        assert (await self._hold_table(b"w2", b"a"))[1] == held

    async def a_full_list_starts_again_under_another_token(self) -> None:
        """A list that has no room ages every value of the table and lists what was asked for."""
        many = tuple(b"t%d" % number for number in range(MAX_LISTED))
        await self._do(ListTemplates(self._any, self._all, many, b"old", LONG_MS))
        reply = await self._do(ListTemplates(self._any, self._all, (b"more",), b"new", LONG_MS))
        assert reply == b"new\nmore\t"

    # Order and end

    async def commands_run_in_their_order(self) -> None:
        """Each command of a call sees what the ones before it did, and the replies come in their order."""
        replies = await self._store.run(
            [
                Get(self._entry),
                Claim(self._entry, b'"?r1"', LONG_MS),
                Fill(self._entry, b'"?r1"', b"value", LONG_MS),
                Get(self._entry),
                HoldCell(self._entry, b"w1", LONG_MS),
                Release(self._entry, b"w1"),
                Get(self._entry),
            ]
        )
        assert replies[:4] == [None, b'"?r1"', b"value", b"value"]
        assert replies[5:] == [None, None]

    async def no_commands_give_no_replies(self) -> None:
        """An empty call is answered."""
        assert await self._store.run([]) == []
        assert await self._store.post([]) == []
        assert await self._cell(self._entry) is None

    async def a_read_sees_what_was_posted_before(self) -> None:
        """What was enqueued is done before a later read of its kind, though nobody awaited it."""
        for bulk in (False, True):
            for value in (b"one", b"two"):
                claim = Claim(self._entry, b'"?r1"', LONG_MS)
                posted = self._store.post([claim, Fill(self._entry, b'"?r1"', value, LONG_MS)], bulk=bulk)
                assert await self._store.read(self._entry, (), bulk=bulk) == (value, ())
                assert await posted == [b'"?r1"', value]
            await self._do(Release(self._entry, b"w1"))

    async def a_cancelled_call_leaves_no_reply_to_the_next(self) -> None:
        """A call is cancelled while it waits; the next one gets its own replies."""
        await self._do(Mint(self._token, b"token", LONG_MS))
        for turns in range(4):
            call = asyncio.ensure_future(self._store.run([Claim(self._entry, b'"?r1"', LONG_MS)]))
            for _ in range(turns):
                await asyncio.sleep(0)
            call.cancel()
            assert await self._store.run([Get(self._token), Life(self._any)]) == [b"token", b"-2"]
            await asyncio.wait([call])

    async def a_closed_store_says_so(self) -> None:
        """After it was closed, a store raises CacheClosed; closing it twice is harmless."""
        await self._cell(self._entry)
        await self._store.aclose()
        await self._store.aclose()
        for attempt in (self._cell(self._entry), self._store.run([Get(self._entry)])):
            try:
                await attempt
            except CacheClosed:
                continue
            raise AssertionError("a closed store answered")
