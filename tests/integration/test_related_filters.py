"""Filters on related rows: over relationships of every kind, in reads and writes, cached and not."""

from contextlib import nullcontext
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy.ext.asyncio import AsyncSession

from fastrdb import Crud, InputError, NotFound, UnknownField, UnknownOperator, ValueRefused
from fastrdb.context import tenant as use_tenant
from tests.shop import Loose, Person, PersonOut, Shop, crud_of
from tests.tenants import Country as TenantCountry
from tests.tenants import CountryOut, opened

CASES: list[tuple[Any, list[str]]] = [
    ({"country.name": "Peru"}, ["Ann", "Cid"]),
    ({"country.name": {"startswith": "P", "!=": "Peru"}}, ["Bob"]),
    ({"country.name": {"!=": "Peru"}}, ["Bob"]),
    ({"country.id": [1, "2"]}, ["Ann", "Bob", "Cid"]),
    ({"country": None}, ["50%_\\"]),
    ({"country": {"is_not": None}}, ["Ann", "Bob", "Cid"]),
    ({"country": {"!=": None}}, ["Ann", "Bob", "Cid"]),
    ({"orders.status": "open"}, ["Ann", "Bob"]),
    ({"orders": None}, ["50%_\\"]),
    ({"orders.amount": None}, ["Cid"]),
    ({"orders.is_dear": True}, ["Bob"]),
    ({"orders.amount": {"between": ["0.10", "0.15"]}}, ["Ann"]),
    ({"tags.label": "blue"}, ["Ann", "Bob"]),
    ({"tags.label": ["red"]}, ["Ann"]),
    ({"boss.name": "Bob"}, ["Cid"]),
    ({"boss.boss.name": {"startswith": "Ann"}}, ["Cid"]),
    ({"boss.boss.boss.name": {"startswith": "Ann"}}, ["50%_\\"]),
    ({"boss.boss.boss": None}, ["Cid"]),
    ({"staff.name": "Cid"}, ["Bob"]),
    ({"staff.orders.status": "open", "staff.country.name": "Poland"}, ["Ann"]),
    ({"country.people.name": "Cid"}, ["Ann", "Cid"]),
    ({"boss.order_count": 2}, ["Bob"]),
    ({"cars.brand": "Fiat"}, ["Ann"]),
    ({"cars": None}, ["Bob", "Cid", "50%_\\"]),
    ({"name": "Cid", "country.name": "Peru"}, ["Cid"]),
    ([{"country.name": "Poland"}, {"name": "Cid"}], ["Bob", "Cid"]),
    ([{"country.name": "Peru", "orders.status": "sent"}, {"country": None}], ["Ann", "50%_\\"]),
    ({"country.name": {"or": ["Poland", None]}}, ["Bob"]),
]


async def test_related_rows_are_found(shop: Shop) -> None:
    """A filter finds the rows that have such a related row; the list and its number say the same, cached, too."""
    for filters, found in CASES:
        for _ in range(2):
            assert await shop.names(filters=filters) == found, filters
            assert await shop.people.count(**shop.given, filters=filters) == len(found), filters
        assert await shop.names(filters=filters, redis=None) == found, filters


async def test_the_second_read_is_a_hit(shop: Shop) -> None:
    """Lists and counts with filters on related rows are cached, subclasses' rows included."""
    for filters in (
        {"country.name": "Peru"},
        {"boss.boss.name": "Ann Lee"},
        {"tags.label": "red"},
        {"cars.brand": "F"},
    ):
        await shop.names(**filters)
        await shop.people.count(**shop.given, **filters)
        before = len(shop.sent)
        await shop.names(**filters)
        await shop.people.count(**shop.given, **filters)
        assert shop.sent[before:] == [], filters


async def test_conditions_on_one_path_speak_of_the_same_row(shop: Shop) -> None:
    """Ann has an open order and one with five stars, but no open order with five stars: only Bob has."""
    assert await shop.names(**{"orders.status": "open", "orders.stars": 5}) == ["Bob"]
    assert await shop.names(**{"orders.status": "open"}, filters={"orders.stars": 5}) == ["Bob"]
    assert await shop.names(**{"orders.status": "open", "orders.stars": {"or": [5, 7]}}) == ["Bob"]
    assert await shop.names(**{"orders.status": "open", "orders.stars": [5, None]}) == ["Bob"]
    assert await shop.names(**{"orders.stars": {">": 1, "<": 5}}) == []
    assert await shop.names(**{"staff.orders.stars": 5, "staff.name": "Bob"}) == ["Ann"]
    assert await shop.names(**{"staff.orders.stars": 5, "staff.name": "Cid"}) == []


