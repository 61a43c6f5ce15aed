"""What the writing methods of Crud do: ``method__claim`` is a check of the method."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fastrdb import (
    BatchRefused,
    ChildrenChange,
    ConfigurationError,
    EmptyInput,
    NotFound,
    RowsNotFound,
    TenantMismatch,
    TenantRequired,
    UniqueViolation,
    UnknownField,
)
from fastrdb.context import tenant
from tests.ground import ALL_NOTES, ANN, BO, CID, FOREIGN, GONE, NOBODY, NOTE, Ground, Loose

Given = dict[str, Any]

WRITES: dict[str, Callable[[Ground, Given], Awaitable[Any]]] = {
    "create": lambda g, at: g.authors.create(**at, obj_in=Loose(name="Дан")),
    "update": lambda g, at: g.authors.update(**at, obj_in=Loose(name="Дан"), name="Ann"),
    "patch": lambda g, at: g.authors.patch(**at, obj_in=Loose(name="Дан", rank=1), id=ANN),
    "delete": lambda g, at: g.authors.delete(**at, id=ANN),
    "restore": lambda g, at: g.notes.restore(**at, id=GONE, tenant_id="acme"),
    "purge": lambda g, at: g.notes.purge(**at, id=NOTE, tenant_id="acme"),
    "create_multi": lambda g, at: g.authors.create_multi(**at, instances=[Loose(name="Дан"), Loose(name="E")]),
    "update_multi": lambda g, at: g.authors.update_multi(
        **at, items=[(ANN, Loose(name="Дан", rank=9)), (BO, Loose(name="x", rank=8))]
    ),
    "delete_multi": lambda g, at: g.seats.delete_multi(**at, keys=[("é", 1), ("é", 2)]),
    "upsert": lambda g, at: g.authors.upsert(**at, obj_in=Loose(name="Ann", rank=7)),
    "upsert_multi": lambda g, at: g.seats.upsert_multi(
        **at, instances=[Loose(line="é", number=n, guest="Ω") for n in (1, 3)]
    ),
    "get_or_create": lambda g, at: g.authors.get_or_create(**at, obj_in=Loose(name="Дан")),
    "update_where": lambda g, at: g.notes.update_where(**at, obj_in=Loose(text="new"), text="here", tenant_id="acme"),
    "delete_where": lambda g, at: g.authors.delete_where(**at, rank={">=": 1}),
    "create_by_foreign_key": lambda g, at: g.books.create_by_foreign_key(
        **at, fk_field="author_id", fk_value=ANN, data=[{"title": "three"}]
    ),
    "update_by_foreign_key": lambda g, at: g.books.update_by_foreign_key(
        **at, fk_field="author_id", fk_value=ANN, data=[{"id": 1001, "title": "1"}, {"id": -1002}, {"title": "new"}]
    ),
    "delete_by_foreign_key": lambda g, at: g.books.delete_by_foreign_key(**at, fk_field="author_id", fk_value=ANN),
}


async def committed_alone(g: Ground, write: Callable[[Ground, Given], Awaitable[Any]]) -> None:
    """A write commits by itself, and nothing that was cached before is served."""
    await g.warm()
    before = await g.stored()
    await write(g, g.given)
    assert await g.stored() != before
    assert await g.is_fresh()


async def joined(g: Ground, write: Callable[[Ground, Given], Awaitable[Any]]) -> None:
    """In the caller's transaction a write is undone by its rollback, and made true by its commit."""
    await g.warm()
    before = await g.stored()
    async with g.factory() as session:
        await session.begin()
        await write(g, {"db": session, "redis": g.cache})
        await session.rollback()
    assert await g.stored() == before
    assert await g.is_fresh()
    async with g.factory() as session:
        await write(g, {"db": session, "redis": g.cache, "commit": False})
        if g.engine.dialect.name != "sqlite":  # whose readers and writers wait for each other
            assert await g.is_fresh()
        await session.commit()
    assert await g.stored() != before
    assert await g.is_fresh()


TENANTLESS: tuple[Callable[[Ground, Given], Awaitable[Any]], ...] = (
    lambda g, at: g.notes.create(**at, obj_in=Loose(text="x")),
    lambda g, at: g.notes.create_multi(**at, instances=[Loose(text="x")]),
    lambda g, at: g.notes.update(**at, obj_in=Loose(text="x"), id=NOTE),
    lambda g, at: g.notes.patch(**at, obj_in=Loose(text="x"), id=NOTE),
    lambda g, at: g.notes.delete(**at, id=NOTE),
    lambda g, at: g.notes.restore(**at, id=GONE),
    lambda g, at: g.notes.purge(**at, id=NOTE),
    lambda g, at: g.notes.update_multi(**at, items=[(NOTE, Loose(text="x"))]),
    lambda g, at: g.notes.delete_multi(**at, keys=[NOTE]),
    lambda g, at: g.notes.upsert(**at, obj_in=Loose(id=NOTE, text="x")),
    lambda g, at: g.notes.upsert_multi(**at, instances=[Loose(id=NOTE, text="x")]),
    lambda g, at: g.notes.get_or_create(**at, obj_in=Loose(id=NOTE, text="x")),
    lambda g, at: g.notes.update_where(**at, obj_in=Loose(text="x"), id=NOTE),
    lambda g, at: g.notes.delete_where(**at, all_rows=True),
)


