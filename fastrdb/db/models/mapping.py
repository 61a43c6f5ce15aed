"""How classes become tables: what a base, and each mixin, adds to a table and its mapper once the columns are known.

``__table_args__`` and ``__mapper_args__`` of several mixins hide each other, and the model's own hide them all. What
stands here is called for every class in turn, whatever their order, and on any declarative base.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import CheckConstraint, Column, Index, MetaData, Table
from sqlalchemy.orm import Mapper
from sqlalchemy.schema import conv

from .naming import create_check_constraint_name, create_index_name


class Mapping:
    """The root of the bases and the column mixins."""

    @classmethod
    def __table_cls__(cls, name: str, metadata: MetaData, *items: Any, **options: Any) -> Table:
        table = Table(cls._table_name(name), metadata, *items, **options)
        cls._complete_table(table)
        return table

    @classmethod
    def __mapper_cls__(cls, mapped: type[Any], table: Any, **options: Any) -> Mapper[Any]:
        # RETURNING brings what the database sets: read later, it would need I/O that attributes of an async session
        # cannot do.
        options.setdefault("eager_defaults", True)
        cls._complete_mapper(table, options)
        return Mapper(mapped, table, **options)

    @classmethod
    def _table_name(cls, name: str) -> str:
        return name

    @classmethod
    def _complete_table(cls, table: Table) -> None:
        """Add to a new table; an override calls ``super()``."""

    @classmethod
    def _complete_mapper(cls, table: Any, options: dict[str, Any]) -> None:
        """Add to a mapper's options; an override calls ``super()``."""


def columns_of(table: Table, *names: str) -> list[Column[Any]] | None:
    """Give the columns of these names; ``None`` where the table lacks one, as that of a joined subclass does."""
    found = {column.name: column for column in table.columns}
    return [found[name] for name in names] if found.keys() >= set(names) else None


def add_index(table: Table, *names: str) -> None:
    """Add an index over these columns, where the table has them all."""
    columns = columns_of(table, *names)
    if columns is not None:
        Index(create_index_name(table.name, *names), *columns)


def add_check(table: Table, word: str, condition: Any) -> None:
    """Add a CHECK."""
    table.append_constraint(CheckConstraint(condition, name=conv(create_check_constraint_name(table.name, word))))
