"""Pages by cursor far into a long list, beside the first page of it."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Index, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateTable, DropTable

from fastrdb import Crud, Order

from .contest import Contestant, Work, WrongTurn
from .world import World

LIMIT = 100
_STRIDE = 10_000  # rows of a page on the way there


class PointResponse(BaseModel):
    """What is sent of a point."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    rank: int
    age: int | None


PointCrud = Crud[Any, BaseModel, BaseModel, PointResponse]


def walks(world: World) -> list[Work]:
    """Give the work that reads the last full page of a long list, by several orders; "by hand" is the first page."""
    walk = Walk(world)
    mixed, ages = ["-rank", "id"], Order("age", nulls="first")
    last = world.scale.walked // LIMIT
    return [
        Work(
            name="cursor_page",
            title=f"page {last:,} by cursor, beside page 1",
            target=2.0,
            by_hand=walk.first("rank"),
            fastrdb=walk.last("rank"),
            around=walk.around,
            beside={
                "mixed directions": walk.last(mixed),
                "by a column with NULLs": walk.last(ages),
            },
        )
    ]


class Walk:
    """A table of many rows, ties and NULLs among them, and its pages."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._model = _points(f"benchmark_{secrets.token_hex(4)}_points")
        self._crud: PointCrud = Crud(self._model, PointResponse, max_limit=_STRIDE)
        self._cursors: dict[str, str | None] = {}

    def first(self, order_by: Any) -> Contestant:
        """Read the first page."""
        return _again(lambda: self._page(order_by, None))

    def last(self, order_by: Any) -> Contestant:
        """Read the last full page; the way there is not timed."""

        async def prepare(count: int) -> None:
            if str(order_by) not in self._cursors:
                self._cursors[str(order_by)] = await self._walk(order_by)

        return _again(lambda: self._page(order_by, self._cursors[str(order_by)]), prepare)

    @asynccontextmanager
    async def around(self) -> AsyncIterator[None]:
        """Have the table."""
        rows, table = self._world.scale.walked, self._model.__table__
        async with self._world.admin.begin() as connection:
            await connection.execute(CreateTable(table))
            await connection.exec_driver_sql(
                f"INSERT INTO {table.name} (id, rank, age) SELECT at, at % 10000, "
                "CASE WHEN at % 10 = 0 THEN NULL ELSE (at::bigint * 7919) % 5000 END "
                f"FROM generate_series(1, {rows}) AS at"
            )
            for index in table.indexes:
                await connection.run_sync(index.create)
        async with self._world.admin.connect() as connection:
            autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
            await autocommit.exec_driver_sql(f"VACUUM ANALYZE {table.name}")
        try:
            yield
        finally:
            async with self._world.admin.begin() as connection:
                await connection.execute(DropTable(table, if_exists=True))

    async def _page(self, order_by: Any, cursor: str | None, limit: int = LIMIT) -> Any:
        page = await self._crud.cursor_page(self._world.sessions, None, limit=limit, cursor=cursor, order_by=order_by)
        if len(page.data) != limit:
            raise WrongTurn(f"{len(page.data)} rows on a page of {limit}")
        return page

    async def _walk(self, order_by: Any) -> str | None:
        left, cursor = self._world.scale.walked - LIMIT, None
        while left:
            limit = _STRIDE if left > _STRIDE else LIMIT
            cursor = (await self._page(order_by, cursor, limit)).next
            left -= limit
        return cursor


def _points(name: str) -> Any:
    class Base(DeclarativeBase):
        pass

    class Point(Base):
        __tablename__ = name
        id: Mapped[int] = mapped_column(primary_key=True)
        rank: Mapped[int]
        age: Mapped[int | None]
        __table_args__ = (
            Index(f"{name}_rank", "rank", "id"),
            Index(f"{name}_mixed", text("rank DESC"), "id"),
            Index(f"{name}_age", "age", "id"),
        )

    return Point


async def _nothing(count: int) -> None:
    """Prepare nothing."""


def _again(read: Callable[[], Awaitable[Any]], prepare: Callable[[int], Awaitable[None]] = _nothing) -> Contestant:
    async def run(count: int) -> None:
        for _ in range(count):
            await read()

    return Contestant(run, prepare)
