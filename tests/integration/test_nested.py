"""Responses that show related rows: loaded at once, cached, and dropped when any of those rows changes."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ConfigDict, Field, model_validator
from sqlalchemy import ForeignKey
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column, relationship

from tests.shelves import (
    Author,
    AuthorOut,
    Book,
    BookOut,
    Loose,
    NamedOut,
    Out,
    Part,
    PartOut,
    Shelves,
    TagOut,
    Topic,
    crud_of,
    shelves_in,
)

FABER = {"id": 1, "name": "Faber"}
RED, BLUE = {"id": 1, "label": "red"}, {"id": 2, "label": "blue"}
ANN = {
    "id": 1,
    "name": "Ann",
    "books": [
        {"id": 2, "title": "Two", "publisher": None, "tags": []},
        {"id": 4, "title": "Four", "publisher": FABER, "tags": []},
        {"id": 1, "title": "One", "publisher": FABER, "tags": [RED, BLUE]},
    ],
}


@pytest.fixture
async def shelves(database_url: str, valkey_url: str) -> AsyncIterator[Shelves]:
    """Authors and books, on each database, with Valkey."""
    async with shelves_in(database_url, valkey_url) as shelves:
        yield shelves


@pytest.fixture
async def embedded(sqlite_url: str) -> AsyncIterator[Shelves]:
    """Authors and books on SQLite, with the embedded cache: where the database makes no difference."""
    async with shelves_in(sqlite_url, "memory://") as shelves:
        yield shelves


# What is shown.


async def test_related_rows_are_shown_to_any_depth(shelves: Shelves) -> None:
    """An author has its books in the relationship's order, ties by key, with their publisher and tags; so in lists."""
    authors = crud_of(Author, AuthorOut)
    assert (await shelves.cached(lambda: authors.get(**shelves.given, id=1))).model_dump() == ANN
    listed = await shelves.cached(lambda: authors.get_multi(**shelves.given, limit=1))
    assert [author.model_dump() for author in listed] == [ANN]
    assert (await authors.get(db=shelves.factory, redis=None, id=1)).model_dump() == ANN


async def test_one_related_row_and_composite_keys_are_shown(shelves: Shelves) -> None:
    """A book has its author, its parts by their key of two columns, and their pages, which refer to both."""
    books = crud_of(Book, BookOut)
    found = await shelves.cached(lambda: books.get(**shelves.given, id=1))
    assert found.author == NamedOut(id=1, name="Ann")
    assert [(p.number, p.title, [page.id for page in p.pages]) for p in found.parts] == [
        (1, "a", [1, 3]),
        (2, "b", [2]),
    ]
    assert [part.number for part in await crud_of(Part, PartOut).get_multi(**shelves.given)] == [1, 2]


async def test_a_write_a_miss_and_a_hit_are_equal(shelves: Shelves) -> None:
    """What create and update give with related rows is what a miss and a hit then give."""
    authors = crud_of(Author, AuthorOut)
    made = await authors.create(**shelves.given, obj_in=Loose(name="Cas"))
    assert made.books == []
    assert await shelves.cached(lambda: authors.get(**shelves.given, id=made.id)) == made
    changed = await authors.update(**shelves.given, obj_in=Loose(name="Anna"), id=1)
    assert changed.model_dump() == {**ANN, "name": "Anna"}
    assert await shelves.cached(lambda: authors.get(**shelves.given, id=1)) == changed


@pytest.mark.parametrize("many", [1, 50])
async def test_statements_do_not_grow_with_rows(shelves: Shelves, many: int) -> None:
    """A list of 1 and of 50 authors takes a statement for itself and one for each relationship; so do their writes."""
    authors = crud_of(Author, AuthorOut)
    await authors.get_multi(db=shelves.factory, redis=None)  # the first one asks for more than rows
    await shelves.authors.delete(**shelves.given, id=1)
    await shelves.authors.delete(**shelves.given, id=2)
    made = [Loose(id=n, name="x") for n in range(1, many + 1)]
    before = len([statement for statement in shelves.sent if statement.startswith("SELECT")])
    await authors.create_multi(**shelves.given, instances=made)
    written = len([statement for statement in shelves.sent if statement.startswith("SELECT")]) - before
    await shelves.books.create_multi(
        **shelves.given, instances=[Loose(author_id=n, publisher_id=1) for n in range(1, many + 1) for _ in range(2)]
    )
    read = await shelves.statements(lambda: authors.get_multi(db=shelves.factory, redis=None, limit=100))
    # authors, books, publishers, tags; what is written has no books yet
    assert (written, read) == (2, 4)


