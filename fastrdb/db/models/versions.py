"""Rows that know how often they were written."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Integer, Table
from sqlalchemy.orm import Mapped, mapped_column

from .mapping import Mapping


class VersionedMixin(Mapping):
    """A write that has not seen the last one is refused.

    Each UPDATE raises the version by one. One by the ORM raises ``sqlalchemy.orm.exc.StaleDataError`` where the row has
    another version than the instance; ``Crud.update`` and ``Crud.delete`` raise ``Conflict``, which is one, where it
    has another than the caller says.

    Attributes:
        version: 1 at first.
    """

    version: Mapped[int] = mapped_column(Integer(), default=1, server_default="1", nullable=False)

    def increment_version(self) -> None:
        """Raise the version by one with the next flush, though nothing else of the row may have changed."""
        self.version = (self.version or 0) + 1

    @classmethod
    def _complete_mapper(cls, table: Any, options: dict[str, Any]) -> None:
        super()._complete_mapper(table, options)
        if "inherits" not in options and isinstance(table, Table) and "version" in table.c:
            options.setdefault("version_id_col", table.c.version)
