"""Search: every word of a text, in at least one of the columns that a crud names."""

from typing import Any

import pytest

from fastrdb import ConfigurationError, InputError, ReadOptions, ValueRefused
from tests.shop import Loose, Named, Order, Person, PersonOut, Shop, crud_of

FOUND: list[tuple[str, list[str]]] = [
    ("ann", ["Ann"]),
    ("LEE", ["Ann", "Bob"]),
    ("ann lee", ["Ann"]),
    ("lee  Ann\t", ["Ann"]),
    ("lee peru", ["Ann"]),
    ("e p", ["Ann", "Bob", "Cid"]),
    ("nobody", []),
    ("ann nobody", []),
    ("%", ["50%_\\"]),
    ("_", ["50%_\\"]),
    ("\\", ["50%_\\"]),
    ("%_\\", ["50%_\\"]),
    ("/", ["50%_\\"]),
    ("'; DROP", []),
]
EVERYBODY = ["Ann", "Bob", "Cid", "50%_\\"]


async def test_every_word_is_found_in_some_column(shop: Shop) -> None:
    """Words are found in any order and any case, ``%``, ``_`` and ``\\`` as themselves, related columns included."""
    for text, found in FOUND:
        options = ReadOptions(search=text)
        for _ in range(2):
            assert await shop.names(options=options) == found, text
            assert await shop.people.count(**shop.given, options=options) == len(found), text
        assert await shop.names(options=options, redis=None) == found, text


async def test_ds_10_what_is_literal_is_no_pattern(shop: Shop) -> None:
    """``%``, ``_`` and ``\\`` are themselves in a search, and in ``startswith``, ``endswith`` and ``contains``."""
    for text, found in (("%", 1), ("_", 1), ("\\", 1), ("/", 0), ("5_%", 0), ("50%_\\", 1)):
        assert await shop.people.count(**shop.given, name={"contains": text}) == found, text
        assert await shop.people.count(**shop.given, filters={"boss.staff.name": {"contains": text}}) == found, text
        assert await shop.orders.count(**shop.given, filters={"person.name": {"contains": text}}) == 0, text
    assert await shop.names(name={"startswith": "50%"}) == ["50%_\\"]
    assert await shop.names(name={"startswith": "5%"}) == []
    assert await shop.names(name={"endswith": "_\\"}) == ["50%_\\"]
    assert await shop.names(options=ReadOptions(search="5_%")) == []


async def test_blank_text_is_no_search(shop: Shop) -> None:
    """Without a word everybody is found, from the entry that lists without a search have."""
    assert await shop.names() == EVERYBODY
    before = len(shop.sent)
    for text in ("", "  ", "\t\n"):
        assert await shop.names(options=ReadOptions(search=text)) == EVERYBODY
        assert await shop.orders.count(db=shop.db, options=ReadOptions(search=text)) == 4, "without columns, too"
    assert not any("people" in statement for statement in shop.sent[before:])


async def test_search_holds_beside_filters_and_alternatives(shop: Shop) -> None:
    """A search narrows what the filters find, also where those are alternatives."""
    options = ReadOptions(search="lee")
    assert await shop.names(**{"country.name": "Peru"}, options=options) == ["Ann"]
    assert await shop.names(filters=[{"id": 2}, {"id": 3}], options=options) == ["Bob"]
    page = await shop.people.page(**shop.given, limit=1, options=options)
    assert (page.total, page.has_next) == (2, True)
    assert await shop.people.exists(**shop.given, options=ReadOptions(search="cid"))


async def test_searches_age_with_every_table_they_read(shop: Shop) -> None:
    """A search that is cached finds a row as soon as it, or its related row, has the word."""
    options = ReadOptions(search="chile")
    assert await shop.names(options=options) == []
    assert await shop.people.count(**shop.given, options=options) == 0
    await shop.countries.update(**shop.given, obj_in=Loose(name="Chile"), id=2)
    assert await shop.names(options=options) == ["Bob"]
    await shop.people.update(**shop.given, obj_in=Loose(email="cid@CHILE"), id=3)
    assert await shop.names(options=options) == ["Bob", "Cid"]
    assert await shop.people.count(**shop.given, options=options) == 2


async def test_another_text_is_the_same_statement(shop: Shop) -> None:
    """Words are parameters: texts of as many words share one statement, and no cached result."""
    statements = set()
    for text in ("ann lee", "bob lee", "cid lee"):
        before = len(shop.sent)
        await shop.names(options=ReadOptions(search=text), redis=None)
        statements |= {*shop.sent_since(before, "people")}
    assert len(statements) == 1


async def test_search_without_columns_raises(shop: Shop) -> None:
    """A crud without ``search=`` says what to add; too many words, and what is no text, are refused."""
    with pytest.raises(InputError, match="search="):
        await shop.orders.get_multi(**shop.given, options=ReadOptions(search="x"))
    with pytest.raises(InputError, match="20 words"):
        await shop.names(options=ReadOptions(search=" ".join(map(str, range(21)))))
    with pytest.raises(InputError, match="1000 characters"):
        await shop.names(options=ReadOptions(search="x" * 1_001))
    with pytest.raises(ValueRefused):
        await shop.names(options=ReadOptions(search="a\0b"))
    with pytest.raises(InputError, match="search"):
        ReadOptions(search=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="exact"):
        ReadOptions(total="all")  # type: ignore[arg-type]
    assert shop.sent == []


@pytest.mark.parametrize(
    "names", ["name", ("id",), ("nam",), ("country.nam",), ("country",), ("name", "orders.amount")]
)
def test_columns_to_search_are_checked(names: Any) -> None:
    """Columns that do not exist, or are no text, are refused when the crud is built."""
    with pytest.raises(ConfigurationError, match="search"):
        crud_of(Person, PersonOut, search=names)
    with pytest.raises(ConfigurationError, match="notes"):
        crud_of(Order, Named, search=("notes",))
