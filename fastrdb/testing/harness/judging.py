"""Is an answer older than the truth? Pure: everything that was seen comes as an argument.

An answer is judged by the truth as it was before its read began and after it had ended. A row whose version is the
same in both was that all the time, because versions only grow: what it says is certain. Of a row that
changed meanwhile any state from the first to the last version may be shown, also one that lies between.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from .subject import Fields, Page, Read


class Image(NamedTuple):
    """One row as it is, or was when it was deleted.

    Attributes:
        version: Grows with each write of the row, in the order of the COMMITs.
        alive: The row is there.
        mark: The last write's mark.
        key: Its primary key, as JSON shows it.
        row: Its attributes, as JSON shows them.
    """

    version: int
    alive: bool
    mark: str
    key: Any
    row: Mapping[str, Any]


class Item(NamedTuple):
    """A row as an answer shows it: its primary key and its mark."""

    id: str
    mark: str


Snapshot: TypeAlias = Mapping[str, Image]
Answer: TypeAlias = Sequence[Item] | int
Versions: TypeAlias = Mapping[Item, int]

NOTHING = Image(0, False, "", None, {})


class Sandwich(NamedTuple):
    """The truth before and after a read.

    Attributes:
        before: Read before the read began.
        after: Read when it had ended.
        versions: The versions of marks that neither shows; a mark that was never committed has none.
    """

    before: Snapshot
    after: Snapshot
    versions: Versions = MappingProxyType({})

    def ids(self) -> list[str]:
        """Give the primary keys of all rows that are or were there."""
        return list(dict.fromkeys([*self.before, *self.after]))

    def changed(self, key: str) -> bool:
        """Tell whether a row was written between the two."""
        return self.before.get(key, NOTHING).version != self.after.get(key, NOTHING).version

    def unknown(self, answer: Answer) -> Iterator[Item]:
        """Give the items whose marks neither snapshot shows."""
        for item in answer if not isinstance(answer, int) else ():
            images = (self.before.get(item.id, NOTHING), self.after.get(item.id, NOTHING))
            if item.mark not in {image.mark for image in images}:
                yield item


def why_stale(read: Read, answer: Answer, truth: Sandwich) -> str | None:
    """Tell what an answer contradicts; ``None`` if it may be right."""
    if isinstance(answer, int):
        return _miscounted(read.fields, answer, truth)
    for item in answer:
        if (why := _outdated(read.fields, item, truth)) is not None:
            return why
    return _incomplete(read, answer, truth)


class Look(NamedTuple):
    """The truth as it was seen at some time.

    Attributes:
        at: When that was over, in seconds.
        snapshot: What was seen.
    """

    at: float
    snapshot: Snapshot


def lag_s(read: Read, answer: Answer, truth: Sandwich, looks: Sequence[Look], began: float) -> float:
    """Tell how long at least an answer had been outdated when its read began; infinite if it was never right.

    Args:
        read, answer, truth: As for ``why_stale``, which has found that the answer is stale.
        looks: Earlier looks at the truth, in their order; the last of them is the one before the read.
        began: When the read began, in seconds.
    """
    shown = {Item(key, image.mark): image.version for key, image in [*truth.after.items(), *truth.before.items()]}
    versions = {**shown, **truth.versions}
    for earlier, later in reversed(list(pairwise(looks))):
        if why_stale(read, answer, Sandwich(earlier.snapshot, later.snapshot, versions)) is None:
            known_s: float = began - later.at  # it was right at some time between these two
            return max(0.0, known_s)
    return inf


def matches(fields: Fields, image: Image) -> bool:
    """Tell whether a row is there and has these values."""
    return image.alive and all(image.row[name] == value for name, value in fields.items())


def _outdated(fields: Fields, item: Item, truth: Sandwich) -> str | None:
    before, after = truth.before.get(item.id, NOTHING), truth.after.get(item.id, NOTHING)
    if item.mark == before.mark:
        if matches(fields, before):
            return None
        return f"row {item.id} {'did not match' if before.alive else 'was deleted'} before the read began"
    if item.mark == after.mark:
        return None if matches(fields, after) or not after.alive else f"row {item.id} has never matched so"
    version = truth.versions.get(item)
    if version is None:
        return f"row {item.id} was never committed with mark {item.mark}"
    if version < before.version:
        return f"row {item.id} shows version {version}, {before.version} was committed before the read began"
    if version > after.version:
        return f"row {item.id} shows version {version}, which was not committed yet"
    return None


def _certain(fields: Fields, truth: Sandwich) -> tuple[list[str], int]:
    """Give the rows that matched all the time, and how many others may have matched."""
    changed = {key for key in truth.ids() if truth.changed(key)}
    certain = [key for key, image in truth.before.items() if key not in changed and matches(fields, image)]
    return certain, len(changed)


def _miscounted(fields: Fields, answer: int, truth: Sandwich) -> str | None:
    certain, changed = _certain(fields, truth)
    if len(certain) <= answer <= len(certain) + changed:
        return None
    return f"between {len(certain)} and {len(certain) + changed} rows matched"


def _incomplete(read: Read, answer: Sequence[Item], truth: Sandwich) -> str | None:
    certain, changed = _certain(read.fields, truth)
    shown = [item.id for item in answer]
    if isinstance(read, Page) and not changed:
        wanted = _page(read, certain, truth.before)
        return None if shown == wanted else f"the page has the rows {wanted}"
    if isinstance(read, Page) and (read.page > 1 or read.limit < len(certain) + changed):
        return None  # a row that changed may have moved others to another page
    missing = [key for key in certain if key not in shown]
    return f"rows {missing} were there all the time" if missing else None


def _page(read: Page, keys: Sequence[str], truth: Snapshot) -> list[str]:
    def place(key: str) -> tuple[Any, ...]:
        order = (truth[key].row[read.order_by],) if read.order_by is not None else ()
        return (*order, truth[key].key)

    ordered = sorted(keys, key=place, reverse=not read.ascending)
    return ordered[(read.page - 1) * read.limit : read.page * read.limit]
