"""Authors, their books, and what hangs on those, by relationships of every kind; with their schemas and cruds."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Column, ForeignKey, ForeignKeyConstraint, String, Table, event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastrdb import Cache, Crud


class Base(DeclarativeBase):
    """Tables of the shelves."""


class Publisher(Base):
    """Of books; a book stays when it goes."""

    __tablename__ = "publishers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))


class Author(Base):
    """Has books, in an order with ties, and remarks."""

    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    books: Mapped[list["Book"]] = relationship(order_by="Book.place", back_populates="author")
    remarks: Mapped[set["Remark"]] = relationship()
    reviews: Mapped[list["Review"]] = relationship(viewonly=True)

    @property
    def initial(self) -> str:
        """The first letter of the name."""
        return self.name[0]


BOOK_TAGS = Table(
    "book_tags",
    Base.metadata,
    Column("book_id", ForeignKey("books.id", ondelete="CASCADE"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id", ondelete="CASCADE"), primary_key=True),
)


class BookTag(Base):
    """A tag on a book: the association, as a model."""

    __table__ = BOOK_TAGS
    tag: Mapped["Tag"] = relationship(viewonly=True)


class Book(Base):
    """Goes with its author; has tags, by a secondary table, and parts, whose key has two columns."""

    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id", ondelete="CASCADE"))
    publisher_id: Mapped[int | None] = mapped_column(ForeignKey("publishers.id", ondelete="SET NULL"))
    title: Mapped[str] = mapped_column(String(50), default="")
    place: Mapped[int] = mapped_column(default=0)
    author: Mapped[Author] = relationship(back_populates="books")
    publisher: Mapped[Publisher | None] = relationship()
    tags: Mapped[list["Tag"]] = relationship(secondary=BOOK_TAGS, viewonly=True)
    tagged: Mapped[list[BookTag]] = relationship(viewonly=True)
    parts: Mapped[list["Part"]] = relationship()


class Tag(Base):
    """On any number of books."""

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(50))


class Part(Base):
    """Of a book; its key is that of the book and a number."""

    __tablename__ = "parts"
    book_id: Mapped[int] = mapped_column(ForeignKey("books.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    title: Mapped[str] = mapped_column(String(50), default="")
    pages: Mapped[list["Page"]] = relationship()


class Page(Base):
    """Of a part, to which it refers by two columns."""

    __tablename__ = "pages"
    __table_args__ = (ForeignKeyConstraint(["book_id", "part"], ["parts.book_id", "parts.number"], ondelete="CASCADE"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int]
    part: Mapped[int]


class Remark(Base):
    """On an author; some are reviews."""

    __tablename__ = "remarks"
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "remark"}
    id: Mapped[int] = mapped_column(primary_key=True)
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id", ondelete="CASCADE"))
    kind: Mapped[str] = mapped_column(String(10))
    text: Mapped[str] = mapped_column(String(50))


class Review(Remark):
    """A remark with a number of stars, in the same table."""

    __mapper_args__ = {"polymorphic_identity": "review"}
    stars: Mapped[int | None]


class Topic(Base):
    """Below another one, or not."""

    __tablename__ = "topics"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    above_id: Mapped[int | None] = mapped_column(ForeignKey("topics.id", ondelete="CASCADE"))
    above: Mapped["Topic | None"] = relationship(remote_side=[id], back_populates="below")
    below: Mapped[list["Topic"]] = relationship(back_populates="above")


class Out(BaseModel):
    """What all responses are."""

    model_config = ConfigDict(from_attributes=True)


class Loose(BaseModel):
    """Any columns: what is written."""

    model_config = ConfigDict(extra="allow")


class NamedOut(Out):
    """An author or a publisher, by name."""

    id: int
    name: str


class TagOut(Out):
    """A tag."""

    id: int
    label: str


class PageOut(Out):
    """A page."""

    id: int


class PartOut(Out):
    """A part of a book, with its pages."""

    number: int
    title: str
    pages: list[PageOut]


class BookBrief(Out):
    """A book in a list, with its publisher and tags."""

    id: int
    title: str
    publisher: NamedOut | None
    tags: list[TagOut]


class AuthorOut(Out):
    """An author with all books."""

    id: int
    name: str
    books: list[BookBrief]


class BookOut(Out):
    """A book with its author, and its parts."""

    id: int
    title: str
    author_id: int
    author: NamedOut
    parts: list[PartOut]


class PlainBook(Out):
    """A book without anything."""

    id: int
    author_id: int
    title: str
    place: int


def crud_of(model: type[Any], schema: type[Any], **options: Any) -> Crud[Any, Loose, Loose, Any]:
    """A crud with a row template and lists of all rows; for books, lists of an author's."""
    name = model.__name__.lower()
    key = ":".join(f"{{{column.name}}}" for column in model.__table__.primary_key.columns)
    lists = f"{name}s:author:{{author_id}}:{{page}}:{{limit}}" if model is Book else f"{name}s:{{page}}:{{limit}}"
    defaults = {"pattern": f"{name}:{schema.__name__}:{key}", "list_pattern": lists}
    return Crud[model, Loose, Loose, schema](model, schema, **{**defaults, **options})


