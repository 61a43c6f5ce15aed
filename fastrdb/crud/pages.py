"""Pages with their total: page, paginate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final, Generic, cast

from pydantic import BaseModel
from sqlalchemy import ColumnElement
from typing_extensions import TypeVar

from ..errors import OutOfRange, UsageError
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis
from .beside import Beside
from .core import C, M, R, U
from .counting import COUNT
from .estimates import Estimates
from .lists import Lists
from .options import CACHED_TOTAL_S, ReadOptions, Total
from .ordering import OrderBy

T = TypeVar("T", default=Any)

UNKNOWN: Final = -1
"""The ``total`` of a page that was read without one."""
_LASTING = Beside(b"total", "cached", life_ms=CACHED_TOTAL_S * 1_000)


class PaginatedResponse(BaseModel, Generic[T]):
    """One page of a list.

    Attributes:
        data: The items of the page.
        total: Number of items on all pages; ``UNKNOWN``, which is -1, where it was not asked for and this is not the
            last page.
        limit: Items per page, as asked.
        page: Number of the page, from 1.
        has_next: There is a further page.
        estimated: The total is an estimate.
    """

    data: list[T]
    total: int
    limit: int
    page: int
    has_next: bool = False
    estimated: bool = False


class Pages(Lists[M, C, U, R], Estimates[M, C, U, R]):
    """Lists that say how many rows there are."""

    async def page(
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
    ) -> PaginatedResponse[R]:
        """Give one page and the number of rows that match. Arguments and errors as in ``get_multi``.

        The two are read one after the other: a write between them may show in one only. Where the page is the last one,
        its own rows say the number, and nothing else is read. ``ReadOptions(total=…)`` saves the COUNT of others.
        """
        wanted = options.total if isinstance(options, ReadOptions) else "exact"
        asked = self._asked(keywords, filters, where, options)
        window = replace(self._window(limit, page, order_by, ascending), peeks=wanted != "exact")
        found: list[R] = await self._list(db, redis, window, asked, self._responses.load_list)
        data, more = found[:limit], len(found) > limit
        seen = window.offset + len(data)
        estimated = False
        if (data or page == 1) and not more and (wanted != "exact" or len(data) < limit):
            total = seen  # this is the last page
        else:
            total, estimated = await self._total(db, redis, asked, wanted, seen + more if data else 0)
        generic: Any = PaginatedResponse
        response = generic[self._responses.schema](
            data=data,
            total=total,
            limit=limit,
            page=page,
            has_next=more if wanted != "exact" else page * limit < total,
            estimated=estimated,
        )
        return cast("PaginatedResponse[R]", response)

    async def _total(
        self, db: MaybeDatabase, redis: MaybeRedis, asked: Asked, wanted: Total, least: int
    ) -> tuple[int, bool]:
        """Give the number of rows in the way that is wanted, and whether it is an estimate.

        Args:
            least: Number of rows that were seen, which an older or a guessed total may not reach.
        """
        if wanted == "none":
            return UNKNOWN, False
        if wanted == "cached":
            return max(least, await self._counted(db, redis, asked, _LASTING)), False
        if wanted == "estimate" and (expected := await self._estimated(db, redis, asked)) is not None:
            return max(least, expected), True
        return max(least if wanted == "estimate" else 0, await self._counted(db, redis, asked, COUNT)), False

    def paginate(
        self, data: Sequence[T], limit: int = 10, page: int = 1, total: int | None = None
    ) -> PaginatedResponse[T]:
        """Wrap a list that is there already.

        Args:
            data: The whole list, or the page alone if *total* is given.
            limit: Items per page, 1 or more.
            page: Number of the page, from 1.
            total: Number of items on all pages.

        Raises:
            UsageError: *data* is no list, and *total* is not given.
            OutOfRange: ``limit`` or ``page`` is below 1, or a list that is not empty has no such page: where it is
                one page of a longer list already, pass its ``total``, or use ``page()``.
        """
        for name, value in (("limit", limit), ("page", page)):
            if type(value) is not int or value < 1:
                raise OutOfRange(name, value, 2**63 - 1)
        if total is not None:
            return PaginatedResponse(
                data=list(data), total=total, limit=limit, page=page, has_next=page * limit < total
            )
        if not isinstance(data, Sequence):
            raise UsageError(f"data: {type(data).__name__}; pass a list, or one page of it and its total=")
        last = max(1, -(-len(data) // limit))
        if page > last:
            raise OutOfRange(
                "page",
                page,
                last,
                "where data is one page of a longer list, pass its total=, or use page() instead",
            )
        return PaginatedResponse(
            data=list(data[(page - 1) * limit : page * limit]),
            total=len(data),
            limit=limit,
            page=page,
            has_next=page < last,
        )
