"""Random sequences of calls, in and out of transactions, compared after each step with a dict of rows.

Whatever a crud says, with a cache and without one, is what the dict says.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pydantic import BaseModel, ConfigDict
from sqlalchemy import String, UniqueConstraint, delete
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Cache, Crud, NotFound, UniqueViolation
from fastrdb.cache.protocol import random_name
from fastrdb.db import create_async_engine, create_async_sessionmaker

Row = dict[str, Any]

IDS = st.integers(1, 4)
SHELVES = st.sampled_from(["a", "b"])
TITLES = st.sampled_from(["one", "two", "three"])
RANKS = st.none() | st.integers(1, 2)


class Base(DeclarativeBase):
    """One table."""


class Book(Base):
    """On a shelf, where no two have one title."""

    __tablename__ = "model_based_books"
    __table_args__ = (UniqueConstraint("shelf", "title"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shelf: Mapped[str] = mapped_column(String(20))
    title: Mapped[str] = mapped_column(String(20))
    rank: Mapped[int | None]


class BookIn(BaseModel):
    """A new book."""

    id: int
    shelf: str
    title: str
    rank: int | None = None


class BookChange(BaseModel):
    """What changes of a book."""

    shelf: str | None = None
    title: str | None = None
    rank: int | None = None


class BookOut(BaseModel):
    """A book."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    shelf: str
    title: str
    rank: int | None


BOOKS = st.builds(BookIn, id=IDS, shelf=SHELVES, title=TITLES, rank=RANKS)
CHANGES = st.one_of(
    st.builds(BookChange, rank=RANKS),
    st.builds(BookChange, title=TITLES),
    st.builds(BookChange, shelf=SHELVES, rank=RANKS),
)


def books_crud() -> Crud[Book, BookIn, BookChange, BookOut]:
    """Books by id, by shelf and title, and as lists of a shelf."""
    return Crud[Book, BookIn, BookChange, BookOut](
        Book,
        BookOut,
        pattern=("book:id:{id}", "book:on:{shelf}:{title}"),
        list_pattern="book:shelf:{shelf}:page:{page}:limit:{limit}",
    )


