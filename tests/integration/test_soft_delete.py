"""Rows that are deleted by being marked so: hidden everywhere, restored, purged, and never served by the cache."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel as Schema
from sqlalchemy import String, false, true
from sqlalchemy.orm import DeclarativeBase, Mapped, MappedAsDataclass, mapped_column

from fastrdb import (
    ConfigurationError,
    Conflict,
    Crud,
    EmptyInput,
    InputError,
    MultipleFound,
    NotFound,
    ReadOptions,
)
from fastrdb.context import actor
from fastrdb.db.models import UTCDateTime
from tests.policies import Doc, DocChange, Remark, RemarkOut, Shelf, doc_crud, shelf_in

EVERY = ReadOptions(include_deleted=True)
TRASH = ReadOptions(only_deleted=True)


@pytest.fixture
async def shelf(database_url: str, valkey_url: str) -> AsyncIterator[Shelf]:
    """An empty shelf, on each database."""
    async with shelf_in(database_url, valkey_url) as shelf:
        yield shelf


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Shelf]:
    """An empty shelf, on SQLite and in memory, where neither makes a difference."""
    async with shelf_in(sqlite_url, "memory://") as shelf:
        yield shelf


Reads = dict[str, Callable[[], Awaitable[Any]]]


def reads(shelf: Shelf, options: ReadOptions | None = None) -> Reads:
    """Every read, by name, each of the one document."""
    crud, given = shelf.loose, {**shelf.given, "options": options}
    return {
        "get": lambda: crud.get_or_none(**given, id=1),
        "by slug": lambda: crud.get_or_none(**given, slug="one"),
        "narrowed": lambda: crud.get_or_none(**given, id=1, title="t"),
        "exists": lambda: crud.exists(**given, id=1),
        "exists by title": lambda: crud.exists(**given, title="t"),
        "list": lambda: crud.get_multi(**given),
        "list json": lambda: crud.get_multi_json(**given),
        "filtered": lambda: crud.get_multi(**given, title="t"),
        "where": lambda: crud.get_multi(**given, where=Doc.title == "t"),
        "count": lambda: crud.count(**given),
        "page": lambda: crud.page(**given),
    }


async def seen(shelf: Shelf, options: ReadOptions | None = None) -> dict[str, bool]:
    """Which of the reads show the document; each is asked twice, and must say the same from the cache."""
    found = {}
    for name, read in reads(shelf, options).items():
        answer = await read()
        assert await read() == answer, name
        found[name] = bool(answer.total if name == "page" else answer not in (b"[]", None, [], 0, False))
    return found


async def assert_seen(shelf: Shelf, here: bool) -> None:
    """The document is shown by every read, or by none but those of deleted rows."""
    assert set((await seen(shelf)).values()) == {here}
    assert set((await seen(shelf, TRASH)).values()) == {not here}
    assert set((await seen(shelf, EVERY)).values()) == {True}


async def test_deleted_row_is_hidden_and_restored(shelf: Shelf) -> None:
    """Whatever was cached before, every read follows ``delete`` and ``restore`` at once."""
    made = await shelf.make()
    await assert_seen(shelf, True)
    assert await shelf.loose.delete(**shelf.given, id=made.id) is None
    await assert_seen(shelf, False)
    restored = await shelf.loose.restore(**shelf.given, id=made.id)
    assert (restored.is_active, restored.deleted_at) == (True, None)
    await assert_seen(shelf, True)
    assert await shelf.loose.get(**shelf.given, id=made.id) == restored


async def test_purged_row_is_gone(shelf: Shelf) -> None:
    """``purge`` deletes for good, a deleted row and one that is not, and every read follows."""
    for deleted in (False, True):
        made = await shelf.make(id=1)
        await seen(shelf, EVERY)
        if deleted:
            await shelf.loose.delete(**shelf.given, id=made.id)
        await seen(shelf, TRASH)
        await shelf.loose.purge(**shelf.given, id=made.id)
        assert set((await seen(shelf, EVERY)).values()) == {False}
        assert await shelf.stored(made.id) is None


async def test_reads_of_deleted_rows_are_cached_apart(shelf: Shelf) -> None:
    """What is read with options comes from the cache, too, and never under the key of a read without."""
    await shelf.make()
    await shelf.loose.delete(**shelf.given, id=1)
    for options, shown in ((EVERY, True), (TRASH, True), (None, False)):
        every = reads(shelf, options)
        for name in ("get", "narrowed", "list", "count"):
            assert bool(await shelf.cached(every[name])) is shown, (options, name)


async def test_writes_do_not_reach_deleted_rows(shelf: Shelf) -> None:
    """``update`` and ``delete`` do not find a deleted row, ``restore`` does not find another."""
    made = await shelf.make()
    given = shelf.given
    with pytest.raises(NotFound, match="no deleted Doc with id="):
        await shelf.loose.restore(**given, id=made.id)
    await shelf.loose.delete(**given, id=made.id)
    with pytest.raises(NotFound):
        await shelf.loose.update(**given, obj_in=DocChange(title="new"), id=made.id)
    with pytest.raises(NotFound):
        await shelf.loose.delete(**given, id=made.id)
    with pytest.raises(NotFound):
        await shelf.loose.update(**given, obj_in=DocChange(title="new", version=1), id=made.id)
    assert (await shelf.stored(made.id)).title == "t"


async def test_deletion_says_when_and_who_and_counts_the_version(shelf: Shelf) -> None:
    """The time is the database's, the audit columns fill, and a stale version is refused."""
    made = await shelf.make()
    with pytest.raises(Conflict):
        await shelf.loose.delete(**shelf.given, id=made.id, version=7)
    with actor("ann"):
        await shelf.loose.delete(**shelf.given, id=made.id, version=1)
    gone = await shelf.loose.get(**shelf.given, id=made.id, options=TRASH)
    assert (gone.is_active, gone.version, gone.updated_by) == (False, 2, "ann")
    assert gone.deleted_at is not None
    assert abs(datetime.now(UTC) - gone.deleted_at) < timedelta(minutes=5)
    with pytest.raises(Conflict):
        await shelf.loose.restore(**shelf.given, id=made.id, version=1)
    assert (await shelf.loose.restore(**shelf.given, id=made.id, version=2)).version == 3


