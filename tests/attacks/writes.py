"""Attacks on the rows of another tenant by each public method that writes."""

from collections.abc import Callable
from typing import Any

import pytest

from fastrdb import BatchRefused, EmptyInput, NotFound, RowsNotFound, TenantMismatch, UniqueViolation
from tests.attacks.attack import Attack, Trial
from tests.policies import Doc, DocChange, DocIn


async def _create(a: Attack) -> None:
    mine = DocIn(slug="forged", tenant_id=a.victim)  # type: ignore[call-arg]
    await a.refused(a.crud.create, TenantMismatch, obj_in=mine)
    await a.as_victim(a.crud.create, obj_in=DocIn(slug="forged"))
    over = DocIn(slug="over", id=a.theirs[0].id)  # type: ignore[call-arg]
    await a.refused(a.crud.create, UniqueViolation, obj_in=over)
    for id in a.links:
        linked = DocIn(slug="linked", parent_id=id)  # type: ignore[call-arg]
        await a.refused(a.crud.create, NotFound, obj_in=linked)
        await a.refused(a.crud.create, NotFound, obj_in=DocIn(slug="linked"), parent_id=id)


async def _create_multi(a: Attack) -> None:
    mine = [DocIn(slug="forged"), DocIn(slug="forged", tenant_id=a.victim)]  # type: ignore[call-arg]
    await a.refused(a.crud.create_multi, BatchRefused, instances=mine)
    await a.as_victim(a.crud.create_multi, instances=mine[:1])
    over = DocIn(slug="over", id=a.theirs[0].id)  # type: ignore[call-arg]
    await a.refused(a.crud.create_multi, UniqueViolation, instances=[over])
    for id in a.links:
        linked = [DocIn(slug="fine"), DocIn(slug="linked", parent_id=id)]  # type: ignore[call-arg]
        for returning in (True, False):
            await a.refused(a.crud.create_multi, NotFound, instances=linked, returning=returning)


async def _update(a: Attack, call: Callable[..., Any]) -> None:
    for key in a.keys:
        await a.refused(call, NotFound, obj_in=DocChange(title="mine"), **key)
        await a.refused(call, NotFound, obj_in=DocChange(title="mine", version=9), **key)  # type: ignore[call-arg]
    for id in a.links:
        linked = DocChange(parent_id=id)  # type: ignore[call-arg]
        await a.refused(call, NotFound, obj_in=linked, id=a.own.id)
    moved = DocChange(title="mine", tenant_id=a.victim)  # type: ignore[call-arg]
    await a.refused(call, TenantMismatch, obj_in=moved, id=a.own.id)
    nobody = DocChange(title="mine", tenant_id=None)  # type: ignore[call-arg]
    await a.refused(call, TenantMismatch, obj_in=nobody, id=a.own.id)
    await a.as_victim(call, obj_in=DocChange(title="mine"), id=a.theirs[0].id)


async def _after_commit(a: Attack) -> None:
    """Writes that are refused are told to nobody."""
    heard: list[object] = []

    @a.crud.after_commit
    async def hear(event: object) -> None:
        heard.append(event)

    await _update(a, a.crud.patch)
    await _removal(a, a.crud.delete)
    assert heard == []


async def _upsert(a: Attack, call: Callable[..., Any]) -> None:
    for row in (a.theirs[0], a.theirs[-1]):
        over = DocIn(slug="over", id=row.id)  # type: ignore[call-arg]
        await a.refused(call, UniqueViolation, obj_in=over)
        linked = DocIn(slug="linked", id=999_999, parent_id=row.id)  # type: ignore[call-arg]
        await a.refused(call, NotFound, obj_in=linked)
    if call == a.crud.upsert:
        linked = DocIn(slug="own", id=a.own.id, parent_id=a.theirs[0].id)  # type: ignore[call-arg]
        await a.refused(call, NotFound, obj_in=linked)
        over = DocIn(slug="over", id=a.theirs[0].id)  # type: ignore[call-arg]
        for fields in (["title"], ["slug"], []):
            await a.refused(call, UniqueViolation, obj_in=over, conflict_fields=["id"], update_fields=fields)
    mine = DocIn(slug="forged", id=a.own.id, tenant_id=a.victim)  # type: ignore[call-arg]
    await a.refused(call, TenantMismatch, obj_in=mine)
    await a.as_victim(call, obj_in=DocIn(slug="forged", id=a.theirs[0].id))  # type: ignore[call-arg]


