"""Pages that go on where the last one ended: cursor_page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, cast

from pydantic import BaseModel
from sqlalchemy import BigInteger, ColumnElement, Row, bindparam
from sqlalchemy.exc import DBAPIError
from typing_extensions import TypeVar

from ..errors import CursorRefused
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources
from .core import C, M, R, U
from .cursors import Position, decode, digest, encode, is_finite
from .execution import Query
from .keyset import Segment, compared, parameters, segments, walked
from .lists import Lists
from .options import ReadOptions
from .ordering import OrderBy, Sorting, Term, sorting_of
from .sides import opened

T = TypeVar("T", default=Any)

# SQLSTATEs that a value of the wrong type or range has; the first is also the driver's own.
_REFUSED_VALUES = ("22000", "22003", "22007", "22008", "22P02", "22P03", "42883", "42804")
_HINTS: Final = {"page": "pass the next of the page before as cursor=, or use page() for numbered pages"}


class CursorPage(BaseModel, Generic[T]):
    """One page of a list, and where its neighbours are.

    Attributes:
        data: The items of the page, in the order of the list.
        next: The cursor of the page after it; ``None`` where the list ends.
        previous: The cursor of the page before it; ``None`` where the list begins.
        limit: Items per page, as asked.
    """

    data: list[T]
    next: str | None
    previous: str | None
    limit: int


@dataclass(frozen=True, slots=True)
class _Walk:
    """One step through a list.

    Attributes:
        terms: The order of the list.
        listed: The digest of the list.
        position: Where the page begins or ends; ``None``: at the list's beginning.
    """

    asked: Asked
    sorting: Sorting
    terms: Sequence[Term]
    listed: str
    position: Position | None

    @property
    def forward(self) -> bool:
        return self.position is None or self.position.forward

    def segments(self, dialect: str) -> list[Segment]:
        terms = self.terms if self.forward else [term.reversed() for term in self.terms]
        if self.position is None:
            return segments(terms, None, dialect)
        absent = [value is None for value in self.position.values]
        return segments(terms, absent, dialect, inclusive=self.position.inclusive)

    @property
    def shape(self) -> object:
        if self.position is None:
            return None
        absent = tuple(value is None for value in self.position.values)
        return absent, self.position.forward, self.position.inclusive

    def at(self, row: Row[Any], *, forward: bool) -> str:
        """Write the cursor of what comes after a row, or before it."""
        values = tuple(row._mapping[_sorted_by(at)] for at in range(len(self.terms)))
        return self._written(Position(values, forward))

    def back(self) -> str | None:
        """Write the cursor of what lies on the other side of the position, and with the page makes up the list."""
        if self.position is None:
            return None
        return self._written(Position(self.position.values, not self.forward, not self.position.inclusive))

    def _written(self, position: Position) -> str:
        return encode(position, self.listed, [term.field for term in self.terms])


class CursorPages(Lists[M, C, U, R]):
    """Lists that are walked by cursors, however long they are."""

    async def cursor_page(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        limit: int = 10,
        cursor: str | None = None,
        order_by: OrderBy = None,
        ascending: bool = True,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **keywords: Any,
    ) -> CursorPage[R]:
        """Give the page that a cursor leads to, or the first one, with the cursors of the pages beside it.

        A row that stays where it is in the order is on exactly one of the pages, whatever is inserted and deleted
        between the calls. The answer is read from the database, never from the cache.

        Args:
            db, where, filters, options: As in ``get``.
            redis: Taken as other lists take it; it may be left out.
            limit: Rows per page, from 1 to the crud's ``max_limit``; it may change from page to page.
            cursor: ``next`` or ``previous`` of a page of the same list; ``None``: the first page.
            order_by, ascending: As in ``get_multi``.
            **keywords: Filters.

        Raises:
            CursorRefused: The cursor is damaged, or comes from another crud, other filters or another order.
            OrderRefused: ``order_by`` has an attribute twice, or one whose values have no form in a cursor.
            OutOfRange: ``limit``.
            UnknownField, UnknownOperator, ValueRefused: A filter, or ``order_by``.
            UsageError: ``page`` is given.
        """
        self._check_limit(limit)
        self._refuse_keywords("cursor_page", keywords, _HINTS)
        sorting = sorting_of(self._model, order_by, ascending)
        asked = self._asked(keywords, filters, where, options)
        self._refuse_lock(asked)
        self._refuse_stale(asked)
        _, tables = self._list_reads(asked, sorting)
        uncached = redis is UNSET and self._redis is UNSET
        sources = await self._asked_sources(db, None if uncached else redis, tables)
        walk = self._walk(asked, sorting, cursor, sources.place.dialect)
        rows = await self._walked(sources, walk, limit + 1)
        page, more = rows[:limit], len(rows) > limit
        if not walk.forward:
            page.reverse()
        following = walk.at(page[-1][1], forward=True) if page and (more or not walk.forward) else None
        preceding = walk.at(page[0][1], forward=False) if page and (more or walk.forward) else None
        if walk.forward and (walk.position is None or not page):
            preceding = walk.back()
        if not walk.forward and not page:
            following = walk.back()
        generic: Any = CursorPage
        response = generic[self._responses.schema]
        data = [answer for answer, _ in page]
        return cast("CursorPage[R]", response(data=data, next=following, previous=preceding, limit=limit))

    def _walk(self, asked: Asked, sorting: Sorting, cursor: str | None, dialect: str) -> _Walk:
        terms = walked(sorting.terms(self._model, dialect), self._model.primary_key)
        names = [self._model.name, self._model.table.fullname, self._responses.schema.__name__, dialect]
        listed = digest(*names, asked.extras(frozenset(), sorting.key))
        position = decode(cursor, listed, len(terms)) if cursor is not None else None
        if position is not None and dialect == "mysql" and not all(map(is_finite, position.values)):
            raise CursorRefused("it has a number that the database does not have")
        return _Walk(asked, sorting, terms, listed, position)

    async def _walked(self, sources: Sources, walk: _Walk, limit: int) -> list[tuple[R, Row[Any]]]:
        """Read rows in the direction of the walk, each as response and with what the order needs."""
        queries = self._queries(walk, sources.place.dialect)
        values = parameters(walk.position.values) if walk.position is not None else {}
        found: list[tuple[R, Row[Any]]] = []
        try:
            async with opened(sources.db, sources.place, self._model.mapper) as side:
                sources = sources._replace(db=side.session, place=side.place)
                for query in queries:
                    given = {**walk.asked.params, **values, "fastrdb_limit": limit - len(found)}
                    rows, _ = await self._fetch(sources, query, given, self._built)
                    found += rows
                    if len(found) == limit:
                        break
        except (DBAPIError, OverflowError, UnicodeEncodeError) as error:
            if walk.position is None or not _refuses_a_value(error):
                raise
            raise CursorRefused("it has a value that the database does not take") from error
        return found

    def _built(self, row: Row[Any]) -> tuple[R, Row[Any]]:
        return self._build(row)[0], row

    def _queries(self, walk: _Walk, dialect: str) -> list[Query]:
        def build() -> list[Query]:
            return [self._segment(walk, segment, dialect) for segment in walk.segments(dialect)]

        shape = ("cursor", walk.asked.shape, walk.sorting, dialect, walk.shape)
        found: list[Query] = self._kept(shape, build) if walk.asked.where is None else build()
        return found

    def _segment(self, walk: _Walk, segment: Segment, dialect: str) -> Query:
        places = [compared(term, dialect).label(_sorted_by(at)) for at, term in enumerate(walk.terms)]
        statement = self._select(walk.asked).add_columns(*places).where(*segment.conditions).order_by(*segment.order)
        limited = statement.limit(bindparam("fastrdb_limit", type_=BigInteger))
        return Query.of(limited, by_entity=self._responses.by_entity)


def _sorted_by(at: int) -> str:
    return f"fastrdb_sorted_by_{at}"


def _refuses_a_value(error: Exception) -> bool:
    """Tell whether a driver, or its server, could do nothing with a value of the statement."""
    if not isinstance(error, DBAPIError):
        return True
    return getattr(error.orig, "sqlstate", None) in _REFUSED_VALUES