async def test_children_stay_until_the_row_is_purged(shelf: Shelf) -> None:
    """ON DELETE CASCADE is the database's answer to DELETE: to ``purge``, not to ``delete``."""
    made = await shelf.make()
    remarks: Crud[Remark, Any, Any, RemarkOut] = Crud(Remark, RemarkOut, "remark:{id}", create_schema=RemarkOut)
    await remarks.create(**shelf.given, obj_in=RemarkOut(id=1, doc_id=made.id))
    remark = lambda: remarks.get_or_none(**shelf.given, id=1)  # noqa: E731
    assert await shelf.cached(remark)
    await shelf.loose.delete(**shelf.given, id=made.id)
    assert await shelf.is_hit(remark)
    await shelf.loose.purge(**shelf.given, id=made.id)
    assert await remark() is None


async def test_joined_deletion_waits_for_its_commit(shelf: Shelf) -> None:
    """In a caller's transaction nobody else sees a deletion before its COMMIT, and nobody ever after a rollback."""
    made = await shelf.make()
    get, listed = reads(shelf)["get"], reads(shelf)["list"]
    assert await shelf.cached(get)
    assert await shelf.cached(listed)
    async with shelf.factory() as session:
        await session.begin()
        await shelf.loose.delete(db=session, redis=shelf.cache, id=made.id)
        assert await shelf.loose.get_or_none(db=session, redis=shelf.cache, id=made.id) is None
        assert await shelf.loose.get_multi(db=session, redis=shelf.cache) == []
        assert await shelf.is_hit(get)
        await session.rollback()
        assert await shelf.is_hit(get)
        await session.begin()
        await shelf.loose.delete(db=session, redis=shelf.cache, id=made.id)
        await session.commit()
    assert (await get(), await listed()) == (None, [])


async def test_own_instances_know_of_it(shelf: Shelf) -> None:
    """An instance in the caller's session shows the mark, and can be used without further SQL; purged, it is let go."""
    made = await shelf.make()
    async with shelf.factory() as session:
        row = await session.get_one(Doc, made.id)
        await shelf.loose.delete(db=session, redis=shelf.cache, id=made.id)
        await session.refresh(row)
        assert row.is_deleted
        await shelf.loose.restore(db=session, redis=shelf.cache, id=made.id)
        assert (row.is_active, row.version) == (True, 3)
        await shelf.loose.purge(db=session, redis=shelf.cache, id=made.id)
        assert row not in session


async def test_update_may_mark_a_row_itself(shelf: Shelf) -> None:
    """A row that an update marks deleted is in its answer, and in no later read: it is not written through."""
    made = await shelf.make()
    await assert_seen(shelf, True)
    change = DocChange(is_active=False, deleted_at=datetime(2026, 1, 1, tzinfo=UTC))  # type: ignore[call-arg]
    assert not (await shelf.loose.update(**shelf.given, obj_in=change, id=made.id)).is_active
    await assert_seen(shelf, False)


async def test_row_that_is_deleted_from_the_start_is_hidden(shelf: Shelf) -> None:
    """A row may be created deleted; it is in the answer of ``create``, and is not written through."""
    made = await shelf.make(is_active=False, deleted_at=datetime(2026, 1, 1, tzinfo=UTC))
    assert not made.is_active
    await assert_seen(shelf, False)


async def test_several_deleted_rows_are_not_restored_by_one_name(small: Shelf) -> None:
    """``restore`` and ``purge`` are for one row: where several match nothing is changed, and none is asked for."""
    for _ in range(2):
        await small.make()
        await small.loose.delete(**small.given, slug="one")
    for write in (small.loose.restore, small.loose.purge):
        with pytest.raises(MultipleFound):
            await write(**small.given, slug="one")
        with pytest.raises(EmptyInput):
            await write(**small.given)
    assert await small.loose.count(**small.given, options=TRASH) == 2