async def _get_or_create(a: Attack) -> None:
    await _upsert(a, a.crud.get_or_create)
    own = DocIn(slug="own", id=a.own.id)  # type: ignore[call-arg]
    assert await a.crud.get_or_create(**a.given, obj_in=own) == (a.own, False)


async def _upsert_multi(a: Attack) -> None:
    over = DocIn(slug="over", id=a.theirs[0].id)  # type: ignore[call-arg]
    fine = DocIn(slug="fine", id=999_999)  # type: ignore[call-arg]
    for fields in (None, ["title"], []):
        with pytest.raises(UniqueViolation):
            await a.crud.upsert_multi(**a.given, instances=[fine, over], update_fields=fields)
    for id in a.links:
        linked = DocIn(slug="linked", id=999_998, parent_id=id)  # type: ignore[call-arg]
        with pytest.raises(NotFound):
            await a.crud.upsert_multi(**a.given, instances=[fine, linked])
    mine = DocIn(slug="forged", id=999_998, tenant_id=a.victim)  # type: ignore[call-arg]
    with pytest.raises(TenantMismatch):
        await a.crud.upsert_multi(**a.given, instances=[fine, mine])
    await a.as_victim(a.crud.upsert_multi, instances=[fine, over])


async def _rolled_back(a: Attack, call: Callable[..., Any], **arguments: Any) -> Any:
    """What a write gives that is undone."""
    async with a.given["db"]() as session:
        found = await call(**{**a.given, "db": session}, **arguments, commit=False)
        await session.rollback()
    return found


async def _update_where(a: Attack) -> None:
    for key in [*a.keys, {"where": a.those}]:
        assert await a.crud.update_where(**a.given, **key, obj_in=DocChange(title="mine")) == 0
    change = DocChange(title="mine")
    assert await _rolled_back(a, a.crud.update_where, obj_in=change, all_rows=True) == 1
    assert await _rolled_back(a, a.crud.update_where, obj_in=change, where=Doc.id > 0, batch=1) == 1
    for id in a.links:
        linked = DocChange(parent_id=id)  # type: ignore[call-arg]
        await a.refused(a.crud.update_where, NotFound, obj_in=linked, id=a.own.id)
    moved = DocChange(tenant_id=a.victim)  # type: ignore[call-arg]
    await a.refused(a.crud.update_where, TenantMismatch, obj_in=moved, all_rows=True)
    await a.refused(a.crud.update_where, EmptyInput, obj_in=change)
    await a.as_victim(a.crud.update_where, obj_in=change, all_rows=True)


async def _delete_where(a: Attack) -> None:
    for key in [*a.keys, {"where": a.those}]:
        assert await a.crud.delete_where(**a.given, **key) == 0
    assert await _rolled_back(a, a.crud.delete_where, all_rows=True) == 1
    assert await _rolled_back(a, a.crud.delete_where, where=Doc.id > 0, batch=1) == 1
    await a.refused(a.crud.delete_where, EmptyInput)
    await a.as_victim(a.crud.delete_where, all_rows=True)


