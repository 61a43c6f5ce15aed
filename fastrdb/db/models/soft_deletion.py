"""Rows that are deleted by being marked so."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import Boolean, ColumnElement, Table, true
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import Mapped, mapped_column

from .mapping import Mapping, add_check, add_index, columns_of
from .moments import UTCDateTime, in_utc


class SoftDeleteMixin(Mapping):
    """A row keeps its place, and says that it is deleted.

    The database checks that the two columns agree: a row is active, or it has a time at which it was deleted.

    Attributes:
        is_active: Not deleted.
        deleted_at: When it was; in UTC, or ``None``.
    """

    is_active: Mapped[bool] = mapped_column(Boolean(), default=True, server_default=true(), nullable=False)
    deleted_at: Mapped[datetime | None] = mapped_column(UTCDateTime())

    @hybrid_property
    def is_deleted(self) -> bool:
        """Whether it is deleted; in a statement, the condition."""
        return self.deleted_at is not None

    @is_deleted.inplace.expression
    @classmethod
    def _is_deleted(cls) -> ColumnElement[bool]:
        return cls.deleted_at.is_not(None)

    def soft_delete(self, ts: datetime | None = None) -> None:
        """Mark the row deleted, at *ts* or now by this process's clock; one without a zone counts as UTC."""
        self.deleted_at = datetime.now(UTC) if ts is None else in_utc(ts)
        self.is_active = False

    def restore(self) -> None:
        """Take the mark back."""
        self.deleted_at, self.is_active = None, True

    @classmethod
    def active_only(cls) -> ColumnElement[bool]:
        """Give the condition that a row is not deleted: ``select(Note).where(Note.active_only())``."""
        return cls.deleted_at.is_(None)

    @classmethod
    def deleted_only(cls) -> ColumnElement[bool]:
        """Give the condition that a row is deleted."""
        return cls.deleted_at.is_not(None)

    @classmethod
    def include_deleted(cls) -> ColumnElement[bool]:
        """Give the condition that every row satisfies."""
        return true()

    @classmethod
    def _complete_table(cls, table: Table) -> None:
        super()._complete_table(table)
        columns = columns_of(table, "is_active", "deleted_at")
        if columns is not None:
            active, deleted = columns
            add_check(table, "soft_delete", active == deleted.is_(None))
            add_index(table, "is_active", "deleted_at")
