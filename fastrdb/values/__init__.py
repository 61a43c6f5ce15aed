"""The values of a column: brought to its Python type, and written as canonical text.

Two values that the database takes for equal have one text, two that differ have two, whatever process writes
them: keys and filters stand on that. Where a type's notion of equality is wider than Python's (collations,
padding, rounding), texts stay apart, and ``exact`` is false.
"""

from fastrdb.values.column import ColumnValues, column_values
from fastrdb.values.kind import Category

__all__ = ["Category", "ColumnValues", "column_values"]