async def test_fastcrud_get_count_and_exists_return_deleted_rows(small: Shelf) -> None:
    """FastCRUD's ``get``, ``count`` and ``exists`` show rows that its ``delete`` has marked; ours do not."""
    await small.make()
    await small.loose.delete(**small.given, id=1)
    for redis in (None, small.cache):
        given: dict[str, Any] = {"db": small.factory, "redis": redis}
        assert await small.loose.get_or_none(**given, id=1) is None
        assert await small.loose.count(**given) == 0
        assert await small.loose.exists(**given, id=1) is False
        assert await small.loose.exists(**given, title="t") is False


async def test_crud_that_shows_every_row_shares_nothing(small: Shelf) -> None:
    """A crud with the same templates and ``soft_delete=False`` shows deleted rows, and what it caches stays its own."""
    every = doc_crud(tenant=False, soft_delete=False)
    await small.make()
    await small.loose.delete(**small.given, id=1)
    for _ in range(2):
        assert not (await every.get(**small.given, id=1)).is_active
        assert len(await every.get_multi(**small.given)) == await every.count(**small.given) == 1
        assert set((await seen(small)).values()) == {False}
    await every.delete(**small.given, id=1)
    assert await small.stored(1) is None


async def test_options_that_mean_nothing_are_refused(small: Shelf) -> None:
    """Two answers to one question, and questions about deletion where there is none, are input errors."""
    with pytest.raises(InputError, match="take one"):
        ReadOptions(include_deleted=True, only_deleted=True)
    hard = doc_crud(tenant=False, soft_delete=False)
    for options in (EVERY, TRASH):
        with pytest.raises(InputError, match="not deleted softly"):
            await hard.get(**small.given, id=1, options=options)
        with pytest.raises(InputError, match="not deleted softly"):
            await hard.count(**small.given, options=options)
    for write in (hard.restore, hard.purge):
        with pytest.raises(ConfigurationError, match="not deleted softly"):
            await write(**small.given, id=1)


# Columns of one's own.


class Elsewhere(DeclarativeBase):
    """Tables without mixins."""


class Shop(Elsewhere):
    """Deleted by a moment, by a flag that says so, by one that says the opposite."""

    __tablename__ = "shops"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(10))
    zoned: Mapped[datetime | None] = mapped_column(UTCDateTime())
    naive: Mapped[datetime | None]
    gone: Mapped[bool] = mapped_column(default=False)
    open: Mapped[bool | None] = mapped_column("is_open", server_default=true())
    closed: Mapped[bool] = mapped_column(server_default=false())


class ShopIn(Schema):
    """What is written of a shop."""

    name: str


class ShopOut(Schema):
    """A shop."""

    id: int
    name: str


@pytest.mark.parametrize("marks", ["zoned", "naive", "gone", "open", "closed", ("gone", "naive")])
async def test_columns_of_ones_own(database_url: str, marks: Any) -> None:
    """A nullable datetime, with a zone or without, a truth value, or several of them mark a row deleted."""
    async with shelf_in(database_url, "memory://") as shelf:
        async with shelf.engine.begin() as connection:
            await connection.run_sync(Elsewhere.metadata.create_all)
        shops = Crud[Shop, ShopIn, ShopIn, ShopOut](Shop, ShopOut, "shop:{id}", soft_delete=marks)
        made = await shops.create(**shelf.given, obj_in=ShopIn(name="s"))
        assert await shops.get(**shelf.given, id=made.id) == made
        await shops.delete(**shelf.given, id=made.id)
        assert await shops.get_or_none(**shelf.given, id=made.id) is None
        assert await shops.count(**shelf.given, options=TRASH) == 1
        async with shelf.factory() as session:
            row = await session.get_one(Shop, made.id)
            for name in (marks,) if isinstance(marks, str) else marks:
                value = getattr(row, name)
                if name in ("zoned", "naive"):
                    now = datetime.now(UTC) if name == "zoned" else datetime.now(UTC).replace(tzinfo=None)
                    assert abs(value - now) < timedelta(minutes=5)
                else:
                    assert value is (name != "open")
        assert await shops.restore(**shelf.given, id=made.id) == made
        assert await shops.get(**shelf.given, id=made.id) == made


class Apart(MappedAsDataclass, DeclarativeBase):
    """Tables of columns that cannot mark a row."""


class Odd(Apart):
    """No column here can."""

    __tablename__ = "odd"
    id: Mapped[int] = mapped_column(primary_key=True)
    unsaid: Mapped[bool]
    required: Mapped[datetime]
    text: Mapped[str | None]


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        ("nothing", "no such column; it has: id, required, text, unsaid"),
        ("unsaid", "a server_default, of true or false"),
        ("required", "make it nullable"),
        ("text", "neither a moment nor a truth value"),
        ((), "name an attribute"),
        (True, "name an attribute"),
    ],
)
def test_columns_that_cannot_mark_a_row_are_refused(marks: Any, message: str) -> None:
    """What cannot say whether a row is deleted is a configuration error, which says what to change."""
    with pytest.raises(ConfigurationError, match=message):
        Crud(Odd, IdOut, "odd:{id}", soft_delete=marks)


class IdOut(Schema):
    """A row's key."""

    id: int
