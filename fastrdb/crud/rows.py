"""One row, read: get, get_or_none, get_json, exists."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sqlalchemy import ColumnElement, select
from sqlalchemy.ext.asyncio import AsyncSession

from ..cache.reads import NULL, Loaded
from ..db.sessions import Place, SessionFactory
from ..errors import MissingKeyField, MultipleFound, NotFound
from ..keys import suffix
from .core import UNSET, Asked, C, Core, Filters, M, MaybeDatabase, MaybeRedis, R, U, refused
from .execution import Query
from .keyspace import RowKeys, Scope, key_of_row


class Rows(Core[M, C, U, R]):
    """The methods of one row."""

    async def get(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        **key: Any,
    ) -> R:
        """Give the row with these key fields, from the cache where that is as good.

        Args:
            db: An AsyncSession, or a factory of one, which is called only when SQL is needed.
            redis: A client or a Cache; ``None`` reads SQL.
            where: A SQLAlchemy expression that the row must satisfy, too.
            filters: Further filters, for fields whose names are arguments here.
            **key: Every field of a row template, as one plain value each; further fields filter.

        Raises:
            NotFound: No row matches (also ``sqlalchemy.exc.NoResultFound``).
            MultipleFound: Several do (also ``MultipleResultsFound``).
            MissingKeyField: No template has all of its fields given.
            UnknownField, UnknownOperator, ValueRefused: A filter is wrong.
        """
        found = await self.get_or_none(db, redis, where=where, filters=filters, **key)
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
        **key: Any,
    ) -> R | None:
        """Give the row as ``get`` does, or ``None`` where there is none."""
        found: R | None = await self._get(db, redis, where, filters, key, self._loaded)
        return found

    async def get_json(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        **key: Any,
    ) -> bytes:
        """Give the row as the JSON that FastAPI would send: a hit hands on the stored bytes. Raises as ``get``."""
        decode = self._as_sent if self._responses.wire else self._resent
        found: R | bytes | None = await self._get(db, redis, where, filters, key, decode)
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
        **key: Any,
    ) -> bool:
        """Tell whether a row matches. With the fields of a row template, that row is read through the cache."""
        if any(template.fields and set(template.fields) <= key.keys() for template in self._layout.rows):
            try:
                return await self._get(db, redis, where, filters, key, self._loaded) is not None
            except MultipleFound:
                return True
        asked = self._asked(key, filters, where)
        database, cache = self._database(db), self._cache(redis)
        statement = self._conditioned(select(1).select_from(self._model.table), asked).limit(1)
        query = Query.of(statement)
        rows, _ = await self._fetch(database, self._place(database, cache), query, asked.filter.params, tuple)
        return bool(rows)

    def _as_sent(self, raw: bytes) -> bytes | None:
        sent = raw.lstrip()
        return None if sent == NULL else sent

    def _resent(self, raw: bytes) -> bytes | None:
        found = self._loaded(raw)
        return None if found is None else self._responses.to_json(found)

    def _loaded(self, raw: bytes) -> R | None:
        return None if raw.endswith(NULL) else self._responses.load(raw)

    async def _get(
        self,
        db: MaybeDatabase,
        redis: MaybeRedis,
        where: ColumnElement[bool] | None,
        filters: Filters,
        key: dict[str, Any],
        decode: Callable[[bytes], Any],
    ) -> Any:
        database, cache = self._database(db), self._cache(redis)
        place = self._place(database, cache)
        keys = self._space(cache).row(key) if cache is not None else None
        if cache is None or keys is None:
            return await self._uncached(
                database, place, self._asked(key, filters, where), key, cached=cache is not None
            )
        entry = row_entry = keys.key(key)
        scope, listed, reason = keys.scope(key), keys.listed, self._uncacheable
        if where is not None or filters is not None or len(key) > len(keys.fields):
            asked = self._asked(key, filters, where)
            entry, scope, listed = self._narrow(keys, key, entry, asked, cache.prefix)
            reason = reason or asked.uncacheable

        async def load(may_store: bool) -> Loaded[Any]:
            asked = self._asked(key, filters, where)
            return await self._load_row(database, place, asked, keys, row_entry, may_store=may_store)

        if reason is not None:
            cache.stats.count(f"bypass: {reason}")
            return (await load(False)).answer
        return await self._read(database, cache, place, entry, scope, load, decode, listed=listed, bulk=False)

    async def _uncached(
        self,
        db: AsyncSession | SessionFactory,
        place: Place,
        asked: Asked,
        key: Mapping[str, Any],
        *,
        cached: bool,
    ) -> Any:
        """Answer from SQL: there is no cache, or this crud has no row template."""
        if cached and self._layout.rows:
            template = self._layout.rows[0]
            missing = next(name for name in template.fields if name not in key)
            raise MissingKeyField(missing, template.text)
        return (await self._load_row(db, place, asked, None, b"", may_store=False)).answer

    def _narrow(
        self, keys: RowKeys, key: Mapping[str, Any], entry: bytes, asked: Asked, prefix: str
    ) -> tuple[bytes, Scope, bytes]:
        """Give the entry, the scope and the listed directory of a row that is asked for with further filters."""
        scope = keys.narrowed(key, entry, self._depends(asked.tables, prefix))
        return entry + suffix(asked.extras(keys.fields)).encode(), scope, keys.directory_listed

    async def _load_row(
        self,
        db: AsyncSession | SessionFactory,
        place: Place,
        asked: Asked,
        keys: RowKeys | None,
        entry: bytes,
        *,
        may_store: bool,
    ) -> Loaded[R | None]:

        def build() -> Query:
            return Query.of(self._select(asked).limit(2), by_entity=self._responses.by_entity)

        query: Query = self._kept(("row", asked.filter.shape), build) if asked.where is None else build()
        rows, fresh = await self._fetch(db, place, query, asked.filter.params, self._build)
        if len(rows) > 1:
            raise MultipleFound(self._model.name, dict(asked.given))
        response, hidden = rows[0] if rows else (None, None)
        if not may_store or keys is None:
            return refused(response, "not asked for")
        if not fresh:
            return refused(response, "the session's snapshot may be old, or has writes")
        if response is None or hidden is None:
            return Loaded(None, NULL)
        if key_of_row(keys.bound, hidden) != entry:
            return refused(response, "what was asked for is not what the row has")
        payload = self._responses.dump(response)
        return Loaded(response, payload, "not_round_trip")
