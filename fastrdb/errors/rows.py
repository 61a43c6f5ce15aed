"""Errors of rows that are not there, are several, or were written by somebody else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import exc as sa
from sqlalchemy.orm.exc import StaleDataError

from .base import FastRDBError, listed

_LEAVE_OUT = "nothing was changed: leave them out, or pass missing='skip'"


class NotFound(FastRDBError, sa.NoResultFound):
    """No row matches.

    Attributes:
        model: Name of the model.
        criterion: The filters, as given.
        which: ``"deleted"``, where only deleted rows were looked for.
    """

    def __init__(self, model: str, criterion: dict[str, Any], which: str = "") -> None:
        super().__init__(model, criterion, which)
        self.model, self.criterion, self.which = model, criterion, which

    def __str__(self) -> str:
        return f"no {self.which}{' ' * bool(self.which)}{self.model} with {_words(self.criterion)}"


class RowsNotFound(NotFound):
    """Some of many rows that were named by keys do not exist; nothing was changed, also of those that do.

    Attributes:
        rows: Index among what was given -> the key, as given; of a read, each key once.
        fix: What to do, in words.
    """

    def __init__(self, model: str, rows: Mapping[int, object], fix: str = _LEAVE_OUT) -> None:
        super().__init__(model, {})
        self.rows, self.fix = dict(rows), fix
        self.args = (model, self.rows, fix)

    @property
    def indexes(self) -> tuple[int, ...]:
        """The places of the keys that name no row."""
        return tuple(self.rows)

    def __str__(self) -> str:
        missing = listed(f"[{index}] {key!r}" for index, key in self.rows.items())
        return f"no {self.model} for {missing}; {self.fix}"


class MultipleFound(FastRDBError, sa.MultipleResultsFound):
    """Several rows match where one was meant; nothing was changed.

    Attributes:
        model: Name of the model.
        criterion: The filters, as given.
    """

    def __init__(self, model: str, criterion: dict[str, Any]) -> None:
        super().__init__(model, criterion)
        self.model, self.criterion = model, criterion

    def __str__(self) -> str:
        return (
            f"several {self.model} rows with {_words(self.criterion)}; nothing was changed: "
            "add filters until one row is left"
        )


class Conflict(FastRDBError, StaleDataError):
    """The row has another version than the caller saw: someone else wrote it since. Nothing was changed.

    Attributes:
        model: Name of the model.
        criterion: The filters, as given.
        seen: The version that the caller named.
        current: The one that the row has now; ``None`` where the caller's transaction cannot see it.
    """

    def __init__(self, model: str, criterion: dict[str, Any], seen: object, current: object) -> None:
        super().__init__(model, criterion, seen, current)
        self.model, self.criterion, self.seen, self.current = model, criterion, seen, current

    def __str__(self) -> str:
        current = f"version {self.current!r}" if self.current is not None else "another version"
        return (
            f"{self.model} with {_words(self.criterion)} has {current} by now, not {self.seen!r}; "
            "nothing was changed: read the row again, and decide anew"
        )


@dataclass(frozen=True, slots=True)
class RowConflict:
    """A row of a batch that has another version than the caller saw.

    Attributes:
        key: As given.
        seen: The version that the caller named.
        current: The one that the row has now.
    """

    key: object
    seen: object
    current: object


class RowsConflict(Conflict):
    """Some rows of a batch have other versions than the caller saw; nothing was changed, also of the others.

    Attributes:
        rows: Index in the batch -> the key and both versions.
    """

    def __init__(self, model: str, rows: Mapping[int, RowConflict]) -> None:
        first = next(iter(rows.values()))
        super().__init__(model, {}, first.seen, first.current)
        self.rows = dict(rows)
        self.args = (model, self.rows)

    @property
    def indexes(self) -> tuple[int, ...]:
        """The places of the items whose rows were written since."""
        return tuple(self.rows)

    def __str__(self) -> str:
        rows = self.rows.items()
        said = listed(f"[{at}] {row.key!r} has version {row.current!r}, not {row.seen!r}" for at, row in rows)
        return f"{self.model}: {said}; nothing was changed: read the rows again, and decide anew"


def _words(criterion: dict[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in criterion.items()) or "no criterion"
