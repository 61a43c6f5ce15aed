"""Filling the cache before anybody asks: warm."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, cast

from sqlalchemy import BigInteger, ColumnElement, Row, Select, and_, bindparam, or_, select

from ..cache import protocol
from ..cache.many import Missing, lead_many, look
from ..cache.reads import Loaded, held, hit
from ..errors import InputError, MultipleFound, OutOfRange, UsageError
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources
from .by_keys import ByKeys
from .core import C, M, R, U
from .execution import Query
from .keyspace import RowKeys
from .named_keys import keys_of

_LARGEST = 2**63 - 1
_MOST_AT_ONCE = 10_000


class Warmed(NamedTuple):
    """What ``warm`` did, or has done so far.

    Attributes:
        rows: Rows that were read.
        stored: Values that were put into the cache: of each row one for each template, but for those that were there.
    """

    rows: int
    stored: int


Progress = Callable[[Warmed], object]


class Warming(ByKeys[M, C, U, R]):
    """Filling the cache."""

    async def warm(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        limit: int = 1_000,
        offset: int = 0,
        batch: int = 500,
        *,
        progress: Progress | None = None,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        **keywords: Any,
    ) -> Warmed:
        """Put rows into the cache under every row template, in the order of the primary key.

        Each value is claimed, loaded and filled as after a miss, so that a write meanwhile wins: what a writer holds,
        or another reader is loading, is left to them. What the cache has already is not loaded again.

        Args:
            db: As in ``get``; with a factory each batch has a session of its own. In a session with writes of its own
                nothing is stored.
            redis: A client or a Cache; not ``None``.
            limit: Rows at most, 1 or more.
            offset: Rows that are passed over first, 0 or more.
            batch: Rows that are read at once, from 1 to 10 000.
            progress: Called after each batch with what was done so far; awaited where it gives an awaitable.
            where, filters, **keywords: Which rows, as in ``get_multi``.

        Raises:
            OutOfRange: ``limit``, ``offset`` or ``batch``.
            InputError: There is no cache, or no row template.
            UnknownField, UnknownOperator, ValueRefused: A filter is wrong.
        """
        _check_numbers(limit, offset, batch)
        if progress is not None and not callable(progress):
            raise UsageError(f"progress: {progress!r}; pass a function of one Warmed")
        asked = self._asked(keywords, filters, where)
        sources = await self._asked_sources(db, redis, asked.tables)
        if sources.cache is None or sources.space is None or not sources.space.rows:
            none = "the crud has no row template, or is one of all_tenants(), which has nothing cached,"
            lacks = "redis is None: there is no cache" if sources.cache is None else none
            raise InputError(f"warm: {lacks} to fill")
        done, last = Warmed(0, 0), None
        while done.rows < limit:
            size = min(batch, limit - done.rows)
            rows, last = await self._next_rows(sources, asked, last, offset, size)
            stored = 0
            for keys in sources.space.rows if rows else ():
                stored += await self._warm(sources, asked, keys, rows)
            done = Warmed(done.rows + len(rows), done.stored + stored)
            if progress is not None and rows:
                said = progress(done)
                if isinstance(said, Awaitable):
                    await said
            if len(rows) < size:
                break
        return done

    async def _next_rows(
        self, sources: Sources, asked: Asked, last: tuple[Any, ...] | None, offset: int, size: int
    ) -> tuple[list[dict[str, Any]], tuple[Any, ...] | None]:
        """Give the hidden columns of the rows after the last one, and the primary key of the last of them."""
        names, primary = self._hidden, self._model.primary_key

        def build() -> Query:
            columns = [self._model.columns[name] for name in (*primary, *names)]
            labelled = [column.label(f"fastrdb_{at}") for at, column in enumerate(columns)]
            statement = self._conditioned(cast("Select[Any]", select(*labelled)), asked)
            by_key = columns[: len(primary)]
            limited = statement.order_by(*by_key).limit(bindparam("fastrdb_limit", type_=BigInteger))
            if last is None:
                return Query.of(limited.offset(bindparam("fastrdb_offset", type_=BigInteger)))
            return Query.of(limited.where(_after(by_key)))

        query: Query = build() if asked.where is not None else self._kept(("warm", asked.shape, last is None), build)
        parameters = {**asked.params, "fastrdb_limit": size}
        place = {f"fastrdb_last_{at}": value for at, value in enumerate(last or ())}
        parameters |= place or {"fastrdb_offset": offset}
        found, _ = await self._fetch(sources, query, parameters, _values)
        rows = [dict(zip(names, row[len(primary) :], strict=False)) for row in found]
        return rows, found[-1][: len(primary)] if found else last

    async def _warm(self, sources: Sources, asked: Asked, keys: RowKeys, rows: Sequence[Mapping[str, Any]]) -> int:
        """Put rows into the cache under one template; give how many values were stored."""
        fields = keys.bound.columns
        wanted = [row for row in rows if all(row[name] is not None for name in fields)]
        cache = sources.cache
        if cache is None or not wanted:
            return 0
        plain = self._asked(self._whose(asked), None, None)
        try:
            named = keys_of(self._model, fields, [[row[name] for row in wanted] for name in fields], wanted)
        except InputError:  # a value that no caller could ask for, as SQLite may have it
            return 0
        spots = [self._spot(sources, keys, key, None, None, None) for key in named.wanted]
        if (barred := self._barred(sources, cache, spots[0][-1])) is not None:
            cache.stats.count(f"bypass: {barred}")
            return 0
        looked = await look(cache.store, [(entry, scope.tokens) for _, entry, _, scope, _, _ in spots])
        leads: list[Missing[R | None]] = []
        for number, (found, spot) in enumerate(zip(looked, spots, strict=True)):
            if found is None or hit(spot[3].stamps(sources.place.identity), found, cache.store.epoch) is not None:
                continue
            ask = self._ask(sources, spot, waits=False)
            if held(ask, found) is None and not protocol.is_claim(found[0]) and ask.entry not in cache.flights:
                leads.append(Missing(number, ask, found))

        async def load(numbers: Sequence[int], may_store: bool) -> list[Loaded[R | None]]:
            try:
                return await self._load_by_keys(sources, named, plain, keys, spots, numbers, may_store=may_store)
            except MultipleFound:  # of a template without a unique key: none of them is the one
                if len(numbers) == 1:
                    return [Loaded(None, None, "several rows have the key")]
                return [loaded for number in numbers for loaded in await load([number], may_store)]

        return await lead_many(cache, leads, load, wait=True) if leads else 0


def _check_numbers(limit: int, offset: int, batch: int) -> None:
    """Raise OutOfRange where a number of the call is none that it takes."""
    for name, value, least, most in (
        ("limit", limit, 1, _LARGEST),
        ("offset", offset, 0, _LARGEST),
        ("batch", batch, 1, _MOST_AT_ONCE),
    ):
        if type(value) is not int or not least <= value <= most:
            raise OutOfRange(name, value, most, "the smallest offset is 0" if name == "offset" else "")


def _values(row: Row[Any]) -> tuple[Any, ...]:
    return tuple(row)


def _after(columns: Sequence[Any]) -> ColumnElement[bool]:
    """Give the condition that a row comes after the last one, in the order of these columns."""
    lasts = [bindparam(f"fastrdb_last_{at}", type_=column.type) for at, column in enumerate(columns)]
    ways = []
    for at, (column, last) in enumerate(zip(columns, lasts, strict=True)):
        ways.append(and_(*(c == v for c, v in zip(columns[:at], lasts[:at], strict=True)), column > last))
    return or_(*ways)
