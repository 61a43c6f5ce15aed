"""Random sequences of calls, in and out of transactions, compared after each step with a dict of rows.

Whatever a crud says, with a cache and without one, is what the dict says.
"""

import asyncio
import json
import os
from collections import Counter
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
from sqlalchemy import delete, event
from sqlalchemy.ext.asyncio import AsyncSession

from fastrdb import Cache, NotFound, ReadOptions, UniqueViolation
from fastrdb.cache.protocol import random_name
from fastrdb.db import create_async_engine, create_async_sessionmaker
from tests.library import Base, Book, BookChange, BookIn, Card, Cruds, Leaf, Loose, State, same_place

IDS = st.integers(1, 4)
SHELVES = st.sampled_from(["a", "b"])
TITLES = st.sampled_from(["one", "two", "three"])
RANKS = st.none() | st.integers(1, 2)
TENANTS = st.sampled_from(["acme", "other"])
BOOKS = st.builds(BookIn, id=IDS, shelf=SHELVES, title=TITLES, rank=RANKS)
BATCHES = st.lists(BOOKS, min_size=1, max_size=3, unique_by=(lambda b: b.id, lambda b: (b.shelf, b.title)))
CHANGES = st.one_of(
    st.builds(BookChange, rank=RANKS),
    st.builds(BookChange, title=TITLES),
    st.builds(BookChange, shelf=SHELVES, rank=RANKS),
)
EXAMPLES = int(os.environ.get("FASTRDB_TEST_EXAMPLES", "6"))  # of 20 steps
WITH_DELETED, DELETED = ReadOptions(include_deleted=True), ReadOptions(only_deleted=True)


