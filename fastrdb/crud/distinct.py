"""The values that an attribute has: distinct."""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, ColumnElement, bindparam, select

from ..cache.reads import Loaded
from ..errors import InputError, UnknownField, UsageError
from . import texts
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Unset
from .beside import Beside, Besides, limited
from .core import C, M, R, U
from .execution import Query
from .options import ReadOptions
from .reading import refused

MOST_KEPT = 10_000
"""Longer lists of values are not cached."""


class Distinct(Besides[M, C, U, R]):
    """The values of one attribute."""

    async def distinct(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        field: str | Unset = UNSET,
        *,
        ascending: bool = True,
        limit: int | None = None,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **keywords: Any,
    ) -> list[Any]:
        """Give the values that one attribute has in the rows that match, each once, in order.

        They are cached where counts are, up to ``MOST_KEPT`` of them.

        Args:
            db, redis, where, filters, options: As in ``get``.
            field: A column, or another attribute that has SQL.
            ascending: Direction; ``None`` comes last, once, in either.
            limit: Most values to give; ``None``: all.
            **keywords: Filters.

        Raises:
            OutOfRange: ``limit``.
            UnknownField, UnknownOperator, ValueRefused: A filter, or *field*.
            InputError: The attribute is JSON, which databases do not compare.
        """
        name = self._distinct_field(field)
        asked, parameters = self._asked(keywords, filters, where, options), limited(limit)
        self._refuse_lock(asked)
        tables, uncacheable = self._attributes_read([name])
        sources = await self._asked_sources(db, redis, asked.tables | tables)
        columns = (self._model.values[name],)

        def build() -> Query:
            return self._distinct(asked, name, bool(ascending), limit is not None)

        async def load(may_store: bool) -> Loaded[list[Any]]:
            shape = ("distinct", name, bool(ascending), limit is not None, asked.shape)
            query: Query = self._kept(shape, build) if asked.where is None else build()
            rows, refusal = await self._fetch(sources, query, {**asked.params, **parameters}, lambda row: row[:1])
            answer = [row[0] for row in rows]
            if not may_store or refusal or len(rows) > MOST_KEPT:
                return refused(answer, refusal or "not asked for, or it is long")
            return Loaded(answer, texts.dump(rows, columns), "not_round_trip")

        def decode(raw: bytes) -> list[Any]:
            return [row[0] for row in texts.load(raw, columns)]

        kept = Beside(b"distinct", [name, bool(ascending), limit], tables, uncacheable)
        return await self._beside(sources, asked, kept, load, decode)

    def _distinct_field(self, field: str | Unset) -> str:
        if not isinstance(field, str):
            raise UsageError("field: pass the name of one attribute")
        if field not in self._model.expressions:
            raise UnknownField(field, self._model.name, self._model.expressions)
        if self._model.values[field].category == "json":
            raise InputError(f"distinct: {field!r} is JSON, whose values databases do not compare")
        return field

    def _distinct(self, asked: Asked, name: str, ascending: bool, with_limit: bool) -> Query:
        value = self._model.expressions[name].label("value")
        found = self._conditioned(select(value).distinct().select_from(self._model.table), asked).subquery()
        column = found.c.value
        statement = select(column).order_by(column.is_(None), column.asc() if ascending else column.desc())
        return Query.of(statement.limit(bindparam("fastrdb_limit", type_=BigInteger)) if with_limit else statement)
