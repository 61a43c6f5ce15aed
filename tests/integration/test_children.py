"""The children of one parent, written together: create_by_foreign_key, update_by_foreign_key, delete_by_foreign_key."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import ForeignKey, String, select, text
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import (
    BatchRefused,
    ChildrenChange,
    Conflict,
    Crud,
    EmptyInput,
    InputError,
    NotFound,
    SessionRefused,
    UniqueViolation,
    UnsupportedModel,
    UsageError,
    ValueRefused,
)
from tests.shelves import (
    Author,
    AuthorOut,
    Book,
    BookOut,
    Loose,
    NamedOut,
    Out,
    Page,
    PageOut,
    Part,
    PlainBook,
    Shelves,
    Topic,
    crud_of,
    shelves_in,
)


class BookIn(BaseModel):
    """What creates a book; its author may be left out."""

    title: str
    place: int = 7


class BookChange(BaseModel):
    """What changes a book."""

    title: str | None = None
    place: int | None = None


class BookItem(BaseModel):
    """A book of a list, by its id."""

    id: int | None = None
    title: str | None = None


BookCrud = Crud[Book, BookIn, BookChange, PlainBook]


def book_crud() -> BookCrud:
    """Books, with the templates that the other cruds of the tests have, too."""
    return Crud[Book, BookIn, BookChange, PlainBook](
        Book, PlainBook, pattern="book:{id}", list_pattern="books:author:{author_id}:{page}:{limit}"
    )


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


async def stored(shelves: Shelves) -> list[tuple[int, int, str, int]]:
    """All books, as the database has them."""
    async with shelves.factory() as session:
        found = await session.execute(select(Book.id, Book.author_id, Book.title, Book.place).order_by(Book.id))
        return [tuple(row) for row in found]


BEFORE = [(1, 1, "One", 2), (2, 1, "Two", 1), (3, 2, "Three", 1), (4, 1, "Four", 1)]


class Watch:
    """Reads of books and of authors with books: rows, lists and counts; all cached when this is made."""

    def __init__(self, shelves: Shelves) -> None:
        self.shelves, self.books, self.authors = shelves, book_crud(), crud_of(Author, AuthorOut)

    async def answers(self, given: dict[str, Any]) -> list[Any]:
        """What all of them give."""
        return [
            *[await self.books.get_or_none(**given, id=id) for id in range(1, 8)],
            *[await self.books.get_multi(**given, author_id=id) for id in (1, 2)],
            *[await self.books.count(**given, author_id=id) for id in (1, 2)],
            *[await self.authors.get(**given, id=id) for id in (1, 2)],
            await self.authors.get_multi(**given),
        ]

    async def warm(self) -> "Watch":
        """Have all of them cached."""
        await self.answers(self.shelves.given)
        assert await self.shelves.statements(lambda: self.answers(self.shelves.given)) == 0
        return self

    async def is_right(self) -> None:
        """All of them give what the database has, now and when they are cached again."""
        right = await self.answers({"db": self.shelves.factory, "redis": None})
        assert await self.answers(self.shelves.given) == right
        assert await self.answers(self.shelves.given) == right


@pytest.fixture
async def watch(shelves: Shelves) -> Watch:
    """Cached books and authors."""
    return await Watch(shelves).warm()


# Create.


async def test_children_are_created_in_order(watch: Watch) -> None:
    """Schemas and dicts become children, are given back in order, and what showed the parent's children is dropped."""
    books, given = watch.books, watch.shelves.given
    made = await books.create_by_foreign_key(
        **given, fk_field="author_id", fk_value=1, data=[BookIn(title="A"), {"title": "B", "place": 3}]
    )
    assert [(book.author_id, book.title, book.place) for book in made] == [(1, "A", 7), (1, "B", 3)]
    assert made[0].id < made[1].id
    await watch.is_right()
    assert [book.title for book in (await watch.authors.get(**given, id=1)).books][-1:] == ["A"]


