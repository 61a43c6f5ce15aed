"""How the harness judges answers: never unjustly, and never fooled while nothing changes."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from fastrdb.testing.harness import Count, Page, Row
from fastrdb.testing.harness.judging import Answer, Image, Item, Look, Sandwich, Snapshot, lag_s, matches, why_stale
from fastrdb.testing.harness.subject import Read

IDS = ("1", "2", "3")
NAMES = ("ann", "ben")

writes = st.tuples(st.sampled_from(IDS), st.sampled_from([*NAMES, None]), st.integers(0, 2))
fields = st.sampled_from([{}, {"name": "ann"}, {"size": 1}, {"name": "ben", "size": 0}])
pages = st.builds(
    Page,
    st.integers(1, 4),
    st.integers(1, 2),
    st.sampled_from([None, "size"]),
    st.booleans(),
    fields,
)
rows = st.sampled_from([*(Row({"id": int(key)}) for key in IDS), Row({"id": 1, "size": 1})])
reads = st.one_of(rows, pages, st.builds(Count, fields))


def history(changes: list[tuple[str, str | None, int]]) -> list[Snapshot]:
    """What was committed, after each of some writes; one without a name deletes."""
    found: list[dict[str, Image]] = [{}]
    for version, (key, name, size) in enumerate(changes, 1):
        row = {"id": int(key), "name": name, "size": size}
        image = Image(version, True, f"m{version}", int(key), row)
        if name is None:
            old = found[-1].get(key)
            if old is None or not old.alive:
                continue
            image = old._replace(version=version, alive=False)
        found.append({**found[-1], key: image})
    return list(found)


def answered(read: Read, snapshot: Snapshot) -> Answer:
    """What the database answers."""
    found = [key for key, image in snapshot.items() if matches(read.fields, image)]
    if isinstance(read, Count):
        return len(found)
    if isinstance(read, Page):
        order = read.order_by or "id"
        found.sort(key=lambda key: (snapshot[key].row[order], snapshot[key].key), reverse=not read.ascending)
        found = found[(read.page - 1) * read.limit : read.page * read.limit]
    return [Item(key, snapshot[key].mark) for key in found]


def versions(states: list[Snapshot]) -> dict[Item, int]:
    """The versions of all marks that were ever committed."""
    return {Item(key, image.mark): image.version for state in states for key, image in state.items() if image.alive}


@given(st.lists(writes, max_size=12), reads, st.data())
def test_no_answer_from_between_is_called_stale(
    changes: list[tuple[str, str | None, int]], read: Read, data: st.DataObject
) -> None:
    """What was true at any time between the two looks at the truth is never stale."""
    states = history(changes)
    first, now, last = sorted(data.draw(st.tuples(*[st.integers(0, len(states) - 1)] * 3)))
    truth = Sandwich(states[first], states[last], versions(states))
    assert why_stale(read, answered(read, states[now]), truth) is None


@given(st.lists(writes, max_size=12), reads, st.data())
def test_while_nothing_changes_only_the_truth_passes(
    changes: list[tuple[str, str | None, int]], read: Read, data: st.DataObject
) -> None:
    """Where the truth was the same before and after, every other answer is stale."""
    states = history(changes)
    then, now = data.draw(st.tuples(*[st.integers(0, len(states) - 1)] * 2))
    truth = Sandwich(states[now], states[now], versions(states))
    answer = answered(read, states[then])
    assert (why_stale(read, answer, truth) is None) == (answer == answered(read, states[now]))


@given(st.lists(writes, min_size=1, max_size=12), rows, st.data())
def test_an_old_row_is_stale_whatever_happens_meanwhile(
    changes: list[tuple[str, str | None, int]], read: Row, data: st.DataObject
) -> None:
    """A row older than the truth before the read is stale, also when it changes again during the read."""
    states = history(changes)
    old, first, last = sorted(data.draw(st.tuples(*[st.integers(0, len(states) - 1)] * 3)))
    answer = answered(read, states[old])
    truth = Sandwich(states[first], states[last], versions(states))
    since = [answered(read, state) for state in states[first : last + 1]]
    assert (why_stale(read, answer, truth) is None) == (
        answer in since or (not answer and truth.changed(str(read.fields["id"])))
    )


def test_a_value_that_was_never_committed_is_stale() -> None:
    """A row with a mark that nobody ever committed comes from a transaction that was rolled back."""
    (_, state) = history([("1", "ann", 0)])
    why = why_stale(Row({"id": 1}), [Item("1", "m9")], Sandwich(state, state))
    assert why == "row 1 was never committed with mark m9"


def test_lag_is_the_time_since_an_answer_was_outdated() -> None:
    """An answer has been outdated since the first look that contradicts it; one that was never right, for ever."""
    states = history([("1", "ann", 0), ("1", "ann", 1), ("1", "ann", 2)])
    looks = [Look(float(at), state) for at, state in enumerate(states)]
    truth = Sandwich(states[-1], states[-1], versions(states))
    read = Row({"id": 1})
    lags = [lag_s(read, answered(read, state), truth, looks, 10.0) for state in states[1:-1]]
    assert lags == [8.0, 7.0]
    assert lag_s(read, [Item("1", "never")], truth, looks, 10.0) == inf


def test_lag_is_nothing_where_the_last_look_was_the_first_to_know() -> None:
    """What was right until the look just before the read is outdated for no time that is known."""
    states = history([("1", "ann", 0), ("1", "ann", 1)])
    looks = [Look(1.0, states[1]), Look(2.0, states[2])]
    truth, read = Sandwich(states[-1], states[-1], versions(states)), Row({"id": 1})
    assert lag_s(read, answered(read, states[1]), truth, looks, 2.0) == 0
