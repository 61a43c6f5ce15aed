"""How many rows match: count."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, select

from ..cache.reads import Loaded
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis
from .beside import Beside, Besides
from .core import C, M, R, U
from .execution import Query
from .options import ReadOptions
from .reading import refused

COUNT = Beside(b"count")


class Counting(Besides[M, C, U, R]):
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
        return await self._counted(db, redis, self._asked(keywords, filters, where, options), COUNT)

    async def _counted(self, db: MaybeDatabase, redis: MaybeRedis, asked: Asked, kept: Beside) -> int:
        no_cache = redis is UNSET and self._redis is UNSET
        self._refuse_lock(asked)
        sources = await self._asked_sources(db, None if no_cache else redis, asked.tables)

        def build() -> Query:
            return Query.of(self._conditioned(select(func.count()).select_from(self._model.table), asked))

        async def load(may_store: bool) -> Loaded[int]:
            query: Query = self._kept(("count", asked.shape), build) if asked.where is None else build()
            rows, refusal = await self._fetch(sources, query, asked.params, tuple)
            total: int = rows[0][0]
            stored = may_store and not refusal
            return Loaded(total, b"%d" % total) if stored else refused(total, refusal or "not asked for")

        return await self._beside(sources, asked, kept, load, int)
