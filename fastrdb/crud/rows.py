"""One row, read: get, get_or_none, get_json, exists."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeAlias

from sqlalchemy import ColumnElement, select

from ..cache.done import Done
from ..cache.reads import NULL, Loaded
from ..errors import MissingKeyField, MultipleFound, NotFound
from ..keys import suffix
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources
from .core import C, M, R, U
from .execution import Query
from .keyspace import RowKeys, Scope, key_of_row
from .options import PLAIN, ReadOptions
from .reading import Reading, refused
from .sight import NOT_ASKED, Sight

# The sources with what the filters read besides, the entry, the row's own entry, what ages the value, the template to
# confirm, and why the value is not cached, if so.
Spot: TypeAlias = tuple[Sources, bytes, bytes, Scope, bytes | None, str | None]


class Rows(Reading[M, C, U, R]):
    """The methods of one row."""

    async def get(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **key: Any,
    ) -> R:
        """Give the row with these key fields, from the cache where that is as good.

        Args:
            db: An AsyncSession, or a factory of one, which is called only when SQL is needed.
            redis: A client or a Cache; ``None`` reads SQL.
            where: A SQLAlchemy expression that the row must satisfy, too.
            filters: Further filters, for fields whose names are arguments here.
            options: What else to mind.
            **key: Every field of a row template, as one plain value each; further fields filter.

        Raises:
            NotFound: No row matches (also ``sqlalchemy.exc.NoResultFound``).
            MultipleFound: Several do (also ``MultipleResultsFound``).
            MissingKeyField: No template has all of its fields given.
            UnknownField, UnknownOperator, ValueRefused: A filter is wrong.
        """
        answer = self._get(db, redis, where, filters, options, key, self._responses.load)
        found: R | None = answer.value if type(answer) is Done else await answer
        if found is None:
            raise NotFound(self._model.name, key)
        return found

    async def get_or_none(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **key: Any,
    ) -> R | None:
        """Give the row as ``get`` does, or ``None`` where there is none."""
        answer = self._get(db, redis, where, filters, options, key, self._responses.load)
        found: R | None = answer.value if type(answer) is Done else await answer
        return found

    async def get_json(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **key: Any,
    ) -> bytes:
        """Give the row as the JSON that FastAPI would send: a hit hands on the stored bytes. Raises as ``get``."""
        decode = bytes.lstrip if self._responses.wire else self._responses.load
        found: R | bytes | None = await self._get(db, redis, where, filters, options, key, decode)
        if found is None:
            raise NotFound(self._model.name, key)
        return found if isinstance(found, bytes) else self._responses.to_json(found)

    async def exists(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **key: Any,
    ) -> bool:
        """Tell whether a row matches. With the fields of a row template, that row is read through the cache."""
        if self._tenancy is not None:
            key = self._tenancy.told(key)
        if any(template.fields and set(template.fields) <= key.keys() for template in self._keyed.rows):
            try:
                return await self._get(db, redis, where, filters, options, key, self._responses.load) is not None
            except MultipleFound:
                return True
        asked = self._asked(key, filters, where, options)
        self._refuse_lock(asked)
        sources = await self._asked_sources(db, redis, asked.tables)
        statement = self._conditioned(select(1).select_from(self._model.table), asked).limit(1)
        rows, _ = await self._fetch(sources, Query.of(statement), asked.params, tuple)
        return bool(rows)

    def _get(
        self,
        db: MaybeDatabase,
        redis: MaybeRedis,
        where: ColumnElement[bool] | None,
        filters: Filters,
        options: ReadOptions | None,
        key: dict[str, Any],
        decode: Callable[[bytes], Any],
    ) -> Awaitable[Any]:
        """Find out what is asked for, and give what reads it; a coroutine of its own would cost every hit its time."""
        if self._tenancy is not None:
            key = self._tenancy.told(key)
        sources = self._sources(db, redis)
        if sources.sight is NOT_ASKED:
            return self._get_once_asked(db, redis, where, filters, options, key, decode)
        keys = sources.space.row(key) if sources.space is not None else None
        if keys is None:
            return self._uncached(sources, key, self._asked(key, filters, where, options))
        if where is None and filters is None and options is None and len(key) == len(keys.fields) and not sources.sight:
            entry = row_entry = keys.key(key)  # as ``_spot`` does: the usual hit is spared the call
            scope, reason = keys.scope(key), self._uncacheable
            listed: bytes | None = keys.listed
        else:
            sources, entry, row_entry, scope, listed, reason = self._spot(sources, keys, key, where, filters, options)

        near = sources.cache.near if sources.cache is not None else None
        if near is not None and reason is None and (raw := self._nearby(sources, near, entry, scope)) is not None:
            return Done(decode(raw) if raw is not NULL else None)

        async def load(may_store: bool) -> Loaded[Any]:
            asked = self._asked(key, filters, where, options)
            return await self._load_row(sources, asked, keys, row_entry, may_store=may_store)

        return self._read(sources, entry, scope, load, decode, listed=listed, reason=reason, options=options)

    def _spot(
        self,
        sources: Sources,
        keys: RowKeys,
        key: dict[str, Any],
        where: ColumnElement[bool] | None,
        filters: Filters,
        options: ReadOptions | None,
    ) -> Spot:
        """Find where in the cache a row lies that is asked for by these fields; a plain tuple, for the sake of hits."""
        entry = row_entry = keys.key(key)
        scope, listed, reason = keys.scope(key), keys.listed, self._uncacheable
        narrowed = options is not None and options != PLAIN  # an age that is accepted makes no other entry
        if options is not None and not narrowed:
            self._check_stale(options)
        if where is not None or filters is not None or len(key) > len(keys.fields) or sources.sight or narrowed:
            asked = self._asked(key, filters, where, options)
            sources = self._widened(sources, asked.tables) if asked.tables else sources
            entry, scope, listed = self._narrow(keys, key, entry, asked, sources.sight)
            reason = reason or asked.uncacheable or ("the row is locked" if asked.options.for_update else None)
        return sources, entry, row_entry, scope, listed, reason

    async def _get_once_asked(self, db: MaybeDatabase, redis: MaybeRedis, *arguments: Any) -> Any:
        """Get, once the database has been asked which tables hide rows."""
        await self._asked_sources(db, redis)
        return await self._get(db, redis, *arguments)

    async def _uncached(self, sources: Sources, key: Mapping[str, Any], asked: Asked) -> Any:
        """Answer from SQL: there is no cache, or this crud has no row template."""
        if sources.cache is not None and self._keyed.rows:
            template = self._keyed.rows[0]
            missing = next(name for name in template.fields if name not in key)
            raise MissingKeyField(missing, template.text)
        return (await self._load_row(sources, asked, None, b"", may_store=False)).answer

    def _narrow(
        self, keys: RowKeys, key: Mapping[str, Any], entry: bytes, asked: Asked, sight: Sight | None
    ) -> tuple[bytes, Scope, bytes]:
        """Give entry, scope and listed directory of a row that is asked for with further filters, or by some eyes."""
        scope = keys.narrowed(key, entry, self._depends(asked.tables, keys.prefix))
        return entry + suffix(asked.extras(keys.fields, sight=sight)).encode(), scope, keys.directory_listed

    async def _load_row(
        self, sources: Sources, asked: Asked, keys: RowKeys | None, entry: bytes, *, may_store: bool
    ) -> Loaded[R | None]:
        self._check_lock(sources, asked)

        def build() -> Query:
            return self._query(self._select(asked).limit(2), asked)

        query: Query = self._kept(("row", asked.shape), build) if asked.where is None else build()
        rows, refusal = await self._fetch(sources, query, asked.params, self._build)
        if len(rows) > 1:
            raise MultipleFound(self._model.name, asked.criterion)
        response, hidden = rows[0] if rows else (None, None)
        if not may_store or keys is None:
            return refused(response, "not asked for")
        return self._loaded(response, hidden, keys, entry, refusal)

    def _loaded(
        self, response: R | None, hidden: Mapping[str, Any] | None, keys: RowKeys, entry: bytes, refusal: str
    ) -> Loaded[R | None]:
        """Give an answer with the JSON to store, or with the reason why there is none."""
        if refusal:
            return refused(response, refusal)
        if response is None or hidden is None:
            return Loaded(None, NULL)
        if key_of_row(keys.bound, hidden) != entry:
            return refused(response, "what was asked for is not what the row has")
        payload = self._responses.dump(response)
        return Loaded(response, payload, "not_round_trip")
