"""UUIDs as keys: a column type, and keys that sort by time."""

from __future__ import annotations

import os
import time
import uuid
from typing import Any, ClassVar

from sqlalchemy import CHAR, Dialect, Uuid
from sqlalchemy.types import TypeDecorator, TypeEngine

_MS = 1_000_000  # in nanoseconds


class GUID(TypeDecorator[uuid.UUID]):
    """A ``uuid.UUID``: PostgreSQL's own type, elsewhere CHAR(36) in the usual form; text is taken, too."""

    __module__ = "fastrdb.db"  # where migrations, which write the type down, import it from
    impl = CHAR(36)
    cache_ok = True
    values_like: ClassVar[TypeEngine[Any]] = Uuid()

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        """Give the database's type."""
        return dialect.type_descriptor(Uuid() if dialect.name == "postgresql" else CHAR(36))

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        """Bring a value to the driver."""
        if value is None:
            return None
        key = value if isinstance(value, uuid.UUID) else uuid.UUID(str(value))
        return key if dialect.name == "postgresql" else str(key)

    def process_result_value(self, value: Any, dialect: Dialect) -> uuid.UUID | None:
        """Bring a value from the driver."""
        return value if value is None or isinstance(value, uuid.UUID) else uuid.UUID(value)

    def __repr__(self) -> str:
        return "GUID()"


def uuid7() -> uuid.UUID:
    """Give a UUID that sorts, as text, bytes and number, after those made earlier; 62 bits are random.

    Two that one process makes within 245 ns of each other, or across a step back of the clock, may sort either way.

    Source: RFC 9562, section 5.7, with the fraction of the millisecond in ``rand_a`` (section 6.2, method 3).
    """
    milliseconds, rest = divmod(time.time_ns(), _MS)
    fraction = rest * 4096 // _MS
    random = int.from_bytes(os.urandom(8), "big") & (1 << 62) - 1
    return uuid.UUID(int=(milliseconds & (1 << 48) - 1) << 80 | 0x7 << 76 | fraction << 64 | 0b10 << 62 | random)
