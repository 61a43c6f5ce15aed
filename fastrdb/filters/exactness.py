"""Equality of texts that no collation widens: another spelling is another value."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Boolean
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement


class exactly(FunctionElement[bool]):
    """``exactly(column, value)``: equal in every character, case and trailing blanks included.

    The ordinary comparison stands beside it, for the sake of indexes. PostgreSQL's own is exact, unless the column
    says a collation.
    """

    name = "exactly"
    type = Boolean()
    inherit_cache = True


@compiles(exactly)
def _standard(element: exactly, compiler: Any, **options: Any) -> str:
    column, value = _operands(element, compiler, options)
    return f"{column} = {value}"


@compiles(exactly, "postgresql")
def _postgresql(element: exactly, compiler: Any, **options: Any) -> str:
    column, value = _operands(element, compiler, options)
    if getattr(next(iter(element.clauses)).type, "collation", None) is None:
        return f"{column} = {value}"
    return f'({column} = {value} AND {column} = {value} COLLATE "C")'


@compiles(exactly, "sqlite")
def _sqlite(element: exactly, compiler: Any, **options: Any) -> str:
    column, value = _operands(element, compiler, options)
    return f"({column} = {value} AND CAST({column} AS BLOB) = CAST({value} AS BLOB))"


@compiles(exactly, "mysql")
@compiles(exactly, "mariadb")
def _mysql(element: exactly, compiler: Any, **options: Any) -> str:
    column, value = _operands(element, compiler, options)
    column_bytes, value_bytes = (f"CAST(CONVERT({each} USING utf8mb4) AS BINARY)" for each in (column, value))
    return f"({column} = {value} AND {column_bytes} = {value_bytes})"


def _operands(element: exactly, compiler: Any, options: dict[str, Any]) -> tuple[str, str]:
    column, value = (compiler.process(each, **options) for each in element.clauses)
    return column, value