class Shelves:
    """A database with two authors, three books and what hangs on them; a cache; cruds that show nothing related.

    Attributes:
        sent: The statements that were sent so far.
    """

    def __init__(self, engine: AsyncEngine, cache: Cache | None) -> None:
        self.engine, self.cache = engine, cache
        self.factory = async_sessionmaker(engine, expire_on_commit=False)
        self.given: dict[str, Any] = {"db": self.factory, "redis": cache}
        self.sent: list[str] = []
        event.listen(engine.sync_engine, "before_cursor_execute", self._note)
        self.authors, self.publishers = crud_of(Author, NamedOut), crud_of(Publisher, NamedOut)
        self.books, self.tags, self.topics = crud_of(Book, PlainBook), crud_of(Tag, TagOut), crud_of(Topic, NamedOut)

    def _note(self, *args: Any) -> None:
        if "relrowsecurity" not in args[2]:
            self.sent.append(args[2])

    async def statements(self, read: Callable[[], Any]) -> int:
        """How many statements a call sends."""
        before = len(self.sent)
        await read()
        return len(self.sent) - before

    async def cached(self, read: Callable[[], Any]) -> Any:
        """Read twice, the second time from the cache."""
        first = await read()
        assert await self.statements(read) == 0
        assert await read() == first
        return first


ROWS = (
    "INSERT INTO publishers (name) VALUES ('Faber'), ('Reclam')",
    "INSERT INTO authors (name) VALUES ('Ann'), ('Bob')",
    (
        "INSERT INTO books (author_id, publisher_id, title, place) "
        "VALUES (1, 1, 'One', 2), (1, NULL, 'Two', 1), (2, 2, 'Three', 1), (1, 1, 'Four', 1)"
    ),
    "INSERT INTO tags (label) VALUES ('red'), ('blue')",
    "INSERT INTO book_tags (book_id, tag_id) VALUES (1, 2), (1, 1), (3, 1)",
    "INSERT INTO parts (book_id, number, title) VALUES (1, 2, 'b'), (1, 1, 'a')",
    "INSERT INTO pages (book_id, part) VALUES (1, 1), (1, 2), (1, 1)",
    "INSERT INTO remarks (author_id, kind, text, stars) VALUES (1, 'review', 'good', 5), (1, 'remark', 'hm', NULL)",
    "INSERT INTO topics (name, above_id) VALUES ('all', NULL)",
    "INSERT INTO topics (name, above_id) VALUES ('animals', 1), ('plants', 1)",
    "INSERT INTO topics (name, above_id) VALUES ('dogs', 2), ('cats', 2)",
)


@asynccontextmanager
async def shelves_in(url: str, redis_url: str | None) -> AsyncIterator[Shelves]:
    """Tables and rows in an empty database, with foreign keys enforced, and a cache."""
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        for statement in ROWS:
            await connection.exec_driver_sql(statement)
    cache = Cache.from_url(redis_url) if redis_url is not None else None
    try:
        yield Shelves(engine, cache)
    finally:
        if cache is not None:
            await cache.aclose()
        await engine.dispose()
