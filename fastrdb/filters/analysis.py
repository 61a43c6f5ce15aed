"""What a SQL expression of a caller reads, and whether its result may be kept."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.engine import Dialect
from sqlalchemy.engine.default import StrCompileDialect
from sqlalchemy.exc import ArgumentError, CompileError
from sqlalchemy.sql import functions, operators, visitors
from sqlalchemy.sql.compiler import StrSQLCompiler
from sqlalchemy.sql.dml import UpdateBase
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.selectable import AliasedReturnsRows, SelectBase, TableSample, TextualSelect

from fastrdb.errors import InputError, ValueRefused
from fastrdb.values import column_values

# Functions whose result depends on their arguments alone, on every database that has them.
PURE = frozenset(
    re.findall(
        r"\w+",
        """
        abs ascii avg bit_length btrim cardinality ceil ceiling char_length character_length chr
        coalesce concat concat_ws count exp floor greatest ifnull initcap instr json_array_length
        json_extract jsonb_array_length least left length ln log log10 log2 lower lpad ltrim max md5 min
        mod nullif octet_length overlay position power repeat replace reverse right round rpad rtrim
        sign split_part sqrt strpos substr substring sum translate trim trunc upper
        """,
    )
)
_OPERATOR = re.compile(r"[-+*/<>=~!@#%^&|?.]+|(not )?(similar to|regexp|rlike|glob)", re.IGNORECASE)
_NUMBER = re.compile(r"\d+|\*")  # what SQLAlchemy itself writes: EXISTS (SELECT 1 …), count(*)
_KNOWN_MODULES = ("sqlalchemy.", "sqlmodel.")
_ANY_VALUE = column_values("where", sa.types.NullType())


class Analysis(NamedTuple):
    """What an expression reads.

    Attributes:
        tables: Names, with the schema where there is one, of every table that it reads, in subqueries too.
        text: Its SQL and its values, the same for equal expressions in every process; empty if uncacheable.
        uncacheable: Why its result may change while the tables do not, or ``None``.
        subquery: There is a SELECT in it, or an alias of a table.
    """

    tables: frozenset[str]
    text: str
    uncacheable: str | None
    subquery: bool = False


def analyse(expression: sa.ColumnElement[bool], dialect: Dialect) -> Analysis:
    """Find out what a condition reads.

    Args:
        expression: What a caller gave as ``where=``.
        dialect: Writes the text; it need not be that of the database.

    Raises:
        InputError: It is no SQL expression, or has a parameter without a value.
    """
    clause = _clause(expression)
    tables: set[str] = set()
    problem: str | None = None
    subquery = False
    for element in _elements(clause):
        if isinstance(element, sa.TableClause):
            tables.add(element.fullname)
        subquery = subquery or isinstance(element, (SelectBase, AliasedReturnsRows))
        problem = problem or _problem(element)
    text = "" if problem else _text(clause, dialect)
    if text is None:
        problem = "its SQL or its values have no text of their own"
    return Analysis(frozenset(tables), text or "", problem, subquery)


class _Froms(StrSQLCompiler):
    """Notes the name of each table that stands in a FROM, as often as it does."""

    def visit_table(self, table: Any, *arguments: Any, **options: Any) -> Any:
        """Write a table."""
        if options.get("asfrom"):
            vars(self).setdefault("froms", []).append(table.fullname)
        return super().visit_table(table, *arguments, **options)  # type: ignore[no-untyped-call]


class _FromsDialect(StrCompileDialect):
    statement_compiler = _Froms


def reads_other_rows(expression: sa.ColumnElement[Any], table: sa.Table) -> bool:
    """Tell whether an expression about a row of a table also reads other rows of it, in a subquery.

    SQLAlchemy's own compiler decides: a table that it correlates with the row outside is not read again.
    """
    compiled: Any = sa.select(expression).select_from(table).compile(dialect=_FromsDialect())
    return bool(compiled.froms.count(table.fullname) > 1)


def check_one_row(expression: sa.ColumnElement[Any], table: sa.Table) -> None:
    """Refuse a condition that is not about one row of a table: it would be paired with all rows of another one.

    Raises:
        InputError: The condition reads another table, or an alias, outside of a subquery.
    """
    froms = sa.select(sa.literal(1)).select_from(table).where(expression).get_final_froms()
    others = [each for each in froms if each is not table]
    if others:
        named = ", ".join(sorted(map(_name, others)))
        raise InputError(
            f"where= reads {named} without a subquery, so that each row would meet all of theirs; use exists(), "
            "any() or has() of a relationship, or in_(select(...))"
        )


def _name(source: Any) -> str:
    table = source.element if isinstance(source, AliasedReturnsRows) else source
    name = str(getattr(table, "fullname", None) or type(table).__name__)
    return name if table is source else f"an alias of {name}"


def _clause(expression: Any) -> ClauseElement:
    if not isinstance(expression, ClauseElement) and not hasattr(expression, "__clause_element__"):
        hint = "; write the comparison between columns of the model" if isinstance(expression, bool) else ""
        raise InputError(f"where= takes a SQL expression such as User.age > 18, not {expression!r}{hint}")
    whole = isinstance(expression, (SelectBase, sa.FromClause, UpdateBase))
    if whole and not isinstance(expression, functions.FunctionElement):  # which SQLAlchemy could also select from
        raise InputError(f"where= takes a condition, not a whole {type(expression).__name__}: use .exists() or in_()")
    try:
        return sa.and_(cast("sa.ColumnElement[bool]", expression))
    except ArgumentError as error:
        raise InputError(f"where= takes a SQL expression: {error}") from error


def _elements(clause: ClauseElement) -> Iterator[visitors.ExternallyTraversible]:
    """Give every part of an expression once, with the tables of its columns and the joins of its SELECTs."""
    seen: dict[int, Any] = {}  # keeps the parts alive: an id is one part's only as long as it lives
    waiting: list[visitors.ExternallyTraversible] = [clause]
    while waiting:
        element = waiting.pop()
        if id(element) in seen:
            continue
        seen[id(element)] = element
        yield element
        if isinstance(element, sa.ColumnClause) and element.table is not None:
            waiting.append(element.table)
        elif not isinstance(element, sa.TableClause):  # its columns and their defaults are not read
            waiting.extend(element.get_children())
        if isinstance(element, sa.Select):  # where joins along relationships are written out
            waiting.extend(element.get_final_froms())


def _text(clause: ClauseElement, dialect: Dialect) -> str | None:
    try:
        compiled = clause.compile(dialect=dialect)
        values = {name: _ANY_VALUE.text(value) for name, value in (compiled.params or {}).items()}
    except (CompileError, ValueRefused):
        return None
    return json.dumps([str(compiled), values], sort_keys=True)


def _problem(element: visitors.ExternallyTraversible) -> str | None:
    """Say why a result that depends on this part may not be kept."""
    class_ = type(element)
    if not _is_sqlalchemys_own(class_):
        return f"{class_.__name__} writes SQL of its own"
    if isinstance(element, sa.BindParameter):
        return _parameter_problem(element)
    if isinstance(element, functions.FunctionElement):
        return _function_problem(element)
    if isinstance(element, (sa.BinaryExpression, sa.UnaryExpression)):
        return _operator_problem(element)
    if isinstance(element, (sa.TextClause, TextualSelect)):
        return "text() hides what it reads"
    if isinstance(element, sa.ColumnClause) and element.is_literal and not _NUMBER.fullmatch(element.name):
        return "literal_column() hides what it reads"
    if isinstance(element, (sa.Extract, sa.Cast)) and _reads_the_clock_of(element):
        return "the parts of a time depend on the session's time zone"
    if isinstance(element, (TableSample, UpdateBase, sa.Sequence)):
        return f"{class_.__name__} gives something else each time"
    return None


def _is_sqlalchemys_own(class_: type) -> bool:
    # The first three: an annotated part is AnnotatedX, Annotated, X.
    known = all(each.__module__.startswith(_KNOWN_MODULES) for each in class_.__mro__[:3])
    # ``@compiles`` on a class of SQLAlchemy leaves this mark; nothing public tells.
    return known and not hasattr(class_, "_compiler_dispatcher")


def _parameter_problem(parameter: sa.BindParameter[Any]) -> str | None:
    if parameter.callable is not None:
        return "a parameter is computed when the statement runs"
    if parameter.required and parameter.value is None:
        raise InputError(f"where= has a parameter without a value: {parameter.key!r}")
    return None


def _function_problem(function: functions.FunctionElement[Any]) -> str | None:
    name = str(getattr(function, "name", type(function).__name__))
    if name.lower() in PURE and not getattr(function, "packagenames", ()):
        return None
    return f"function {name}() may change its result by itself"


def _operator_problem(expression: sa.BinaryExpression[Any] | sa.UnaryExpression[Any]) -> str | None:
    operator = expression.operator
    if isinstance(operator, operators.custom_op) and not _OPERATOR.fullmatch(operator.opstring):
        return f"operator {operator.opstring!r} is unknown"
    return None


def _reads_the_clock_of(element: sa.Extract | sa.Cast[Any]) -> bool:
    source = element.expr if isinstance(element, sa.Extract) else element.clause
    types = [source.type] if isinstance(element, sa.Extract) else [source.type, element.type]
    return any(isinstance(type_, (sa.DateTime, sa.Time)) and type_.timezone for type_ in types)
