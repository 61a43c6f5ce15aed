"""Keys that sort by time."""

from __future__ import annotations

import uuid
from typing import Any

from sqlalchemy import ColumnDefault, Table
from sqlalchemy.orm import Mapped, mapped_column

from .guid import GUID, uuid7
from .mapping import Mapping


class SortableKeyMixin(Mapping):
    """``id`` is a UUID of version 7: rows sort by it as they were made, and indexes grow at one end.

    Beside ``BaseModel``, in either order, or on a base without ``id``. Who sees such a key sees when its row was made.
    """

    id: Mapped[uuid.UUID] = mapped_column(GUID(), primary_key=True, default=uuid7, sort_order=-1)

    @classmethod
    def _complete_table(cls, table: Table) -> None:
        super()._complete_table(table)
        default: Any = ColumnDefault(uuid7)  # BaseModel's own column may have come first
        default._set_parent_with_dispatch(table.c.id)
