"""The near tier without its connection: what is kept, what is dropped, what overtakes what, and how large it gets."""

import os
import time
import tracemalloc
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrdb.cache.clock import CLOCK
from fastrdb.cache.copies import Copies, Ticket
from fastrdb.cache.reads import NULL, Stamps
from fastrdb.cache.tracking import minimal

ENTRY, TOKENS, EPOCH = b"user:1", (b"fastrdb:{users}:all", b"fastrdb:t:user:"), b"run"
CELLS = (b"token-all", b"token-user")
STAMPS = Stamps(b"context", 2)


def value(cells: tuple[bytes, ...] = CELLS, text: bytes = b'{"id":1}') -> bytes:
    """A value that is stamped with these tokens."""
    header = STAMPS.headers(cells, EPOCH).value
    assert header is not None
    return header + text


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still."""
    return Clock()


@pytest.fixture
def copies(clock: Clock) -> Copies:
    """No copies yet, and room for some."""
    copies = Copies(1_000_000, 5.0, clock=clock)
    copies.epoch = EPOCH
    return copies


def keep(copies: Copies, entry: bytes = ENTRY, tokens: tuple[bytes, ...] = TOKENS) -> bool:
    """Read a value and keep it, with nothing in between."""
    return copies.keep(copies.ticket(), entry, tokens, (value(), CELLS))


def hit(copies: Copies, entry: bytes = ENTRY, tokens: tuple[bytes, ...] = TOKENS) -> bytes | None:
    """What a reader gets."""
    return copies.hit(STAMPS, entry, tokens)


def test_what_was_read_is_served(copies: Copies) -> None:
    """A copy is given as it was read, the first time and again."""
    assert hit(copies) is None
    assert keep(copies)
    assert [hit(copies), hit(copies)] == [value(), value()]


def test_null_is_served(copies: Copies) -> None:
    """That there is no such row is kept as well as a row."""
    null = STAMPS.headers(CELLS, EPOCH).null
    assert null is not None
    assert copies.keep(copies.ticket(), ENTRY, TOKENS, (null + NULL, CELLS))
    assert hit(copies) is NULL


@pytest.mark.parametrize("named", [ENTRY, *TOKENS])
def test_what_is_named_is_dropped(copies: Copies, named: bytes) -> None:
    """A push that names the entry, or any token of its scope, ends the copy, also one that was a hit before."""
    keep(copies)
    hit(copies)
    copies.drop([named])
    assert hit(copies) is None


def test_entries_share_a_scope(copies: Copies) -> None:
    """A token that has changed ages all entries under it; the first that is read again brings no other one back."""
    keep(copies)
    keep(copies, b"user:2")
    assert hit(copies) == hit(copies, b"user:2") == value()
    copies.drop([TOKENS[1]])
    changed = (CELLS[0], b"another")
    copies.keep(copies.ticket(), ENTRY, TOKENS, (value(changed), changed))
    assert (hit(copies), hit(copies, b"user:2")) == (value(changed), None)


@pytest.mark.parametrize("named", [ENTRY, *TOKENS])
def test_push_overtakes_reply(copies: Copies, named: bytes) -> None:
    """What was named after the read began is not kept: the reply may be from before the change."""
    ticket = copies.ticket()
    copies.drop([named])
    assert not copies.keep(ticket, ENTRY, TOKENS, (value(), CELLS))
    assert hit(copies) is None


def test_reply_overtakes_push(copies: Copies) -> None:
    """What was kept is dropped when the push comes."""
    keep(copies)
    copies.drop([ENTRY])
    assert hit(copies) is None


def test_a_second_read_does_not_vouch_for_the_first(copies: Copies) -> None:
    """A reader that began before the push is refused, though one that began after it is still under way."""
    early = copies.ticket()
    copies.drop([ENTRY])
    late = copies.ticket()
    assert not copies.keep(early, ENTRY, TOKENS, (value(), CELLS))
    assert copies.keep(late, ENTRY, TOKENS, (value(), CELLS))


def test_push_of_others_lets_a_read_be_kept(copies: Copies) -> None:
    """Changes of other keys, in other slots, concern nobody."""
    ticket = copies.ticket()
    slots = {hash(key) % 8_192 for key in (ENTRY, *TOKENS)}
    copies.drop([key for key in (b"other:%d" % n for n in range(100)) if hash(key) % 8_192 not in slots])
    assert copies.keep(ticket, ENTRY, TOKENS, (value(), CELLS))


def test_flush_empties_and_refuses(copies: Copies) -> None:
    """After a flush there is nothing, and no read from before it is kept."""
    keep(copies)
    hit(copies)
    ticket = copies.ticket()
    copies.flush()
    assert not copies.keep(ticket, ENTRY, TOKENS, (value(), CELLS))
    assert (hit(copies), copies.found(ENTRY, TOKENS), copies.size, len(copies)) == (None, None, 0, 0)


def test_age_counts_from_the_start_of_the_read(copies: Copies, clock: Clock) -> None:
    """However late the reply is, and whatever jump the clock makes, no copy is served ``max_age_s`` after the read."""
    ticket = copies.ticket()
    clock.now += 4
    copies.keep(ticket, ENTRY, TOKENS, (value(), CELLS))
    assert hit(copies) == value()
    clock.now += 0.999
    assert hit(copies) == value()
    clock.now += 0.001
    assert hit(copies) is None
    clock.now += 3_600
    assert hit(copies) is copies.found(ENTRY, TOKENS) is None


def test_tokens_age_apart(copies: Copies, clock: Clock) -> None:
    """An entry is served as long as it and its tokens are young: the tokens may have been read again with another."""
    keep(copies)
    clock.now += 3
    keep(copies, b"user:2")
    clock.now += 1.5
    assert hit(copies) == hit(copies, b"user:2") == value()
    clock.now += 0.5
    assert (hit(copies), hit(copies, b"user:2")) == (None, value())


def test_clock_runs_while_the_process_is_stopped() -> None:
    """Ages are taken by a clock that counts the time in which a process was stopped, or the machine slept."""
    assert CLOCK() >= time.monotonic() - 1


def test_aged_and_held_copies_are_no_hits(copies: Copies) -> None:
    """Copies are judged as what Redis answers is: a value under other tokens, and a held token, are none."""
    other = (b"old", CELLS[1])
    copies.keep(copies.ticket(), ENTRY, TOKENS, (value(other), CELLS))
    assert hit(copies) is None
    held = (b'"!0 writer=1"', CELLS[1])
    copies.keep(copies.ticket(), ENTRY, TOKENS, (value(), held))
    assert hit(copies) is None


def test_stamps_of_another_kind_are_judged_anew(copies: Copies) -> None:
    """A copy that is a hit for one crud is none for another one with the same key."""
    keep(copies)
    assert hit(copies) == value()
    assert copies.hit(Stamps(b"another context", 2), ENTRY, TOKENS) is None
    assert hit(copies) == value()


def test_a_child_process_starts_empty(copies: Copies) -> None:
    """After a fork the child serves nothing that nobody keeps right for it; the parent goes on."""
    keep(copies)
    pid = os.fork()
    if not pid:
        os._exit(hit(copies) is not None or keep(copies) is False)
    assert os.waitpid(pid, 0)[1] == 0
    assert hit(copies) == value()


EVENTS = st.lists(
    st.tuples(st.sampled_from(["begin", "serve", "reply", "change", "push", "lose"]), st.integers(0, 3)), max_size=40
)


@given(EVENTS)
@settings(max_examples=200)
def test_no_order_keeps_an_old_copy(events: list[tuple[str, int]]) -> None:
    """When all pushes have come, no copy is older than the server, in whatever order reads, changes and both go."""
    copies = Copies(1_000_000, 1e9, clock=lambda: 0.0)
    keys = (ENTRY, *TOKENS)
    server = dict.fromkeys(keys, 0)
    sent: list[Ticket] = []
    served: list[tuple[Ticket, list[bytes]]] = []
    due: list[bytes] = []
    for kind, number in events:
        if kind == "begin":
            sent.append(copies.ticket())
        elif kind == "serve" and sent:
            served.append((sent.pop(number % len(sent)), [b"%d" % version for version in server.values()]))
        elif kind == "reply" and served:
            ticket, (raw, *cells) = served.pop(number % len(served))
            copies.keep(ticket, ENTRY, TOKENS, (raw, tuple(cells)))
        elif kind == "change":
            server[keys[number % 3]] += 1
            due.append(keys[number % 3])
        elif kind == "push" and due:
            copies.drop([due.pop(0)])
        elif kind == "lose":
            due.clear()  # what the server would have told goes with the connection
            copies.flush()
    copies.drop(due)
    found = copies.found(ENTRY, TOKENS)
    assert found is None or [found[0], *found[1]] == [b"%d" % version for version in server.values()]


def flooded(size: int, keys: Iterator[tuple[bytes, tuple[bytes, ...]]]) -> tuple[Copies, int]:
    """Copies after a flood of reads, and the most memory that they took."""
    copies = Copies(size, 5.0)
    tracemalloc.start()
    try:
        for entry, tokens in keys:
            cells = tuple(bytes(16) for _ in tokens)
            copies.keep(copies.ticket(), entry, tokens, (bytes(200), cells))
        return copies, tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "key",
    [
        lambda n: (b"user:%d" % n, TOKENS),
        lambda n: (b"user:group:%d:page:1" % n, (TOKENS[0], b"fastrdb:t:user:group:%d:" % n)),
    ],
    ids=["rows", "lists"],
)
def test_memory_is_bounded(key: Callable[[int], tuple[bytes, tuple[bytes, ...]]]) -> None:
    """A flood of distinct keys, each with a scope of its own or not, takes about as many bytes as it may."""
    size = 1_000_000
    copies, most = flooded(size, (key(number) for number in range(6_000)))
    assert size / 4 < copies.size <= size
    assert most < 1.25 * size


def test_what_is_larger_than_all_is_not_kept(copies: Copies) -> None:
    """A value for which there is no room leaves the others alone."""
    keep(copies)
    copies.keep(copies.ticket(), b"user:2", TOKENS, (bytes(1_000_001), CELLS))
    assert hit(copies) == value()
    assert copies.found(b"user:2", TOKENS) is None


@given(st.sets(st.text("ab:", min_size=1, max_size=4).map(str.encode), max_size=8), st.text("ab:", max_size=6))
def test_prefixes_do_not_overlap(prefixes: set[bytes], text: str) -> None:
    """The prefixes that are asked for cover what was wanted, and none begins another one, which servers refuse."""
    kept, key = minimal(prefixes), text.encode()
    assert any(key.startswith(each) for each in kept) == any(key.startswith(each) for each in prefixes)
    assert sum(one.startswith(other) for one in kept for other in kept) == len(kept)