async def create__needs_a_tenant_as_all_writes_do(g: Ground) -> None:
    """Every write of a tenant's table asks whose rows are meant, and writes nothing."""
    before = await g.stored()
    for write in TENANTLESS:
        with pytest.raises(TenantRequired):
            await write(g, g.given)
    assert await g.stored() == before


async def create__gives_the_row_of_the_database(g: Ground) -> None:
    """The new row has its key, NULL and text of any script; it is found by both templates."""
    made = await g.authors.create(**g.given, obj_in=Loose(name="日本 %_'\"", rank=None))
    assert made == await g.authors.get(**g.given, id=made.id) == await g.authors.get(**g.given, name="日本 %_'\"")
    seat = await g.seats.create(**g.given, obj_in=Loose(line="é", number=7))
    assert seat.guest is None


async def create__refuses_before_anything_is_written(g: Ground) -> None:
    """A key that is taken, an unknown column, and another tenant's row raise, and write nothing."""
    before = await g.stored()
    with pytest.raises(UniqueViolation):
        await g.authors.create(**g.given, obj_in=Loose(name="Ann"))
    with pytest.raises(UnknownField):
        await g.authors.create(**g.given, obj_in=Loose(nam="Ann"))
    with pytest.raises(TenantMismatch):
        await g.notes.create(**g.given, obj_in=Loose(text="x", tenant_id="other"), tenant_id="acme")
    assert await g.stored() == before


async def update__changes_one_row(g: Ground) -> None:
    """Fields that were set change, ``None`` included; others stay."""
    assert (await g.authors.update(**g.given, obj_in=Loose(rank=None), id=ANN)).rank is None
    assert (await g.seats.update(**g.given, obj_in=Loose(number=5), line="é", number=1)).guest == "Ann"
    assert await g.seats.get_or_none(**g.given, line="é", number=1) is None


async def update__refuses(g: Ground) -> None:
    """A missing row, another tenant's, a deleted one and an empty change raise."""
    with pytest.raises(NotFound):
        await g.authors.update(**g.given, obj_in=Loose(rank=2), id=NOBODY)
    for id in (GONE, FOREIGN):
        with pytest.raises(NotFound):
            await g.notes.update(**g.given, obj_in=Loose(text="x"), id=id, tenant_id="acme")
    with pytest.raises(EmptyInput):
        await g.authors.update(**g.given, obj_in=Loose(), id=ANN)


async def patch__tells_what_differed(g: Ground) -> None:
    """Only what differs is changed, and named."""
    row, changed = await g.authors.patch(**g.given, obj_in=Loose(name="Ann", rank=None), id=ANN)
    assert (row.rank, changed) == (None, {"rank"})
    assert (await g.authors.patch(**g.given, obj_in=Loose(name="Ann"), id=ANN)).changed == frozenset()
    with pytest.raises(NotFound):
        await g.authors.patch(**g.given, obj_in=Loose(name="x"), id=NOBODY)


async def delete__takes_children_along(g: Ground) -> None:
    """The row goes, and those that the database deletes with it."""
    assert len(await g.books.get_multi(**g.given, author_id=ANN)) == 2
    await g.authors.delete(**g.given, id=ANN)
    assert await g.books.get_multi(**g.given, author_id=ANN) == []
    with pytest.raises(NotFound):
        await g.authors.delete(**g.given, id=ANN)


async def delete__marks_what_is_deleted_softly(g: Ground) -> None:
    """The row is hidden, and still there."""
    await g.notes.delete(**g.given, id=NOTE, tenant_id="acme")
    assert await g.notes.count(**g.given, tenant_id="acme") == 0
    assert await g.notes.count(**g.given, tenant_id="acme", options=ALL_NOTES) == 2


async def restore__refuses(g: Ground) -> None:
    """A row that is not deleted, another tenant's, or a model without marks raise."""
    for id in (NOTE, FOREIGN):
        with pytest.raises(NotFound):
            await g.notes.restore(**g.given, id=id, tenant_id="acme")
    with pytest.raises(ConfigurationError):
        await g.authors.restore(**g.given, id=ANN)