async def test_alternatives_and_where_speak_of_rows_of_their_own(shop: Shop) -> None:
    """Each alternative of a list, and each expression in where, is about some row, not about one and the same."""
    alternatives = [{"orders.stars": 5}, {"orders.stars": 7}]
    assert await shop.names(**{"orders.status": "open"}, filters=alternatives) == ["Ann", "Bob"]
    five = Person.orders.any(stars=5)
    assert await shop.names(**{"orders.status": "open"}, where=five) == ["Ann", "Bob"]


async def test_totals_and_pages_are_right_under_to_many_joins(shop: Shop) -> None:
    """Ann has two tags and two orders, and is one row of one page, and counts once."""
    filters = {"tags.label": {"contains": "e"}, "orders.stars": {">": 0}}
    page = await shop.people.page(**shop.given, limit=1, page=1, **filters)
    assert ([person.id for person in page.data], page.total, page.has_next) == ([1], 2, True)
    page = await shop.people.page(**shop.given, limit=1, page=2, **filters)
    assert ([person.id for person in page.data], page.total, page.has_next) == ([2], 2, False)


WRITES: dict[str, Any] = {
    "update of a related row": lambda s, db: s.countries.update(db, s.cache, Loose(name="Chile"), id=1),
    "row of the secondary table": lambda s, db: s.taggings.create(db, s.cache, Loose(person_id=4, tag_id=2)),
    "row of the secondary table gone": lambda s, db: s.taggings.delete(db, s.cache, person_id=2, tag_id=2),
    "related row created": lambda s, db: s.orders.create(db, s.cache, Loose(person_id=4, status="open", stars=5)),
    "row moved": lambda s, db: s.people.update(db, s.cache, Loose(boss_id=1), id=4),
    "row of a subclass": lambda s, db: s.cars.create(db, s.cache, Loose(brand="Fiat", owner_id=4)),
}
PROBES: list[dict[str, Any]] = [
    {"country.name": "Peru"},
    {"tags.label": "blue"},
    {"orders.status": "open", "orders.stars": 5},
    {"boss.name": "Ann Lee"},
    {"cars.brand": "Fiat"},
]


@pytest.mark.parametrize("how", ["alone", "joined", "rolled back"])
async def test_a_write_of_what_was_read_ages_lists_and_counts(shop: Shop, how: str) -> None:
    """Cached lists and counts are as SQL has them after each write of a table they read, and after a rollback."""

    async def seen(redis: Any) -> list[Any]:
        given = {"db": shop.db, "redis": redis}
        lists = [await shop.people.get_multi(**given, **filters) for filters in PROBES]
        return [*lists, *[await shop.people.count(**given, **filters) for filters in PROBES]]

    for name, write in WRITES.items():
        first = await seen(shop.cache)
        if how == "alone":
            await write(shop, shop.db)
        else:
            async with AsyncSession(shop.engine) as session:
                await session.begin()
                await write(shop, session)
                if session.bind.dialect.name != "sqlite":  # whose readers would wait for the writer
                    assert await seen(shop.cache) == first, f"{name}: others do not see it yet"
                await (session.commit() if how == "joined" else session.rollback())
        assert await seen(shop.cache) == await seen(None), name
        assert (await seen(shop.cache) == first) == (how == "rolled back"), name


async def test_one_row_can_be_asked_for_by_related_rows(shop: Shop) -> None:
    """``get`` and ``exists`` take such filters beside the key, and notice when the related row changes."""
    ann = await shop.people.get(**shop.given, id=1, **{"country.name": "Peru"})
    assert ann == await shop.people.get(**shop.given, id=1, **{"country.name": "Peru"})
    assert await shop.people.get_or_none(**shop.given, id=2, **{"country.name": "Peru"}) is None
    assert await shop.people.exists(**shop.given, **{"boss.name": "Bob"})
    await shop.countries.update(**shop.given, obj_in=Loose(name="Chile"), id=1)
    assert await shop.people.get_or_none(**shop.given, id=1, **{"country.name": "Peru"}) is None


