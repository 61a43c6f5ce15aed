"""How far a write of many rows has come, told to whom wants to know."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeAlias

from .arrays import ROWS, Batch

Progress: TypeAlias = Callable[[int], object]


class Sent:
    """How many rows were sent so far, told to whom wants to know."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress, self._rows = progress, 0

    def cut(self, batch: Batch, *, limited: bool = False) -> Iterator[Batch]:
        """Give the parts of a batch, one for each statement; each is sent when the next one is asked for.

        Args:
            batch: Rows.
            limited: A statement takes so many rows at most; else any number, if nobody looks on.
        """
        rows = ROWS if limited or self._progress is not None else len(batch.indexes)
        for part in batch.parts(rows):
            yield part
            self.count(len(part.indexes))

    def count(self, rows: int) -> None:
        """Note that rows were sent."""
        self._rows += rows
        if self._progress is not None:
            self._progress(self._rows)
