"""What the harness reads and writes: somebody's crud, and how to use it at random."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, TypeAlias

from pydantic import BaseModel
from sqlalchemy import Table
from sqlalchemy import inspect as inspect_mapped

from fastrdb.crud.crud import Crud

Fields: TypeAlias = Mapping[str, Any]
AnyCrud: TypeAlias = Crud[Any, Any, Any, Any]


@dataclass(frozen=True, slots=True)
class Row:
    """``get_or_none(**fields)``: the fields of a row template; further ones filter."""

    fields: Fields


@dataclass(frozen=True, slots=True)
class Page:
    """``get_multi(limit=…, page=…, order_by=…, ascending=…, **fields)``.

    ``order_by`` names a column of numbers without NULLs: the harness sorts the truth itself.
    """

    limit: int
    page: int = 1
    order_by: str | None = None
    ascending: bool = True
    fields: Fields = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Count:
    """``count(**fields)``."""

    fields: Fields = field(default_factory=dict)


Read: TypeAlias = Row | Page | Count


@dataclass(frozen=True, slots=True)
class Subject:
    """A crud over a small table with one primary key column, and how the harness uses it.

    All random choices are taken from the ``Random`` that the functions are given, so that a seed repeats them.

    Attributes:
        crud: The crud. Its responses show the primary key and the mark.
        ids: The primary keys that are created, changed and deleted: few, so that they are hot. Other rows of the table
            are read with them in lists and counts, and cost time.
        mark: Name of an integer or text column that tells any two writes of a row apart. It is the harness's: each
            write puts in it what it is given.
        create: Gives the create schema of a row with this primary key and this mark.
        change: Gives an update schema with this mark; what else it changes, sometimes key fields, is up to it.
        read: Gives a read. Its fields are compared by equality, with columns that JSON shows as they are: whole
            numbers, text, bool.
    """

    crud: AnyCrud
    ids: Sequence[Any]
    mark: str
    create: Callable[[Random, Any, int], BaseModel]
    change: Callable[[Random, int], BaseModel]
    read: Callable[[Random], Read]

    @property
    def table(self) -> Table:
        """The table."""
        table = inspect_mapped(self.crud.model).local_table
        assert isinstance(table, Table)
        return table

    @property
    def primary_key(self) -> str:
        """The attribute of the primary key."""
        mapper = inspect_mapped(self.crud.model)
        (column,) = mapper.primary_key
        return str(mapper.get_property_by_column(column).key)

    def column(self, attribute: str) -> str:
        """Give the name of an attribute's column."""
        return str(inspect_mapped(self.crud.model).columns[attribute].name)