async def test_go_6_dicts_are_created_with_what_they_say(embedded: Shelves) -> None:
    """GO 6: dicts, as its README passes them, were stored as empty strings; here they are stored as they are."""
    items = [{"title": "Step 1", "place": 1}, {"title": "Step 2", "place": 2}]
    await book_crud().create_by_foreign_key(**embedded.given, fk_field="author_id", fk_value=2, data=items)
    assert [row[1:] for row in (await stored(embedded))[-2:]] == [(2, "Step 1", 1), (2, "Step 2", 2)]


async def test_go_6_dicts_are_updated_by_their_id(embedded: Shelves) -> None:
    """GO 6: dicts raised AttributeError in its update_by_foreign_key; here id 0 creates, 1 changes, -2 deletes."""
    items = [{"id": 1, "title": "Updated step"}, {"id": 0, "title": "New step"}, {"id": -2}]
    await book_crud().update_by_foreign_key(**embedded.given, fk_field="author_id", fk_value=1, data=items)
    assert await stored(embedded) == [
        (1, 1, "Updated step", 2),
        (3, 2, "Three", 1),
        (4, 1, "Four", 1),
        (5, 1, "New step", 7),
    ]


async def test_missing_parent_is_found_before_anything_is_written(shelves: Shelves) -> None:
    """Children of a parent that is not there raise NotFound, which names the parent; a joined session goes on."""
    books = book_crud()
    async with shelves.factory() as session:
        await session.begin()
        given: dict[str, Any] = {"db": session, "redis": shelves.cache, "fk_field": "author_id", "fk_value": 9}
        with pytest.raises(NotFound, match="no Author with id=9"):
            await books.create_by_foreign_key(**given, data=[{"title": "x"}])
        with pytest.raises(NotFound, match="no Author with id=9"):
            await books.update_by_foreign_key(**given, data=[{"id": 1, "title": "x"}])
        assert await books.delete_by_foreign_key(**given) == 0
        await session.commit()
    assert await stored(shelves) == BEFORE


async def test_every_bad_item_is_named(embedded: Shelves) -> None:
    """All items that are wrong are named, by index and field, and nothing is sent."""
    items: list[Any] = [
        {"title": "ok"},
        {"titel": "x"},
        {"title": "x", "place": "far"},
        {"title": "x", "author_id": 2},
        7,
    ]
    before = len(embedded.sent)
    with pytest.raises(BatchRefused) as caught:
        await book_crud().create_by_foreign_key(**embedded.given, fk_field="author_id", fk_value=1, data=items)
    assert caught.value.indexes == (1, 2, 3, 4)
    assert [row.field for row in caught.value.rows] == ["titel", "place", "author_id", None]
    assert "BookIn has no field 'titel'; did you mean 'title'?" in str(caught.value)
    assert len(embedded.sent) == before


async def test_key_of_the_parent_may_stand_in_the_items(embedded: Shelves) -> None:
    """Items that name their parent themselves are taken if they name the same one."""

    class OwnedIn(BaseModel):
        author_id: int
        title: str

    crud = Crud[Book, OwnedIn, BookChange, PlainBook](Book, PlainBook, "owned:{id}")
    fk: dict[str, Any] = {**embedded.given, "fk_field": "author_id", "fk_value": 2}
    made = await crud.create_by_foreign_key(**fk, data=[OwnedIn(author_id=2, title="a"), {"title": "b"}])
    assert [book.author_id for book in made] == [2, 2]
    await crud.update_by_foreign_key(**fk, data=[{"id": 3, "author_id": 2, "title": "c"}])
    with pytest.raises(BatchRefused, match="author_id"):
        await crud.create_by_foreign_key(**fk, data=[OwnedIn(author_id=1, title="a")])


