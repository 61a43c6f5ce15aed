"""Pages by cursor: every row once, in the order of the list, forward and back, on every database."""

import asyncio
import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from itertools import product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict
from sqlalchemy import event, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Cache, Crud, CursorPage, CursorRefused, Order, OrderRefused, OutOfRange, UnknownField
from fastrdb.crud.cursors import Position, decode, encode
from tests.drawers import (
    Loose,
    Sessions,
    ShoutOut,
    Thing,
    ThingCrud,
    ThingOut,
    backward,
    forward,
    ids,
    mixed,
    shelf,
    things,
)

COLUMNS = [
    "age", "label", "short", "double", "price", "rounded", "code", "size", "flag", "day", "at", "hour", "lasts",
    "token", "raw", "total", "long",
]  # fmt: skip


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Sessions]:
    """Forty things with values of every kind."""
    async with shelf(database_url, mixed()) as sessions:
        yield sessions


async def listed(crud: Crud[Any, Any, Any, Any], db: Any, **asked: Any) -> list[int]:
    """The ids of a whole list, read at once."""
    return [row.id for row in await crud.get_multi(db, None, limit=1_000, **asked)]


async def walks(db: Any, limit: int, crud: Crud[Any, Any, Any, Any] | None = None, **asked: Any) -> None:
    """Walk a list to its end and back: both ways, the pages make up the list."""
    crud = crud or things()
    whole = await listed(crud, db, **asked)
    pages = await forward(crud, db, limit, **asked)
    assert ids(pages) == whole, asked
    assert all(len(page.data) == limit for page in pages[:-1])
    assert pages[0].previous is None
    returned = await backward(crud, db, limit, pages[-1], **asked)
    assert ids(returned) == whole, asked
    assert returned[0].previous is None
    assert all(page.next is not None for page in returned[:-1])


@pytest.mark.filterwarnings("ignore:Dialect sqlite")  # which stores a Decimal as a float: that is what is tried
@pytest.mark.parametrize("column", COLUMNS)
async def test_each_kind_of_value(db: Sessions, column: str) -> None:
    """Values that drivers round, pad, fold or reorder are walked without a loss, NULLs first and last, up and down."""
    for order in (column, f"-{column}", Order(column, nulls="first"), Order(column, ascending=False, nulls="last")):
        await walks(db, 7, order_by=order)


@pytest.mark.filterwarnings("ignore:Dialect sqlite")
async def test_mixed_directions(db: Sessions) -> None:
    """Several columns in mixed directions, with NULLs in each place, are walked both ways, reversed ones too."""
    orders: list[list[str | Order]] = [
        ["rank", "level"],
        ["-rank", "level"],
        ["rank", "-id"],
        ["-rank", "-level", "-id"],
        ["rank", "age", "label"],
        [Order("age", nulls="first"), Order("label", ascending=False, nulls="last")],
        [Order("age", ascending=False, nulls="first"), "rank", Order("size", nulls="first"), "-flag"],
        ["short", "-double", Order("code", nulls="last")],
        ["id", "label"],
    ]
    for order_by, ascending, limit in product(orders, (True, False), (3, 40)):
        await walks(db, limit, order_by=order_by, ascending=ascending)


async def test_default_order(db: Sessions) -> None:
    """Without an order, pages go by the primary key, in both directions."""
    await walks(db, 6)
    await walks(db, 6, ascending=False)


async def test_filters_and_conditions(db: Sessions) -> None:
    """Filters of every kind hold on every page."""
    await walks(db, 2, order_by="-age", rank=1)
    await walks(db, 3, order_by=["flag", "-label"], where=Thing.id > 10, filters={"level": 1})


