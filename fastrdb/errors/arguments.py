"""Errors of what a call is given; nothing was sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

from .base import FastRDBError, listed


class ValidationError(FastRDBError):
    """What was to be written is not valid: fastrdb refused the arguments, or the database the row."""


class InputError(ValidationError, ValueError):
    """The arguments of a call are wrong. Nothing was sent to the database or to Redis."""


class UnknownField(InputError):
    """The model has no such field.

    Attributes:
        field: The name that was given.
        valid: The names that would have been taken.
    """

    def __init__(self, field: str, owner: str, valid: Iterable[str]) -> None:
        self.field, self.owner, self.valid = field, owner, tuple(sorted(valid))
        super().__init__(field, owner, self.valid)

    def __str__(self) -> str:
        near = get_close_matches(self.field, self.valid, n=1)
        hint = f"did you mean {near[0]!r}? " if near else ""
        return f"{self.owner} has no field {self.field!r}; {hint}valid: {', '.join(self.valid)}"


class UnknownOperator(InputError):
    """A filter names an operator that does not exist.

    Attributes:
        field: The field that was filtered.
        operator: The name that was given.
        valid: The names that would have been taken.
    """

    def __init__(self, field: str, operator: str, valid: Iterable[str]) -> None:
        self.field, self.operator, self.valid = field, operator, tuple(sorted(valid))
        super().__init__(field, operator, self.valid)

    def __str__(self) -> str:
        return f"filter on {self.field!r}: no operator {self.operator!r}; valid: {', '.join(self.valid)}"


class MissingKeyField(InputError):
    """A read did not give every field of the key template.

    Attributes:
        field: The missing field.
        template: The template that needs it.
    """

    def __init__(self, field: str, template: str) -> None:
        super().__init__(field, template)
        self.field, self.template = field, template

    def __str__(self) -> str:
        return f"template {self.template!r} needs {self.field!r}: pass {self.field}=… as one plain value"


class ValueRefused(InputError):
    """A value does not fit the type of its column.

    Attributes:
        field: The field.
        expected: What it takes, in words.
    """

    def __init__(self, field: str, expected: str, given: object) -> None:
        super().__init__(field, expected, given)
        self.field, self.expected, self.given = field, expected, given

    def __str__(self) -> str:
        try:
            shown = repr(self.given)
        except ValueError:  # Python writes no int of more than 4300 digits
            shown = "a number of very many digits"
        shown = shown if len(shown) <= 80 else shown[:77] + "…"
        return f"{self.field!r} takes {self.expected}, not {shown} ({type(self.given).__name__})"


class KeyMismatch(InputError):
    """A key field given to ``create`` differs from the row that was to be written; nothing was written.

    Attributes:
        field: The field.
        given: The value of the keyword argument.
        written: The value in the row.
    """

    def __init__(self, field: str, given: object, written: object) -> None:
        super().__init__(field, given, written)
        self.field, self.given, self.written = field, given, written

    def __str__(self) -> str:
        return (
            f"key field {self.field}={self.given!r}, but the row has {self.written!r}: "
            f"pass the row's own value, or leave {self.field} out"
        )


class OutOfRange(InputError):
    """``limit``, ``page`` or ``batch`` is below 1 or above its maximum.

    Attributes:
        field: ``"limit"``, ``"page"`` or ``"batch"``.
        given: The value.
        maximum: The largest value that is taken; the smallest is 1.
    """

    def __init__(self, field: str, given: object, maximum: int, fix: str = "") -> None:
        super().__init__(field, given, maximum, fix)
        self.field, self.given, self.maximum, self.fix = field, given, maximum, fix

    def __str__(self) -> str:
        said = f"{self.field} must be a whole number from 1 to {self.maximum}, not {self.given!r}"
        return f"{said}: {self.fix}" if self.fix else said


class OrderRefused(InputError):
    """A list cannot be ordered in this way.

    Attributes:
        field: The attribute.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(field, problem)
        self.field, self.problem = field, problem

    def __str__(self) -> str:
        return f"order_by {self.field!r}: {self.problem}"


class CursorRefused(InputError):
    """A cursor is damaged, or was given by another list; the message says which."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem

    def __str__(self) -> str:
        return f"cursor: {self.problem}; begin again without a cursor"


class EmptyInput(InputError):
    """There is nothing to write.

    Attributes:
        argument: The argument that was empty.
    """

    def __init__(self, argument: str, fix: str) -> None:
        super().__init__(argument, fix)
        self.argument, self.fix = argument, fix

    def __str__(self) -> str:
        return f"{self.argument} is empty: {self.fix}"


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """Why an item of a batch is refused.

    Attributes:
        index: Its place in the batch, from 0.
        field: The field that is wrong; ``None``: the item itself is.
        reason: What is wrong, in words.
    """

    index: int
    field: str | None
    reason: str


class BatchRefused(InputError):
    """Items of a batch are wrong. Nothing was sent, also of those that are right.

    Attributes:
        argument: The argument that has the items.
        rows: What is wrong, by index: every item that is wrong, and every field of it.
    """

    def __init__(self, argument: str, rows: Iterable[RefusedRow]) -> None:
        self.argument, self.rows = argument, tuple(rows)
        super().__init__(argument, self.rows)

    @property
    def indexes(self) -> tuple[int, ...]:
        """The places of the items that are wrong."""
        return tuple(dict.fromkeys(row.index for row in self.rows))

    def __str__(self) -> str:
        count = len(self.indexes)
        said = f"{self.argument}: {count} item{'s are' if count > 1 else ' is'} refused, and nothing was written"
        return f"{said}; {listed(f'[{row.index}] {row.reason}' for row in self.rows)}"


class UsageError(FastRDBError, TypeError):
    """An argument is the wrong kind of object. Nothing was sent."""


class SessionRefused(UsageError):
    """``db`` cannot be used here; the message says what to pass instead."""


class ReplicaRefused(SessionRefused):
    """A write, or a lock, where the session may only read: it leads to a replica, or is read-only."""


class RedisRefused(UsageError):
    """``redis`` was forgotten, or is neither a client, a Cache nor an explicit ``None``."""