async def test_violation_undoes_all_of_a_call(shelves: Shelves) -> None:
    """A child that the database refuses undoes those before it, in a transaction of ours and in a caller's."""
    books = crud_of(Book, PlainBook)
    await shelves.books.create(**shelves.given, obj_in=Loose(id=50, author_id=2))
    fk: dict[str, Any] = {"redis": shelves.cache, "fk_field": "author_id", "fk_value": 1}
    lists: dict[str, Any] = {"update": [{"id": 1, "title": "x"}], "create": [{"id": 51}, {"id": 50}], "delete": [2]}
    with pytest.raises(UniqueViolation):
        await books.update_by_foreign_key(shelves.factory, **fk, **lists)
    assert (await stored(shelves))[:4] == BEFORE
    if shelves.engine.dialect.name != "postgresql":  # which lets nobody go on
        async with shelves.factory() as session, session.begin():
            with pytest.raises(UniqueViolation):
                await books.update_by_foreign_key(session, **fk, **lists)
        assert (await stored(shelves))[:4] == BEFORE


# Update.


async def test_children_are_deleted_changed_and_created(watch: Watch) -> None:
    """One call does all three, says what became of each, and leaves nothing stale."""
    books, given = watch.books, watch.shelves.given
    changed = await books.update_by_foreign_key(
        **given,
        fk_field="author_id",
        fk_value=1,
        data=[BookItem(title="New"), BookItem(id=4, title="Fourth"), {"id": -1}, {"id": 0, "title": "Newer"}],
    )
    assert isinstance(changed, ChildrenChange)
    assert [(book.title, book.place) for book in changed.created] == [("New", 7), ("Newer", 7)]
    assert changed.updated == [PlainBook(id=4, author_id=1, title="Fourth", place=1)]
    assert changed.deleted == 1
    await watch.is_right()
    assert [row[2] for row in await stored(watch.shelves)] == ["Two", "Three", "Fourth", "New", "Newer"]


async def test_only_set_fields_are_written(embedded: Shelves) -> None:
    """A field that an item does not set stays as it is."""
    fk: dict[str, Any] = {**embedded.given, "fk_field": "author_id", "fk_value": 1}
    await book_crud().update_by_foreign_key(**fk, data=[{"id": 1, "place": 9}])
    assert (await stored(embedded))[0] == (1, 1, "One", 9)


async def test_rows_are_deleted_before_others_take_their_keys(shelves: Shelves) -> None:
    """A new child may have the key of one that the same call deletes."""
    crud = crud_of(Part, PlainPart)
    changed = await crud.update_by_foreign_key(
        **shelves.given,
        fk_field="book_id",
        fk_value=1,
        delete=[{"book_id": 1, "number": 2}],
        update=[{"book_id": 1, "number": 1, "title": "first"}],
        create=[{"number": 2, "title": "again"}],
    )
    assert (changed.updated[0].title, changed.created[0].title, changed.deleted) == ("first", "again", 1)
    assert await crud.update_by_foreign_key(
        **shelves.given, fk_field="book_id", fk_value=1, delete=[(1, 2)]
    ) == ChildrenChange([], [], 1)


class PlainPart(Out):
    """A part of a book."""

    book_id: int
    number: int
    title: str


@pytest.mark.parametrize("data", [[{"id": 3, "title": "x"}], [{"id": -3}], [{"id": 77, "title": "x"}], [{"id": -77}]])
async def test_rows_of_another_parent_are_not_touched(watch: Watch, data: list[Any]) -> None:
    """An id that is no child of this parent raises NotFound, and names it; nothing is written, the session goes on."""
    books, shelves = watch.books, watch.shelves
    items = [{"title": "new"}, {"id": 1, "title": "changed"}, {"id": -2}, *data]
    async with shelves.factory() as session:
        await session.begin()
        with pytest.raises(NotFound, match=rf"no Book with id=\[{abs(data[0]['id'])}\], author_id=1"):
            await books.update_by_foreign_key(session, shelves.cache, fk_field="author_id", fk_value=1, data=items)
        await session.commit()
    assert await stored(shelves) == BEFORE
    await watch.is_right()