async def _update_multi(a: Attack) -> None:
    change = DocChange(title="mine")
    items = [(row.id, change) for row in a.theirs]
    with pytest.raises(RowsNotFound) as raised:
        await a.crud.update_multi(**a.given, items=[(a.own.id, change), *items])
    assert len(raised.value.rows) == len(items)
    assert await a.crud.update_multi(**a.given, items=items, missing="skip") == []
    await a.as_victim(a.crud.update_multi, items=items)
    for values in ({"tenant_id": a.victim}, {"tenant_id": None}):
        with pytest.raises(BatchRefused):
            await a.crud.update_multi(**a.given, items=[(a.own.id, DocChange(title="mine", **values))])
    for id in a.links:
        with pytest.raises(NotFound):
            await a.crud.update_multi(**a.given, items=[(a.own.id, DocChange(parent_id=id))])  # type: ignore[call-arg]


async def _delete_multi(a: Attack) -> None:
    keys = [row.id for row in a.theirs]
    with pytest.raises(RowsNotFound) as raised:
        await a.crud.delete_multi(**a.given, keys=[a.own.id, *keys])
    assert len(raised.value.rows) == len(keys)
    assert await a.crud.delete_multi(**a.given, keys=keys, missing="skip") == []
    await a.as_victim(a.crud.delete_multi, keys=keys)


async def _create_by_foreign_key(a: Attack) -> None:
    data = [DocIn(slug="child")]
    for id in a.links:
        of: dict[str, Any] = {"fk_field": "parent_id", "fk_value": id, "data": data}
        await a.refused(a.crud.create_by_foreign_key, NotFound, **of)
        await a.as_victim(a.crud.create_by_foreign_key, **of)
    mine = [DocIn(slug="child", tenant_id=a.victim)]  # type: ignore[call-arg]
    of = {"fk_field": "parent_id", "fk_value": a.own.id, "data": mine}
    await a.refused(a.crud.create_by_foreign_key, BatchRefused, **of)


async def _update_by_foreign_key(a: Attack) -> None:
    for id in a.links:
        of: dict[str, Any] = {"fk_field": "parent_id", "fk_value": id, "data": [{"slug": "child"}]}
        await a.refused(a.crud.update_by_foreign_key, NotFound, **of)
        await a.as_victim(a.crud.update_by_foreign_key, **of)
    for row in (a.theirs[0], a.theirs[1], a.theirs[-1]):
        for parent in (a.own.id, a.theirs[0].id):
            for item in ({"id": row.id, "title": "mine"}, {"id": -row.id}):
                with pytest.raises(NotFound):
                    await a.crud.update_by_foreign_key(
                        **a.given, fk_field="parent_id", fk_value=parent, data=[{"slug": "child"}, item]
                    )


async def _delete_by_foreign_key(a: Attack) -> None:
    of: dict[str, Any] = {"fk_field": "parent_id", "fk_value": a.theirs[0].id}
    assert await a.crud.delete_by_foreign_key(**a.given, **of) == 0
    await a.as_victim(a.crud.delete_by_foreign_key, **of)


async def _removal(a: Attack, call: Callable[..., Any]) -> None:
    for key in a.keys:
        await a.refused(call, NotFound, **key)
    await a.refused(call, NotFound, where=a.those)
    await a.refused(call, EmptyInput)
    await a.as_victim(call, id=a.theirs[0].id)


WRITES: dict[str, Trial] = {
    "create": _create,
    "create_multi": _create_multi,
    "update": lambda a: _update(a, a.crud.update),
    "patch": lambda a: _update(a, a.crud.patch),
    "after_commit": _after_commit,
    "upsert": lambda a: _upsert(a, a.crud.upsert),
    "get_or_create": _get_or_create,
    "upsert_multi": _upsert_multi,
    "update_where": _update_where,
    "delete_where": _delete_where,
    "update_multi": _update_multi,
    "delete_multi": _delete_multi,
    "create_by_foreign_key": _create_by_foreign_key,
    "update_by_foreign_key": _update_by_foreign_key,
    "delete_by_foreign_key": _delete_by_foreign_key,
    "delete": lambda a: _removal(a, a.crud.delete),
    "restore": lambda a: _removal(a, a.crud.restore),
    "purge": lambda a: _removal(a, a.crud.purge),
}
