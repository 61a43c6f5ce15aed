"""Which tables a statement writes, as far as it says so: no I/O."""

from __future__ import annotations

import re
from typing import Any

from sqlalchemy import DDL, Delete, Insert, MetaData, Table, TextClause, Update
from sqlalchemy.orm import FromStatement
from sqlalchemy.schema import ExecutableDDLElement
from sqlalchemy.sql import visitors
from sqlalchemy.sql.selectable import FromClause, TextualSelect

from .reach import reached_by_truncate

_ANY_CASE = re.IGNORECASE
_WORD = re.compile(r"[^\W\d]\w*")
_READING = re.compile(
    r"\s*\(?\s*(?:SELECT|WITH|VALUES|SHOW|EXPLAIN|SET|PRAGMA|SAVEPOINT|RELEASE|ROLLBACK)\b", _ANY_CASE
)
_CHANGING = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|INTO|ANALYZE)\b|;\s*\S", _ANY_CASE)
_LOCKING = re.compile(r"\bFOR\s+(?:NO\s+KEY\s+)?UPDATE\b", _ANY_CASE)
_EMPTYING = {"truncate", "cascade"}


def is_textual(statement: Any) -> bool:
    """Tell whether a statement is text, of which nobody knows what it does."""
    return isinstance(_within(statement), (TextClause, TextualSelect, DDL))


def texts_in(statement: Any) -> list[str]:
    """Give the texts among what a statement of SQLAlchemy's selects from: a CTE that is text may write."""
    return [str(each.element) for each in visitors.iterate(statement) if isinstance(each, TextualSelect)]


def tables_written(statement: Any) -> frozenset[Table]:
    """Give the tables that a statement of SQLAlchemy's writes, those of its CTEs among them; none for a SELECT."""
    if isinstance(statement, ExecutableDDLElement):
        element = getattr(statement, "element", None)
        return frozenset([element] if isinstance(element, Table) else [])
    elements = list(visitors.iterate(statement))
    changes = [element for element in elements if isinstance(element, (Insert, Update, Delete))]
    if not changes:
        return frozenset()
    found = {table for change in changes for table in _tables(change.table)}
    if any(isinstance(change, (Update, Delete)) for change in changes):
        # MariaDB changes rows of several tables in one statement.
        found |= {table for element in elements if isinstance(element, FromClause) for table in _tables(element)}
    return frozenset(found)


def reads_only(text: str) -> bool:
    """Tell whether a text certainly writes no table by itself; what functions do that it calls is not seen."""
    return _READING.match(text) is not None and _CHANGING.search(_LOCKING.sub("", text)) is None


def tables_mentioned(text: str, metadata: MetaData) -> frozenset[Table]:
    """Give the tables whose names stand in a text; all tables where none does."""
    words = {word.lower() for word in _WORD.findall(text)}
    named = {table for table in metadata.tables.values() if words.issuperset(_WORD.findall(table.name.lower()))}
    if words >= _EMPTYING:
        named |= {other for table in named for other in reached_by_truncate(table)}
    return frozenset(named or metadata.tables.values())


def _within(statement: Any) -> Any:
    return statement.element if isinstance(statement, FromStatement) else statement


def _tables(element: Any) -> list[Table]:
    return [each for each in visitors.iterate(element) if isinstance(each, Table)]
