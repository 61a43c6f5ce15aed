"""When a row was made, and when it was last changed."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.orm import Mapped, MappedColumn, mapped_column

from .mapping import Mapping
from .moments import UTCDateTime, in_utc, utc_now

_LAST = 100  # these columns come after the model's own


def created_at_column() -> MappedColumn[datetime]:
    """Give a column that the database sets on INSERT."""
    return mapped_column(UTCDateTime(), server_default=utc_now(), nullable=False, index=True, sort_order=_LAST)


def updated_at_column() -> MappedColumn[datetime]:
    """Give a column that the database sets on INSERT and on every UPDATE that does not name it."""
    return mapped_column(
        UTCDateTime(), server_default=utc_now(), onupdate=utc_now(), nullable=False, index=True, sort_order=_LAST
    )


class TimestampMixin(Mapping):
    """``created_at`` and ``updated_at``, as in ``BaseModel``, for models on another base."""

    created_at: Mapped[datetime] = created_at_column()
    updated_at: Mapped[datetime] = updated_at_column()

    def touch(self, ts: datetime | None = None) -> None:
        """Set ``updated_at``, to now by this process's clock where no time is given."""
        self.updated_at = datetime.now(UTC) if ts is None else in_utc(ts)
