"""Pages: their totals in every way they can be had, their order, and where the next one is."""

from typing import Any

import pytest
from redis.asyncio import Redis
from sqlalchemy import insert

from fastrdb import InputError, NotFound, OutOfRange, PaginatedResponse, ReadOptions
from fastrdb.crud.options import CACHED_TOTAL_S, ESTIMATED_FROM
from fastrdb.crud.pages import UNKNOWN
from fastrdb.keys import suffix
from tests.shop import Loose, Person, Shop, shop_in
from tests.world import until

WAYS: list[Any] = ["exact", "cached", "estimate", "none"]


def looked(page: PaginatedResponse[Any]) -> tuple[list[int], int, bool]:
    """What a page shows: its rows, the total, and whether there is a next one."""
    return [row.id for row in page.data], page.total, page.has_next


async def test_every_page_in_every_way(shop: Shop) -> None:
    """The four people in pages of two, three and more: rows, total and next are right, cached, too."""
    for total in WAYS:
        options = ReadOptions(total=total)
        unknown = UNKNOWN if total == "none" else 4
        page = lambda limit, number, o=options: shop.people.page(**shop.given, limit=limit, page=number, options=o)  # noqa: E731
        for _ in range(2):
            assert looked(await page(2, 1)) == ([1, 2], unknown, True), total
            assert looked(await page(2, 2)) == ([3, 4], 4, False), total
            assert looked(await page(3, 2)) == ([4], 4, False), total
            assert looked(await page(4, 1)) == ([1, 2, 3, 4], 4, False), total
            assert looked(await page(10, 1)) == ([1, 2, 3, 4], 4, False), total
            empty = await shop.people.page(**shop.given, id=99, options=options)
            assert looked(empty) == ([], 0, False), total
            assert not empty.estimated


async def test_advanced_alchemy_total_past_the_last_page(shop: Shop) -> None:
    """Past the last page there are no rows, and as many in total as before; without a total it is unknown, not 0."""
    for total in WAYS:
        for redis in (shop.cache, shop.cache, None):
            page = await shop.people.page(shop.db, redis, 2, 9, options=ReadOptions(total=total))
            assert looked(page) == ([], UNKNOWN if total == "none" else 4, False), total


async def test_the_last_page_needs_no_count(shop: Shop) -> None:
    """Where the page's own rows say how many there are, nothing is counted."""
    assert (await shop.people.page(**shop.given, limit=3, page=2)).total == 4
    assert (await shop.people.page(**shop.given, limit=3, page=1, id=99)).total == 0
    assert shop.sent_since(0, "count(*)") == []
    assert (await shop.people.page(**shop.given, limit=3, page=1)).total == 4
    assert len(shop.sent_since(0, "count(*)")) == 1


async def test_without_a_total_nothing_is_counted(shop: Shop) -> None:
    """``"none"`` reads one row more than the page, in one SELECT, which is cached and ages as lists do."""
    read = lambda: shop.people.page(**shop.given, limit=2, options=ReadOptions(total="none"))  # noqa: E731
    await shop.names(limit=2)
    assert looked(await read()) == ([1, 2], UNKNOWN, True)
    before = len(shop.sent)
    assert looked(await read()) == ([1, 2], UNKNOWN, True)
    assert await shop.names(limit=2) == ["Ann", "Bob"]
    assert len(shop.sent) == before
    assert shop.sent_since(0, "count(*)") == []
    for gone in (4, 3):
        await shop.people.update(**shop.given, obj_in=Loose(boss_id=None), id=gone)
    async with shop.engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM orders")
        await connection.exec_driver_sql("DELETE FROM vehicles")
    for gone in (4, 3):
        await shop.people.delete(**shop.given, id=gone)
    assert looked(await read()) == ([1, 2], 2, False)


