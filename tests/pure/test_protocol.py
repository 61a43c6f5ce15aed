"""The protocol's decisions, as properties of pure functions."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrdb.cache import protocol
from fastrdb.cache.protocol import ALL_PARTS, MAX_LISTED, STAMP_LENGTH, Cell, Hold, Listing, Parts
from fastrdb.cache.store import Command, Fill, Get, HoldTable, ListTemplates, Mint, ReleaseTable, RenewTable, keys_of

NOW = 1_700_000_000_000

names = st.text("0123456789abcdef", min_size=1, max_size=4).map(str.encode)
deadlines = st.integers(NOW - 5_000, NOW + 5_000)
holds = st.builds(Hold, st.booleans(), st.dictionaries(names, deadlines, min_size=1, max_size=4))
values = st.binary(max_size=20).filter(lambda value: not value.startswith((b'"!', b'"?')))
claims = names.map(protocol.claim_mark)
template_names = st.text("abc:{}", min_size=1, max_size=6).map(str.encode)
listings = st.builds(
    Listing,
    names,
    st.dictionaries(template_names, st.lists(names, unique=True, max_size=3).map(tuple), max_size=4),
)
entries: st.SearchStrategy[Cell] = st.none() | claims | values | holds.map(Hold.encode)
tables: st.SearchStrategy[Cell] = st.none() | listings.map(Listing.encode) | holds.map(Hold.encode)


# What lies in a cell


@given(holds)
def test_holds_are_read_as_they_were_written(hold: Hold) -> None:
    """A hold's bytes give the hold, and are a JSON string, so that any reader of the entry can parse them."""
    cell = hold.encode()
    assert protocol.parse_hold(cell) == hold
    assert protocol.is_hold(cell)
    assert not protocol.is_claim(cell)
    assert json.loads(cell).startswith("!")


@given(listings)
def test_listings_are_read_as_they_were_written(listing: Listing) -> None:
    """A list of templates' bytes give the list; the token in it stays what it was."""
    assert protocol.parse_listing(listing.encode()) == listing
    for template, writers in listing.templates.items():
        assert listing.confirmed(template) == (not writers)
    assert not listing.confirmed(b"not listed")


def test_a_torn_line_lists_nothing() -> None:
    """A line of a list that lacks its tab is no template: half a name would count as confirmed."""
    assert protocol.parse_listing(b"token\nuser:{id}\t\nuser:em").templates == {b"user:{id}": ()}


@given(names)
def test_claims_are_json_strings(name: bytes) -> None:
    """A claim is told from holds and values, and any reader of the entry can parse it."""
    mark = protocol.claim_mark(name)
    assert protocol.is_claim(mark)
    assert not protocol.is_hold(mark)
    assert json.loads(mark) == "?" + name.decode()


def test_random_names_differ() -> None:
    """Names of tokens, claims and writers are never given twice, and contain nothing that a cell's format uses."""
    made = {protocol.random_name() for _ in range(1_000)}
    assert len(made) == 1_000
    assert all(name.isalnum() for name in made)


# Stamps


@given(st.lists(names, max_size=3), st.lists(st.binary(max_size=5), max_size=3))
def test_a_stamp_is_white_space(tokens: list[bytes], context: list[bytes]) -> None:
    """A stamp is of fixed length, and JSON with it in front is the same JSON."""
    stamp = protocol.stamp(tokens, *context)
    assert len(stamp) == STAMP_LENGTH
    assert json.loads(stamp + b'{"id": 1}') == {"id": 1}
    assert stamp == protocol.stamp(tuple(tokens), *context)


@given(
    st.lists(st.binary(max_size=4), min_size=1, max_size=4),
    st.lists(st.binary(max_size=4), min_size=1, max_size=4),
)
def test_stamps_of_other_tokens_differ(one: list[bytes], other: list[bytes]) -> None:
    """Two lists of tokens have one stamp only if they are equal, however their bytes run together."""
    first = [token.split(b"\n")[0] for token in one]
    second = [token.split(b"\n")[0] for token in other]
    assert (protocol.stamp(one) == protocol.stamp(other)) == (first == second)