async def test_fastcrud_cursor_skips_no_ties(database_url: str) -> None:
    """FastCRUD walks 4 of 7 rows by a column that is not unique; here, each row is on one page."""
    async with shelf(database_url, [{"id": at, "rank": at // 3} for at in range(7)]) as db:
        pages = await forward(things(), db, 2, order_by="rank")
        assert ids(pages) == list(range(7))


async def test_fastcrud_cursor_at_zero_is_a_cursor(database_url: str) -> None:
    """FastCRUD takes a cursor of 0 for none and gives the first page again; here, the page after 0 follows."""
    async with shelf(database_url, [{"id": at, "age": at} for at in range(3)]) as db:
        for order_by in (None, "age"):
            first = await things().cursor_page(db, limit=1, order_by=order_by)
            assert [row.id for row in first.data] == [0]
            second = await things().cursor_page(db, limit=1, order_by=order_by, cursor=first.next)
            assert [row.id for row in second.data] == [1]
        for cursor in ("", 0, False):
            with pytest.raises(CursorRefused):
                await things().cursor_page(db, limit=1, cursor=cursor)  # type: ignore[arg-type]  # on purpose


async def test_empty_list(database_url: str) -> None:
    """An empty list is one empty page without neighbours."""
    async with shelf(database_url) as db:
        page = await things().cursor_page(db, limit=5, order_by="-age")
        assert page == CursorPage[ThingOut](data=[], next=None, previous=None, limit=5)


async def test_rows_go_from_under_a_cursor(database_url: str) -> None:
    """When all rows after a cursor are gone, an empty page leads back to those before it, its own row included."""
    crud = things()
    async with shelf(database_url, [{"id": at, "age": at // 2} for at in range(6)]) as db:
        first = await crud.cursor_page(db, limit=4, order_by="age")
        for id in (4, 5):
            await crud.delete(db, None, id=id)
        empty = await crud.cursor_page(db, limit=4, order_by="age", cursor=first.next)
        assert (empty.data, empty.next) == ([], None)
        back = await crud.cursor_page(db, limit=4, order_by="age", cursor=empty.previous)
        assert ids([back]) == [0, 1, 2, 3]
        assert back.previous is None
        assert back.next is not None
        await crud.create(db, None, Loose(id=9, rank=0, level=0, age=9))
        assert ids([await crud.cursor_page(db, limit=4, order_by="age", cursor=back.next)]) == [9]


async def test_rows_go_from_before_a_cursor(database_url: str) -> None:
    """When all rows before a cursor are gone, an empty page leads forward to the cursor's own row."""
    crud = things()
    async with shelf(database_url, [{"id": at} for at in range(6)]) as db:
        first = await crud.cursor_page(db, limit=3)
        second = await crud.cursor_page(db, limit=3, cursor=first.next)
        for id in range(3):
            await crud.delete(db, None, id=id)
        empty = await crud.cursor_page(db, limit=3, cursor=second.previous)
        assert (empty.data, empty.previous) == ([], None)
        assert ids([await crud.cursor_page(db, limit=3, cursor=empty.next)]) == [3, 4, 5]


async def test_limit_may_change(db: Sessions) -> None:
    """Each page may have a limit of its own."""
    crud = things()
    whole = await listed(crud, db, order_by="-age")
    first = await crud.cursor_page(db, limit=3, order_by="-age")
    second = await crud.cursor_page(db, limit=30, order_by="-age", cursor=first.next)
    assert ids([first, second]) == whole[:33]


async def test_cursor_of_another_list(db: Sessions) -> None:
    """A cursor is refused with another order, filter, condition, crud or response than the one it came from."""
    crud = things()
    cursor = (await crud.cursor_page(db, limit=2, order_by="age", rank=1)).next
    other: Crud[Any, Any, Any, Any] = Crud(Thing, ShoutOut, "thing:{id}")
    asked: list[tuple[Crud[Any, Any, Any, Any], dict[str, Any]]] = [
        (crud, {"order_by": "-age", "rank": 1}),
        (crud, {"order_by": "age", "rank": 1, "ascending": False}),
        (crud, {"order_by": Order("age", nulls="last"), "rank": 1}),
        (crud, {"order_by": ["age", "label"], "rank": 1}),
        (crud, {"rank": 1}),
        (crud, {"order_by": "age"}),
        (crud, {"order_by": "age", "rank": 2}),
        (crud, {"order_by": "age", "rank": 1, "level": 0}),
        (crud, {"order_by": "age", "rank": 1, "where": Thing.id > 0}),
        (other, {"order_by": "age", "rank": 1}),
    ]
    for refusing, arguments in asked:
        with pytest.raises(CursorRefused, match="another list"):
            await refusing.cursor_page(db, limit=2, cursor=cursor, **arguments)
    same = await crud.cursor_page(db, limit=2, cursor=cursor, order_by=["age"], filters={"rank": 1})
    assert len(same.data) == 2


async def test_cursor_has_no_authority(db: Sessions) -> None:
    """A made-up position shows nothing that the call's own filters do not."""
    crud, terms = things(), ["age", "id"]
    genuine = (await crud.cursor_page(db, limit=1, order_by="age", rank=1)).next
    assert genuine is not None
    listed_by = _digest_of(genuine)
    made_up = encode(Position((-1, -1), True), listed_by, terms)
    page = await crud.cursor_page(db, limit=100, order_by="age", rank=1, cursor=made_up)
    assert page.data
    assert {row.rank for row in page.data} == {1}


def _digest_of(cursor: str) -> str:
    return str(json.loads(urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4))[4:])[1])


async def test_cursor_shows_the_sort_values_only(db: Sessions) -> None:
    """What a cursor holds are the values of the order's columns and the key of the page's last row, nothing more."""
    page = await things().cursor_page(db, limit=3, order_by="rank")
    assert page.next is not None
    position = decode(page.next, _digest_of(page.next), 2)
    assert position == Position((page.data[-1].rank, page.data[-1].id), True)


@pytest.mark.parametrize("value", ["ann", 2**40, 2**70, 1.5, b"x", "\udc80", float("inf")], ids=ascii)
async def test_made_up_values(db: Sessions, value: object) -> None:
    """A made-up value that the column cannot have is refused, or leads somewhere; the session stays usable."""
    crud = things()
    genuine = (await crud.cursor_page(db, limit=1, order_by="rank")).next
    assert genuine is not None
    made_up = encode(Position((value, 1), True), _digest_of(genuine), ["rank", "id"])
    async with db() as session:
        try:
            await crud.cursor_page(session, limit=1, order_by="rank", cursor=made_up)
        except CursorRefused:
            await session.rollback()
        assert (await crud.cursor_page(session, limit=1, order_by="rank")).data


async def test_values_without_a_form(postgres_url: str) -> None:
    """An order by values that no cursor can hold raises, and names the attribute."""

    class Base(DeclarativeBase):
        pass

    class Tagged(Base):
        __tablename__ = "tagged"
        id: Mapped[int] = mapped_column(primary_key=True)
        tags: Mapped[list[int]] = mapped_column(postgresql.ARRAY(postgresql.INTEGER))

    class TaggedOut(BaseModel):
        model_config = ConfigDict(from_attributes=True)
        id: int

    crud: Crud[Any, Any, Any, Any] = Crud(Tagged, TaggedOut)
    async with shelf(postgres_url) as db, db() as session:
        await (await session.connection()).run_sync(Base.metadata.create_all)
        session.add_all([Tagged(tags=[at]) for at in range(3)])
        with pytest.raises(OrderRefused, match="list has no form") as caught:
            await crud.cursor_page(session, limit=1, order_by="tags")
        assert caught.value.field == "tags"
        await walks(session, 1, crud, order_by="-id")


async def test_bad_arguments(db: Sessions) -> None:
    """``limit`` and ``order_by`` are checked as in get_multi."""
    for limit in (0, -1, 1_001, 1.0, True):
        with pytest.raises(OutOfRange):
            await things().cursor_page(db, limit=limit)  # type: ignore[arg-type]  # on purpose
    with pytest.raises(UnknownField):
        await things().cursor_page(db, order_by="nothing")


async def test_responses_of_instances(db: Sessions) -> None:
    """Responses that need a mapped instance are walked like others."""
    crud: Crud[Any, Any, Any, ShoutOut] = Crud(Thing, ShoutOut)
    await walks(db, 7, crud, order_by=["-label", "age"])
    page = await crud.cursor_page(db, limit=1, label="ann")
    assert page.data[0].shout == "ANN"


async def test_own_session_and_its_writes(db: Sessions) -> None:
    """In a session of the caller's, pages show what it wrote, and its transaction goes on."""
    crud = things()
    async with db() as session, session.begin():
        await crud.update(session, None, Loose(rank=99), id=20)
        page = await crud.cursor_page(session, limit=1, order_by="-rank")
        assert ids([page]) == [20]
        await session.rollback()
    assert ids([await crud.cursor_page(db, limit=1, order_by=["-rank", "id"])]) == [2]


async def test_never_from_the_cache(db: Sessions, valkey_url: str) -> None:
    """Cursor pages are read from the database, with a cache as without."""
    crud: ThingCrud = things()
    async with Cache.from_url(valkey_url) as cache:
        first = await crud.cursor_page(db, cache, limit=2)
        async with db.begin() as session:
            await session.execute(text("UPDATE things SET age = 77 WHERE id = 0"))
        again = await crud.cursor_page(db, cache, limit=2)
        assert (first.data[0].age, again.data[0].age) == (3, 77)
        assert cache.stats.hits == 0


async def test_one_statement_per_page(db: Sessions) -> None:
    """A page is one statement; only where the list goes over into rows without a value, it is two."""
    crud, sent = things(), []
    engine = db.kw["bind"].sync_engine
    event.listen(engine, "before_cursor_execute", lambda *args: sent.append(args[2]))
    for order_by in (None, "rank", ["-rank", "level"], "-age", ["age", "label"]):
        pages = await forward(crud, db, 5, order_by=order_by)
        sent.clear()
        await forward(crud, db, 5, order_by=order_by)
        assert len(sent) <= len(pages) + 1


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "rank": st.integers(0, 2),
            "age": st.none() | st.integers(0, 3),
            "label": st.none() | st.sampled_from(["", "a", "A", "b ", "b"]),
            "short": st.none() | st.sampled_from([0.1, 0.2, 1 / 3]),
        }
    ),
    max_size=12,
)
ORDERS = st.lists(
    st.builds(
        Order,
        st.sampled_from(["rank", "age", "label", "short", "id"]),
        ascending=st.booleans(),
        nulls=st.sampled_from([None, "first", "last"]),
    ),
    max_size=4,
    unique_by=lambda order: order.field,
)


@pytest.mark.may_block("Hypothesis draws between the statements")
async def test_any_walk(database_url: str) -> None:
    """For any rows, order and limit, walking to the end and back gives exactly the ordered list."""
    loop = asyncio.get_running_loop()
    async with shelf(database_url) as db:

        async def attempt(rows: list[dict[str, Any]], order_by: list[Order], ascending: bool, limit: int) -> None:
            async with db.begin() as session:
                await session.execute(text("DELETE FROM things"))
                session.add_all([Thing(id=at, level=0, **row) for at, row in enumerate(rows)])
            await walks(db, limit, order_by=order_by, ascending=ascending)

        @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None)
        @given(ROWS, ORDERS, st.booleans(), st.integers(1, 5))
        def property_holds(rows: list[dict[str, Any]], order_by: list[Order], ascending: bool, limit: int) -> None:
            asyncio.run_coroutine_threadsafe(attempt(rows, order_by, ascending, limit), loop).result()

        await asyncio.to_thread(property_holds)
