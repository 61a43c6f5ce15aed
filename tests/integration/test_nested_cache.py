"""Cached responses that show related rows are dropped by every write that changes what they show."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.util import await_only

from tests.shelves import (
    Author,
    AuthorOut,
    Book,
    BookOut,
    BookTag,
    Loose,
    Out,
    Page,
    PageOut,
    Publisher,
    Shelves,
    crud_of,
    shelves_in,
)


class BookTagOut(Out):
    """A tag on a book."""

    book_id: int
    tag_id: int


@pytest.fixture
async def shelves(database_url: str, valkey_url: str) -> AsyncIterator[Shelves]:
    """Authors and books, on each database, with Valkey."""
    async with shelves_in(database_url, valkey_url) as shelves:
        yield shelves


def titles(author: Any) -> list[str]:
    """The titles of an author's books."""
    return [book.title for book in author.books]


class Readers:
    """Reads of authors with their books, by key, in lists and as JSON; all are cached when this is made."""

    def __init__(self, shelves: Shelves) -> None:
        crud = crud_of(Author, AuthorOut)
        self.shelves, self.crud, given = shelves, crud, shelves.given
        self.reads: list[Callable[[], Awaitable[Any]]] = [
            lambda: crud.get(**given, id=1),
            lambda: crud.get(**given, id=2),
            lambda: crud.get_multi(**given),
            lambda: crud.get_multi_json(**given, order_by="name", ascending=False),
        ]

    async def warm(self) -> "Readers":
        """Have all of them cached."""
        for read in self.reads:
            await self.shelves.cached(read)
        return self

    async def are_right(self) -> None:
        """Whatever the reads give is what the database has, now and from the cache."""
        none: dict[str, Any] = {"db": self.shelves.factory, "redis": None}
        one, two = await self.crud.get_or_none(**none, id=1), await self.crud.get_or_none(**none, id=2)
        given = self.shelves.given
        for _ in range(2):
            assert await self.crud.get_or_none(**given, id=1) == one
            assert await self.crud.get_or_none(**given, id=2) == two
            assert await self.crud.get_multi(**given) == [each for each in (one, two) if each]

    async def are_hits(self) -> bool:
        """Whether all of them need no SQL."""
        return [await self.shelves.statements(read) for read in self.reads] == [0] * len(self.reads)


@pytest.fixture
async def readers(shelves: Shelves) -> Readers:
    """Authors with books, all cached."""
    return await Readers(shelves).warm()


WRITES: dict[str, Callable[[Shelves], Awaitable[Any]]] = {
    "a book is created": lambda s: s.books.create(**s.given, obj_in=Loose(author_id=2, title="New")),
    "books are created": lambda s: s.books.create_multi(
        **s.given, instances=[Loose(author_id=n, title="New") for n in (1, 2)]
    ),
    "a book gets another title": lambda s: s.books.update(**s.given, obj_in=Loose(title="Other"), id=1),
    "a book gets another place": lambda s: s.books.update(**s.given, obj_in=Loose(place=0), id=1),
    "a book moves to another author": lambda s: s.books.update(**s.given, obj_in=Loose(author_id=2), id=1),
    "a book is deleted": lambda s: s.books.delete(**s.given, id=1),
    "a publisher gets another name": lambda s: s.publishers.update(**s.given, obj_in=Loose(name="X"), id=1),
    "a publisher is deleted, and its books stay": lambda s: s.publishers.delete(**s.given, id=1),
    "a tag gets another label": lambda s: s.tags.update(**s.given, obj_in=Loose(label="pink"), id=1),
    "a tag is deleted, and taken off its books": lambda s: s.tags.delete(**s.given, id=1),
    "a book gets a tag": lambda s: crud_of(BookTag, BookTagOut).create(**s.given, obj_in=Loose(book_id=2, tag_id=1)),
    "a book loses a tag": lambda s: crud_of(BookTag, BookTagOut).delete(**s.given, book_id=1, tag_id=1),
    "the author gets another name": lambda s: s.authors.update(**s.given, obj_in=Loose(name="X"), id=1),
    "the author is deleted, with all books": lambda s: s.authors.delete(**s.given, id=1),
}


@pytest.mark.parametrize("what", WRITES)
async def test_a_write_of_what_is_shown_drops_it(readers: Readers, what: str) -> None:
    """Rows and lists that show related rows are never older than a write of any of those, at whatever depth."""
    before = await readers.crud.get_multi(**readers.shelves.given)
    await WRITES[what](readers.shelves)
    await readers.are_right()
    assert await readers.crud.get_multi(**readers.shelves.given) != before


