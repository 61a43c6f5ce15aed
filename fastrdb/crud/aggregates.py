"""Numbers, sums and means of the rows that match, by groups: aggregate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

from sqlalchemy import BigInteger, ColumnElement, Select, Subquery, bindparam, literal, select

from ..cache.reads import Loaded
from ..errors import InputError, UnknownField, UsageError
from ..filters import FieldSet, Filter, parse
from . import texts
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources, Unset
from .beside import Beside, Besides, limited
from .core import C, M, R, U
from .distinct import MOST_KEPT
from .execution import Query
from .figures import Figure, Source, figure
from .options import ReadOptions
from .reading import refused

_HAVING = "having"


@dataclass(frozen=True, slots=True)
class Grouping:
    """What is computed of which groups, in which order.

    Attributes:
        functions: Alias, function, field.
        groups: The attributes whose values make a group.
        order: Aliases and groups to sort by; empty: by the groups.
        ascending: Direction.
        limited: There is a LIMIT.
    """

    functions: tuple[tuple[str, str, str], ...]
    groups: tuple[str, ...]
    order: tuple[str, ...]
    ascending: bool
    limited: bool

    @property
    def fields(self) -> tuple[str, ...]:
        """The attributes that are read, once each."""
        return tuple(dict.fromkeys([*self.groups, *(field for _, _, field in self.functions if field != "*")]))


class Computation(NamedTuple):
    """A grouping over the rows that match.

    Attributes:
        rows: The rows, with the attributes that are read.
        figures: What is computed, by alias.
    """

    rows: Subquery
    figures: dict[str, Figure]


class Aggregates(Besides[M, C, U, R]):
    """What is computed of many rows."""

    async def aggregate(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        functions: Mapping[str, str | tuple[str, str]] | Unset = UNSET,
        *,
        group_by: str | Sequence[str] = (),
        having: Mapping[str, Any] | None = None,
        order_by: str | Sequence[str] = (),
        ascending: bool = True,
        limit: int | None = None,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **keywords: Any,
    ) -> list[dict[str, Any]]:
        """Compute figures of the rows that match, for each group of them.

        Sums of integers are ints, of decimals exact Decimals; means of integers are floats, of decimals Decimals.
        ``None`` where there is no value to compute of. They are cached where counts are.

        Args:
            db, redis, where, filters, options: As in ``get``.
            functions: Name of a figure -> ``"count"``, or function and field: ``("sum", "amount")``. The functions are
                count, count_distinct, sum, avg, min and max; count takes ``"*"``, too.
            group_by: Attributes; without any, all rows are one group, even if there are none.
            having: Filters on figures, by their names, as on fields.
            order_by: Names of figures and groups; ties, and results without an order, go by the groups.
                ``None`` is last.
            ascending: Direction of *order_by*.
            limit: Most groups to give; ``None``: all.
            **keywords: Filters of the rows.

        Returns:
            A dict for each group: the attributes of *group_by*, then the figures.

        Raises:
            OutOfRange: ``limit``.
            UnknownField, UnknownOperator, ValueRefused: A filter, a field, ``having`` or ``order_by``.
            InputError: A function that does not exist, or that the column's type does not have.
        """
        limited(limit)
        grouping = self._grouping(functions, _names("group_by", group_by), order_by, bool(ascending), limit)
        asked = self._asked(keywords, filters, where, options)
        self._refuse_lock(asked)
        return await self._aggregated(db, redis, asked, grouping, having or {}, limit)

    async def _aggregated(
        self,
        db: MaybeDatabase,
        redis: MaybeRedis,
        asked: Asked,
        grouping: Grouping,
        having: Mapping[str, Any],
        limit: int | None,
    ) -> list[dict[str, Any]]:
        tables, uncacheable = self._attributes_read(grouping.fields)
        sources = await self._asked_sources(db, redis, asked.tables | tables)
        computation = self._computation(asked, grouping, sources)
        kept = parse(_fields(computation), having)
        columns = [*(self._model.values[g] for g in grouping.groups), *(f.values for f in computation.figures.values())]
        names = [*grouping.groups, *computation.figures]

        async def load(may_store: bool) -> Loaded[list[dict[str, Any]]]:
            query = Query.of(_statement(grouping, computation, kept))
            given = {**asked.params, **kept.params_of(_HAVING), **limited(limit)}
            rows, refusal = await self._fetch(sources, query, given, lambda row: _finished(row, grouping, computation))
            answer = [dict(zip(names, row, strict=True)) for row in rows]
            if not may_store or refusal or len(rows) > MOST_KEPT:
                return refused(answer, refusal or "not asked for, or it is long")
            return Loaded(answer, texts.dump(rows, columns), "not_round_trip")

        def decode(raw: bytes) -> list[dict[str, Any]]:
            return [dict(zip(names, row, strict=True)) for row in texts.load(raw, columns)]

        return await self._beside(sources, asked, _kept(grouping, kept, limit, tables, uncacheable), load, decode)

    def _grouping(
        self,
        functions: Mapping[str, str | tuple[str, str]] | Unset,
        groups: tuple[str, ...],
        order_by: str | Sequence[str],
        ascending: bool,
        limit: int | None,
    ) -> Grouping:
        if not isinstance(functions, Mapping) or not functions:
            raise UsageError("functions: pass a dict such as {'total': ('sum', 'amount'), 'n': 'count'}")
        given = tuple((alias, *_function(alias, each)) for alias, each in functions.items())
        for alias, _, _ in given:
            if alias in groups:
                raise InputError(f"aggregate {alias!r}: group_by has this name, too; give the figure another one")
        found = Grouping(given, groups, _names("order_by", order_by), ascending, limit is not None)
        for name in found.fields:
            if name not in self._model.expressions:
                raise UnknownField(name, self._model.name, self._model.expressions)
        for name in groups:
            if self._model.values[name].category == "json":
                raise InputError(f"group_by: {name!r} is JSON, whose values databases do not compare")
        for name in found.order:
            if name not in groups and name not in functions:
                raise UnknownField(name, "order_by of aggregate", [*groups, *functions])
        return found

    def _computation(self, asked: Asked, grouping: Grouping, sources: Sources) -> Computation:
        # Below a SELECT of their own the attributes are columns, whatever expressions they are: a parameter in one is
        # another parameter in GROUP BY, and PostgreSQL would not know it again.
        columns = [self._model.expressions[name].label(name) for name in grouping.fields] or [literal(1).label("one")]
        statement = cast("Select[Any]", select(*columns)).select_from(self._model.table)
        rows = self._conditioned(statement, asked).subquery()
        exact = sources.place.dialect != "sqlite"
        figures = {}
        for alias, function, field in grouping.functions:
            column, values = (None, None) if field == "*" else (rows.c[field], self._model.values[field])
            figures[alias] = figure(function, Source(alias, field, column, values, exact))
        return Computation(rows, figures)


def _function(alias: str, given: object) -> tuple[str, str]:
    if isinstance(given, str):
        return given, "*"
    pair = tuple(given) if isinstance(given, (tuple, list)) else ()
    if not isinstance(alias, str) or len(pair) != 2 or not all(isinstance(each, str) for each in pair):
        raise InputError(f"aggregate {alias!r}: pass 'count', or a function and a field as ('sum', 'amount')")
    return cast("tuple[str, str]", pair)


def _names(argument: str, given: str | Sequence[str]) -> tuple[str, ...]:
    names = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(name, str) for name in names):
        raise InputError(f"{argument}: pass a name, or a list of names, not {given!r}")
    return tuple(dict.fromkeys(names))


def _fields(computation: Computation) -> FieldSet:
    return FieldSet("having", {alias: (each.expression, each.values) for alias, each in computation.figures.items()})


def _statement(grouping: Grouping, computation: Computation, kept: Filter) -> Select[Any]:
    rows, figures = computation
    groups = {name: rows.c[name] for name in grouping.groups}
    selected = [part for each in figures.values() for part in each.selected]
    statement = cast("Select[Any]", select(*groups.values(), *selected)).select_from(rows).group_by(*groups.values())
    statement = statement.having(*kept.build(_fields(computation), _HAVING)) if kept.conditions else statement
    for name in grouping.order:
        column = groups[name] if name in groups else figures[name].expression
        statement = statement.order_by(column.is_(None), column.asc() if grouping.ascending else column.desc())
    for column in (groups[name] for name in groups if name not in grouping.order):
        statement = statement.order_by(column.is_(None), column.asc())
    return statement.limit(bindparam("fastrdb_limit", type_=BigInteger)) if grouping.limited else statement


def _finished(row: Sequence[Any], grouping: Grouping, computation: Computation) -> tuple[Any, ...]:
    values = iter(row)
    groups = [next(values) for _ in grouping.groups]
    return (*groups, *(each.finish(*(next(values) for _ in each.selected)) for each in computation.figures.values()))


def _kept(
    grouping: Grouping, kept: Filter, limit: int | None, tables: frozenset[str], uncacheable: str | None
) -> Beside:
    having = kept.canonical if kept.conditions else None
    shape = [grouping.functions, grouping.groups, having, grouping.order, grouping.ascending, limit]
    return Beside(b"aggregate", shape, tables, uncacheable)