@pytest.mark.parametrize(
    "data",
    [
        [{"id": 1, "title": "a"}, {"id": 1, "title": "b"}],
        [{"id": 1, "title": "a"}, {"id": -1}],
        [{"id": -1}, {"id": -1}],
        [{"id": 1}],
        [{"id": "one", "title": "a"}],
        [{"id": 1, "author_id": 2, "title": "a"}],
        ["title"],
    ],
)
async def test_items_that_make_no_sense_are_refused(embedded: Shelves, data: list[Any]) -> None:
    """Ids that are there twice or are no numbers, changes that set nothing or lead elsewhere: the item is named."""
    before = len(embedded.sent)
    with pytest.raises(BatchRefused) as caught:
        await book_crud().update_by_foreign_key(**embedded.given, fk_field="author_id", fk_value=1, data=data)
    assert caught.value.argument == "data"
    assert caught.value.indexes == (len(data) - 1,)
    assert len(embedded.sent) == before


async def test_all_bad_items_of_an_update_are_named(embedded: Shelves) -> None:
    """Items to change and items to create that are wrong are named together."""
    data = [{"id": 1, "place": "far"}, {"title": "fine"}, {"place": 3}, {"id": 4, "titel": "x"}]
    with pytest.raises(BatchRefused) as caught:
        await book_crud().update_by_foreign_key(**embedded.given, fk_field="author_id", fk_value=1, data=data)
    assert [(row.index, row.field) for row in caught.value.rows] == [(0, "place"), (2, "title"), (3, "titel")]