class Library(RuleBasedStateMachine):
    """Two cruds on the table of books, one each for leaves and cards; one transaction at most is open."""

    def __init__(self, url: str, redis_url: str) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.url, self.redis_url = url, redis_url
        self.committed = State()
        self.open: State | None = None  # as the open transaction sees it
        self.session: AsyncSession | None = None

    @initialize()
    def begin(self) -> None:
        """Empty tables, and a cache of its own."""
        self.run(self._begin())

    async def _begin(self) -> None:
        self.engine = create_async_engine(self.url)
        if self.engine.dialect.name == "sqlite":
            event.listen(self.engine.sync_engine, "connect", lambda it, _: it.execute("PRAGMA foreign_keys=ON"))
        self.factory = create_async_sessionmaker(self.engine)
        async with self.engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            for table in (Leaf, Book, Card):
                await connection.execute(delete(table))
        self.cache = Cache.from_url(self.redis_url, prefix=f"{random_name().decode()}:")
        self.cruds = Cruds()
        self.books, self.all_books = self.cruds.books, self.cruds.all_books
        self.leaves, self.cards = self.cruds.leaves, self.cruds.cards

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

    @property
    def seen(self) -> State:
        """What the next write sees."""
        return self.committed if self.open is None else self.open

    def write(self, refused: type[Exception] | None, work: Callable[[Any], Any]) -> Any:
        """Write, in the open transaction if there is one; ``False`` where the write is left out.

        What becomes of a transaction in which a constraint was violated depends on the database.
        """
        if refused is UniqueViolation and self.session is not None:
            return False
        db = self.session if self.session is not None else self.factory

        async def call() -> Any:
            if refused is None:
                return await work({"db": db, "redis": self.cache})
            with pytest.raises(refused):
                await work({"db": db, "redis": self.cache})
            return False

        return self.run(call())

    # -- transactions

    @precondition(lambda self: self.session is None)
    @rule()
    def begin_transaction(self) -> None:
        """The following writes are in a transaction of the caller."""

        async def begin() -> AsyncSession:
            session = self.factory()
            await session.begin()
            return session

        self.session, self.open = self.run(begin()), self.committed.copy()

    @precondition(lambda self: self.session is not None)
    @rule(commit=st.booleans())
    def end_transaction(self, commit: bool) -> None:
        """The caller commits, or rolls back."""
        session = self.session
        assert session is not None

        async def end() -> None:
            await (session.commit() if commit else session.rollback())
            await session.close()

        self.run(end())
        if commit and self.open is not None:
            self.committed = self.open
        self.session = self.open = None

    # -- one book

    @rule(book=BOOKS)
    def create(self, book: BookIn) -> None:
        """A row is inserted, or clashes."""
        row = book.model_dump()
        refused = UniqueViolation if self.seen.clash(row) else None
        if given := self.write(refused, lambda at: self.books.create(obj_in=book, **at)):
            assert given.model_dump() == row
            self.seen.books[book.id] = row

    @rule(id=IDS, change=CHANGES, patch=st.booleans())
    def update(self, id: int, change: BookChange, patch: bool) -> None:
        """Only the fields that were set change; a patch tells which were others."""
        old = self.seen.books.get(id)
        row = {**(old or {}), **change.model_dump(exclude_unset=True)}
        refused = NotFound if old is None else UniqueViolation if self.seen.clash(row, but=id) else None
        method = self.books.patch if patch else self.books.update
        if given := self.write(refused, lambda at: method(obj_in=change, id=id, **at)):
            if patch:
                assert old is not None
                assert given.changed == {name for name in row if row[name] != old[name]}
            assert (given.row if patch else given).model_dump() == row
            self.seen.books[id] = row

    @rule(id=IDS)
    def delete(self, id: int) -> None:
        """The row goes, and its leaves; or there is none."""
        there = id in self.seen.books
        self.write(None if there else NotFound, lambda at: self.all_books.delete(id=id, **at))
        if there:
            self.seen.drop_book(id)

    @rule(book=BOOKS, by_place=st.booleans())
    def upsert(self, book: BookIn, by_place: bool) -> None:
        """The row that has the key is changed, or one is inserted, unless another key is in the way."""
        row = book.model_dump()
        keys = ["shelf", "title"] if by_place else ["id"]
        old = next((each for each in self.seen.books.values() if all(each[k] == row[k] for k in keys)), None)
        if old is not None and by_place:
            if old["id"] != book.id and book.id in self.seen.books:
                return  # two rows have a key of it each
            row["id"] = old["id"]
        refused = UniqueViolation if self.seen.clash(row, but=old and old["id"]) else None
        given = self.write(refused, lambda at: self.books.upsert(obj_in=book, conflict_fields=keys, **at))
        if given:
            assert (given.row.model_dump(), given.created) == (row, old is None)
            self.seen.books[row["id"]] = row

    @rule(book=BOOKS)
    def get_or_create(self, book: BookIn) -> None:
        """The row is given as it is, or inserted."""
        old = self.seen.books.get(book.id)
        row = old or book.model_dump()
        refused = UniqueViolation if old is None and self.seen.clash(row) else None
        given = self.write(refused, lambda at: self.books.get_or_create(obj_in=book, conflict_fields=["id"], **at))
        if given:
            assert (given.row.model_dump(), given.created) == (row, old is None)
            self.seen.books[book.id] = row

    # -- many books

    @rule(books=BATCHES, returning=st.booleans())
    def create_multi(self, books: list[BookIn], returning: bool) -> None:
        """All rows are inserted, or none."""
        rows = [book.model_dump() for book in books]
        refused = UniqueViolation if any(map(self.seen.clash, rows)) else None
        given = self.write(refused, lambda at: self.all_books.create_multi(instances=books, returning=returning, **at))
        if given:
            assert (given if not returning else [each.model_dump() for each in given]) == (
                rows if returning else len(rows)
            )
            self.seen.books |= {row["id"]: row for row in rows}

    @rule(changes=st.dictionaries(IDS, RANKS, min_size=1, max_size=3))
    def update_multi(self, changes: dict[int, int | None]) -> None:
        """Each row changes in its own way, or none where one is missing."""
        there = all(id in self.seen.books for id in changes)
        items = [(id, BookChange(rank=rank)) for id, rank in changes.items()]
        given = self.write(None if there else NotFound, lambda at: self.books.update_multi(items=items, **at))
        if there:
            self.seen.books |= {id: {**self.seen.books[id], "rank": rank} for id, rank in changes.items()}
            assert [each.model_dump() for each in given] == [self.seen.books[id] for id in changes]

    @rule(ids=st.lists(IDS, min_size=1, unique=True))
    def delete_multi(self, ids: list[int]) -> None:
        """Those that were there go."""
        there = [id for id in ids if id in self.seen.books]
        assert self.write(None, lambda at: self.books.delete_multi(keys=ids, missing="skip", **at)) == there
        for id in there:
            self.seen.drop_book(id)

    @rule(books=BATCHES)
    def upsert_multi(self, books: list[BookIn]) -> None:
        """Rows are changed or inserted by their ids, in one call."""
        rows, old = [book.model_dump() for book in books], self.seen.books
        if any(same_place(row, other) and row["id"] != other["id"] for row in rows for other in old.values()):
            return  # rows that change places may meet
        given = self.write(None, lambda at: self.all_books.upsert_multi(instances=books, conflict_fields=["id"], **at))
        assert [(each.row.model_dump(), each.created) for each in given] == [
            (row, row["id"] not in old) for row in rows
        ]
        self.seen.books |= {row["id"]: row for row in rows}

    @rule(shelf=SHELVES, rank=RANKS)
    def update_where(self, shelf: str, rank: int | None) -> None:
        """All rows of a shelf change."""
        there = [row for row in self.seen.books.values() if row["shelf"] == shelf]
        change = BookChange(rank=rank)
        assert self.write(None, lambda at: self.all_books.update_where(obj_in=change, shelf=shelf, **at)) == len(there)
        for row in there:
            row["rank"] = rank

    @rule(rank=RANKS, batch=st.none() | st.just(1))
    def delete_where(self, rank: int | None, batch: int | None) -> None:
        """All rows of a rank go."""
        there = [id for id, row in self.seen.books.items() if row["rank"] == rank]
        assert self.write(None, lambda at: self.books.delete_where(rank=rank, batch=batch, **at)) == len(there)
        for id in there:
            self.seen.drop_book(id)

    # -- leaves of a book

    @rule(book=IDS, pages=st.lists(st.integers(1, 3), min_size=1, max_size=2))
    def create_children(self, book: int, pages: list[int]) -> None:
        """A book gets leaves, if it is there."""
        refused = None if book in self.seen.books else NotFound
        data = [{"page": page} for page in pages]
        at_book = {"fk_field": "book_id", "fk_value": book}
        if made := self.write(refused, lambda at: self.leaves.create_by_foreign_key(data=data, **at_book, **at)):
            assert [(each.book_id, each.page) for each in made] == [(book, page) for page in pages]
            self.seen.leaves |= {each.id: each.model_dump() for each in made}

    @rule(book=IDS, page=st.integers(4, 9))
    def update_children(self, book: int, page: int) -> None:
        """The first leaf changes, the last of several goes, and one comes."""
        refused, old = None if book in self.seen.books else NotFound, self.seen.of(book)
        data = [{"page": page}, *({"id": leaf["id"], "page": page} for leaf in old[:1])]
        data += [{"id": -leaf["id"]} for leaf in old[1:][-1:]]
        at_book = {"fk_field": "book_id", "fk_value": book}
        if change := self.write(refused, lambda at: self.leaves.update_by_foreign_key(data=data, **at_book, **at)):
            for leaf in old[1:][-1:]:
                del self.seen.leaves[leaf["id"]]
            self.seen.leaves |= {each.id: each.model_dump() for each in [*change.created, *change.updated]}
            assert [each.model_dump() for each in change.updated] == [{**leaf, "page": page} for leaf in old[:1]]
            assert (len(change.created), change.deleted) == (1, len(old[1:][-1:]))

    @rule(book=IDS)
    def delete_children(self, book: int) -> None:
        """All leaves of a book go."""
        old = self.seen.of(book)
        at_book = {"fk_field": "book_id", "fk_value": book}
        assert self.write(None, lambda at: self.leaves.delete_by_foreign_key(**at_book, **at)) == len(old)
        for leaf in old:
            del self.seen.leaves[leaf["id"]]

    # -- cards of tenants

    @rule(id=IDS, tenant=TENANTS, word=TITLES)
    def create_card(self, id: int, tenant: str, word: str) -> None:
        """A card is there, unless its id is taken, by a deleted card or another tenant's too."""
        refused = UniqueViolation if id in self.seen.cards else None
        row = {"id": id, "tenant_id": tenant, "word": word}
        new = Loose(id=id, word=word)
        if given := self.write(refused, lambda at: self.cards.create(obj_in=new, tenant_id=tenant, **at)):
            assert given.model_dump() == row
            self.seen.cards[id] = {**row, "gone": False}

    @rule(id=IDS, tenant=TENANTS, how=st.sampled_from(["update", "delete", "restore", "purge"]), word=TITLES)
    def change_card(self, id: int, tenant: str, how: str, word: str) -> None:
        """A tenant's card changes, is hidden, comes back or goes; others, and those in another state, are not found."""
        card = self.seen.cards.get(id)
        mine = card is not None and card["tenant_id"] == tenant
        found = card is not None and mine and (how == "purge" or card["gone"] == (how == "restore"))
        given = {"obj_in": Loose(word=word)} if how == "update" else {}
        method = getattr(self.cards, how)
        self.write(None if found else NotFound, lambda at: method(id=id, tenant_id=tenant, **given, **at))
        if found:
            assert card is not None
            card |= {"word": word} if how == "update" else {"gone": how == "delete"}
            if how == "purge":
                del self.seen.cards[id]

    @rule(tenant=TENANTS, word=TITLES)
    def delete_cards(self, tenant: str, word: str) -> None:
        """A tenant's cards of a word are hidden."""
        there = [row for row in self.seen.shown(tenant) if row["word"] == word]
        work = self.cards.delete_where
        assert self.write(None, lambda at: work(word=word, tenant_id=tenant, **at)) == len(there)
        for row in there:
            self.seen.cards[row["id"]]["gone"] = True

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
        if hasattr(self, "cruds"):
            for cache in (self.cache, None):
                self.run(self._look(self.factory, cache, self.committed))

    @invariant()
    def the_transaction_sees_itself(self) -> None:
        """Its own writes are there for it, and for nobody else."""
        if self.session is not None:
            assert self.open is not None
            self.run(self._look(self.session, self.cache, self.open))

    async def _look(self, db: Any, cache: Cache | None, state: State) -> None:
        at = {"db": db, "redis": cache}
        await self._look_at_books(at, state)
        if cache is not None:
            await self._look_at_all_books(at, state)
        await self._look_at_leaves_and_cards(at, state)

    async def _look_at_books(self, at: Any, state: State) -> None:
        books, rows = self.books, state.books
        for id in (1, 2, 3, 4):
            found = await books.get_or_none(id=id, **at)
            assert (found and found.model_dump()) == rows.get(id)
        by_keys = await self.all_books.get_by_keys(keys=[4, 1, 3, 2], missing="none", **at)
        assert [each and each.model_dump() for each in by_keys] == [rows.get(id) for id in (4, 1, 3, 2)]
        for shelf in ("a", "b"):
            there = [row for _, row in sorted(rows.items()) if row["shelf"] == shelf]
            assert dumped(await books.get_multi(limit=3, shelf=shelf, **at)) == there[:3]
            assert await books.count(shelf=shelf, **at) == len(there)
            wanted = next((row for row in there if row["title"] == "one"), None)
            assert await books.exists(shelf=shelf, title="one", **at) == (wanted is not None)
            if wanted is not None:
                assert json.loads(await books.get_json(shelf=shelf, title="one", **at)) == wanted

    async def _look_at_all_books(self, at: Any, state: State) -> None:
        books, rows = self.all_books, state.books
        page = await books.page(limit=2, page=1, order_by="title", ascending=False, **at)
        down = sorted(rows.values(), key=lambda row: (row["title"], row["id"]), reverse=True)
        assert dumped(page.data) == down[:2]
        assert (page.total, page.has_next) == (len(rows), len(rows) > 2)
        ranked = await books.get_multi(limit=10, rank={">=": 1}, **at)
        assert [each.id for each in ranked] == sorted(id for id, row in rows.items() if row["rank"] is not None)
        ranks = {row["rank"] for row in rows.values()}
        assert await books.distinct(field="rank", **at) == sorted(ranks, key=lambda rank: rank or 9)
        figures = await books.aggregate(functions={"n": "count"}, group_by="shelf", **at)
        assert {each["shelf"]: each["n"] for each in figures} == Counter(row["shelf"] for row in rows.values())
        part = await books.cursor_page(limit=2, order_by="-title", **at)
        walked = part.data
        while part.next is not None:
            part = await books.cursor_page(limit=2, cursor=part.next, order_by="-title", **at)
            walked = [*walked, *part.data]
        ties_by_id = sorted(rows.values(), key=lambda row: row["id"])
        assert dumped(walked) == sorted(ties_by_id, key=lambda row: row["title"], reverse=True)
        assert dumped([each async for each in books.stream(db=at["db"], batch=2)]) == [rows[id] for id in sorted(rows)]

    async def _look_at_leaves_and_cards(self, at: Any, state: State) -> None:
        for book in (1, 2):
            assert dumped(await self.leaves.get_multi(book_id=book, limit=100, **at)) == state.of(book)
        for tenant in ("acme", "other"):
            for gone, options in (((False,), None), ((False, True), WITH_DELETED), ((True,), DELETED)):
                found = await self.cards.get_multi(tenant_id=tenant, options=options, **at)
                assert dumped(found) == state.shown(tenant, gone)
            assert await self.cards.count(tenant_id=tenant, **at) == len(state.shown(tenant))
            card = await self.cards.get_or_none(id=1, tenant_id=tenant, **at)
            assert (card and card.model_dump()) == next((r for r in state.shown(tenant) if r["id"] == 1), None)


def dumped(found: Any) -> list[Any]:
    """Responses as dicts."""
    return [each.model_dump() for each in found]


@pytest.mark.parametrize(
    ("database", "cache"),
    [
        ("postgres18_url", "valkey_url"),
        ("sqlite_url", "memory://"),
        ("mariadb_url", "valkey_url"),
        ("postgres16_url", "redis7_url"),
    ],
)
def test_cruds_say_what_a_dict_says(request: pytest.FixtureRequest, database: str, cache: str) -> None:
    """Whatever is called in whatever order: reads answer what was written and committed, cached or not."""
    url: str = request.getfixturevalue(database)
    redis_url: str = cache if "://" in cache else request.getfixturevalue(cache)
    run_state_machine_as_test(
        lambda: Library(url, redis_url),
        settings=settings(
            max_examples=EXAMPLES, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
