"""Whatever a tenant tries, by any public method, with a cache and without: another tenant's row is not there."""

import inspect
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import given

from fastrdb import Crud
from fastrdb.context import tenant
from tests.attacks.attack import DRAWN, FEW, attack
from tests.attacks.reads import READS
from tests.attacks.writes import WRITES
from tests.policies import Shelf, shelf_in

ATTACKS = READS | WRITES


def test_every_public_method_is_tried() -> None:
    """A method that is not attacked here fails this test: write its attack."""
    public = {name for name, _ in inspect.getmembers(Crud, inspect.isfunction) if not name.startswith("_")}
    assert public == ATTACKS.keys()


@pytest.fixture
async def shelf(database_url: str) -> AsyncIterator[Shelf]:
    """An empty shelf, on each database."""
    async with shelf_in(database_url, "memory://") as shelf:
        yield shelf


@pytest.mark.parametrize("name", ATTACKS)
@FEW
@given(**DRAWN)
async def test_no_method_reaches_another_tenants_row(shelf: Shelf, name: str, **drawn: Any) -> None:
    """By no method can a tenant see, count, change, delete, page into, explain or evict what is another's."""
    await attack(shelf, ATTACKS[name], **drawn)


@pytest.mark.parametrize("cached", [True, False])
async def test_names_that_collations_take_for_one(shelf: Shelf, cached: bool) -> None:
    """Tenants whose names differ in case, accents or trailing blanks only are strangers, on MariaDB, too."""
    for pair in (("acme", "ACME"), ("acme", "acme "), ("á", "a")):
        for name in ("get_or_none", "get_multi", "count", "update", "delete"):
            await attack(shelf, ATTACKS[name], "without", pair, "both", cached)


async def test_advanced_alchemy_gave_tenant_2_the_cached_row_of_tenant_1(shelf: Shelf) -> None:
    """There the tenant's condition is not in the key, so that the second tenant gets the first one's row and list."""
    crud, given = shelf.crud, shelf.given
    made = await shelf.make()
    with tenant("acme"):
        assert await shelf.cached(lambda: crud.get(**given, id=made.id)) == made
        assert await shelf.cached(lambda: crud.get_multi(**given)) == [made]
        assert await shelf.cached(lambda: crud.count(**given)) == 1
    with tenant("other"):
        for _ in range(2):
            assert await crud.get_or_none(**given, id=made.id) is None
            assert await crud.get_multi(**given) == []
            assert await crud.count(**given) == 0
