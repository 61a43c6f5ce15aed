"""Pages with their total: page, paginate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, cast

from pydantic import BaseModel
from sqlalchemy import ColumnElement
from typing_extensions import TypeVar

from ..errors import OutOfRange
from .arguments import UNSET, Filters, MaybeDatabase, MaybeRedis
from .core import C, M, R, U
from .counting import Counting
from .lists import Lists
from .options import ReadOptions
from .ordering import OrderBy

T = TypeVar("T", default=Any)


class PaginatedResponse(BaseModel, Generic[T]):
    """One page of a list.

    Attributes:
        data: The items of the page.
        total: Number of items on all pages.
        limit: Items per page, as asked.
        page: Number of the page, from 1.
    """

    data: list[T]
    total: int
    limit: int
    page: int


class Pages(Lists[M, C, U, R], Counting[M, C, U, R]):
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
        """Give one page and the true number of rows that match. Arguments and errors as in ``get_multi``.

        The two are read one after the other: a write between them may show in one only.
        """
        data = await self.get_multi(
            db, redis, limit, page, order_by, ascending, where=where, filters=filters, options=options, **keywords
        )
        total = await self.count(db, redis, where=where, filters=filters, options=options, **keywords)
        generic: Any = PaginatedResponse
        response = generic[self._responses.schema]
        return cast("PaginatedResponse[R]", response(data=data, total=total, limit=limit, page=page))

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
            OutOfRange: ``limit`` or ``page`` is below 1, or a list that is not empty has no such page: where it is
                one page of a longer list already, pass its ``total``, or use ``page()``.
        """
        for name, value in (("limit", limit), ("page", page)):
            if type(value) is not int or value < 1:
                raise OutOfRange(name, value, 2**63 - 1)
        if total is not None:
            return PaginatedResponse(data=list(data), total=total, limit=limit, page=page)
        last = max(1, -(-len(data) // limit))
        if page > last:
            raise OutOfRange(
                "page",
                page,
                last,
                "where data is one page of a longer list, pass its total=, or use page() instead",
            )
        return PaginatedResponse(
            data=list(data[(page - 1) * limit : page * limit]), total=len(data), limit=limit, page=page
        )
