"""Pages of rows: get_multi, get_multi_json."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import BigInteger, ColumnElement, Select, bindparam

from ..cache.reads import Loaded
from ..errors import OutOfRange, UsageError
from ..keys import suffix
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources
from .core import C, M, R, U
from .execution import Query
from .keyspace import ListKeys
from .options import ReadOptions
from .ordering import OrderBy, Sorting, sorting_of
from .reading import Reading, refused

_LARGEST_OFFSET = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Window:
    """Which rows of a list, in which order."""

    limit: int
    page: int
    sorting: Sorting
    peeks: bool = False  # reads the first row of the next page, too

    @property
    def order(self) -> object:
        """What the key must hold of it; ``None`` for the default order."""
        return ["and one more", self.sorting.key] if self.peeks else self.sorting.key

    @property
    def offset(self) -> int:
        """Rows before the page."""
        return (self.page - 1) * self.limit


class Lists(Reading[M, C, U, R]):
    """The methods of many rows, read."""

    async def get_multi(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        limit: int = 10,
        page: int = 1,
        order_by: OrderBy = None,
        ascending: bool = True,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **keywords: Any,
    ) -> list[R]:
        """Give one page of the rows that match.

        Args:
            db, redis, where, filters, options: As in ``get``.
            limit: Rows per page, from 1 to the crud's ``max_limit``.
            page: Number of the page, from 1; past the end the list is empty.
            order_by: An attribute; ``"-name"`` for the opposite direction; an ``Order``, which says where NULLs come;
                or a list of these. Ties, and lists without one, are in the order of the primary key.
            ascending: ``False`` turns the whole order round.
            **keywords: Filters; the fields of the list template must be among them, as one plain value each.

        Raises:
            OutOfRange: ``limit`` or ``page``.
            UnknownField, UnknownOperator, ValueRefused, MissingKeyField: A filter, or ``order_by``.
            OrderRefused: ``order_by`` has an attribute twice.
        """
        window = self._window(limit, page, order_by, ascending)
        found = await self._list(
            db, redis, window, self._asked(keywords, filters, where, options), self._responses.load_list
        )
        return cast("list[R]", found)

    async def get_multi_json(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        limit: int = 10,
        page: int = 1,
        order_by: OrderBy = None,
        ascending: bool = True,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **keywords: Any,
    ) -> bytes:
        """Give a page as the JSON that FastAPI would send: a hit hands on the stored bytes. Else as ``get_multi``."""
        window = self._window(limit, page, order_by, ascending)
        decode = bytes.lstrip if self._responses.wire else self._responses.load_list
        asked = self._asked(keywords, filters, where, options)
        found = await self._list(db, redis, window, asked, decode)
        return found if isinstance(found, bytes) else self._responses.to_json_list(found)

    def _window(self, limit: int, page: int, order_by: OrderBy, ascending: bool) -> Window:
        self._check_limit(limit)
        if type(page) is not int or not 1 <= page <= _LARGEST_OFFSET // limit:
            raise OutOfRange("page", page, _LARGEST_OFFSET // limit)
        return Window(limit, page, sorting_of(self._model, order_by, ascending))

    def _refuse_keywords(self, method: str, keywords: Mapping[str, Any], hints: Mapping[str, str]) -> None:
        """Refuse keywords that are arguments of other lists, but none of this one; a field of that name is a filter.

        Args:
            hints: For each of them, what to do instead.

        Raises:
            UsageError: There is one.
        """
        for name, hint in hints.items():
            if name in keywords and name not in self._model.expressions:
                raise UsageError(f"{method}: {name!r} is no argument of it: {hint}")

    def _check_limit(self, limit: int) -> None:
        if type(limit) is not int or not 1 <= limit <= self._max_limit:
            raise OutOfRange("limit", limit, self._max_limit)

    async def _list(
        self,
        db: MaybeDatabase,
        redis: MaybeRedis,
        window: Window,
        asked: Asked,
        decode: Callable[[bytes], Any],
    ) -> Any:
        reason, tables = self._list_reads(asked, window.sorting)
        sources = await self._asked_sources(db, redis, tables)
        keys = sources.space.lists if sources.space is not None else None

        async def load(may_store: bool) -> Loaded[list[R]]:
            return await self._load_list(sources, window, asked, given, keys, may_store=may_store)

        given: Mapping[str, Any] = {}
        if keys is None:
            return (await load(False)).answer
        given = self._list_fields(keys, asked)
        entry = keys.bound.key({**given, "page": window.page, "limit": window.limit})
        if reason is None and (extras := asked.extras(keys.fields, window.order, sources.sight)) is not None:
            entry += suffix(extras).encode()
        scope = keys.scope(given, self._depends(tables, keys.prefix))
        return await self._read(
            sources, entry, scope, load, decode, listed=keys.listed, bulk=True, reason=reason, options=asked.options
        )

    def _list_fields(self, keys: ListKeys, asked: Asked) -> dict[str, Any]:
        """Give the fields of the list template: those that got one plain value. The key names a missing one."""
        return {name: value for name, value in asked.given.items() if name in keys.fields}

    def _list_reads(self, asked: Asked, sorting: Sorting) -> tuple[str | None, frozenset[str]]:
        """Tell why a list may not be cached, if so, and which other tables it reads."""
        reason, tables = self._uncacheable or asked.uncacheable, asked.tables
        for order in sorting.orders:
            if order.field not in self._model.columns:
                analysis = self._analysis(order.field)
                reason, tables = reason or analysis.uncacheable, tables | analysis.tables
        if asked.options.for_update:
            reason = reason or "the rows are locked"
        return reason, tables

    async def _load_list(
        self,
        sources: Sources,
        window: Window,
        asked: Asked,
        given: Mapping[str, Any],
        keys: ListKeys | None,
        *,
        may_store: bool,
    ) -> Loaded[list[R]]:
        self._check_lock(sources, asked)

        def build() -> Query:
            return self._query(self._window_of(asked, window, dialect), asked)

        dialect = sources.place.dialect
        shape = ("list", asked.shape, window.sorting.shape(dialect))
        query: Query = self._kept(shape, build) if asked.where is None else build()
        parameters = {**asked.params, "fastrdb_limit": window.limit + window.peeks, "fastrdb_offset": window.offset}
        rows, refusal = await self._fetch(sources, query, parameters, self._build)
        answer = [response for response, _ in rows]
        if not may_store or keys is None:
            return refused(answer, "not asked for")
        if refusal:
            return refused(answer, refusal)
        if keys.listed is not None:
            directory = keys.directory(given)
            if any(keys.directory_of_row(hidden) != directory for _, hidden in rows):
                return refused(answer, "what was asked for is not what the rows have")
        return Loaded(answer, self._responses.dump_list(answer), "not_round_trip")

    def _window_of(self, asked: Asked, window: Window, dialect: str) -> Select[Any]:
        return (
            self._ordered(asked, window.sorting, dialect)
            .limit(bindparam("fastrdb_limit", type_=BigInteger))
            .offset(bindparam("fastrdb_offset", type_=BigInteger))
        )

    def _ordered(self, asked: Asked, sorting: Sorting, dialect: str) -> Select[Any]:
        """Give the SELECT of all rows that are asked for, in their order."""
        terms = sorting.terms(self._model, dialect)
        return self._select(asked).order_by(*(clause for term in terms for clause in term.clauses(dialect)))