class Shelves(RuleBasedStateMachine):
    """Two cruds on one table, one of them with whole-table lists; one transaction at most is open."""

    def __init__(self, url: str, redis_url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.url, self.redis_url = url, redis_url
        self.rows: dict[int, Row] = {}  # committed
        self.open: dict[int, Row] | None = None  # as the open transaction sees it
        self.session: AsyncSession | None = None

    @initialize()
    def begin(self) -> None:
        """An empty table, and a cache of its own."""
        self.run(self._begin())

    async def _begin(self) -> None:
        self.engine = create_async_engine(self.url)
        self.factory = create_async_sessionmaker(self.engine)
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(delete(Book))
        self.cache = Cache.from_url(self.redis_url, prefix=f"{random_name().decode()}:")
        self.books = books_crud()
        self.all_books = Crud[Book, BookIn, BookChange, BookOut](
            Book, BookOut, pattern="all:{id}", list_pattern="all:page:{page}:limit:{limit}"
        )

    def teardown(self) -> None:
        """Close everything."""
        self.run(self._end())
        self.runner.close()

    async def _end(self) -> None:
        if self.session is not None:
            await self.session.close()
        await self.cache.aclose()
        await self.engine.dispose()

    def run(self, doing: Any) -> Any:
        """Run to the end."""
        return self.runner.run(doing)

    # -- what the dict says

    @property
    def seen(self) -> dict[int, Row]:
        """The rows as the next write sees them."""
        return self.rows if self.open is None else self.open

    def clash(self, row: Row, but: int | None = None) -> bool:
        """Whether a row cannot be there beside the others."""
        others = [other for id, other in self.seen.items() if id != but]
        return any(
            other["id"] == row["id"] or (other["shelf"], other["title"]) == (row["shelf"], row["title"])
            for other in others
        )

    def write(self, refused: type[Exception] | None, work: Callable[[Any], Any]) -> Any:
        """Write, in the open transaction if there is one; a violation ends that."""
        db = self.session if self.session is not None else self.factory

        async def call() -> Any:
            if refused is None:
                return await work({"db": db, "redis": self.cache})
            with pytest.raises(refused):
                await work({"db": db, "redis": self.cache})
            return None

        given = self.run(call())
        if refused is UniqueViolation and self.session is not None:
            self.finish(commit=False)
        return given

    def put(self, row: Row) -> None:
        """Note a row as written."""
        self.seen[row["id"]] = row

    # -- transactions

    @precondition(lambda self: self.session is None)
    @rule()
    def begin_transaction(self) -> None:
        """The following writes are in a transaction of the caller."""

        async def begin() -> AsyncSession:
            session = self.factory()
            await session.begin()
            return session

        self.session, self.open = self.run(begin()), {id: dict(row) for id, row in self.rows.items()}

    @precondition(lambda self: self.session is not None)
    @rule(commit=st.booleans())
    def end_transaction(self, commit: bool) -> None:
        """The caller commits, or rolls back."""
        self.finish(commit=commit)

    def finish(self, *, commit: bool) -> None:
        """End the transaction."""
        session = self.session
        assert session is not None

        async def end() -> None:
            await (session.commit() if commit else session.rollback())
            await session.close()

        self.run(end())
        if commit and self.open is not None:
            self.rows = self.open
        self.session = self.open = None

    # -- writes

    @rule(book=BOOKS)
    def create(self, book: BookIn) -> None:
        """A row is inserted, or clashes."""
        row = book.model_dump()
        clash = self.clash(row)
        if clash and self.session is not None:
            return  # what happens then is said once, outside
        given = self.write(UniqueViolation if clash else None, lambda at: self.books.create(obj_in=book, **at))
        if not clash:
            assert given.model_dump() == row
            self.put(row)

    @rule(books=st.lists(BOOKS, min_size=1, max_size=3, unique_by=(lambda b: b.id, lambda b: (b.shelf, b.title))))
    def create_multi(self, books: list[BookIn]) -> None:
        """All rows are inserted, or none."""
        clash = any(self.clash(book.model_dump()) for book in books)
        if clash and self.session is not None:
            return
        given = self.write(
            UniqueViolation if clash else None, lambda at: self.all_books.create_multi(instances=books, **at)
        )
        if not clash:
            assert [each.model_dump() for each in given] == [book.model_dump() for book in books]
            for book in books:
                self.put(book.model_dump())

    @rule(id=IDS, change=CHANGES)
    def update(self, id: int, change: BookChange) -> None:
        """Only the fields that were set change."""
        old = self.seen.get(id)
        row = {**(old or {}), **change.model_dump(exclude_unset=True)}
        refused = NotFound if old is None else UniqueViolation if self.clash(row, but=id) else None
        if refused is UniqueViolation and self.session is not None:
            return
        given = self.write(refused, lambda at: self.books.update(obj_in=change, id=id, **at))
        if refused is None:
            assert given.model_dump() == row
            self.put(row)

    @rule(id=IDS)
    def delete(self, id: int) -> None:
        """The row goes, or there is none."""
        there = id in self.seen
        self.write(None if there else NotFound, lambda at: self.all_books.delete(id=id, **at))
        self.seen.pop(id, None)

    @rule(which=st.sampled_from(["row", "directory", "all"]), id=IDS)
    def invalidate(self, which: str, id: int) -> None:
        """Dropping what is cached changes no answer."""

        async def drop() -> None:
            if which == "row":
                await self.books.invalidate(self.cache, id=id)
            elif which == "directory":
                await self.books.invalidate(self.cache, "book:*")
            else:
                await self.all_books.clear(self.cache)

        self.run(drop())

    # -- what readers see

    @invariant()
    def readers_see_what_is_committed(self) -> None:
        """With the cache and without, outside of the transaction."""
        if hasattr(self, "factory"):
            for cache in (self.cache, None):
                self.run(self._look(self.factory, cache, self.rows))

    @invariant()
    def the_transaction_sees_itself(self) -> None:
        """Its own writes are there for it, and for nobody else."""
        if self.session is not None:
            assert self.open is not None
            self.run(self._look(self.session, self.cache, self.open))

    async def _look(self, db: Any, cache: Cache | None, rows: dict[int, Row]) -> None:
        at = {"db": db, "redis": cache}
        for id in range(1, 5):
            for crud in (self.books, self.all_books):
                found = await crud.get_or_none(id=id, **at)
                assert (found.model_dump() if found is not None else None) == rows.get(id)
        for shelf in ("a", "b"):
            there = [row for _, row in sorted(rows.items()) if row["shelf"] == shelf]
            found_rows = await self.books.get_multi(limit=3, shelf=shelf, **at)
            assert [each.model_dump() for each in found_rows] == there[:3]
            assert await self.books.count(shelf=shelf, **at) == len(there)
            by_title = await self.books.get_or_none(shelf=shelf, title="one", **at)
            wanted = [row for row in there if row["title"] == "one"]
            assert (by_title.model_dump() if by_title is not None else None) == (wanted[0] if wanted else None)
        page = await self.all_books.page(limit=2, page=1, order_by="title", ascending=False, **at)
        by_title_down = sorted(rows.values(), key=lambda row: (row["title"], row["id"]), reverse=True)
        assert [each.model_dump() for each in page.data] == by_title_down[:2]
        assert page.total == len(rows)
        ranked = await self.all_books.get_multi(limit=10, rank={">=": 1}, **at)
        assert [each.id for each in ranked] == sorted(id for id, row in rows.items() if row["rank"] is not None)


@pytest.fixture(params=["memory", "valkey"])
def cache_url(request: pytest.FixtureRequest) -> str:
    """A cache in this process, and one on a server."""
    return "memory://" if request.param == "memory" else str(request.getfixturevalue("valkey_url"))


def test_cruds_say_what_a_dict_says(database_url: str, cache_url: str) -> None:
    """Whatever is called in whatever order: reads answer what was written and committed, cached or not."""
    run_state_machine_as_test(
        lambda: Shelves(database_url, cache_url),
        settings=settings(
            max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