@given(listings, st.binary(max_size=5))
def test_the_list_is_no_part_of_the_token(listing: Listing, context: bytes) -> None:
    """Listing a template ages no value: of ``all`` only the token is stamped."""
    assert protocol.stamp([listing.encode()], context) == protocol.stamp([listing.token], context)


# Entries


@given(entries, claims)
def test_claiming(cell: Cell, mark: bytes) -> None:
    """A claim gives way to holds and other claims, and replaces values and nothing else."""
    after = protocol.claim(cell, mark)
    if cell is not None and (protocol.is_hold(cell) or protocol.is_claim(cell)):
        assert after == cell
    else:
        assert after == mark


@given(entries, claims, values)
def test_filling(cell: Cell, mark: bytes, value: bytes) -> None:
    """A fill changes the cell only where its own claim lies."""
    assert protocol.fill(cell, mark, value) == (value if cell == mark else cell)
    assert protocol.unclaim(cell, mark) == (None if cell == mark else cell)


@given(entries, names, st.booleans())
def test_holding(cell: Cell, writer: bytes, again: bool) -> None:
    """Whatever lay there, the writer holds it then, beside every other live one, and sharing is not forgotten."""
    after = protocol.parse_hold(protocol.hold(cell, writer, NOW, NOW + 3_000, again=again))
    before = protocol.parse_hold(cell) if cell is not None and protocol.is_hold(cell) else Hold(False, {})
    live = {name for name, until in before.writers.items() if until > NOW}
    assert set(after.writers) == live | {writer}
    assert after.writers[writer] == NOW + 3_000
    assert after.shared >= before.shared
    if not after.shared:
        assert set(before.writers) <= {writer}
        assert not again or writer in before.writers


@given(entries, names, st.none() | values)
def test_releasing(cell: Cell, writer: bytes, replacement: Cell) -> None:
    """A release leaves co-writers' holds, and a value only where the writer alone held, never shared."""
    after = protocol.release(cell, writer, NOW, replacement)
    if after is None:
        return
    assert cell is not None
    before = protocol.parse_hold(cell)
    if protocol.is_hold(after):
        left = protocol.parse_hold(after)
        assert left.shared
        assert set(left.writers) == {n for n, until in before.writers.items() if until > NOW} - {writer}
    else:
        assert after == replacement
        assert before == Hold(False, {writer: before.writers[writer]})


@given(st.lists(st.tuples(st.sampled_from((b"a", b"b", b"c")), st.booleans()), max_size=20))
def test_nothing_is_left_by_writers_that_met(steps: list[tuple[bytes, bool]]) -> None:
    """Of writers that hold and release in any order, one leaves its value only if no other held during its hold."""
    cell: Cell = None
    met: dict[bytes, set[bytes]] = {}  # of each writer that holds: all that held at some time meanwhile
    for writer, holds_now in steps:
        if holds_now and writer not in met:
            cell = protocol.hold(cell, writer, NOW, NOW + 3_000)
            met[writer] = {writer}
            for others in met.values():
                others.update(met)
        elif not holds_now and writer in met:
            cell = protocol.release(cell, writer, NOW, b"value of " + writer)
            alone = met.pop(writer) == {writer}
            assert (cell == b"value of " + writer) == alone


# Tokens


@given(tables, names)
def test_minting(cell: Cell, fresh: bytes) -> None:
    """A token, a list or a hold that is there stays; only a missing one is minted."""
    assert protocol.mint(cell, fresh) == (fresh if cell is None else cell)


