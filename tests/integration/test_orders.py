"""The order of lists: several columns, directions, places of NULLs, and their keys in the cache."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from fastrdb import Cache, InputError, Order, OrderRefused, UnknownField, UsageError
from tests.drawers import Loose, Sessions, shelf, things

AGES: list[dict[str, Any]] = [
    {"id": 1, "rank": 1, "age": 30},
    {"id": 2, "rank": 0, "age": None},
    {"id": 3, "rank": 1, "age": 20},
    {"id": 4, "rank": 0, "age": 30},
    {"id": 5, "rank": 1, "age": None},
]


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Sessions]:
    """Five things, two of them without an age."""
    async with shelf(database_url, AGES) as sessions:
        yield sessions


async def ordered(db: Sessions, order_by: Any, ascending: bool = True, redis: Cache | None = None) -> list[int]:
    """The ids in an order, as each method gives them."""
    crud = things()
    found = [row.id for row in await crud.get_multi(db, redis, order_by=order_by, ascending=ascending)]
    page = await crud.cursor_page(db, redis, order_by=order_by, ascending=ascending)
    assert [row.id for row in page.data] == found
    streamed = crud.stream(db, order_by=order_by, ascending=ascending)
    assert [row.id async for row in streamed] == found
    paged = await crud.page(db, redis, order_by=order_by, ascending=ascending)
    assert [row.id for row in paged.data] == found
    return found


async def test_several_columns(db: Sessions) -> None:
    """Columns count in the order they are given in, each in its direction, and the primary key breaks ties."""
    assert await ordered(db, ["rank", "-id"]) == [4, 2, 5, 3, 1]
    assert await ordered(db, ("-rank", "id")) == [1, 3, 5, 2, 4]
    assert await ordered(db, ["-rank"]) == [1, 3, 5, 2, 4]
    assert await ordered(db, Order("rank", ascending=False)) == [1, 3, 5, 2, 4]


async def test_nulls_where_they_are_wanted(db: Sessions) -> None:
    """NULLs come first or last as an Order says, in both directions and on every database."""
    assert await ordered(db, Order("age", nulls="first")) == [2, 5, 3, 1, 4]
    assert await ordered(db, Order("age", nulls="last")) == [3, 1, 4, 2, 5]
    assert await ordered(db, Order("age", ascending=False, nulls="first")) == [2, 5, 1, 4, 3]
    assert await ordered(db, Order("age", ascending=False, nulls="last")) == [1, 4, 3, 2, 5]
    assert await ordered(db, ["rank", Order("age", nulls="last"), "-id"]) == [4, 2, 3, 1, 5]


async def test_nulls_where_the_database_puts_them(db: Sessions) -> None:
    """Without a word about NULLs an order leaves them where the database has them, as it does for one column."""
    async with db() as session:
        postgres = session.get_bind().dialect.name == "postgresql"
    assert await ordered(db, "age") == await ordered(db, Order("age", nulls="last" if postgres else "first"))
    assert await ordered(db, "-age") == await ordered(
        db, Order("age", ascending=False, nulls="first" if postgres else "last")
    )


@pytest.mark.parametrize(
    "order_by",
    [
        None,
        "age",
        "-age",
        ["rank", "-age"],
        [Order("age", nulls="last"), "-rank"],
        Order("age", nulls="first"),
        "total",
    ],
    ids=str,
)
async def test_descending_reverses_all(db: Sessions, order_by: Any) -> None:
    """``ascending=False`` is the same list from its end: directions, places of NULLs and ties included."""
    assert await ordered(db, order_by, ascending=False) == (await ordered(db, order_by))[::-1]


async def test_hybrids_and_properties(db: Sessions) -> None:
    """Hybrids and ``column_property`` are ordered by as columns are."""
    assert await ordered(db, [Order("total", nulls="last")]) == [3, 4, 1, 2, 5]
    assert await ordered(db, ["long", "-id"]) == [5, 4, 3, 2, 1]


async def test_no_columns_is_the_default(db: Sessions) -> None:
    """An empty list of columns is the order of the primary key."""
    assert await ordered(db, []) == [1, 2, 3, 4, 5]


async def test_unknown_name(db: Sessions) -> None:
    """A name that the model lacks raises and names the valid ones, also within a list and after a minus."""
    for order_by in ("agee", "-agee", ["rank", "agee"], Order("agee"), Order("-age")):
        with pytest.raises(UnknownField) as caught:
            await things().get_multi(db, None, order_by=order_by)
        assert "age" in caught.value.valid


async def test_same_column_twice(db: Sessions) -> None:
    """A column that is named twice raises, whatever its directions."""
    for order_by in (["age", "age"], ["age", "rank", "-age"], [Order("age", nulls="last"), "age"]):
        with pytest.raises(OrderRefused, match="twice") as caught:
            await things().get_multi(db, None, order_by=order_by)
        assert caught.value.field == "age"
        assert isinstance(caught.value, InputError)


@pytest.mark.parametrize("order_by", [5, [5], {"age"}, b"age", [["age"]], Order(5)], ids=repr)  # type: ignore[arg-type]  # on purpose
async def test_no_order_at_all(db: Sessions, order_by: Any) -> None:
    """What is no name, no Order and no list of them raises, and the message says what to pass."""
    with pytest.raises(UsageError, match=r"fastrdb\.Order"):
        await things().get_multi(db, None, order_by=order_by)


def test_nulls_elsewhere() -> None:
    """An Order takes no other place for NULLs than first and last."""
    with pytest.raises(OrderRefused, match='"first", "last"'):
        Order("age", nulls="middle")  # type: ignore[arg-type]  # on purpose


async def test_each_order_is_cached_by_itself(db: Sessions, valkey_url: str) -> None:
    """Lists that differ in their order only are different entries, and each is a hit the second time."""
    orders: list[Any] = [
        None, "age", "-age", ["age", "rank"], ["rank", "age"], Order("age", nulls="first"), Order("age", nulls="last"),
        [Order("age", nulls="last"), "rank"], ["age", "-rank"],
    ]  # fmt: skip
    async with Cache.from_url(valkey_url) as cache:
        crud = things()
        for _ in range(2):
            hits = cache.stats.hits
            for order_by in orders:
                for ascending in (True, False):
                    found = await crud.get_multi(db, cache, order_by=order_by, ascending=ascending)
                    assert [row.id for row in found] == await ordered(db, order_by, ascending)
        assert cache.stats.hits - hits == 2 * len(orders)


async def test_one_order_has_one_key(db: Sessions, valkey_url: str) -> None:
    """The ways to write one order share an entry, that of the plain name included."""
    async with Cache.from_url(valkey_url) as cache:
        crud = things()
        await crud.get_multi(db, cache, order_by="age")
        for order_by in (["age"], Order("age"), (Order("age"),)):
            await crud.get_multi(db, cache, order_by=order_by)
        assert cache.stats.hits == 3


async def test_ordered_list_follows_writes(db: Sessions, valkey_url: str) -> None:
    """A list in a cached order is not served after a write that changes its order."""
    async with Cache.from_url(valkey_url) as cache:
        crud = things()
        order_by = ["-rank", Order("age", nulls="last")]
        for _ in range(2):
            found = await crud.get_multi(db, cache, order_by=order_by)
        assert [row.id for row in found] == [3, 1, 5, 4, 2]
        await crud.update(db, cache, Loose(rank=9), id=2)
        assert [row.id for row in await crud.get_multi(db, cache, order_by=order_by)] == [2, 3, 1, 5, 4]
