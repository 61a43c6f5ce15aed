"""Keyword filters, as SQL that is built once per shape; and what a SQL expression of a caller reads.

``age=18`` is equality, ``None`` is ``IS NULL``, a list is ``IN``, a dict is operators that must all hold. NULL is
as in SQL: ``!=``, ``not_in``, ``not_like`` and ``not_ilike`` do not find rows without a value; ``is_not`` does.
Whether ``like`` ignores case is the database's affair (SQLite does, for ASCII; MariaDB by its
collation); ``ilike`` always does.
"""

from fastrdb.filters.analysis import Analysis, analyse, check_one_row, reads_other_rows
from fastrdb.filters.conditions import Filter, unrounded
from fastrdb.filters.fields import MAX_HOPS, FieldSet, Related
from fastrdb.filters.operators import MAX_VALUES, OPERATORS
from fastrdb.filters.parsing import parse
from fastrdb.filters.searching import searched

__all__ = [
    "MAX_HOPS",
    "MAX_VALUES",
    "OPERATORS",
    "Analysis",
    "FieldSet",
    "Filter",
    "Related",
    "analyse",
    "check_one_row",
    "parse",
    "reads_other_rows",
    "searched",
    "unrounded",
]
