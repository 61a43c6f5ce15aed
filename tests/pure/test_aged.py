"""What a process keeps of the cache for callers who accept an answer of some age."""

import logging
import os
import signal
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrdb.cache import aged as module
from fastrdb.cache.aged import Aged, Kept, Spare

SCOPES = st.lists(st.sampled_from([b"entry", b"all", b"any"]), unique=True, min_size=1).map(tuple)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("send"), SCOPES, st.just(0.0)),
        st.tuples(st.just("arrive"), st.just((b"",)), st.integers(0, 20).map(float)),
        st.tuples(st.just("drop"), SCOPES, st.sampled_from([0.0, 0.0, 3.0])),
        st.tuples(st.just("give"), st.just((b"",)), st.integers(0, 10).map(float)),
    ),
    max_size=40,
)


class Told:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def spare(aged: Aged, max_age_s: float | None = 60, *, entry: bytes = b"user:1", context: bytes = b"users") -> Spare:
    """One read of a row, whose values are aged by ``all``, and whose nulls by ``any``, too."""
    return Spare(aged, entry, context, (b"all",), (b"all", b"any"), max_age_s, None)


@given(STEPS)
def test_gives_only_what_was_right_within_the_age_and_after_each_drop(
    steps: list[tuple[str, tuple[bytes, ...], float]],
):
    """However reads and writes overtake each other, what is given was sent late enough, and is the youngest there."""
    clock, numbers = Told(), count()
    aged = Aged(clock=clock)
    sent: list[tuple[bytes, float, tuple[bytes, ...]]] = []
    arrived: list[tuple[bytes, float, tuple[bytes, ...]]] = []
    drops: list[tuple[float, tuple[bytes, ...]]] = []
    for step, scopes, number in steps:
        clock.now += 1
        if step == "send":
            sent.append((b"%d" % next(numbers), aged.begin(), scopes))
        elif step == "arrive" and sent:
            value, at, its = sent.pop(int(number) % len(sent))
            aged.keep(b"key", Kept(value, at, its, None))
            arrived.append((value, at, its))
        elif step == "drop":
            aged.drop(scopes, lasting_s=number)
            if aged.used:
                drops.append((clock.now + number, scopes))
        elif step == "give":
            youngest = max(arrived, key=lambda each: each[1], default=None)
            found = aged.give(b"key", number)
            if youngest is None:
                assert found is None
                continue
            value, at, its = youngest
            touched = any(at <= when and set(which) & set(its) for when, which in drops)
            assert found == (value if at >= clock.now - number and not touched else None)


def test_an_age_is_counted_from_when_the_read_was_sent():
    """A reply that took five seconds is five seconds old when it comes, and at exactly N seconds still accepted."""
    clock = Told()
    aged = Aged(clock=clock)
    sent = aged.begin()
    clock.now = 5
    spare(aged).note(b"value", sent, null=False)
    assert spare(aged, 4.9).answer() is None
    assert spare(aged, 5).answer() == b"value"


def test_a_late_reply_brings_nothing_back():
    """A read that was sent before a write of this process, and answered after it, is not given."""
    clock = Told()
    aged = Aged(clock=clock)
    sent = aged.begin()
    clock.now = 1
    aged.drop([b"user:1"])
    clock.now = 2
    spare(aged).note(b"old", sent, null=False)
    assert spare(aged).answer() is None
    spare(aged).note(b"new", aged.begin(), null=False)
    assert spare(aged).answer() == b"new"


def test_nobody_gets_it_who_does_not_accept_it():
    """A read without an age of its own gets nothing, and leaves its value for others."""
    aged = Aged(clock=Told())
    spare(aged, None).note(b"value", aged.begin(), null=False)
    assert (spare(aged, None).answer(), spare(aged, 1).answer()) == (None, b"value")


def test_entries_and_contexts_do_not_mix():
    """Neither another key nor another schema, database or namespace gives the value."""
    aged = Aged(clock=Told())
    spare(aged).note(b"value", aged.begin(), null=False)
    assert spare(aged, entry=b"user:2").answer() is None
    assert spare(aged, context=b"others").answer() is None


def test_a_null_is_dropped_by_more_than_a_value_is():
    """A write that touches a token of nulls alone leaves a value, and drops "there is no such row"."""
    clock = Told()
    aged = Aged(clock=clock)
    spare(aged).note(b"value", aged.begin(), null=False)
    spare(aged, entry=b"user:2").note(b"null", aged.begin(), null=True)
    clock.now = 1
    aged.drop([b"any"])
    assert (spare(aged).answer(), spare(aged, entry=b"user:2").answer()) == (b"value", None)


def test_many_drops_are_remembered_as_one(monkeypatch: pytest.MonkeyPatch):
    """Where too many keys were touched to remember each, everything of that time is gone, and nothing comes back."""
    monkeypatch.setattr(module, "_MOST_DROPS", 3)
    clock = Told()
    aged = Aged(clock=clock)
    sent = aged.begin()
    clock.now = 1
    aged.drop([b"a", b"b", b"c", b"d"])
    spare(aged).note(b"old", sent, null=False)
    assert spare(aged).answer() is None
    assert aged._dropped == {}
    clock.now = 2
    spare(aged).note(b"new", aged.begin(), null=False)
    assert spare(aged).answer() == b"new"


def test_writes_remember_nothing_where_nobody_keeps_anything():
    """Without a crud that allows it, a drop costs a look at one attribute."""
    aged = Aged(clock=Told())
    aged.drop([b"a"])
    assert aged._dropped == {}


def test_the_most_bytes_bound_what_is_kept():
    """Values beyond the limit go, the one that was not used for longest first."""
    aged = Aged(3_000, clock=Told())
    for number in range(4):
        spare(aged, entry=b"user:%d" % number).note(bytes(500), aged.begin(), null=False)
    kept = [number for number in range(4) if spare(aged, entry=b"user:%d" % number).answer() is not None]
    assert kept == [2, 3]


def test_an_outage_is_logged_once_and_its_end_once(caplog: pytest.LogCaptureFixture):
    """Many values given in one outage leave one line, without the error's own text, and one when it is over."""
    aged = Aged(clock=Told())
    with caplog.at_level(logging.DEBUG, "fastrdb"):
        for _ in range(3):
            aged.stood_in(b"db", OSError("secret"))
        aged.answered(b"other")
        aged.answered(b"db")
        aged.answered(b"db")
    assert caplog.messages == [
        "the database cannot be read (OSError): aged values are given to who accepts them",
        "the database can be read again",
    ]


def test_a_child_starts_empty_whoever_had_the_locks() -> None:
    """A forked child finds free locks and no values, though another thread of its parent was at work."""
    aged = Aged()
    aged.begin()
    aged.keep(b"k", Kept(b"v", aged.clock(), (b"s",), None))
    with aged._guard, aged._kept._guard:  # as a thread that is cut off in the middle leaves them
        child = os.fork()
        if child == 0:
            signal.alarm(20)
            gone = aged.give(b"k", 10.0) is None
            aged.drop([b"s"])
            aged.keep(b"k", Kept(b"v", aged.clock(), (b"other",), None))
            os._exit(0 if gone and aged.give(b"k", 10.0) == b"v" else 1)
    assert os.waitpid(child, 0)[1] == 0
