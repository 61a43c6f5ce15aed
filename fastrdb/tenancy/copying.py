"""A schema's tables, made again in another schema: a new tenant's, from a template's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from ..errors import SchemaManagementError
from .names import checked_name, checked_schema, quoted
from .schemas import check_postgresql

_EXISTS = "SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = :schema)"
# Names that a definition does not qualify are looked up along the search path: read along that of the source, and
# sent along that of the target, a definition means the target's own tables.
_REFUSED = """
SELECT 'the function ' || proname FROM pg_proc WHERE pronamespace = to_regnamespace(:quoted)
UNION ALL SELECT 'the type ' || typname FROM pg_type
    WHERE typnamespace = to_regnamespace(:quoted) AND typtype IN ('e', 'd', 'r')
UNION ALL SELECT 'the relation ' || relname FROM pg_class
    WHERE relnamespace = to_regnamespace(:quoted)
    AND (relkind IN ('p', 'f', 'm', 'c') OR oid IN (SELECT inhrelid FROM pg_inherits WHERE relkind = 'r'))
"""
_TABLES = "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(:quoted) AND relkind = 'r' ORDER BY oid"
_SEQUENCES = """
SELECT relname, format_type(seqtypid, NULL), seqstart, seqincrement, seqmin, seqmax, seqcache, seqcycle
FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid
WHERE relnamespace = to_regnamespace(:quoted)
AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = seqrelid AND deptype = 'i')
"""
_DEFAULTS = """
SELECT relname, attname, pg_get_expr(adbin, adrelid)
FROM pg_attrdef JOIN pg_class ON pg_class.oid = adrelid
JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
WHERE relnamespace = to_regnamespace(:quoted) AND relkind = 'r' AND attgenerated = ''
AND pg_get_expr(adbin, adrelid) LIKE '%nextval(%'
"""
_OWNED = """
SELECT seq.relname, tab.relname, attname FROM pg_depend
JOIN pg_class seq ON seq.oid = objid AND seq.relkind = 'S' JOIN pg_class tab ON tab.oid = refobjid
JOIN pg_attribute ON attrelid = refobjid AND attnum = refobjsubid
WHERE classid = 'pg_class'::regclass AND refclassid = 'pg_class'::regclass AND deptype = 'a'
AND seq.relnamespace = to_regnamespace(:quoted) AND tab.relnamespace = to_regnamespace(:quoted)
"""
_COLUMNS = """
SELECT attname FROM pg_attribute WHERE attrelid = to_regclass(:table)
AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""
_IDENTITIES = """
SELECT relname, attname FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = to_regnamespace(:quoted) AND relkind = 'r' AND attidentity <> '' AND NOT attisdropped
"""
_KEYS = """
SELECT relname, conname, pg_get_constraintdef(pg_constraint.oid) FROM pg_constraint
JOIN pg_class ON pg_class.oid = conrelid
WHERE contype = 'f' AND relnamespace = to_regnamespace(:quoted) ORDER BY pg_constraint.oid
"""
_VIEWS = """
SELECT relname, pg_get_viewdef(oid), coalesce(array_to_string(reloptions, ', '), '') FROM pg_class
WHERE relnamespace = to_regnamespace(:quoted) AND relkind = 'v' ORDER BY oid
"""
_TRIGGERS = """
SELECT pg_get_triggerdef(pg_trigger.oid, true) FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid
WHERE relnamespace = to_regnamespace(:quoted) AND NOT tgisinternal ORDER BY pg_trigger.oid
"""
_SECURED = """
SELECT relname, relforcerowsecurity FROM pg_class
WHERE relnamespace = to_regnamespace(:quoted) AND relkind = 'r' AND relrowsecurity
"""
_POLICIES = """
SELECT tablename, policyname, permissive, cmd, roles::text[], qual, with_check FROM pg_policies
WHERE schemaname = :schema
"""


async def copy_schema_structure(
    session: AsyncSession, source_schema: str, target_schema: str, include_data: bool = False
) -> list[str]:
    """Make the tables of one schema again in another, and give their names; the caller commits.

    Copied are tables with their columns, defaults, keys, checks, indexes and comments; sequences, foreign keys, views,
    triggers, row-level security and its policies. Where a foreign key or a view means a table of the
    source, its copy means that of the target. Grants are not copied, and the connected role owns everything.

    Args:
        session: On PostgreSQL.
        source_schema: An existing schema.
        target_schema: A schema, made where there is none, without tables of the same names.
        include_data: Copy the rows, too; then sequences go on where the source's are.

    Raises:
        SchemaNameRefused: A name is none that a schema may have here.
        SchemaManagementError: There is no source; it has functions, types, partitions, materialized views or foreign
            tables, which are not copied (keep them in a schema that all share); or the session is on another database.
    """
    checked_name(source_schema)
    checked_schema(target_schema)
    check_postgresql(session)
    return await session.run_sync(_copy, source_schema, target_schema, include_data)


def _copy(session: Session, source: str, target: str, include_data: bool) -> list[str]:
    copy = _Copy(session.connection(), source, target)
    if not copy.ask(_EXISTS)[0][0]:
        raise SchemaManagementError(f"schema {source!r} does not exist")
    if refused := [row[0] for row in copy.ask(_REFUSED)]:
        raise SchemaManagementError(f"schema {source!r} has {refused[0]}, which is not copied; move it to a shared one")
    with copy.settings():
        return copy.run(include_data)