async def purge__deletes_for_good(g: Ground) -> None:
    """Rows go, deleted or not; those of other tenants stay."""
    for id in (NOTE, GONE):
        await g.notes.purge(**g.given, id=id, tenant_id="acme")
    assert await g.notes.count(**g.given, tenant_id="acme", options=ALL_NOTES) == 0
    with pytest.raises(NotFound):
        await g.notes.purge(**g.given, id=FOREIGN, tenant_id="acme")


async def create_multi__gives_rows_or_their_number(g: Ground) -> None:
    """Rows in their order; or how many; or what was wrong with each."""
    found = await g.authors.create_multi(**g.given, instances=[Loose(name="z"), Loose(name="y", rank=2)])
    assert [(each.name, each.rank) for each in found] == [("z", None), ("y", 2)]
    many = [Loose(name=f"n{n}", rank=n) for n in range(300)]
    assert await g.authors.create_multi(**g.given, instances=many, returning=False) == 300
    before = await g.stored()
    with pytest.raises(UniqueViolation):
        await g.authors.create_multi(**g.given, instances=[Loose(name="new"), Loose(name="z")])
    with pytest.raises(BatchRefused):
        await g.authors.create_multi(**g.given, instances=[Loose(name="same"), Loose(name="same")])
    with pytest.raises(EmptyInput):
        await g.authors.create_multi(**g.given, instances=[])
    assert await g.stored() == before


async def update_multi__changes_each_in_its_way(g: Ground) -> None:
    """Rows in the order of items; a missing one refuses all, or is left out."""
    items = [("Çid", Loose(rank=None)), ("Ann", Loose(name="Anna"))]
    found = await g.authors.update_multi(**g.given, items=items, where_field="name")
    assert [(each.name, each.rank) for each in found] == [("Çid", None), ("Anna", 1)]
    gaps = [(NOBODY, Loose(rank=1)), (CID, Loose(rank=1))]
    with pytest.raises(RowsNotFound):
        await g.authors.update_multi(**g.given, items=gaps)
    assert await g.authors.update_multi(**g.given, items=gaps, missing="skip", returning=False) == 1
    with pytest.raises(EmptyInput):
        await g.authors.update_multi(**g.given, items=[])
    with tenant("acme"):
        for id in (GONE, FOREIGN):
            with pytest.raises(RowsNotFound):
                await g.notes.update_multi(**g.given, items=[(id, Loose(text="x"))])


async def delete_multi__gives_the_keys_that_were_there(g: Ground) -> None:
    """A missing key refuses all, or is left out."""
    with pytest.raises(RowsNotFound):
        await g.authors.delete_multi(**g.given, keys=[ANN, NOBODY])
    assert await g.authors.count(**g.given) == 3
    assert await g.authors.delete_multi(**g.given, keys=["Ann", "?"], where_field="name", missing="skip") == ["Ann"]
    with pytest.raises(EmptyInput):
        await g.authors.delete_multi(**g.given, keys=[])


async def upsert__tells_whether_it_created(g: Ground) -> None:
    """By any unique key, one of two columns too."""
    row, created = await g.authors.upsert(**g.given, obj_in=Loose(name="Ω"))
    assert created
    assert await g.authors.upsert(**g.given, obj_in=Loose(name="Ω", rank=4)) == (
        row.model_copy(update={"rank": 4}),
        False,
    )
    seat, created = await g.seats.upsert(**g.given, obj_in=Loose(line="é", number=1, guest=None))
    assert (seat.guest, created) == (None, False)
    kept = await g.authors.upsert(**g.given, obj_in=Loose(name="Ann", rank=9), update_fields=[])
    assert kept.row.rank == 1


async def upsert__leaves_other_tenants_and_keys_alone(g: Ground) -> None:
    """A row of another unique key is in the way: nothing is changed."""
    before = await g.stored()
    with pytest.raises(UniqueViolation):
        await g.authors.upsert(**g.given, obj_in=Loose(id=ANN, name="Çid"), conflict_fields=["id"])
    assert await g.stored() == before


async def upsert_multi__keeps_order(g: Ground) -> None:
    """Rows in their order, each with what became of it; doubles are refused."""
    found = await g.authors.upsert_multi(**g.given, instances=[Loose(name="new", rank=1), Loose(name="Ann", rank=2)])
    assert [(each.row.name, each.row.rank, each.created) for each in found] == [("new", 1, True), ("Ann", 2, False)]
    with pytest.raises(BatchRefused):
        await g.authors.upsert_multi(**g.given, instances=[Loose(name="d", rank=1), Loose(name="d", rank=2)])
    with pytest.raises(EmptyInput):
        await g.authors.upsert_multi(**g.given, instances=[])


