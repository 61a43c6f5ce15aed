"""The dictionary of a bounded size."""

import tracemalloc
from collections import OrderedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrdb.cache.bounded import ITEM_BYTES, Bounded

KEYS = st.sampled_from([b"", b"a", b"bb", b"ccc", b"dddd"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), KEYS, st.integers(0, 1_700)),
        st.tuples(st.just("get"), KEYS, st.just(0)),
        st.tuples(st.just("pop"), KEYS, st.just(0)),
        st.tuples(st.just("clear"), st.just(b""), st.just(0)),
    ),
    max_size=40,
)


@given(STEPS)
def test_behaves_as_a_dictionary_that_forgets_what_was_not_used_for_longest(steps: list[tuple[str, bytes, int]]):
    """Whatever is done, it keeps what a plain model keeps, in the model's order, and counts the model's bytes."""
    kept: Bounded[int] = Bounded(2_000)
    model: OrderedDict[bytes, int] = OrderedDict()

    def bytes_of_model() -> int:
        return sum(len(key) + size + ITEM_BYTES for key, size in model.items())

    for step, key, size in steps:
        if step == "put":
            kept.put(key, size, size)
            model.pop(key, None)
            model[key] = size
            while bytes_of_model() > 2_000:
                model.popitem(last=False)
        elif step == "get":
            assert kept.get(key) == model.get(key)
            if key in model:
                model.move_to_end(key)
        elif step == "pop":
            assert kept.pop(key) == model.pop(key, None)
        else:
            kept.clear()
            model.clear()
        assert (len(kept), kept.size) == (len(model), bytes_of_model())
        assert all(each in kept for each in model)


def test_keeps_others_when_one_does_not_fit():
    """A value that does not fit alone is not kept, nor what was kept under its key; all others stay."""
    kept: Bounded[str] = Bounded(1_000)
    kept.put(b"other", "other", 100)
    kept.put(b"key", "small", 100)
    kept.put(b"key", "large", 1_001)
    assert (kept.get(b"key"), kept.get(b"other"), len(kept)) == (None, "other", 1)


def test_counts_what_an_item_really_costs():
    """Many small items take no more memory than is counted for them, within a quarter."""
    kept: Bounded[bytes] = Bounded(10**9)
    tracemalloc.start()
    try:
        for number in range(20_000):
            kept.put(b"key:%d" % number, bytes(20), 20)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert taken <= kept.size * 1.25


def test_refuses_a_limit_below_one():
    """A limit that nothing fits into is a mistake."""
    with pytest.raises(ValueError, match="at least 1"):
        Bounded(0)