async def test_other_writes_leave_it_alone(readers: Readers) -> None:
    """What is shown of authors stays cached when pages change; that of another author, when an author changes."""
    await crud_of(Page, PageOut).delete(**readers.shelves.given, id=1)
    assert await readers.are_hits()
    await readers.shelves.authors.update(**readers.shelves.given, obj_in=Loose(name="Annie"), id=1)
    assert await readers.shelves.statements(readers.reads[1]) == 0


async def test_the_other_side_drops_it(shelves: Shelves) -> None:
    """A book that shows its author and its pages is dropped by writes of these."""
    books = crud_of(Book, BookOut)
    read = lambda: books.get(**shelves.given, id=1)  # noqa: E731
    await shelves.cached(read)
    await shelves.authors.update(**shelves.given, obj_in=Loose(name="Anna"), id=1)
    assert (await shelves.cached(read)).author.name == "Anna"
    await crud_of(Page, PageOut).create(**shelves.given, obj_in=Loose(book_id=1, part=1))
    assert [page.id for page in (await read()).parts[0].pages] == [1, 3, 4]


async def test_a_callers_transaction_drops_it_at_its_commit(readers: Readers) -> None:
    """Until the caller commits, others have the author from the cache, and the caller has its own; then all do."""
    shelves = readers.shelves
    async with shelves.factory() as session:
        await session.begin()
        await shelves.books.update(db=session, redis=shelves.cache, obj_in=Loose(title="Other"), id=1)
        assert await readers.are_hits()
        assert "Other" in titles(await readers.crud.get(db=session, redis=shelves.cache, id=1))
        await session.rollback()
        assert await readers.are_hits()
        await session.begin()
        await shelves.books.update(db=session, redis=shelves.cache, obj_in=Loose(title="Other"), id=1)
        await session.commit()
    await readers.are_right()
    assert "Other" in titles(await readers.crud.get(**shelves.given, id=1))


async def test_a_parents_write_is_not_put_in_place(readers: Readers) -> None:
    """A written parent is not put into the cache by its write: its children may change meanwhile."""
    shelves = readers.shelves
    answer = await readers.crud.update(**shelves.given, obj_in=Loose(name="Anna"), id=1)
    assert (answer.name, titles(answer)) == ("Anna", ["Two", "Four", "One"])
    assert (await readers.crud.explain(**shelves.given, id=1)).state == "miss: absent"


async def test_a_child_that_changes_between_the_statements_is_never_kept(shelves: Shelves) -> None:
    """A reader whose author is from before a commit and whose books are from after it does not store the mixture."""
    authors, moved = crud_of(Author, AuthorOut), []
    await shelves.cached(lambda: authors.get_multi(**shelves.given))
    await authors.clear(shelves.cache)

    def move(*args: Any) -> None:
        """Before the publishers are read, but after the books, a book leaves its publisher, which takes a new name."""
        if "FROM publishers" in args[2] and not moved:
            moved.append(True)
            await_only(shelves.books.update(**shelves.given, obj_in=Loose(publisher_id=None), id=1))
            await_only(shelves.publishers.update(**shelves.given, obj_in=Loose(name="New"), id=1))

    event.listen(shelves.engine.sync_engine, "before_cursor_execute", move)
    mixed = await authors.get(**shelves.given, id=1)
    assert moved
    assert mixed.books[2].publisher is not None  # as it was when the books were read
    found = await authors.get(**shelves.given, id=1)
    assert [book.publisher and book.publisher.name for book in found.books] == [None, "New", None]


async def test_publishers_without_books_leave_nothing_stale(shelves: Shelves) -> None:
    """A missing row is found as soon as it is there, with what is related to it."""
    authors = crud_of(Author, AuthorOut)
    assert await shelves.cached(lambda: authors.get_or_none(**shelves.given, id=3)) is None
    made = await authors.create(**shelves.given, obj_in=Loose(id=3, name="Cas"))
    await shelves.books.create(**shelves.given, obj_in=Loose(author_id=3, title="First"))
    assert made.books == []
    assert titles(await authors.get(**shelves.given, id=3)) == ["First"]
    assert Publisher.__tablename__ in authors._layout.depends_on