async def get_or_create__leaves_a_row_as_it_is(g: Ground) -> None:
    """A row that is there is given unchanged; else it is created."""
    row, created = await g.authors.get_or_create(**g.given, obj_in=Loose(name="Ann", rank=9))
    assert (row.rank, created) == (1, False)
    assert (await g.authors.get_or_create(**g.given, obj_in=Loose(name="Ω", rank=9))).created


async def get_or_create__keeps_to_its_tenant(g: Ground) -> None:
    """A row of the tenant is given; a deleted one and another tenant's are in the way, and stay as they are."""
    row, created = await g.notes.get_or_create(**g.given, obj_in=Loose(id=NOTE, text="x"), tenant_id="acme")
    assert (row.text, created) == ("here", False)
    before = await g.stored()
    for method in (g.notes.get_or_create, g.notes.upsert):
        for id in (GONE, FOREIGN):
            with pytest.raises(UniqueViolation):
                await method(**g.given, obj_in=Loose(id=id, text="mine"), tenant_id="acme")
    assert await g.stored() == before
    assert (await g.notes.get_or_create(**g.given, obj_in=Loose(id=7, text="new"), tenant_id="acme")).created


async def update_where__gives_the_number(g: Ground) -> None:
    """Rows that match, of the tenant; no condition is refused; no match is none."""
    assert await g.authors.update_where(**g.given, obj_in=Loose(rank=5), rank=None) == 1
    assert await g.authors.update_where(**g.given, obj_in=Loose(rank=5), id=[]) == 0
    assert await g.notes.update_where(**g.given, obj_in=Loose(text="x"), all_rows=True, tenant_id="acme") == 1
    with pytest.raises(EmptyInput):
        await g.authors.update_where(**g.given, obj_in=Loose(rank=5))
    assert await g.authors.update_where(**g.given, obj_in=Loose(rank=6), all_rows=True, batch=2) == 3


async def delete_where__gives_the_number(g: Ground) -> None:
    """Rows that match; soft ones are marked, those of other tenants stay."""
    assert await g.notes.delete_where(**g.given, all_rows=True, tenant_id="acme") == 1
    assert await g.notes.count(**g.given, tenant_id="acme", options=ALL_NOTES) == 2
    assert await g.notes.count(**g.given, tenant_id="other") == 1
    with pytest.raises(EmptyInput):
        await g.authors.delete_where(**g.given)
    assert await g.authors.delete_where(**g.given, all_rows=True, batch=2) == 3


CHILDREN_OF: Given = {"fk_field": "author_id", "fk_value": ANN}


async def create_by_foreign_key__makes_children(g: Ground) -> None:
    """Children in their order; no parent, no items and wrong items raise."""
    made = await g.books.create_by_foreign_key(**g.given, **CHILDREN_OF, data=[{"title": "é"}, Loose(title="b")])
    assert [(each.author_id, each.title) for each in made] == [(ANN, "é"), (ANN, "b")]
    with pytest.raises(NotFound):
        await g.books.create_by_foreign_key(**g.given, fk_field="author_id", fk_value=NOBODY, data=[{"title": "x"}])
    with pytest.raises(EmptyInput):
        await g.books.create_by_foreign_key(**g.given, **CHILDREN_OF, data=[])
    with pytest.raises(BatchRefused):
        await g.books.create_by_foreign_key(**g.given, **CHILDREN_OF, data=[{"title": "x"}, {"titel": "y"}])


async def update_by_foreign_key__does_all_or_nothing(g: Ground) -> None:
    """Items are created, changed and deleted; children of others are not found."""
    data = [{"id": 1001, "title": "1"}, {"id": -1002}, {"id": 0, "title": "3"}]
    change = await g.books.update_by_foreign_key(**g.given, **CHILDREN_OF, data=data)
    assert isinstance(change, ChildrenChange)
    assert ([e.title for e in change.created], [e.title for e in change.updated], change.deleted) == (["3"], ["1"], 1)
    before = await g.stored()
    with pytest.raises(NotFound):
        await g.books.update_by_foreign_key(
            **g.given, fk_field="author_id", fk_value=BO, data=[{"title": "x"}, {"id": 1001, "title": "mine"}]
        )
    with pytest.raises(EmptyInput):
        await g.books.update_by_foreign_key(**g.given, **CHILDREN_OF, data=[])
    assert await g.stored() == before


async def delete_by_foreign_key__gives_the_number(g: Ground) -> None:
    """All children go; then there are none."""
    assert await g.books.delete_by_foreign_key(**g.given, **CHILDREN_OF) == 2
    assert await g.books.delete_by_foreign_key(**g.given, **CHILDREN_OF) == 0
