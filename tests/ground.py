"""Four tables with a few rows, and a crud for each, in any database and any cache: what contract checks stand on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, String, UniqueConstraint, delete, event, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Cache, Crud, ReadOptions
from fastrdb.cache.protocol import random_name

ANN, BO, CID, NOBODY = 1001, 1002, 1003, 9999  # far from where databases begin to count
NOTE, GONE, FOREIGN = 1001, 1002, 1003
ALL_NOTES = ReadOptions(include_deleted=True)


class Base(DeclarativeBase):
    """The tables."""


class Author(Base):
    """By name, or by id; some have no rank."""

    __tablename__ = "ground_authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), unique=True)
    rank: Mapped[int | None]


class Book(Base):
    """Goes with its author."""

    __tablename__ = "ground_books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("ground_authors.id", ondelete="CASCADE"))
    title: Mapped[str] = mapped_column(String(50))


class Seat(Base):
    """Has a key of two columns."""

    __tablename__ = "ground_seats"
    line: Mapped[str] = mapped_column(String(10), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    guest: Mapped[str | None] = mapped_column(String(50))


class Note(Base):
    """Belongs to a tenant, and is deleted softly."""

    __tablename__ = "ground_notes"
    __table_args__ = (UniqueConstraint("tenant_id", "text"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str] = mapped_column(String(10))
    text: Mapped[str] = mapped_column(String(50))
    closed_at: Mapped[datetime | None]


class Loose(BaseModel):
    """Any columns: what is written."""

    model_config = ConfigDict(extra="allow")


class Shown(BaseModel):
    """What is read."""

    model_config = ConfigDict(from_attributes=True)


class AuthorOut(Shown):
    """An author."""

    id: int
    name: str
    rank: int | None


class BookOut(Shown):
    """A book."""

    id: int
    author_id: int
    title: str


class SeatOut(Shown):
    """A seat."""

    line: str
    number: int
    guest: str | None


class NoteOut(Shown):
    """A note."""

    id: int
    tenant_id: str
    text: str


ROWS: list[tuple[Any, list[dict[str, Any]]]] = [
    (
        Author,
        [
            {"id": ANN, "name": "Ann", "rank": 1},
            {"id": BO, "name": "Бо:*🦊", "rank": None},
            {"id": CID, "name": "Çid", "rank": 3},
        ],
    ),
    (Book, [{"id": 1001, "author_id": ANN, "title": "one"}, {"id": 1002, "author_id": ANN, "title": "two"}]),
    (Seat, [{"line": "é", "number": 1, "guest": "Ann"}, {"line": "é", "number": 2, "guest": None}]),
    (
        Note,
        [
            {"id": NOTE, "tenant_id": "acme", "text": "here", "closed_at": None},
            {"id": GONE, "tenant_id": "acme", "text": "gone", "closed_at": datetime(2024, 1, 1)},
            {"id": FOREIGN, "tenant_id": "other", "text": "here", "closed_at": None},
        ],
    ),
]


class Ground:
    """A database, a cache or none, and a crud for each table.

    Attributes:
        cache: ``None`` outside of ``clean``.
    """

    def __init__(self, engine: AsyncEngine) -> None:
        self.engine = engine
        self.cache: Cache | None = None
        self.factory: async_sessionmaker[AsyncSession] = async_sessionmaker(engine, expire_on_commit=False)
        self.authors = Crud[Author, Loose, Loose, AuthorOut](
            Author,
            AuthorOut,
            pattern=("author:{id}", "author:name:{name}"),
            list_pattern="authors:{page}:{limit}",
            search=("name",),
        )
        self.books = Crud[Book, Loose, Loose, BookOut](
            Book, BookOut, pattern="book:{id}", list_pattern="books:{author_id}:{page}:{limit}"
        )
        self.seats = Crud[Seat, Loose, Loose, SeatOut](
            Seat, SeatOut, pattern="seat:{line}:{number}", list_pattern="seats:{page}:{limit}"
        )
        self.notes = Crud[Note, Loose, Loose, NoteOut](
            Note, NoteOut, "note:{id}", "notes:{page}:{limit}", tenant="tenant_id", soft_delete="closed_at"
        )

    @property
    def given(self) -> dict[str, Any]:
        """What every call is given."""
        return {"db": self.factory, "redis": self.cache}

    @asynccontextmanager
    async def clean(self, cache_url: str | None) -> AsyncIterator[None]:
        """The tables with just the rows above, and a cache that nothing was put into."""
        async with self.engine.begin() as connection:
            for table, _ in reversed(ROWS):
                await connection.execute(delete(table))
            for table, rows in ROWS:
                await connection.execute(insert(table), rows)
        if cache_url is None:
            yield
            return
        async with Cache.from_url(cache_url, prefix=f"{random_name().decode()}:") as cache:
            self.cache = cache
            yield
        self.cache = None

    async def stored(self) -> list[Any]:
        """All that is committed, by SQL that fastrdb never sees."""
        async with self.engine.connect() as connection:
            found = [(await connection.execute(select(table.__table__))).all() for table, _ in ROWS]
        return [sorted(map(tuple, rows), key=str) for rows in found]

    async def warm(self) -> None:
        """Have in the cache whatever ``is_fresh`` reads."""
        if self.cache is not None:
            await self.answers(self.cache)

    async def is_fresh(self) -> bool:
        """Whether readers are told the same through the cache and past it."""
        return self.cache is None or await self.answers(self.cache) == await self.answers(None)

    async def answers(self, cache: Cache | None) -> list[Any]:
        """What readers are told who come through the cache, or past it."""
        at: dict[str, Any] = {"db": self.factory, "redis": cache}
        authors, books, seats, notes = self.authors, self.books, self.seats, self.notes
        return [
            *[await authors.get_or_none(**at, id=id) for id in (ANN, BO, NOBODY)],
            *[await authors.get_or_none(**at, name=name) for name in ("Ann", "Дан")],
            await authors.get_multi(**at),
            await authors.count(**at),
            await authors.aggregate(**at, functions={"n": "count", "top": ("max", "rank")}),
            await books.get_multi(**at, author_id=ANN),
            await books.get_or_none(**at, id=1001),
            await seats.get_or_none(**at, line="é", number=1),
            await seats.get_multi(**at),
            await notes.get_or_none(**at, id=NOTE, tenant_id="acme"),
            await notes.get_multi(**at, tenant_id="acme"),
            await notes.count(**at, tenant_id="acme", options=ALL_NOTES),
            await notes.get_multi(**at, tenant_id="other"),
        ]


@asynccontextmanager
async def ground_on(url: str) -> AsyncIterator[Ground]:
    """The tables, in an empty database."""
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", _prepare)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield Ground(engine)
    finally:
        await engine.dispose()


def _prepare(connection: Any, _: object) -> None:
    connection.execute("PRAGMA foreign_keys=ON")
    connection.execute("PRAGMA synchronous=OFF")  # nobody pulls the plug
