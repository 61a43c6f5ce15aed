"""When may an answer be older than a COMMIT? The windows of docs/coherence.md, write by write. Pure.

A write has a window only if something is known to have happened to *its* holds; that there was an outage somewhere is
no excuse. What is known comes from the writer's process (``deeds``), from the kernel (who was killed), and from who
caused the outages (when Redis could lose data):

| of its holds it is known                                              | window until                          |
|-----------------------------------------------------------------------|---------------------------------------|
| all were found when COMMIT had returned                               | there is none                         |
| one was gone by then                                                  | the release                           |
| one was never granted: Redis was away, the write went on              | the kept invalidation has arrived     |
| nothing: Redis was away at the release, or nobody is left to look;    | the release, or the kept invalidation |
| and Redis could lose data, or the hold ended, before COMMIT was over  | has arrived                           |
| the same, and neither of these                                        | there is none                         |

A window that nobody is left to end lasts as long as the value: ``exp``. With an outbox, what was never granted is
delivered by others: such a window ends one look after the write, or after the outage.

An answer is explained by windows if it agrees with the rows as they would be without some of the last writes of each
row, all of which had windows that were open when the read began. One write that was properly held and released since
then would have dropped what they left: it ends the search, for its row, and for each list and count that its row is or
was in. A row that is asked for by a name that it has no more is not touched by its later writes: they end nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .deeds import Note, Seen
from .judging import NOTHING, Answer, Image, Item, Sandwich, matches, why_stale
from .subject import Read, Row

FOREVER = math.inf


class Written(NamedTuple):
    """One version of a row: who wrote it, and when, in seconds since the epoch (before its COMMIT)."""

    id: str
    image: Image
    deed: str
    at: float


class Doubt(NamedTuple):
    """An answer that contradicts the truth, with all that is needed to judge whether a window explains it.

    Attributes:
        read, answer: What was asked, and answered.
        truth: Before and after the read.
        history: The last versions of each row, in their order; for each row that changed, one from before.
        began: When the read began, by ``time.monotonic``.
        began_at: The same in seconds since the epoch.
    """

    read: Read
    answer: Answer
    truth: Sandwich
    history: Sequence[Written]
    began: float
    began_at: float


class Span(NamedTuple):
    """A time in which Redis could lose data."""

    begin: float
    end: float


@dataclass(slots=True)
class Fate:
    """What is known of one act; times by ``time.monotonic``."""

    asked: float
    unheld: bool = False
    intact: bool | None = None
    over: float | None = None
    closed: float = FOREVER


@dataclass(slots=True)
class Fates:
    """What is known of all writes of a run.

    Attributes:
        hold_s: Life of a hold.
        outbox_s: Time in which what was never granted is delivered by others; ``None``: by nobody.
        losses: When Redis could lose data.
        outages: When it was away, or anything else was wrong with it.
    """

    hold_s: float
    outbox_s: float | None = None
    losses: list[Span] = field(default_factory=list)
    outages: list[Span] = field(default_factory=list)
    _acts: dict[str, dict[str, Fate]] = field(default_factory=dict)
    _ended: dict[str, float] = field(default_factory=dict)

    def add(self, note: Note) -> None:
        """Take a note."""
        if note.seen is Seen.ENDED:
            self._ended[note.deed] = note.at
            return
        fate = self._acts.setdefault(note.deed, {}).setdefault(note.act, Fate(note.at))
        if note.seen is Seen.UNHELD:
            fate.unheld = True
        elif note.seen is Seen.OVER:
            fate.over = note.at
        elif note.seen in (Seen.INTACT, Seen.LOST):
            fate.intact = note.seen is Seen.INTACT
        elif note.seen is Seen.CLOSED:
            fate.closed = min(fate.closed, note.at)

    def died(self, writer: str, at: float) -> None:
        """Note the end of a writer's process: its deeds have ended."""
        for deed in self._acts:
            if deed.startswith(f"{writer}."):
                self._ended.setdefault(deed, at)

    @property
    def open(self) -> int:
        """Number of deeds whose windows nobody has ended."""
        return sum(self.window(deed) == FOREVER for deed in self._acts)

    def has_ended(self, deed: str) -> bool:
        """Tell whether no more is to be known of a deed but the end of its window."""
        return deed in self._ended or deed not in self._acts

    def window(self, deed: str) -> float:
        """Give the end of a deed's window; 0 if it has none."""
        ended = self._ended.get(deed, FOREVER)
        return max((self._window(fate, ended) for fate in self._acts.get(deed, {}).values()), default=0.0)

    def closed(self, deed: str) -> float:
        """Give when a deed was held and released as it should be; never, if it was not."""
        fates = self._acts.get(deed, {}).values()
        if not fates or any(fate.unheld or fate.intact is not True for fate in fates):
            return FOREVER
        return max(fate.closed for fate in fates)

    def asked(self, deed: str) -> float:
        """Give when a deed first asked for a hold."""
        return min((fate.asked for fate in self._acts.get(deed, {}).values()), default=FOREVER)

    def over(self, deed: str) -> float:
        """Give a time at which all COMMITs of a deed had returned, or it had ended."""
        ended = self._ended.get(deed, FOREVER)
        fates = self._acts.get(deed, {}).values()
        return max((ended if fate.over is None else fate.over for fate in fates), default=ended)

    def _window(self, fate: Fate, ended: float) -> float:
        if fate.unheld:
            return min(fate.closed, self._delivered_by_others(fate, ended))
        if fate.intact is not None:
            return 0.0 if fate.intact else fate.closed
        # Nobody looked. The hold itself lasts for hold_s; who is dead may have sent a COMMIT that took until then.
        over = fate.over if fate.over is not None else ended + self.hold_s
        lost = any(span.begin <= over and span.end >= fate.asked for span in self.losses)
        outlived = fate.over is not None and fate.over > fate.asked + self.hold_s
        return fate.closed if lost or outlived else 0.0

    def _delivered_by_others(self, fate: Fate, ended: float) -> float:
        if self.outbox_s is None:
            return FOREVER
        written = min(ended, fate.over if fate.over is not None else FOREVER)
        back = max((span.end for span in self.outages if span.begin <= written), default=0.0)
        return max(written, back) + self.outbox_s