async def test_statements_of_upserts_do_not_grow_with_rows(embedded: Shelves) -> None:
    """The responses of rows that were put in or changed together are read together."""
    authors, selects = crud_of(Author, AuthorOut), []
    for many in (2, 6):
        wanted = [Loose(id=number, name=f"x{many}") for number in range(1, many + 1)]
        before = len(embedded.sent)
        found = await authors.upsert_multi(**embedded.given, instances=wanted)
        selects.append(sum(statement.startswith("SELECT") for statement in embedded.sent[before:]))
        assert [(each.row.id, each.row.name) for each in found] == [(each.id, each.name) for each in wanted]
        assert [len(each.row.books) for each in found][:2] == [3, 1]
    assert selects[0] == selects[1]


async def test_limit_counts_rows_of_the_list(shelves: Shelves) -> None:
    """A page has as many authors as its limit says, however many books each has, and the total counts authors."""
    authors = crud_of(Author, AuthorOut)
    page = await authors.page(**shelves.given, limit=2, order_by="name", ascending=False)
    assert [(author.name, len(author.books)) for author in page.data] == [("Bob", 1), ("Ann", 3)]
    assert page.total == 2


async def test_nothing_is_loaded_that_is_not_shown(embedded: Shelves) -> None:
    """Neither further relationships nor further columns are read."""
    await crud_of(Author, AuthorOut).get(**embedded.given, id=1)
    sql = " ".join(embedded.sent)
    assert "parts" not in sql
    assert "remarks" not in sql
    read = next(statement for statement in embedded.sent if "FROM books" in statement)
    assert "books.title" in read
    assert "books.place" not in read.split("FROM")[0]


# Kinds of relationships and schemas.


class RemarkOut(Out):
    """A remark."""

    model_config = ConfigDict(frozen=True)
    id: int
    text: str


async def test_set_is_in_the_order_of_its_keys(embedded: Shelves) -> None:
    """A relationship that is a set is shown as a list, by key, or as a set."""

    class Listed(Out):
        id: int
        remarks: list[RemarkOut]

    class AsSet(Out):
        id: int
        remarks: frozenset[RemarkOut]

    listed, sets = crud_of(Author, Listed), crud_of(Author, AsSet)
    found = await embedded.cached(lambda: listed.get(**embedded.given, id=1))
    assert [remark.id for remark in found.remarks] == [1, 2]
    as_set = await embedded.cached(lambda: sets.get(**embedded.given, id=1))
    assert {remark.text for remark in as_set.remarks} == {"good", "hm"}


async def test_rows_of_a_subclass_are_shown(embedded: Shelves) -> None:
    """A relationship to a class that shares its table shows the rows of that class only."""

    class ReviewOut(Out):
        id: int
        stars: int

    class Reviewed(Out):
        id: int
        reviews: tuple[ReviewOut, ...]

    found = await embedded.cached(lambda: crud_of(Author, Reviewed).get(**embedded.given, id=1))
    assert [(review.id, review.stars) for review in found.reviews] == [(1, 5)]


async def test_association_objects_are_shown(embedded: Shelves) -> None:
    """The rows of a secondary table that is a model of its own are shown with what they lead to."""

    class TaggedOut(Out):
        tag_id: int
        tag: TagOut

    class WithTags(Out):
        id: int
        tagged: list[TaggedOut]

    found = await embedded.cached(lambda: crud_of(Book, WithTags).get(**embedded.given, id=1))
    assert [(each.tag_id, each.tag.label) for each in found.tagged] == [(1, "red"), (2, "blue")]


async def test_properties_validators_and_aliases_work_at_every_level(embedded: Shelves) -> None:
    """A level may need the instance, name its fields otherwise and compute some; hits and misses are equal."""

    class Writer(Out):
        initial: str
        called: str = Field(validation_alias="name", serialization_alias="calledSo")

    class Titled(Out):
        title: str
        written_by: Writer = Field(alias="author")

        @model_validator(mode="before")
        @classmethod
        def _look(cls, data: Any) -> Any:
            return data

    class Shown(Out):
        initial: str
        books: list[Titled]

    crud = crud_of(Author, Shown)
    found = await embedded.cached(lambda: crud.get(**embedded.given, id=1))
    assert found.initial == "A"
    assert [(book.title, book.written_by.called) for book in found.books] == [
        ("Two", "Ann"),
        ("Four", "Ann"),
        ("One", "Ann"),
    ]
    hit = await crud.get_json(**embedded.given, id=1)
    assert hit == await crud.get_json(db=embedded.factory, redis=None, id=1)
    assert b'"calledSo":"Ann"' in hit


