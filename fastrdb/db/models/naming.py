"""Names of tables, constraints and indexes: the same on every database, so that migrations can drop what they made."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKeyConstraint,
    Index,
    PrimaryKeyConstraint,
    Table,
    UniqueConstraint,
)

MAX_BYTES = 63  # of a PostgreSQL identifier; it cuts longer ones silently
_HASH = 8

_ACRONYM = re.compile(r"([A-Z]+)([A-Z][a-z])")
_WORD = re.compile(r"([a-z0-9])([A-Z])")


def create_index_name(table: str, *columns: str | Iterable[str]) -> str:
    """Give the name of an index, ``idx_orders_owner_id_day``: 63 bytes at most, cut with a hash at its end.

    Args:
        table: Name of the table.
        *columns: Names of the columns, one by one or as lists.
    """
    return _fitted("idx", table, *_flat(columns))


def create_unique_constraint_name(table: str, *columns: str | Iterable[str]) -> str:
    """Give the name of a unique constraint, ``uq_users_email``; arguments as for ``create_index_name``."""
    return _fitted("uq", table, *_flat(columns))


def create_foreign_key_name(table: str, columns: str | Iterable[str], referred_table: str, *_: str) -> str:
    """Give the name of a foreign key, ``fk_orders_owner_id_users``; names of referred columns may follow, unused."""
    return _fitted("fk", table, *_flat([columns]), referred_table)


def create_check_constraint_name(table: str, condition: str) -> str:
    """Give the name of a CHECK, ``ck_orders_total_positive``; *condition* is a word for what it demands."""
    return _fitted("ck", table, condition)


def snake_case(name: str) -> str:
    """Give ``http_request_log`` for ``HTTPRequestLog``."""
    return _WORD.sub(r"\1_\2", _ACRONYM.sub(r"\1_\2", name)).lower()


def _flat(names: Iterable[str | Iterable[str]]) -> list[str]:
    return [part for each in names for part in ([each] if isinstance(each, str) else each)]


def _fitted(*parts: str) -> str:
    name = "_".join(parts)
    raw = name.encode()
    if len(raw) <= MAX_BYTES:
        return name
    kept = raw[: MAX_BYTES - _HASH - 1].decode(errors="ignore").rstrip("_")
    return f"{kept}_{blake2b(raw, digest_size=_HASH // 2).hexdigest()}"


# -- SQLAlchemy's convention, whose own templates know no limit of bytes and no CHECK without a name


def _index(index: Index, table: Table) -> str:
    return create_index_name(table.name, [_word(each, table) for each in index.expressions])


def _word(expression: Any, table: Table) -> str:
    """Give a column's name, or what is left of an expression's text: ``lower_email`` of ``lower(users.email)``."""
    if isinstance(expression, Column):
        return expression.name
    return re.sub(r"\W+", "_", str(expression).replace(f"{table.name}.", "")).strip("_").lower()


def _unique(constraint: UniqueConstraint, table: Table) -> str:
    return create_unique_constraint_name(table.name, [column.name for column in constraint.columns])


def _foreign_key(constraint: ForeignKeyConstraint, table: Table) -> str:
    *_, referred = constraint.elements[0].target_fullname.split(".")[:-1] or [constraint.elements[0].target_fullname]
    return create_foreign_key_name(table.name, [column.name for column in constraint.columns], referred)


def _primary_key(_: PrimaryKeyConstraint, table: Table) -> str:
    return _fitted("pk", table.name)


def _check(constraint: CheckConstraint, table: Table) -> str:
    name = constraint.name
    if not isinstance(name, str):
        text = re.sub(r"\s+", " ", str(constraint.sqltext))
        return create_check_constraint_name(table.name, blake2b(text.encode(), digest_size=4).hexdigest())
    return name if name.startswith(f"ck_{table.name}_") else create_check_constraint_name(table.name, name)


_TOKENS: dict[str, Callable[[Any, Table], str]] = {
    "fitted_index": _index,
    "fitted_unique": _unique,
    "fitted_foreign_key": _foreign_key,
    "fitted_primary_key": _primary_key,
    "fitted_constraint_name": _check,  # SQLAlchemy asks the convention about named CHECKs only for "constraint_name"
}


def naming_convention() -> dict[str, Any]:
    """Give what ``MetaData(naming_convention=…)`` takes: the names above for whatever is given none.

    A CHECK that is named ``total_positive`` becomes ``ck_orders_total_positive``; one without a name is named by the
    hash of its text.
    """
    patterns = {
        "ix": "%(fitted_index)s",
        "uq": "%(fitted_unique)s",
        "fk": "%(fitted_foreign_key)s",
        "pk": "%(fitted_primary_key)s",
        "ck": "%(fitted_constraint_name)s",
    }
    return {**_TOKENS, **patterns}
