"""What autogenerate looks at."""

from __future__ import annotations

from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any


def include_object(
    object: Any,  # Alembic's own name for it
    name: str | None,
    type_: str,
    reflected: bool,
    compare_to: Any,
    skip_schemas: Collection[str] = (),
    skip_views: bool = True,
    skip_tables: Collection[str] = (),
    skip_indexes: Collection[str] = (),
    schema_patterns: Collection[str] = (),
) -> bool:
    """Tell whether autogenerate looks at a table, column, index or constraint.

    What belongs to a table goes with the table, and a table with its schema.

    Args:
        object, name, type_, reflected, compare_to: As Alembic passes them.
        skip_schemas: Names of schemas to leave alone.
        skip_views: Leave models alone whose table says ``info={"is_view": True}``.
        skip_tables: Names of tables to leave alone, with or without their schema.
        skip_indexes: Names of indexes to leave alone.
        schema_patterns: If given, only schemas like one of these (``"tenant_*"``), and the default one, are looked at.
    """
    table = object if type_ == "table" else getattr(object, "table", None)
    schema = name if type_ == "schema" else getattr(table, "schema", None)
    if schema is not None:
        unlike = bool(schema_patterns) and not any(fnmatchcase(schema, pattern) for pattern in schema_patterns)
        if unlike or schema in skip_schemas:
            return False
    if table is not None:
        if skip_views and table.info.get("is_view"):
            return False
        if table.name in skip_tables or table.fullname in skip_tables:
            return False
    return not (type_ == "index" and name in skip_indexes)
