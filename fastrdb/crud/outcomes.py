"""What became of the rows of an upsert, each in its place."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from sqlalchemy import Row

from .arrays import Batch
from .statements import Change


class Outcome(NamedTuple):
    """What became of one row.

    Attributes:
        row: What the statement gave back.
        change: The statement's parts.
        created: It was not there before.
        old: Its image before, where that may be another one than after it.
        kept: It was there, and was left as it is.
    """

    row: Row[Any]
    change: Change
    created: bool
    old: dict[str, Any] | None = None
    kept: bool = False

    @property
    def after(self) -> dict[str, Any]:
        """The row's image."""
        return self.change.returned.image(self.row)

    @property
    def before(self) -> dict[str, Any] | None:
        """Its image before; ``None`` where there was none."""
        return None if self.created else self.old or self.after


def in_order_of(keys: Sequence[tuple[Any, ...]], rows: list[Row[Any]]) -> list[Row[Any]]:
    """Bring rows, which end with their keys, to the order of *keys*.

    SQLite gives rows back in the order in which it took them, and does not promise to. Where a key came back in other
    words than it was sent, that order has to do.
    """
    found = [tuple(row[-len(keys[0]) :]) for row in rows]
    if found == keys or set(found) != set(keys):
        return rows
    placed = dict(zip(found, rows, strict=True))
    return [placed[key] for key in keys]


def by_index(batches: Sequence[Batch], found: Sequence[Sequence[Outcome]]) -> list[Outcome]:
    """Bring what became of the rows of batches to the order of all rows."""
    placed: dict[int, Outcome] = {}
    for batch, outcomes in zip(batches, found, strict=True):
        placed.update(zip(batch.indexes, outcomes, strict=True))
    return [placed[index] for index in range(len(placed))]


def primary_keys(outcomes: Sequence[Outcome]) -> list[tuple[Any, ...]]:
    """Give the primary keys of rows, by columns."""
    changes = {id(outcome.change): outcome.change for outcome in outcomes}
    places = {which: change.returned.places(change.keys) for which, change in changes.items()}
    return [tuple([outcome.row[at] for at in places[id(outcome.change)]]) for outcome in outcomes]