@pytest.mark.parametrize("filters", [{"boss.name": "Bob"}, {"id": 3, "boss.name": "Bob"}, {"tags": None, "id": 3}])
async def test_writes_take_such_filters(shop: Shop, filters: Any) -> None:
    """``update`` and ``delete`` find their row by related rows, of the same table, too."""
    changed = await shop.people.update(**shop.given, obj_in=Loose(name="Cyd"), filters=filters)
    assert (changed.id, changed.name) == (3, "Cyd")
    assert (await shop.people.get(**shop.given, id=3)).name == "Cyd"
    await shop.orders.delete(**shop.given, filters={"person.name": "Cyd", "person.boss.name": "Bob"})
    assert await shop.orders.count(**shop.given) == 3
    await shop.people.update(**shop.given, obj_in=Loose(boss_id=None), id=4)
    await shop.people.delete(**shop.given, filters=filters)
    assert await shop.people.get_or_none(**shop.given, id=3) is None


async def test_a_write_that_finds_nothing_so_changes_nothing(shop: Shop) -> None:
    """A row whose related rows are others is not found, and stays as it is."""
    with pytest.raises(NotFound):
        await shop.people.update(**shop.given, obj_in=Loose(name="X"), filters={"id": 2, "country.name": "Peru"})
    with pytest.raises(NotFound):
        await shop.people.delete(**shop.given, filters={"id": 2, "country.name": "Peru"})
    assert await shop.names() == ["Ann", "Bob", "Cid", "50%_\\"]


REFUSED: list[tuple[dict[str, Any], type[InputError], str]] = [
    ({"county.name": "Peru"}, UnknownField, "country.…"),
    ({"country.nam": "Peru"}, UnknownField, "did you mean 'country.name'"),
    ({"boss.country.nam": "Peru"}, UnknownField, "boss.country.name"),
    ({"contry": None}, UnknownField, "'country'"),
    ({"orders.is_heavy": True}, UnknownField, "orders.is_dear"),
    ({"name.first": "Ann"}, UnknownField, "country.…"),
    ({"boss.boss.boss.boss.name": "Ann"}, InputError, "more than 3"),
    ({"country.name": {"near": "Peru"}}, UnknownOperator, "startswith"),
    ({"country.id": "Peru"}, ValueRefused, "country.id"),
    ({"country": 1}, ValueRefused, "country.…"),
    ({"country": [1]}, ValueRefused, "country.…"),
    ({"country": {">": 1}}, ValueRefused, "country.…"),
    ({"country": {"like": "P"}}, ValueRefused, "no text"),
]


async def test_what_is_wrong_is_said(shop: Shop) -> None:
    """An unknown relationship, field, operator or value raises, names what there is, and sends nothing."""
    for filters, error, said in REFUSED:
        with pytest.raises(error) as raised:
            await shop.people.get_multi(**shop.given, filters=filters)
        assert said in str(raised.value)
    assert shop.sent == []


async def test_lists_of_a_directory_age_with_the_related_table(shop: Shop) -> None:
    """A list whose template has columns is cached with such filters, and ages with the related table."""
    crud: Crud[Any, Loose, Loose, Any] = crud_of(Person, PersonOut, list_pattern="of:{country_id}:{page}:{limit}")
    read = lambda: crud.get_multi(**shop.given, country_id=1, **{"orders.status": "sent"})  # noqa: E731
    assert [person.id for person in await read()] == [1]
    before = len(shop.sent)
    assert [person.id for person in await read()] == [1]
    assert len(shop.sent) == before
    await shop.orders.create(**shop.given, obj_in=Loose(person_id=3, status="sent"))
    assert [person.id for person in await read()] == [1, 3]


async def test_related_rows_that_the_database_hides_do_not_match(postgres_url: str, valkey_url: str) -> None:
    """A table of everybody, filtered by notes under row-level security: each tenant's answer, cached apart."""

    class Change(BaseModel):
        name: str

    crud = Crud[TenantCountry, Change, Change, CountryOut](
        TenantCountry, CountryOut, pattern="country:{id}", list_pattern="countries:{page}:{limit}"
    )
    async with opened(postgres_url, valkey_url) as tenants:
        given: dict[str, Any] = {"db": tenants.factory, "redis": tenants.cache}
        for _ in range(2):
            for name in ("a", "b", None):
                with use_tenant(name) if name else nullcontext():
                    own = {"notes.text": "of a"}
                    assert len(await crud.get_multi(**given, **own)) == (name == "a"), name
                    assert await crud.count(**given, **own) == (name == "a"), name
                    assert len(await crud.distinct(**given, field="name", **own)) == (name == "a"), name
        for name, found in (("b", False), ("a", True)):
            with use_tenant(name), nullcontext() if found else pytest.raises(NotFound):
                await crud.update(**given, obj_in=Change(name="Niger"), **{"notes.text": "of a"})
        assert (await crud.get(**given, id=1)).name == "Niger"