class _Copy:
    """One copy: definitions are read along the source's search path, and sent along the target's."""

    def __init__(self, connection: Connection, source: str, target: str) -> None:
        self._connection, self._source, self._target = connection, source, target

    def ask(self, query: str, **parameters: Any) -> list[Any]:
        """Read the catalogue, as seen from the source."""
        given = {"schema": self._source, "quoted": quoted(self._source), **parameters}
        statement = text(query)
        names = statement.compile().params
        return list(self._connection.execute(statement, {n: v for n, v in given.items() if n in names}))

    @contextmanager
    def settings(self) -> Iterator[None]:
        """Set the search path, and refuse to read fewer rows than there are; put both back at the end."""
        names = ("search_path", "row_security")
        before = [self._connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in names]
        self._set("row_security", "off")
        yield
        for name, value in zip(names, before, strict=True):
            self._set(name, value)

    def _set(self, name: str, value: str) -> None:
        self._connection.execute(text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value})

    def _send(self, *statements: str) -> None:
        for statement in statements:
            self._connection.exec_driver_sql(statement)

    def run(self, include_data: bool) -> list[str]:
        """Do it all, and give the names of the tables."""
        self._send(f"CREATE SCHEMA IF NOT EXISTS {quoted(self._target)}")
        self._set("search_path", quoted(self._source))
        tables = [row[0] for row in self.ask(_TABLES)]
        sequences, defaults, owned = self.ask(_SEQUENCES), self.ask(_DEFAULTS), self.ask(_OWNED)
        later = [*self._keys(), *self._views(), *(row[0] for row in self.ask(_TRIGGERS)), *self._security()]
        self._set("search_path", quoted(self._target))
        for name in tables:
            self._send(f"CREATE TABLE {self._to(name)} (LIKE {self._from(name)} INCLUDING ALL)")
        for name, kind, start, step, least, most, kept, cycle in sequences:
            limits = f"MINVALUE {least} MAXVALUE {most} CACHE {kept} {'CYCLE' if cycle else 'NO CYCLE'}"
            self._send(f"CREATE SEQUENCE {self._to(name)} AS {kind} START {start} INCREMENT {step} {limits}")
        for name, column, default in defaults:
            self._send(f"ALTER TABLE {self._to(name)} ALTER COLUMN {quoted(column)} SET DEFAULT {default}")
        for name, table, column in owned:
            self._send(f"ALTER SEQUENCE {self._to(name)} OWNED BY {self._to(table)}.{quoted(column)}")
        if include_data:
            self._copy_rows(tables, [row[0] for row in sequences])
        self._send(*later)
        return tables

    def _copy_rows(self, tables: list[str], sequences: list[str]) -> None:
        for name in tables:
            columns = ", ".join(quoted(row[0]) for row in self.ask(_COLUMNS, table=self._from(name)))
            if columns:
                into = f"INSERT INTO {self._to(name)} ({columns}) OVERRIDING SYSTEM VALUE"
                self._send(f"{into} SELECT {columns} FROM {self._from(name)}")
        pairs = [(self._from(name), self._to(name)) for name in sequences]
        for name, column in self.ask(_IDENTITIES):
            found = "SELECT pg_get_serial_sequence(:source, :column), pg_get_serial_sequence(:target, :column)"
            given = {"source": self._from(name), "target": self._to(name), "column": column}
            pairs.append(tuple(self.ask(found, **given)[0]))
        for from_, to in pairs:
            last = f"SELECT setval(:sequence, last_value, is_called) FROM {from_}"
            self._connection.execute(text(last), {"sequence": to})

    def _keys(self) -> list[str]:
        found = self.ask(_KEYS)
        return [f"ALTER TABLE {self._to(t)} ADD CONSTRAINT {quoted(name)} {body}" for t, name, body in found]

    def _views(self) -> list[str]:
        found = self.ask(_VIEWS)
        return [f"CREATE VIEW {self._to(n)} {f'WITH ({o}) ' if o else ''}AS {body}" for n, body, o in found]

    def _security(self) -> list[str]:
        found = []
        for table, forced in self.ask(_SECURED):
            force = "FORCE" if forced else "NO FORCE"
            found.append(f"ALTER TABLE {self._to(table)} ENABLE ROW LEVEL SECURITY, {force} ROW LEVEL SECURITY")
        for table, name, kind, command, roles, using, check in self.ask(_POLICIES):
            to = ", ".join("PUBLIC" if role == "public" else quoted(role) for role in roles)
            what = f"{f' USING ({using})' if using else ''}{f' WITH CHECK ({check})' if check else ''}"
            found.append(f"CREATE POLICY {quoted(name)} ON {self._to(table)} AS {kind} FOR {command} TO {to}{what}")
        return found

    def _from(self, name: str) -> str:
        return f"{quoted(self._source)}.{quoted(name)}"

    def _to(self, name: str) -> str:
        return f"{quoted(self._target)}.{quoted(name)}"
