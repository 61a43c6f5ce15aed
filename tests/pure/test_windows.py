"""Which stale answers a window explains: judged write by write, by nothing but what is known of its own holds."""

import pytest

from fastrdb.testing.harness import Count, Page, Row
from fastrdb.testing.harness.deeds import Note, Seen
from fastrdb.testing.harness.judging import Answer, Image, Item, Sandwich
from fastrdb.testing.harness.subject import Read
from fastrdb.testing.harness.windows import Doubt, Fates, Span, Written, explain

HOLD_S = 0.7
BEGAN = 100.0  # of the read, by each clock


def image(version: int, *, id: int = 1, alive: bool = True, group: int = 1) -> Image:
    """A version of a row, whose mark is its number."""
    return Image(version, alive, str(version), id, {"id": id, "group": group})


def doubt(read: Read, answer: Answer, *history: tuple[Image, str, float]) -> Doubt:
    """A read that began when all of this history was committed."""
    versions = [Written(str(found.key), found, deed, at) for found, deed, at in history]
    truth = {written.id: written.image for written in versions}
    known = {Item(written.id, written.image.mark): written.image.version for written in versions}
    return Doubt(read, answer, Sandwich(truth, truth, known), versions, BEGAN, BEGAN)


def fates(*notes: tuple[str, Seen, float], losses: tuple[Span, ...] = (), outbox_s: float | None = None) -> Fates:
    """What is known of deeds that have one transaction each."""
    found = Fates(HOLD_S, outbox_s, losses=[*losses], outages=[*losses])
    for deed, seen, at in notes:
        found.add(Note(deed, "" if seen is Seen.ENDED else f"{deed} act", seen, at))
    return found


OLD = doubt(Row({"id": 1}), [Item("1", "1")], (image(1), "", 1), (image(2), "9.1", 98))  # shows 1, of a row at 2
ASKED, OVER, ENDED = ("9.1", Seen.ASKED, 98.0), ("9.1", Seen.OVER, 98.1), ("9.1", Seen.ENDED, 98.2)
UNHELD, INTACT, LOST = ("9.1", Seen.UNHELD, 98.0), ("9.1", Seen.INTACT, 98.1), ("9.1", Seen.LOST, 98.1)


def closed(at: float) -> tuple[str, Seen, float]:
    """The release, or the kept invalidation, has arrived."""
    return "9.1", Seen.CLOSED, at


@pytest.mark.parametrize(
    ("notes", "losses", "is_explained"),
    [
        pytest.param([], [], False, id="nothing is known: it never held"),
        pytest.param([ASKED, OVER, INTACT, closed(98.2), ENDED], [Span(97, 99)], False, id="intact, in an outage"),
        pytest.param([ASKED, OVER, INTACT], [Span(97, 101)], False, id="intact, not released yet"),
        pytest.param([ASKED, OVER, LOST, closed(98.2)], [], False, id="lost, released before the read"),
        pytest.param([ASKED, OVER, LOST, closed(100.1)], [], True, id="lost, released after the read began"),
        pytest.param([ASKED, UNHELD, OVER, closed(99.9)], [], False, id="never granted, delivered before the read"),
        pytest.param([ASKED, UNHELD, OVER, closed(100.1)], [], True, id="never granted, delivered after it began"),
        pytest.param([ASKED, UNHELD, OVER, ENDED], [], True, id="never granted, never delivered"),
        pytest.param([ASKED, OVER, ENDED], [], False, id="nobody looked, and nothing could be lost"),
        pytest.param([ASKED, OVER, ENDED], [Span(98.05, 99)], True, id="nobody looked, lost before COMMIT was over"),
        pytest.param([ASKED, OVER, ENDED], [Span(98.15, 99)], False, id="nobody looked, lost after COMMIT was over"),
        pytest.param([ASKED, OVER, ENDED], [Span(90, 97.9)], False, id="nobody looked, lost before it held"),
        pytest.param([ASKED, ENDED], [Span(98.8, 99)], True, id="dead or left: COMMIT may last as long as the hold"),
        pytest.param([ASKED, ENDED], [Span(99.0, 99.5)], False, id="dead or left, lost when the hold was over"),
        pytest.param([ASKED, ("9.1", Seen.OVER, 99.0)], [], True, id="COMMIT outlived its hold"),
    ],
)
def test_window_of_a_write(notes: list[tuple[str, Seen, float]], losses: list[Span], is_explained: bool) -> None:
    """A row that lacks a write is explained by what is known of that write's own holds, and of nothing else."""
    assert (explain(OLD, fates(*notes, losses=(*losses,))) is not None) is is_explained


def test_killed_writer_has_ended() -> None:
    """A writer that dies between hold and COMMIT leaves a window only if Redis lost data in the life of its hold."""
    known = fates(ASKED, losses=(Span(98.9, 99.5),))
    known.died("9", 98.3)
    assert explain(OLD, known) is not None
    known = fates(ASKED, losses=(Span(99.1, 99.5),))
    known.died("9", 98.3)
    assert explain(OLD, known) is None