async def test_a_cached_total_may_be_old_and_everything_else_may_not(shop: Shop) -> None:
    """``"cached"`` counts once in its time, whatever is written; the rows, their next, and exact totals are new."""
    cached = lambda: shop.people.page(**shop.given, limit=2, options=ReadOptions(total="cached"))  # noqa: E731
    assert looked(await cached()) == ([1, 2], 4, True)
    await shop.people.create(**shop.given, obj_in=Loose(name="Eve"))
    await shop.people.update(**shop.given, obj_in=Loose(name="Anna"), id=1)
    before = len(shop.sent)
    page = await cached()
    assert (page.data[0].name, page.total, page.has_next) == ("Anna", 4, True)
    assert shop.sent_since(before, "count(*)") == []
    assert (await shop.people.page(**shop.given, limit=2)).total == 5
    assert await shop.people.count(**shop.given) == 5
    await shop.people.create_multi(**shop.given, instances=[Loose(name=str(n)) for n in range(5)])
    third = await shop.people.page(**shop.given, limit=2, page=4, options=ReadOptions(total="cached"))
    assert (len(third.data), third.total, third.has_next) == (2, 9, True), "never less than what was seen"
    await shop.people.invalidate(shop.cache)
    assert (await cached()).total == 10


async def test_a_cached_total_lives_no_longer_than_it_says(shop: Shop, valkey_url: str) -> None:
    """Its entry ends with the time that is promised; another filter has an entry, and a total, of its own."""
    options = ReadOptions(total="cached")
    assert (await shop.people.page(**shop.given, limit=1, options=options)).total == 4
    assert (await shop.people.page(**shop.given, limit=1, options=options, **{"country.name": "Peru"})).total == 2
    entry = "people:page:total" + suffix([None, None, "cached"])
    async with Redis.from_url(valkey_url) as client:

        async def lives() -> bool:
            return 0 < await client.pttl(entry) <= CACHED_TOTAL_S * 1_000

        await until(lives)


async def test_an_estimate_is_flagged_and_costs_no_count(postgres_url: str, valkey_url: str) -> None:
    """With many rows the planner is asked, not the table; few are counted; a session stays as good as it was."""
    async with shop_in(postgres_url, valkey_url) as shop:
        async with shop.engine.begin() as connection:
            rows = [{"name": "Many", "email": f"{number}@x"} for number in range(ESTIMATED_FROM)]
            await connection.execute(insert(Person), rows)
            await connection.exec_driver_sql("ANALYZE people")
        options = ReadOptions(total="estimate")
        async with shop.db() as session:
            page = await shop.people.page(session, shop.cache, 2, name="Many", options=options)
            assert (page.estimated, page.has_next, len(page.data)) == (True, True, 2)
            assert ESTIMATED_FROM * 0.9 < page.total < ESTIMATED_FROM * 1.1
            assert shop.sent_since(0, "select count(*)") == []
            before = len(shop.sent)
            await shop.people.page(session, shop.cache, 2, name="Many", options=options)
            assert not any("people.id" in statement for statement in shop.sent[before:]), "the rows are a hit"
        few = await shop.people.page(**shop.given, limit=2, options=options, **{"country.name": "Peru", "name": "Cid"})
        assert (few.total, few.estimated) == (1, False)
        exact = await shop.people.page(**shop.given, limit=2)
        assert (exact.total, exact.estimated) == (ESTIMATED_FROM + 4, False)


async def test_fastcrud_lists_have_an_order_and_a_maximum(shop: Shop) -> None:
    """Without ``order_by`` rows come by primary key, page by page; a limit above the crud's maximum is refused."""
    walked = [name for page in (1, 2, 3, 4) for name in await shop.names(limit=1, page=page)]
    assert walked == await shop.names()
    for limit in (0, 1_001, None):
        with pytest.raises(OutOfRange, match="limit"):
            await shop.names(limit=limit)
        with pytest.raises(OutOfRange, match="limit"):
            await shop.people.page(**shop.given, limit=limit, options=ReadOptions(total="none"))


async def test_go_15_an_empty_list_of_values_matches_nothing(shop: Shop) -> None:
    """``[]`` is IN of nothing, on related rows, too; it never means every row, for writes either."""
    assert await shop.names(name=[]) == []
    assert await shop.names(**{"country.name": []}) == []
    assert await shop.people.count(**shop.given, id=[]) == 0
    with pytest.raises(NotFound):
        await shop.people.delete(**shop.given, id=[])
    with pytest.raises(InputError):
        await shop.names(filters=[])
    assert len(await shop.names()) == 4


async def test_paginate_says_whether_there_is_more(shop: Shop) -> None:
    """``paginate`` has a next page as long as its total says so."""
    assert shop.people.paginate([1, 2, 3], limit=2).has_next
    assert not shop.people.paginate([1, 2, 3], limit=2, page=2).has_next
    assert shop.people.paginate([3, 4], limit=2, page=2, total=5).has_next
    assert not shop.people.paginate([5], limit=2, page=3, total=5).has_next
