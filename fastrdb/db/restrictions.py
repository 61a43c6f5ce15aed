"""Which tables do not show all of their rows to the role that an engine connects as: row-level security."""

from __future__ import annotations

import re
from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, NamedTuple

from sqlalchemy import Executable, literal_column, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session

from .sessions import SessionFactory, connections_of

# Views run with the rights of their owner: one that reads a table under row-level security counts as under it itself.
_HIDING = """
WITH RECURSIVE reading(oid) AS (
    SELECT oid FROM pg_class WHERE relrowsecurity
    UNION
    SELECT rule.ev_class FROM reading
    JOIN pg_depend link ON link.refclassid = 'pg_class'::regclass AND link.refobjid = reading.oid
    JOIN pg_rewrite rule ON link.classid = 'pg_rewrite'::regclass AND rule.oid = link.objid
)
SELECT array_agg(ARRAY[space.nspname::text, relation.relname::text])
FROM reading JOIN pg_class relation ON relation.oid = reading.oid
JOIN pg_namespace space ON space.oid = relation.relnamespace
WHERE relation.relkind IN ('v', 'm') OR row_security_active(relation.oid)
"""
# A SELECT of SQLAlchemy's: textual SQL would count as a write of the transaction that it is sent in.
_ASKING: Executable = select(
    literal_column("current_user::text"),
    # Not the path of the moment: the session that asks may have set another one, for itself.
    literal_column("(SELECT reset_val FROM pg_settings WHERE name = 'search_path')"),
    literal_column("to_regnamespace(quote_ident(current_user)) IS NOT NULL"),
    literal_column(f"({_HIDING})"),
)
_USUAL_PATH = '"$user", public'
_SIMPLE_PATH = re.compile(r'[\w$" ,-]*')


class Restrictions(NamedTuple):
    """What one role is not shown whole.

    Attributes:
        role: The role.
        path: The search path that its connections have from the start; empty: the usual one, which means ``public``.
        tables: Names, with a schema and, where that path may find them, without.
        unqualified: All of their names, without schemas.
    """

    role: str
    path: str
    tables: frozenset[str]
    unqualified: frozenset[str]

    def concern(self, tables: Iterable[str], *, translated: bool) -> bool:
        """Tell whether one of these tables hides rows.

        Args:
            tables: Their full names in the metadata.
            translated: A schema_translate_map may send them to any schema.
        """
        if translated:
            return any(name.rpartition(".")[2] in self.unqualified for name in tables)
        return not self.tables.isdisjoint(tables)


async def ask(db: AsyncSession | SessionFactory, mapper: Mapper[Any]) -> Restrictions:
    """Ask the database, in the session's open transaction or in one of its own, which ends with the question."""
    given: AbstractAsyncContextManager[AsyncSession] = nullcontext(db) if isinstance(db, AsyncSession) else db()
    async with given as session:
        return await session.run_sync(_ask, mapper)


def _ask(session: Session, mapper: Mapper[Any]) -> Restrictions:
    for connection in connections_of(session):
        if connection.engine is session.get_bind(mapper).engine:
            return _read(connection.execute(_ASKING).one())
    # Not the session's own: it would begin a transaction, which the caller did not ask for.
    with session.get_bind(mapper).engine.connect() as connection:
        return _read(connection.execute(_ASKING).one())


def _read(row: Any) -> Restrictions:
    role: str = row[0]
    path: str = row[1]
    relations: list[list[str]] = row[3] or []
    schemas = {part.strip(' "').replace("$user", role) for part in path.split(",")}
    anywhere = _SIMPLE_PATH.fullmatch(path) is None
    qualified = {f"{schema}.{name}" for schema, name in relations}
    found = {name for schema, name in relations if anywhere or schema in schemas}
    own = f" of {role}" if row[2] else ""  # the role has a schema of its name
    shown = "" if path == _USUAL_PATH and not own else path + own
    return Restrictions(role, shown, frozenset(qualified | found), frozenset(name for _, name in relations))