def test_outbox_ends_windows() -> None:
    """With an outbox, what was never granted is delivered a look after the write, or after the outage."""
    notes = [ASKED, UNHELD, OVER, ENDED]
    assert explain(OLD, fates(*notes, outbox_s=1.0)) is None
    assert explain(OLD, fates(*notes, outbox_s=1.0, losses=(Span(97, 99.5),))) is not None


def test_lag_is_that_of_the_oldest_write_that_is_lacking() -> None:
    """An answer that lacks two writes is as old as the first of them; both must have windows."""
    read = doubt(Row({"id": 1}), [Item("1", "1")], (image(1), "", 1), (image(2), "8.1", 97), (image(3), "9.1", 98))
    open_too = [("8.1", Seen.ASKED, 97.0), ("8.1", Seen.UNHELD, 97.0)]
    found = explain(read, fates(ASKED, UNHELD, *open_too))
    assert found is not None
    assert (found.lag_s, found.deeds) == (3.0, {"8.1", "9.1"})
    assert explain(read, fates(ASKED, UNHELD)) is None
    assert explain(read, fates(ASKED, OVER, INTACT, *open_too)) is None, "a proper write drops what others left"


def test_what_never_was_is_never_explained() -> None:
    """A mark that nobody committed is stale, whatever happened."""
    read = doubt(Row({"id": 1}), [Item("1", "7")], (image(1), "", 1), (image(2), "9.1", 98))
    assert explain(read, fates(ASKED, UNHELD)) is None


@pytest.mark.parametrize(
    ("read", "answer"),
    [
        (Row({"id": 1}), []),
        (Page(limit=9), [Item("2", "5")]),
        (Count(), 1),
        (Count({"group": 1}), 1),
    ],
)
def test_missing_row_is_explained_by_the_write_that_made_it(read: Read, answer: Answer) -> None:
    """Nothing, a list and a count without a row lack the write that created it."""
    found = doubt(read, answer, (image(5, id=2), "", 1), (image(2), "9.1", 98))
    assert explain(found, fates(ASKED, UNHELD)) is not None
    assert explain(found, fates(ASKED, OVER, INTACT)) is None


def test_list_is_dropped_by_any_proper_write_of_it_since() -> None:
    """A list that lacks a write with a window is stale if another row of it was properly written after that."""
    proper = [("7.1", seen, at) for seen, at in ((Seen.ASKED, 99.0), (Seen.OVER, 99.1), (Seen.INTACT, 99.1))]
    proper.append(("7.1", Seen.CLOSED, 99.2))
    stale = doubt(Count(), 1, (image(2), "9.1", 98), (image(5, id=2), "", 1), (image(6, id=2), "7.1", 99))
    assert explain(stale, fates(ASKED, UNHELD, OVER)) is not None
    assert explain(stale, fates(ASKED, UNHELD, OVER, *proper)) is None
    others = (image(5, id=2, group=2), "", 1), (image(6, id=2, group=2), "7.1", 99.0)
    elsewhere = doubt(Count({"group": 1}), 0, (image(2), "9.1", 98), *others)
    assert explain(elsewhere, fates(ASKED, UNHELD, OVER, *proper)) is not None


def test_deleted_row_is_known_by_its_last_mark() -> None:
    """A row that others still see, because nobody was told of its deletion, and that is made anew during the read."""
    deleted = image(3, alive=False)._replace(mark="2")  # it keeps the mark that it had
    history = [
        Written("1", image(1), "", 1),
        Written("1", image(2), "9.1", 97),
        Written("1", deleted, "9.2", 98),
    ]
    truth = Sandwich({"1": deleted}, {"1": image(4)})
    shown = Doubt(Row({"id": 1}), [Item("1", "2")], truth, history, BEGAN, BEGAN)
    notes = [(deed, seen, 97.0) for deed in ("9.1", "9.2") for seen in (Seen.ASKED, Seen.UNHELD, Seen.OVER, Seen.ENDED)]
    found = explain(shown, fates(*notes))
    assert found is not None
    assert explain(shown, fates(*notes[:4])) is None  # the deletion was told


def test_later_writes_do_not_end_the_window_of_a_name_that_was_given_up() -> None:
    """A row that is found by a name which it lost in an open window is explained, whatever was written to it since."""
    history = [(image(1), "", 1.0), (image(2, group=2), "9.1", 97.0), (image(3, group=2), "9.2", 98.0)]
    shown = doubt(Row({"group": 1}), [Item("1", "1")], *history)
    told = [("9.2", seen, 98.0) for seen in (Seen.ASKED, Seen.OVER, Seen.INTACT, Seen.CLOSED, Seen.ENDED)]
    unheld = [("9.1", seen, 97.0) for seen in (Seen.ASKED, Seen.UNHELD, Seen.OVER, Seen.ENDED)]
    assert explain(shown, fates(*unheld, *told)) is not None
    held = [("9.1", seen, 97.0) for seen in (Seen.ASKED, Seen.OVER, Seen.INTACT, Seen.CLOSED, Seen.ENDED)]
    assert explain(shown, fates(*held, *told)) is None
    by_key = doubt(Row({"id": 1}), [Item("1", "1")], *history)
    assert explain(by_key, fates(*unheld, *told)) is None