async def test_what_is_not_shown_is_never_loaded_lazily(embedded: Shelves) -> None:
    """A property that reads a relationship which the schema does not show fails, rather than once for each row."""

    class Rich(Out):
        id: int
        reviews: list[RemarkOut]
        shelf: int

    Author.shelf = property(lambda self: len(self.books))  # type: ignore[attr-defined]  # for this test only
    try:
        crud = crud_of(Author, Rich)
        with pytest.raises(ValueError, match=r"Author\.books"):
            await crud.get(**embedded.given, id=1)
    finally:
        del Author.shelf  # type: ignore[attr-defined]


async def test_dataclass_models_are_shown(embedded: Shelves) -> None:
    """Models that are dataclasses are shown without being constructed."""

    class Mapped_(MappedAsDataclass, DeclarativeBase):
        pass

    class Toy(Mapped_):
        __tablename__ = "toys"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        box_id: Mapped[int] = mapped_column(ForeignKey("boxes.id"))

    class Box(Mapped_):
        __tablename__ = "boxes"
        id: Mapped[int] = mapped_column(primary_key=True, init=False)
        toys: Mapped[list[Toy]] = relationship(default_factory=list)

    class ToyOut(Out):
        id: int

    class BoxOut(Out):
        id: int
        toys: list[ToyOut]

    async with embedded.engine.begin() as connection:
        await connection.run_sync(Mapped_.metadata.create_all)
    boxes, toys = crud_of(Box, BoxOut), crud_of(Toy, ToyOut)
    await boxes.create(**embedded.given, obj_in=Loose())
    assert (await embedded.cached(lambda: boxes.get(**embedded.given, id=1))).toys == []
    await toys.create(**embedded.given, obj_in=Loose(box_id=1))
    assert (await embedded.cached(lambda: boxes.get(**embedded.given, id=1))).toys == [ToyOut(id=1)]


# Relationships of a table with itself.


class Leaf(Out):
    """A topic at the lowest level that is shown."""

    id: int


class Twig(Out):
    """A topic with those below."""

    name: str
    below: list[Leaf]


class Branch(Out):
    """A topic with two levels below, and the one above."""

    id: int
    above: NamedOut | None
    below: list[Twig]


async def test_tree_is_shown_as_deep_as_its_schemas(shelves: Shelves) -> None:
    """A relationship of a table with itself is shown by distinct schemas, and any write of the table drops it."""
    topics = crud_of(Topic, Branch)
    found = await shelves.cached(lambda: topics.get(**shelves.given, id=1))
    assert [(twig.name, [leaf.id for leaf in twig.below]) for twig in found.below] == [
        ("animals", [4, 5]),
        ("plants", []),
    ]
    await shelves.topics.create(**shelves.given, obj_in=Loose(name="ferns", above_id=3))
    found = await shelves.cached(lambda: topics.get(**shelves.given, id=1))
    assert [leaf.id for leaf in found.below[1].below] == [6]


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(above=st.lists(st.integers(0, 8), min_size=1, max_size=9), order=st.booleans())
async def test_every_row_of_a_tree_is_shown_alike(embedded: Shelves, above: list[int], order: bool) -> None:
    """A row that a list shows at several depths has at each what its schema there says."""
    async with embedded.engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM topics")
        for n, up in enumerate(above, 1):
            up_id = "NULL" if up == 0 or up >= n else str(up)
            await connection.exec_driver_sql(f"INSERT INTO topics (id, name, above_id) VALUES ({n}, 't{n}', {up_id})")
    ups = {n: up if 0 < up < n else None for n, up in enumerate(above, 1)}
    below = {n: [m for m, up in ups.items() if up == n] for n in ups}
    found = await crud_of(Topic, Branch).get_multi(db=embedded.factory, redis=None, limit=100, ascending=order)
    assert [topic.model_dump() for topic in found] == [
        {
            "id": n,
            "above": {"id": ups[n], "name": f"t{ups[n]}"} if ups[n] else None,
            "below": [{"name": f"t{m}", "below": [{"id": o} for o in below[m]]} for m in below[n]],
        }
        for n in sorted(ups, reverse=not order)
    ]
