"""Things with values of many types, ties and NULLs among them, for the tests of orders, cursors and streams."""

import enum
import uuid
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import (
    CHAR,
    ColumnElement,
    DateTime,
    Double,
    Enum,
    Float,
    LargeBinary,
    Numeric,
    String,
    Time,
    Uuid,
    func,
    insert,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column

from fastrdb import Crud, CursorPage


class Base(DeclarativeBase):
    """One table."""


class Size(enum.Enum):
    """Declared in another order than that of the alphabet."""

    SMALL = "small"
    MEDIUM = "medium"
    LARGE = "large"


class Thing(Base):
    """A row with a column of each kind, none of them unique."""

    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    rank: Mapped[int] = mapped_column(default=0)
    level: Mapped[int] = mapped_column(default=0)
    age: Mapped[int | None]
    label: Mapped[str | None] = mapped_column(String(60))
    short: Mapped[float | None] = mapped_column(Float)
    double: Mapped[float | None] = mapped_column(Double)
    price: Mapped[Decimal | None] = mapped_column(Numeric(20, 12))
    rounded: Mapped[float | None] = mapped_column(Numeric(20, 18, asdecimal=False))
    code: Mapped[str | None] = mapped_column(CHAR(6))
    size: Mapped[Size | None] = mapped_column(Enum(Size))
    flag: Mapped[bool | None]
    day: Mapped[date | None]
    at: Mapped[datetime | None] = mapped_column(
        DateTime(timezone=True).with_variant(mysql.DATETIME(timezone=True, fsp=6), "mysql", "mariadb")
    )
    hour: Mapped[time | None] = mapped_column(Time)
    lasts: Mapped[timedelta | None]
    token: Mapped[uuid.UUID | None] = mapped_column(Uuid)
    raw: Mapped[bytes | None] = mapped_column(LargeBinary(20))

    @hybrid_property
    def total(self) -> int:
        """A sum, with NULL where there is no age."""
        raise NotImplementedError

    @total.inplace.expression
    @classmethod
    def _total(cls) -> ColumnElement[int]:
        return cls.age + cls.rank

    @property
    def shout(self) -> str:
        """What only an instance can tell."""
        return (self.label or "").upper()


Thing.long = column_property(func.length(Thing.label))  # type: ignore[attr-defined]  # as SQLAlchemy adds properties


class ThingOut(BaseModel):
    """Which thing it is."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    rank: int
    age: int | None


class ShoutOut(ThingOut):
    """What is made of an instance."""

    shout: str


class Loose(BaseModel):
    """Any columns: what is written."""

    model_config = ConfigDict(extra="allow")


ThingCrud = Crud[Thing, Loose, Loose, ThingOut]
Sessions = async_sessionmaker[AsyncSession]


def things(**options: Any) -> ThingCrud:
    """A crud without a cache of its own."""
    return Crud[Thing, Loose, Loose, ThingOut](
        Thing, ThingOut, pattern="thing:{id}", list_pattern="things:{page}:{limit}", **options
    )


@asynccontextmanager
async def shelf(url: str, rows: Sequence[dict[str, Any]] = (), **options: Any) -> AsyncIterator[Sessions]:
    """A table with these rows, and sessions on it."""
    engine = create_async_engine(url, **options)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            if rows:
                await connection.execute(insert(Thing), [{"rank": 0, "level": 0, **row} for row in rows])
        yield async_sessionmaker(engine, expire_on_commit=False)
    finally:
        await engine.dispose()


def mixed() -> list[dict[str, Any]]:
    """Rows with values that drivers, SQLAlchemy and databases see differently, ties and NULLs."""
    noon = datetime(2024, 5, 6, 12, 0, 0, 1, tzinfo=UTC)
    values: dict[str, list[Any]] = {
        "age": [3, None, 1, 3, 0],
        "label": ["ann", "Ann", None, "ANN", "bob ", "bob", "", "é", "e", "z\\'%"],
        "short": [0.1, 0.1, 16777216.0, 16777215.0, None, -0.0, 0.0, 1 / 3, 3.4e38],
        "double": [0.1, 0.30000000000000004, 0.3, None, -0.0, 0.0, 1e300, 5e-324],
        "price": [Decimal("0.000000000001"), Decimal("1.1"), Decimal("1.100000000001"), None, Decimal("0.1")],
        "rounded": [0.123456789012345678, 0.1, None, 1 / 3],
        "code": ["a", "a  ", "A", "b", None, ""],
        "size": [Size.SMALL, Size.MEDIUM, Size.LARGE, None],
        "flag": [True, False, None],
        "day": [date(2024, 1, 1), date(1, 1, 1), None, date(9999, 12, 31)],
        "at": [noon, noon.replace(microsecond=0), None, noon + timedelta(days=1)],
        "hour": [time(1, 2, 3), None, time(0), time(23, 59, 59)],
        "lasts": [timedelta(days=1), None, timedelta(seconds=5)],
        "token": [uuid.UUID("6fa459ea-ee8a-4ca4-894e-db77e160355e"), None, uuid.UUID(int=2**127 + 2**79 - 2**62)],
        "raw": [b"\xff\x00", b"", None, b"a"],
    }
    rows = [{name: each[at % len(each)] for name, each in values.items()} for at in range(40)]
    return [{"id": at, "rank": at % 3, "level": at % 2, **row} for at, row in enumerate(rows)]


async def forward(crud: Crud[Any, Any, Any, Any], db: Any, limit: int, **asked: Any) -> list[CursorPage[Any]]:
    """All pages of a list, first to last."""
    pages = [await crud.cursor_page(db, limit=limit, **asked)]
    while (cursor := pages[-1].next) is not None:
        pages.append(await crud.cursor_page(db, limit=limit, cursor=cursor, **asked))
    return pages


async def backward(
    crud: Crud[Any, Any, Any, Any], db: Any, limit: int, last: CursorPage[Any], **asked: Any
) -> list[CursorPage[Any]]:
    """All pages of a list before one, and that one, first to last."""
    pages = [last]
    while (cursor := pages[0].previous) is not None:
        pages.insert(0, await crud.cursor_page(db, limit=limit, cursor=cursor, **asked))
    return pages


def ids(pages: Sequence[CursorPage[Any]]) -> list[int]:
    """The ids of the rows on pages, in their order."""
    return [row.id for page in pages for row in page.data]