class Explained(NamedTuple):
    """The windows that explain an answer.

    Attributes:
        lag_s: Time from the first write that the answer lacks (its COMMIT came later) to the read.
        deeds: Whose windows.
    """

    lag_s: float
    deeds: frozenset[str]


def explain(doubt: Doubt, fates: Fates) -> Explained | None:
    """Find the windows that explain an answer; ``None``: it is stale."""
    undone = {id: list(_undone(doubt, fates, versions)) for id, versions in _by_row(doubt).items()}
    lacking = [written for versions in undone.values() for written, _ in versions]
    if not lacking:
        return None
    earlier = dict(doubt.truth.before)
    for id, versions in undone.items():
        if versions:
            earlier[id] = versions[-1][1]
    if why_stale(doubt.read, doubt.answer, doubt.truth._replace(before=earlier, versions=_versions(doubt))) is not None:
        return None
    return Explained(
        max(doubt.began_at - written.at for written in lacking), frozenset(written.deed for written in lacking)
    )


def _versions(doubt: Doubt) -> Mapping[Item, int]:
    """Give the versions of all marks: also of those that were the last ones before the read, and are not any more.

    A row that was deleted keeps its last mark, which is that of the version before.
    """
    written = {Item(each.id, each.image.mark): each.image.version for each in doubt.history if each.image.alive}
    return {**written, **doubt.truth.versions}


def suspects(doubt: Doubt) -> set[str]:
    """Give the deeds whose windows matter."""
    return {written.deed for written in doubt.history}


def _by_row(doubt: Doubt) -> Mapping[str, list[Written]]:
    """Give the versions of each row as far as they were committed before the read began."""
    found: dict[str, list[Written]] = {}
    for written in doubt.history:
        if written.image.version <= doubt.truth.before.get(written.id, NOTHING).version:
            found.setdefault(written.id, []).append(written)
    return found


def _undone(doubt: Doubt, fates: Fates, versions: Sequence[Written]) -> Iterator[tuple[Written, Image]]:
    """Give the last versions of a row whose windows were open, the newest first, and what was there before each."""
    proper = [] if isinstance(doubt.read, Row) else list(_proper(doubt, fates))
    for at in range(len(versions) - 1, -1, -1):
        written, before = versions[at], versions[at - 1].image if at else NOTHING
        if isinstance(doubt.read, Row) and not (_names(doubt.read, before) or _names(doubt.read, written.image)):
            continue  # the row had another name by then: what is asked for is no affair of this write
        if fates.window(written.deed) <= doubt.began:
            return
        if any(asked > fates.over(written.deed) for asked in proper):
            return  # what this write has left in the list was dropped since
        yield written, before


def _names(read: Row, image: Image) -> bool:
    """Tell whether a write of this image may touch what is asked for."""
    return image.alive and any(image.row[name] == value for name, value in read.fields.items())


def _proper(doubt: Doubt, fates: Fates) -> Iterator[float]:
    """Give when writes of the list asked for their holds, which were properly released before the read began."""
    for versions in _by_row(doubt).values():
        for earlier, written in zip([None, *versions], versions, strict=False):
            images: Iterable[Image] = [written.image] if earlier is None else [earlier.image, written.image]
            if any(matches(doubt.read.fields, image) for image in images) and fates.closed(written.deed) <= doubt.began:
                yield fates.asked(written.deed)
