"""Attacks on the rows of another tenant by each public method that reads, or that the cache is told by."""

import json
from typing import Any

import pytest

from fastrdb import CursorRefused, NotFound, TenantMismatch, TenantRequired
from tests.attacks.attack import EVERY, TRASH, Attack, Trial
from tests.policies import DocOut


async def _get(a: Attack) -> None:
    for key in a.keys:
        for options in (None, EVERY):
            await a.refused(a.crud.get, NotFound, **key, options=options)
    await a.as_victim(a.crud.get, id=a.theirs[0].id)


async def _get_or_none(a: Attack) -> None:
    for key in a.keys:
        for options in (None, EVERY, TRASH):
            assert await a.crud.get_or_none(**a.given, **key, options=options) is None


async def _get_json(a: Attack) -> None:
    for key in a.keys:
        await a.refused(a.crud.get_json, NotFound, **key, options=EVERY)


async def _exists(a: Attack) -> None:
    for key in a.keys:
        assert await a.crud.exists(**a.given, **key, options=EVERY) is False
    assert await a.crud.exists(**a.given, where=a.those) is False


async def _get_multi(a: Attack) -> None:
    for question in a.wide:
        for page in (1, 2):
            order = (None, "tenant_id")[page % 2]
            a.only_own(await a.crud.get_multi(**a.given, **question, folder=1, limit=2, page=page, order_by=order))
    await a.as_victim(a.crud.get_multi, folder=1)


async def _get_multi_json(a: Attack) -> None:
    for question in a.wide:
        found = await a.crud.get_multi_json(**a.given, **question, folder=1)
        a.only_own([DocOut(**row) for row in json.loads(found)])


async def _count(a: Attack) -> None:
    for question in a.wide:
        assert await a.crud.count(**a.given, **question, folder=1) <= 1
    assert await a.crud.count(**a.given, where=a.those, folder=1) == 0


async def _page(a: Attack) -> None:
    for question in a.wide:
        page = await a.crud.page(**a.given, **question, folder=1, limit=1)
        a.only_own(page.data)
        assert page.total <= 1


async def _paginate(a: Attack) -> None:
    assert a.crud.paginate([a.own]).data == [a.own]


async def _get_by_keys(a: Attack) -> None:
    keys = [row.id for row in a.theirs]
    for options in (None, EVERY, TRASH):
        for each in (keys, [{"id": key} for key in keys], [{"slug": row.slug} for row in a.theirs]):
            assert await a.crud.get_by_keys(**a.given, keys=each, options=options) == []
        found = await a.crud.get_by_keys(**a.given, keys=[*keys, a.own.id], where=a.those, missing="none")
        assert found == [None] * (len(keys) + 1)
    assert await a.crud.get_by_keys(**a.given, keys=[*keys, a.own.id]) == [a.own]
    await a.as_victim(a.crud.get_by_keys, keys=keys)


async def _cursor_page(a: Attack) -> None:
    for question in a.wide:
        page = await a.crud.cursor_page(**a.given, **question, folder=1, limit=1, order_by="tenant_id")
        a.only_own(page.data)
        assert page.next is None
    if a.around:
        await a.as_victim(a.crud.cursor_page, folder=1)
        return
    victims = await a.crud.cursor_page(**{**a.given, "tenant_id": a.victim}, limit=1)
    await a.refused(a.crud.cursor_page, CursorRefused, limit=1, cursor=victims.next)


async def _stream(a: Attack) -> None:
    given = {key: value for key, value in a.given.items() if key != "redis"}
    for question in a.wide:
        a.only_own([row async for row in a.crud.stream(**given, **question, folder=1)])
    assert [row async for row in a.crud.stream(**given, where=a.those)] == []
    if a.around:
        with pytest.raises(TenantMismatch):
            a.crud.stream(**{**given, "tenant_id": a.victim})


async def _distinct(a: Attack) -> None:
    for question in a.wide:
        for field in ("id", "tenant_id"):
            found = await a.crud.distinct(**a.given, **question, field=field, folder=1)
            assert [value for value in found if value != getattr(a.own, field)] == []
    await a.as_victim(a.crud.distinct, field="id")


async def _aggregate(a: Attack) -> None:
    figures = {"n": "count", "most": ("max", "id")}
    for question in a.wide:
        (found,) = await a.crud.aggregate(**a.given, **question, functions=figures, folder=1)
        assert found["n"] <= 1
        assert found["most"] in (None, a.own.id)
        groups = await a.crud.aggregate(**a.given, **question, functions=figures, group_by="tenant_id")
        assert [group["tenant_id"] for group in groups if group["tenant_id"] != a.own.tenant_id] == []
    (found,) = await a.crud.aggregate(**a.given, where=a.those, functions=figures)
    assert found == {"n": 0, "most": None}
    await a.as_victim(a.crud.aggregate, functions=figures)


async def _warm(a: Attack) -> None:
    if a.given["redis"] is None:
        return
    for question in a.wide:
        said = {key: value for key, value in question.items() if key != "options"}
        assert (await a.crud.warm(**a.given, **said, folder=1)).rows <= 1
    assert await a.hits()
    await _get_or_none(a)
    await a.as_victim(a.crud.warm)


async def _invalidate(a: Attack) -> None:
    redis = a.given["redis"]
    for row in a.theirs:
        every: dict[str, Any] = {"id": row.id, "slug": row.slug, "folder": row.folder}
        await a.crud.invalidate(redis, **every, **a.whose)
        assert await a.hits()
        if a.around:
            with pytest.raises(TenantMismatch):
                await a.crud.invalidate(redis, **every, tenant_id=a.victim)
    for pattern in (None, "doc:*"):
        with pytest.raises(TenantRequired):
            await a.crud.invalidate(redis, pattern)
    assert await a.hits()


async def _clear(a: Attack) -> None:
    with pytest.raises(TenantRequired):
        await a.crud.clear(a.given["redis"])
    assert await a.hits()


async def _explain(a: Attack) -> None:
    redis, db = a.given["redis"], a.given["db"]
    if redis is None:
        return
    for row in a.theirs:
        found = await a.crud.explain(redis, db, id=row.id, **a.whose)
        unknown = await a.crud.explain(redis, db, id=999_999, **a.whose)
        assert found.state == unknown.state
        assert [found.life_ms, found.age_ms, found.held_until_ms] == [None, None, {}]
        if a.around:
            with pytest.raises(TenantMismatch):
                await a.crud.explain(redis, db, id=row.id, tenant_id=a.victim)


async def _all_tenants(a: Attack) -> None:
    """The way out leaves nothing behind."""
    everybody = a.crud.all_tenants()
    given = {key: value for key, value in a.given.items() if key != "tenant_id"}
    assert len(await everybody.get_multi(**given, options=EVERY)) == len(a.theirs) + 1
    assert await everybody.get(**given, id=a.theirs[0].id) == a.theirs[0]
    await _get_or_none(a)
    await _get_multi(a)


READS: dict[str, Trial] = {
    "get": _get,
    "get_or_none": _get_or_none,
    "get_json": _get_json,
    "exists": _exists,
    "get_multi": _get_multi,
    "get_multi_json": _get_multi_json,
    "count": _count,
    "page": _page,
    "paginate": _paginate,
    "get_by_keys": _get_by_keys,
    "cursor_page": _cursor_page,
    "stream": _stream,
    "distinct": _distinct,
    "aggregate": _aggregate,
    "warm": _warm,
    "invalidate": _invalidate,
    "clear": _clear,
    "explain": _explain,
    "all_tenants": _all_tenants,
}
