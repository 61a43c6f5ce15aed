"""Which other tables a write changes through foreign keys."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import ForeignKeyConstraint, Table
from sqlalchemy.exc import NoReferencedTableError

_CHANGING = {"CASCADE", "SET NULL", "SET DEFAULT"}


def reached_by_delete(table: Table) -> set[Table]:
    """Give the tables that lose or change rows when a row of *table* is deleted, transitively."""
    return _reached(table, {column.name for column in table.columns}, deleted=True)


def reached_by_update(table: Table, columns: Iterable[str]) -> set[Table]:
    """Give the tables whose rows follow a change of the named columns, transitively."""
    return _reached(table, set(columns), deleted=False)


def reached_by_any_write(table: Table) -> set[Table]:
    """Give the tables that some write of *table* may change."""
    return reached_by_delete(table) | reached_by_update(table, [column.name for column in table.columns])


def reached_by_truncate(table: Table) -> set[Table]:
    """Give the tables that ``TRUNCATE … CASCADE`` empties along with *table*: whatever refers to it, transitively."""
    found: set[Table] = set()
    todo = [table]
    while todo:
        source = todo.pop()
        others = {
            other
            for other in source.metadata.tables.values()
            if any(_refers(key, source) for key in other.foreign_key_constraints)
        }
        todo += others - found
        found |= others
    return found


def _refers(key: ForeignKeyConstraint, table: Table) -> bool:
    try:
        return key.referred_table is table
    except NoReferencedTableError:  # to a table that this metadata does not have, so not to one that is written
        return False


def _reached(table: Table, columns: set[str], *, deleted: bool) -> set[Table]:
    found: set[Table] = set()
    todo = [(table, columns, deleted)]
    seen = set()
    while todo:
        source, changed, gone = todo.pop()
        for other in source.metadata.tables.values():
            for key in other.foreign_key_constraints:
                rule = (key.ondelete if gone else key.onupdate) or ""
                if rule.upper() not in _CHANGING or not _refers(key, source):
                    continue
                if not changed & {element.column.name for element in key.elements}:
                    continue
                found.add(other)
                follows = gone and rule.upper() == "CASCADE"
                if (key, follows) not in seen:
                    seen.add((key, follows))
                    local = {column.name for column in (other.columns if follows else key.columns)}
                    todo.append((other, local, follows))
    return found