async def test_arguments_that_make_no_sense_are_refused(embedded: Shelves) -> None:
    """What is no foreign key, no value, no list, nothing, two kinds of lists, or has no sign: says what to pass."""
    books, given = book_crud(), embedded.given
    fk: dict[str, Any] = {**given, "fk_field": "author_id", "fk_value": 1}
    with pytest.raises(InputError, match="'title' is no foreign key of one column of Book: author_id, publisher_id"):
        await books.create_by_foreign_key(**given, fk_field="title", fk_value=1, data=[{"title": "x"}])
    with pytest.raises(InputError, match="no foreign key of one column of Page: none"):
        await crud_of(Page, PageOut).delete_by_foreign_key(**given, fk_field="book_id", fk_value=1)
    with pytest.raises(ValueRefused, match="the key of the parent"):
        await books.delete_by_foreign_key(**given, fk_field="author_id", fk_value=None)
    with pytest.raises(EmptyInput, match="data"):
        await books.create_by_foreign_key(**fk, data=[])
    with pytest.raises(EmptyInput, match="data"):
        await books.update_by_foreign_key(**fk)
    with pytest.raises(UsageError, match="list"):
        await books.create_by_foreign_key(**fk, data={"title": "x"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="alone"):
        await books.update_by_foreign_key(**fk, data=[{"id": -1}], delete=[1])
    with pytest.raises(UsageError, match="create=, update= and delete="):
        await crud_of(Part, PlainPart).update_by_foreign_key(
            **given, fk_field="book_id", fk_value=1, data=[{"number": 1, "title": "x"}]
        )
    with pytest.raises(BatchRefused, match="book_id, number; give all of it"):
        await crud_of(Part, PlainPart).update_by_foreign_key(**given, fk_field="book_id", fk_value=1, delete=[1])
    bare: Any = Crud(Book, PlainBook, "bare:{id}")
    with pytest.raises(UsageError, match="create schema of Book is not known"):
        await bare.create_by_foreign_key(**fk, data=[{"title": "x"}])


# Delete.


async def test_children_are_deleted(watch: Watch) -> None:
    """All children of one parent go, and nobody else's; their number is given."""
    assert (await watch.books.delete_by_foreign_key(**watch.shelves.given, fk_field="author_id", fk_value=1)) == 3
    assert await stored(watch.shelves) == [BEFORE[2]]
    await watch.is_right()


async def test_children_that_go_with_each_other_are_deleted(shelves: Shelves) -> None:
    """Rows of a tree are children of each other: those below go, with what is below them."""
    topics = crud_of(Topic, NamedOut)
    assert await topics.delete_by_foreign_key(**shelves.given, fk_field="above_id", fk_value=1) == 2
    assert [topic.name for topic in await topics.get_multi(**shelves.given)] == ["all"]


async def test_more_children_than_one_statement_takes(embedded: Shelves) -> None:
    """Long lists are cut into statements of one transaction; their order is kept."""
    fk: dict[str, Any] = {**embedded.given, "fk_field": "author_id", "fk_value": 2}
    made = await book_crud().create_by_foreign_key(**fk, data=[{"title": str(n)} for n in range(1_200)])
    assert [book.title for book in made] == [str(n) for n in range(1_200)]
    changed = await book_crud().update_by_foreign_key(**fk, delete=[book.id for book in made])
    assert changed.deleted == 1_200
    assert await stored(embedded) == BEFORE


# Transactions, instances, versions.


async def test_callers_transaction_decides(watch: Watch) -> None:
    """Inside a caller's transaction nothing is dropped before its COMMIT, nor after a rollback."""
    books, shelves = watch.books, watch.shelves
    fk: dict[str, Any] = {"redis": shelves.cache, "fk_field": "author_id", "fk_value": 1}

    async def change(session: AsyncSession) -> None:
        await books.create_by_foreign_key(session, **fk, data=[{"title": "new"}])
        await books.update_by_foreign_key(session, **fk, data=[{"id": 1, "title": "x"}, {"id": -2}])

    async with shelves.factory() as session:
        await session.begin()
        await change(session)
        assert await shelves.statements(lambda: watch.answers(shelves.given)) == 0
        await session.rollback()
    assert await shelves.statements(lambda: watch.answers(shelves.given)) == 0
    async with shelves.factory() as session, session.begin():
        await change(session)
    await watch.is_right()
    assert [row[2] for row in await stored(shelves)] == ["x", "Three", "Four", "new"]
    async with shelves.factory() as session:
        await books.delete_by_foreign_key(session, **fk, commit=False)
        await session.rollback()
    assert len(await stored(shelves)) == 4


async def test_own_instances_of_the_session_follow(shelves: Shelves) -> None:
    """A changed child of the caller's session has the new values; a deleted one is no longer in it."""
    books = book_crud()
    async with shelves.factory() as session, session.begin():
        one, two = await session.get(Book, 1), await session.get(Book, 2)
        await books.update_by_foreign_key(
            session, shelves.cache, "author_id", 1, [{"id": 1, "title": "Changed"}, {"id": -2}]
        )
        assert one is not None
        assert one.title == "Changed"
        assert two not in session


async def test_autocommit_is_refused(shelves: Shelves) -> None:
    """Where each statement commits by itself, several cannot be one write."""
    engine = shelves.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        with pytest.raises(SessionRefused, match="AUTOCOMMIT"):
            await book_crud().delete_by_foreign_key(session, shelves.cache, "author_id", 1)
    assert await stored(shelves) == BEFORE


async def test_answers_show_related_rows(shelves: Shelves) -> None:
    """A crud whose response shows related rows answers with them, in the order of the items."""
    books = crud_of(Book, BookOut)
    fk: dict[str, Any] = {**shelves.given, "fk_field": "author_id", "fk_value": 1}
    made = await books.create_by_foreign_key(**fk, data=[{"title": "x"}, {"title": "y"}])
    assert [(book.title, book.author.name, book.parts) for book in made] == [("x", "Ann", []), ("y", "Ann", [])]
    changed = await books.update_by_foreign_key(**fk, data=[{"id": 4, "title": "b"}, {"id": 1, "title": "a"}])
    assert [(book.id, len(book.parts)) for book in changed.updated] == [(4, 0), (1, 2)]


async def test_version_that_was_seen_must_be_the_rows(embedded: Shelves) -> None:
    """An item may say the version that its caller saw; a row with another one raises Conflict before all else."""

    class Apart(DeclarativeBase):
        pass

    class Box(Apart):
        __tablename__ = "boxes"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Toy(Apart):
        __tablename__ = "toys"
        id: Mapped[int] = mapped_column(primary_key=True)
        box_id: Mapped[int] = mapped_column(ForeignKey("boxes.id"))
        name: Mapped[str] = mapped_column(String(20))
        version: Mapped[int] = mapped_column()
        __mapper_args__ = {"version_id_col": version}

    class ToyOut(Out):
        id: int
        name: str
        version: int

    async with embedded.engine.begin() as connection:
        await connection.run_sync(Apart.metadata.create_all)
        await connection.execute(text("INSERT INTO boxes (id) VALUES (1)"))
    toys = crud_of(Toy, ToyOut)
    fk: dict[str, Any] = {**embedded.given, "fk_field": "box_id", "fk_value": 1}
    made = await toys.create_by_foreign_key(**fk, data=[{"name": "car"}, {"name": "bear"}])
    assert [toy.version for toy in made] == [1, 1]
    changed = await toys.update_by_foreign_key(**fk, data=[{"id": 1, "name": "bus", "version": 1}])
    assert changed.updated == [ToyOut(id=1, name="bus", version=2)]
    with pytest.raises(Conflict):
        await toys.update_by_foreign_key(**fk, data=[{"id": -2}, {"id": 1, "name": "van", "version": 1}])
    assert [toy.name for toy in await toys.get_multi(**embedded.given)] == ["bus", "bear"]


async def test_row_that_a_trigger_keeps_is_an_error(postgres_url: str) -> None:
    """A trigger that lets an update vanish makes the whole call fail, and undoes what came before."""
    async with shelves_in(postgres_url, "memory://") as shelves:
        async with shelves.engine.begin() as connection:
            await connection.exec_driver_sql(
                "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
            )
            await connection.exec_driver_sql(
                "CREATE TRIGGER keep BEFORE UPDATE ON books FOR EACH ROW EXECUTE FUNCTION keep()"
            )
        with pytest.raises(UnsupportedModel, match="trigger"):
            await book_crud().update_by_foreign_key(
                **shelves.given, fk_field="author_id", fk_value=1, data=[{"id": -2}, {"id": 1, "title": "x"}]
            )
        assert await stored(shelves) == BEFORE


DROP = "BEGIN IF NEW.title = 'b' THEN RETURN NULL; END IF; RETURN NEW; END"
DROPS = {
    "sqlite": ["CREATE TRIGGER drops BEFORE INSERT ON books WHEN NEW.title = 'b' BEGIN SELECT RAISE(IGNORE); END"],
    "postgresql": [
        f"CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS $$ {DROP} $$",
        "CREATE TRIGGER drops BEFORE INSERT ON books FOR EACH ROW EXECUTE FUNCTION drops()",
    ],
}


@pytest.mark.parametrize("database", ["sqlite_url", "postgres_url"])
async def test_row_that_a_trigger_drops_is_an_error(request: pytest.FixtureRequest, database: str) -> None:
    """Where a trigger lets a new row vanish, no child gets another one's response: it fails, and nothing is written."""
    async with shelves_in(request.getfixturevalue(database), "memory://") as shelves:
        async with shelves.engine.begin() as connection:
            for statement in DROPS[shelves.engine.dialect.name]:
                await connection.exec_driver_sql(statement)
        data = [{"title": title} for title in "abc"]
        with pytest.raises(UnsupportedModel, match="vanish; create them"):
            await book_crud().create_by_foreign_key(**shelves.given, fk_field="author_id", fk_value=1, data=data)
        assert await stored(shelves) == BEFORE
