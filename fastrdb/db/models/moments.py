"""Points in time: a column type that always gives them in UTC, and the database's own clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar

from sqlalchemy import DateTime, Dialect
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator, TypeEngine


class UTCDateTime(TypeDecorator[datetime]):
    """A ``datetime`` with time zone, to the microsecond; it comes back in UTC from databases that keep no zone, too.

    One that is given without a zone counts as UTC.
    """

    __module__ = "fastrdb.db"  # where migrations, which write the type down, import it from
    impl = DateTime(timezone=True)
    cache_ok = True
    values_like: ClassVar[TypeEngine[Any]] = DateTime(timezone=True)

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Give the database's type."""
        precise = mysql.DATETIME(fsp=6) if dialect.name in ("mysql", "mariadb") else DateTime(timezone=True)
        return dialect.type_descriptor(precise)

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Bring a value to the driver."""
        if value is None:
            return None
        at = in_utc(value)
        return at if dialect.name == "postgresql" else at.replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Bring a value from the driver."""
        return None if value is None else in_utc(value)

    def coerce_compared_value(self, op: Any, value: Any) -> TypeEngine[Any]:
        """Give the type of the other side: a timedelta is none of these."""
        return self if isinstance(value, datetime) else self.impl_instance.coerce_compared_value(op, value)

    def __repr__(self) -> str:
        return "UTCDateTime()"


class utc_now(FunctionElement[datetime]):
    """The time of the database's clock, for defaults and conditions.

    PostgreSQL's is that of the transaction's begin. SQLite's is to the millisecond.
    """

    type = UTCDateTime()
    inherit_cache = True


def in_utc(at: datetime) -> datetime:
    """Give the same moment in UTC; one without a zone counts as UTC."""
    return at.replace(tzinfo=UTC) if at.utcoffset() is None else at.astimezone(UTC)


@compiles(utc_now)
def _standard(element: utc_now, compiler: Any, **_: Any) -> str:
    return "CURRENT_TIMESTAMP"


@compiles(utc_now, "postgresql")
def _postgresql(element: utc_now, compiler: Any, **_: Any) -> str:
    return "now()"


@compiles(utc_now, "mysql")
@compiles(utc_now, "mariadb")
def _mysql(element: utc_now, compiler: Any, **_: Any) -> str:
    return "(UTC_TIMESTAMP(6))"  # as a default it needs brackets, which SQLAlchemy 2.0 leaves out


@compiles(utc_now, "sqlite")
def _sqlite(element: utc_now, compiler: Any, **_: Any) -> str:
    # As SQLAlchemy writes datetimes there, so that texts compare: CURRENT_TIMESTAMP has no fraction of a second.
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"
