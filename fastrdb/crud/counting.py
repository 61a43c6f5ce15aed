"""How many rows match: count."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, select

from ..cache.reads import Loaded
from ..keys import suffix
from .arguments import UNSET, Filters, MaybeDatabase, MaybeRedis
from .core import C, M, R, U
from .execution import Query
from .options import ReadOptions
from .reading import Reading, refused


class Counting(Reading[M, C, U, R]):
    """The number of rows."""

    async def count(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        options: ReadOptions | None = None,
        **keywords: Any,
    ) -> int:
        """Give the number of rows that match.

        With a cache it is kept where the lists are: below the list template's directory, if all of its fields are
        given. Arguments and errors as in ``get_multi``.
        """
        no_cache = redis is UNSET and self._redis is UNSET
        asked = self._asked(keywords, filters, where, options)
        self._refuse_lock(asked)
        sources = await self._asked_sources(db, None if no_cache else redis, asked.tables)

        def build() -> Query:
            return Query.of(self._conditioned(select(func.count()).select_from(self._model.table), asked))

        async def load(may_store: bool) -> Loaded[int]:
            query: Query = self._kept(("count", asked.shape), build) if asked.where is None else build()
            rows, fresh = await self._fetch(sources, query, asked.params, tuple)
            total: int = rows[0][0]
            return Loaded(total, b"%d" % total) if may_store and fresh else refused(total, "its snapshot may not fill")

        keys = sources.space.lists if sources.space is not None else None
        if sources.cache is None or keys is None:
            return (await load(False)).answer
        given = {name: value for name, value in asked.given.items() if name in keys.fields}
        reason = asked.uncacheable or (None if len(given) == len(keys.fields) else "a count without its list's fields")
        if reason is not None:
            sources.cache.stats.count(f"bypass: {reason}")
            return (await load(False)).answer
        extras = asked.extras(keys.counted_by, sight=sources.sight)
        entry = keys.directory(given) + b"count" + (suffix(extras).encode() if extras is not None else b"")
        scope = keys.scope(given, self._depends(asked.tables, keys.prefix))
        return await self._read(sources, entry, scope, load, int, listed=keys.listed)