@given(st.none() | holds.map(Hold.encode), tables, st.lists(template_names, max_size=4), names)
def test_listing(any_cell: Cell, all_cell: Cell, asked: list[bytes], fresh: bytes) -> None:
    """What is asked for is listed then, waiting for nobody who came later or has let go, and nothing is taken off."""
    after = protocol.list_templates(any_cell, all_cell, asked, fresh, NOW)
    if all_cell is not None and protocol.is_hold(all_cell):
        assert after == all_cell
        return
    writers = protocol.parse_hold(any_cell).writers if any_cell is not None else {}
    live = {name for name, until in writers.items() if until > NOW}
    before, listed = protocol.parse_listing(all_cell or fresh), protocol.parse_listing(after)
    assert listed.token == before.token
    assert set(listed.templates) == set(before.templates) | set(asked)
    for template, waiting in listed.templates.items():
        earlier = before.templates.get(template)
        if template not in asked:
            assert waiting == earlier
        else:
            assert set(waiting) == (live if earlier is None else live & set(earlier))


@given(st.integers(0, MAX_LISTED), st.integers(0, MAX_LISTED))
def test_a_full_list_starts_again(there: int, more: int) -> None:
    """A list never has more than MAX_LISTED templates; one that would starts again under another token."""
    listing = Listing(b"old", {b"t%d" % number: () for number in range(there)})
    asked = [b"new%d" % number for number in range(more)]
    after = protocol.parse_listing(protocol.list_templates(None, listing.encode(), asked, b"fresh", NOW))
    full = there + more > MAX_LISTED
    assert (after.token, len(after.templates)) == ((b"fresh", more) if full else (b"old", there + more))


@given(st.none() | holds.map(Hold.encode), tables, names)
def test_a_lost_hold_on_any_drops_all(any_cell: Cell, all_cell: Cell, writer: bytes) -> None:
    """A writer that held ``any`` until it lets go, or renews, leaves ``all`` alone; one that did not leaves no list."""
    held_at = protocol.parse_hold(any_cell).writers.get(writer, 0) if any_cell is not None else 0
    for command in (ReleaseTable(b"any", b"all", writer), RenewTable(b"any", b"all", writer, 3_000)):
        (left, dropped), reply = command.apply((any_cell, all_cell), NOW)
        assert left is not None
        assert left.cell == reply
        if held_at > NOW:
            assert dropped is None
        else:
            assert dropped is not None
            assert dropped.cell == protocol.release(all_cell, writer, NOW)
            assert dropped.cell is None or writer not in protocol.parse_hold(dropped.cell).writers


# Parts switched off, and commands


def test_parts_can_be_switched_off() -> None:
    """Each part that a decision knows can be switched off, which makes it wrong: that is what they are for."""
    assert protocol.fill(b'"!0 w=1"', b'"?r"', b"v", Parts(claims=False)) == b"v"
    shared = Hold(True, {b"w": NOW + 1}).encode()
    assert protocol.release(shared, b"w", NOW, b"v") is None
    assert protocol.release(shared, b"w", NOW, b"v", Parts(sole_holder_installs=False)) == b"v"
    listed = protocol.list_templates(shared, None, [b"t"], b"fresh", NOW, Parts(waits=False))
    assert listed == b"fresh\nt\t"
    assert Parts() == ALL_PARTS


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        (Get(b"k"), (b"k",)),
        (Mint(b"k", b"t", 1), (b"k",)),
        (Fill(b"k", b"m", b"v", 1), (b"k",)),
        (HoldTable(b"any", b"all", b"w", 1, (), b"t", 1), (b"any", b"all")),
        (ListTemplates(b"any", b"all", (), b"t", 1), (b"any", b"all")),
        (ReleaseTable(b"any", b"all", b"w"), (b"any", b"all")),
        (RenewTable(b"any", b"all", b"w", 1), (b"any", b"all")),
    ],
)
def test_commands_name_their_keys(command: Command, keys: tuple[bytes, ...]) -> None:
    """A command touches one key, or the two of its table, and changes as many cells as it has keys."""
    assert keys_of(command) == keys
    assert len(command.apply([None] * len(keys), NOW).writes) == len(keys)
