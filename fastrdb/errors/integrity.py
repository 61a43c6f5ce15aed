"""The database's own refusals."""

from __future__ import annotations

from typing import Any

from sqlalchemy import exc as sa

from .arguments import ValidationError


class IntegrityViolation(ValidationError, sa.IntegrityError):
    """The database refused a write because of a constraint; nothing was written.

    Attributes:
        constraint: The constraint's name, or the columns where the driver names no constraint; may be ``None``.
        orig: The driver's error.
    """

    def __init__(self, constraint: str | None, source: sa.DBAPIError) -> None:
        super().__init__(source.statement, None, source.orig or source, hide_parameters=True)
        self.constraint, self.source = constraint, source

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.constraint, self.source)

    def __str__(self) -> str:
        return f"{self._what} {self.constraint or '(the driver names none)'}; nothing was written"

    _what = "the row violates the constraint"


class UniqueViolation(IntegrityViolation):
    """Another row has this key already."""

    _what = "another row already has this value: unique constraint"


class ForeignKeyViolation(IntegrityViolation):
    """The row refers to one that does not exist, or is referred to by one that does."""

    _what = "a row that is referred to is missing, or is still referred to: foreign key"


class NotNullViolation(IntegrityViolation):
    """A column that may not be NULL got no value."""

    _what = "a value is missing: not-null column"


class CheckViolation(IntegrityViolation):
    """The row does not satisfy a CHECK constraint."""

    _what = "the row does not satisfy the check"
