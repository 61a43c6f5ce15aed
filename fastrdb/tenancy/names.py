"""Names of schemas and tables: checked, and quoted so that they are names whatever they contain. No I/O."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from sqlalchemy import Table, inspect
from sqlalchemy.orm import Mapper

from ..errors import RLSError, SchemaNameRefused

TenantId: TypeAlias = str | int | UUID
TableName: TypeAlias = "str | Table | type[Any]"
"""``"table"`` or ``"schema.table"``, a Table, or a mapped class."""

DEFAULT_PREFIX = "tenant_"

_LONGEST = 63  # bytes; PostgreSQL cuts longer names off, so that two tenants could become one
_TAKEN = frozenset({"public", "information_schema"})


class Relation(NamedTuple):
    """A table by its schema, if one is named, and its name."""

    schema: str | None
    name: str

    @classmethod
    def of(cls, table: TableName) -> Relation:
        """Give the relation that is meant.

        Raises:
            RLSError: It is neither a name, nor a Table, nor a mapped class.
        """
        if isinstance(table, Table):
            return cls(table.schema, table.name)
        if isinstance(table, str):
            schema, _, name = table.rpartition(".")
            return cls(schema or None, name)
        mapper = inspect(table, raiseerr=False)
        if isinstance(mapper, Mapper) and isinstance(mapper.local_table, Table):
            return cls(mapper.local_table.schema, mapper.local_table.name)
        raise RLSError(f"table: {type(table).__name__}; pass a name, a Table or a mapped class")

    @property
    def quoted(self) -> str:
        """The name as SQL."""
        return quoted(self.name) if self.schema is None else f"{quoted(self.schema)}.{quoted(self.name)}"


def quoted(name: str) -> str:
    """Give a name as SQL, in quotes: case and every character are kept."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """Give text as a literal of SQL."""
    escaped = text.replace("'", "''")
    return " E'" + escaped.replace("\\", "\\\\") + "'" if "\\" in escaped else f"'{escaped}'"


def tenant_schema(tenant_id: TenantId, schema_prefix: str = DEFAULT_PREFIX) -> str:
    """Give the name of a tenant's schema: the prefix and the id, as they are.

    Raises:
        SchemaNameRefused: As for ``checked_schema``, or the id is empty, or no text, whole number or UUID.
    """
    if isinstance(tenant_id, bool) or not isinstance(tenant_id, (str, int, UUID)):
        raise SchemaNameRefused(repr(tenant_id), "a tenant's id is text, a whole number or a UUID")
    if not str(tenant_id):
        raise SchemaNameRefused(schema_prefix, "the tenant's id is empty")
    return checked_schema(f"{schema_prefix}{tenant_id}")


def checked_schema(name: str) -> str:
    """Give the name of a schema that may be a tenant's.

    Raises:
        SchemaNameRefused: It has characters besides letters and digits of any script, ``_`` and ``-``; has more than
            63 bytes; or is PostgreSQL's own, or ``public``.
    """
    checked_name(name)
    if name.lower() in _TAKEN or name.lower().startswith("pg_"):
        raise SchemaNameRefused(name, "is no tenant's; use another prefix")
    return name


def checked_name(name: str) -> str:
    """Give the name of any schema, ``public`` among them.

    Raises:
        SchemaNameRefused: As for ``checked_schema``.
    """
    if not isinstance(name, str):
        raise SchemaNameRefused(repr(name), "a name is text")
    wrong = [letter for letter in name if not (letter.isalnum() or letter in "_-")]
    if wrong or not name:
        fix = f"leave {wrong[0]!r} out" if wrong else "is empty"
        raise SchemaNameRefused(name, f"{fix}; letters, digits, _ and - are taken")
    if len(name.encode()) > _LONGEST:
        raise SchemaNameRefused(name, f"has {len(name.encode())} bytes; PostgreSQL keeps {_LONGEST}")
    return name
