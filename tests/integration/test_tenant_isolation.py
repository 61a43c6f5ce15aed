"""Whatever a tenant tries, by any public method, with a cache and without: another tenant's row is not there."""

import asyncio
import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import ColumnElement, select, text, true

from fastrdb import (
    BatchRefused,
    Crud,
    CursorRefused,
    EmptyInput,
    NotFound,
    ReadOptions,
    RowsNotFound,
    TenantMismatch,
    TenantRequired,
    UniqueViolation,
)
from fastrdb.context import tenant
from tests.policies import TEMPLATES, Doc, DocChange, DocCrud, DocIn, DocOut, Shelf, doc_crud, shelf_in

EVERY, TRASH = ReadOptions(include_deleted=True), ReadOptions(only_deleted=True)


@dataclass
class Attack:
    """Tenant B at work on a row of tenant A.

    Attributes:
        given: What every call of B takes: database, cache, and the tenant, where it is no context's.
        theirs: Rows of A, one of them deleted.
        own: B's only row.
        victim: A.
        hits: Whether all that A has cached is there.
        around: B works inside of a context.
    """

    crud: DocCrud
    given: dict[str, Any]
    theirs: list[DocOut]
    own: DocOut
    victim: str
    hits: Callable[[], Awaitable[bool]]
    around: bool

    @property
    def whose(self) -> dict[str, Any]:
        """The tenant among the keywords, where it is said so."""
        return {key: value for key, value in self.given.items() if key == "tenant_id"}

    @property
    def plain(self) -> dict[str, Any]:
        """What calls of B take that have no keywords."""
        return {key: value for key, value in self.given.items() if key != "tenant_id"}

    @property
    def links(self) -> list[int]:
        """What rows of B must not refer to."""
        return [self.theirs[0].id, self.theirs[-1].id]

    async def has_context(self, call: Callable[..., Any], **arguments: Any) -> bool:
        """Whether B's tenant is a context's; where it is not, a call without keywords is refused."""
        if not self.around:
            with pytest.raises(TenantRequired):
                await call(**self.plain, **arguments)
        return self.around

    @property
    def keys(self) -> list[dict[str, Any]]:
        """Ways to name a row of A."""
        found: list[dict[str, Any]] = []
        for row in (self.theirs[0], self.theirs[-1]):
            found += [{"id": row.id}, {"slug": row.slug}, {"id": row.id, "where": Doc.tenant_id == self.victim}]
            found += [{"id": row.id, "filters": [{"tenant_id": self.victim}, {"title": row.title}]}]
        return found

    @property
    def wide(self) -> list[dict[str, Any]]:
        """Ways to ask for rows of all tenants; what they may find besides B's own is nothing."""
        found: list[dict[str, Any]] = [{}, {"id": {">": 0}}, {"where": true()}, {"where": Doc.tenant_id == self.victim}]
        found += [{"filters": [{"tenant_id": self.victim}, {"title": "t"}]}, {"where": Doc.id.in_(select(Doc.id))}]
        return [{**each, "options": (None, EVERY)[at % 2]} for at, each in enumerate(found)]

    @property
    def those(self) -> ColumnElement[bool]:
        """The condition that a row is one of A's; by its key, since a collation may take A's name for B's."""
        return Doc.id.in_([row.id for row in self.theirs])

    async def refused(self, call: Callable[..., Any], *errors: type[Exception], **arguments: Any) -> None:
        """The call raises one of these."""
        with pytest.raises(errors):
            await call(**{**self.given, **arguments})

    async def as_victim(self, call: Callable[..., Any], **arguments: Any) -> None:
        """The call cannot name A's tenant from within B's context. Outside of any, whom to name is the program's."""
        if self.around:
            await self.refused(call, TenantMismatch, **{**arguments, "tenant_id": self.victim})

    def only_own(self, rows: list[DocOut]) -> None:
        """Only B's own row is there."""
        assert [row for row in rows if row != self.own] == []


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


async def _get_by_keys(a: Attack) -> None:
    keys = [row.id for row in a.theirs]
    if not await a.has_context(a.crud.get_by_keys, keys=keys):
        return
    for options in (None, EVERY, TRASH):
        for each in (keys, [{"id": key} for key in keys], [{"slug": row.slug} for row in a.theirs]):
            assert await a.crud.get_by_keys(**a.plain, keys=each, options=options) == []
        found = await a.crud.get_by_keys(**a.plain, keys=[*keys, a.own.id], where=a.those, missing="none")
        assert found == [None] * (len(keys) + 1)
    assert await a.crud.get_by_keys(**a.plain, keys=[*keys, a.own.id]) == [a.own]


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
    if not await a.has_context(a.crud.upsert_multi, instances=[fine]):
        return
    for fields in (None, ["title"], []):
        with pytest.raises(UniqueViolation):
            await a.crud.upsert_multi(**a.plain, instances=[fine, over], update_fields=fields)
    for id in a.links:
        linked = DocIn(slug="linked", id=999_998, parent_id=id)  # type: ignore[call-arg]
        with pytest.raises(NotFound):
            await a.crud.upsert_multi(**a.plain, instances=[fine, linked])
    mine = DocIn(slug="forged", id=999_998, tenant_id=a.victim)  # type: ignore[call-arg]
    with pytest.raises(TenantMismatch):
        await a.crud.upsert_multi(**a.plain, instances=[fine, mine])


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
    if not await a.has_context(a.crud.update_multi, items=items):
        return
    with pytest.raises(RowsNotFound) as raised:
        await a.crud.update_multi(**a.plain, items=[(a.own.id, change), *items])
    assert len(raised.value.rows) == len(items)
    assert await a.crud.update_multi(**a.plain, items=items, missing="skip") == []
    for values in ({"tenant_id": a.victim}, {"tenant_id": None}):
        with pytest.raises(BatchRefused):
            await a.crud.update_multi(**a.plain, items=[(a.own.id, DocChange(title="mine", **values))])
    for id in a.links:
        with pytest.raises(NotFound):
            await a.crud.update_multi(**a.plain, items=[(a.own.id, DocChange(parent_id=id))])  # type: ignore[call-arg]


async def _delete_multi(a: Attack) -> None:
    keys = [row.id for row in a.theirs]
    if not await a.has_context(a.crud.delete_multi, keys=keys):
        return
    with pytest.raises(RowsNotFound) as raised:
        await a.crud.delete_multi(**a.plain, keys=[a.own.id, *keys])
    assert len(raised.value.rows) == len(keys)
    assert await a.crud.delete_multi(**a.plain, keys=keys, missing="skip") == []


async def _create_by_foreign_key(a: Attack) -> None:
    data = [DocIn(slug="child")]
    for id in a.links:
        of: dict[str, Any] = {"fk_field": "parent_id", "fk_value": id, "data": data}
        if await a.has_context(a.crud.create_by_foreign_key, **of):
            with pytest.raises(NotFound):
                await a.crud.create_by_foreign_key(**a.plain, **of)
    mine = [DocIn(slug="child", tenant_id=a.victim)]  # type: ignore[call-arg]
    if a.around:
        with pytest.raises(BatchRefused):
            await a.crud.create_by_foreign_key(**a.plain, fk_field="parent_id", fk_value=a.own.id, data=mine)


async def _update_by_foreign_key(a: Attack) -> None:
    for id in a.links:
        of: dict[str, Any] = {"fk_field": "parent_id", "fk_value": id, "data": [{"slug": "child"}]}
        if not await a.has_context(a.crud.update_by_foreign_key, **of):
            return
        with pytest.raises(NotFound):
            await a.crud.update_by_foreign_key(**a.plain, **of)
    for row in (a.theirs[0], a.theirs[1], a.theirs[-1]):
        for parent in (a.own.id, a.theirs[0].id):
            for item in ({"id": row.id, "title": "mine"}, {"id": -row.id}):
                with pytest.raises(NotFound):
                    await a.crud.update_by_foreign_key(
                        **a.plain, fk_field="parent_id", fk_value=parent, data=[{"slug": "child"}, item]
                    )


async def _delete_by_foreign_key(a: Attack) -> None:
    of: dict[str, Any] = {"fk_field": "parent_id", "fk_value": a.theirs[0].id}
    if await a.has_context(a.crud.delete_by_foreign_key, **of):
        assert await a.crud.delete_by_foreign_key(**a.plain, **of) == 0


async def _removal(a: Attack, call: Callable[..., Any]) -> None:
    for key in a.keys:
        await a.refused(call, NotFound, **key)
    await a.refused(call, NotFound, where=a.those)
    await a.refused(call, EmptyInput)
    await a.as_victim(call, id=a.theirs[0].id)


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


ATTACKS: dict[str, Callable[[Attack], Awaitable[None]]] = {
    "get": _get,
    "get_or_none": _get_or_none,
    "get_json": _get_json,
    "exists": _exists,
    "get_multi": _get_multi,
    "get_multi_json": _get_multi_json,
    "count": _count,
    "page": _page,
    "paginate": _paginate,
    "create": _create,
    "create_multi": _create_multi,
    "update": lambda a: _update(a, a.crud.update),
    "patch": lambda a: _update(a, a.crud.patch),
    "get_by_keys": _get_by_keys,
    "cursor_page": _cursor_page,
    "stream": _stream,
    "distinct": _distinct,
    "aggregate": _aggregate,
    "warm": _warm,
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
    "invalidate": _invalidate,
    "clear": _clear,
    "explain": _explain,
    "all_tenants": _all_tenants,
}


def test_every_public_method_is_tried() -> None:
    """A method that is not attacked here fails this test: write its attack."""
    public = {name for name, _ in inspect.getmembers(Crud, inspect.isfunction) if not name.startswith("_")}
    assert public == ATTACKS.keys()


def tenant_ids() -> st.SearchStrategy[str]:
    """Ids of tenants that databases, keys and patterns might take for others."""
    letters = st.sampled_from([*"aAáä%:*?{}~_ /'", "\\", "a\u0301", "\u200b", "\U0001f600"])
    return st.lists(letters, min_size=1, max_size=4).map("".join).filter(lambda found: found.strip() != "")


PAIRS = st.one_of(
    st.sampled_from([("acme", "ACME"), ("acme", "acme "), ("a", "a%3Aa"), ("á", "a\u0301"), ("ss", "ß"), ("1", "01")]),
    st.tuples(tenant_ids(), tenant_ids()).filter(lambda pair: pair[0] != pair[1]),
)


class Victim:
    """Tenant A, with two rows and a deleted one, of which it has read all that there is to read."""

    def __init__(self, shelf: Shelf, crud: DocCrud, name: str, redis: Any) -> None:
        self.shelf, self.crud, self.name = shelf, crud, name
        self.given: dict[str, Any] = {"db": shelf.factory, "redis": redis, "tenant_id": name}
        self.rows: list[DocOut] = []

    async def arrive(self) -> None:
        """Insert the rows."""
        made = [await self.crud.create(**self.given, obj_in=DocIn(slug="a"))]
        child = DocIn(slug="b", parent_id=made[0].id)  # type: ignore[call-arg]
        made += [await self.crud.create(**self.given, obj_in=each) for each in (child, DocIn(slug="c"))]
        await self.crud.delete(**self.given, id=made[2].id)
        trash = await self.crud.get(**self.given, id=made[2].id, options=TRASH)
        self.rows = [*made[:2], trash]

    async def look(self) -> list[Any]:
        """Read everything."""
        by_slug = [await self.crud.get_or_none(**self.given, slug=row.slug) for row in self.rows]
        return [*by_slug, *await self.look_again()]

    async def look_again(self) -> list[Any]:
        """Read what other tenants' writes do not age: all but rows by a text that is no unique key."""
        crud, given = self.crud, self.given
        rows = [await crud.get_or_none(**given, id=row.id) for row in self.rows]
        listed = await crud.get_multi(**given, folder=1, options=EVERY)
        return [rows, listed, await crud.get_multi(**given, folder=1), await crud.count(**given, folder=1)]

    async def hits(self) -> bool:
        """Whether everything comes from the cache, if there is one."""
        return self.given["redis"] is None or await self.shelf.is_hit(self.look_again)


async def attack(shelf: Shelf, name: str, templates: str, pair: tuple[str, str], saying: str, cached: bool) -> None:
    """Let B try one method, and look whether A notices."""
    async with shelf.engine.begin() as connection:
        await connection.execute(text("UPDATE docs SET parent_id = NULL"))  # MariaDB looks row by row
        await connection.execute(text("DELETE FROM docs"))
    await shelf.loose.invalidate(shelf.cache)
    redis = shelf.cache if cached else None
    crud = doc_crud(**TEMPLATES[templates])
    victim = Victim(shelf, crud, pair[0], redis)
    await victim.arrive()
    own = await crud.create(db=shelf.factory, redis=redis, obj_in=DocIn(slug="own"), tenant_id=pair[1])
    before = await victim.look()
    assert await victim.look() == before
    assert await victim.hits()
    keywords = {} if saying == "context" else {"tenant_id": pair[1]}
    given = {"db": shelf.factory, "redis": redis, **keywords}
    around = saying != "keyword"
    outside = copy_context()

    async def hits() -> bool:
        return await asyncio.create_task(victim.hits(), context=outside)

    with tenant(pair[1]) if around else nullcontext():
        await ATTACKS[name](Attack(crud, given, victim.rows, own, pair[0], hits, around))
    assert await victim.look() == before
    async with shelf.factory() as session:
        stored = (await session.scalars(select(Doc).order_by(Doc.id))).all()
    assert [DocOut.model_validate(row) for row in stored] == [*victim.rows, own]


DRAWN = {
    "templates": st.sampled_from(sorted(TEMPLATES)),
    "pair": PAIRS,
    "saying": st.sampled_from(["context", "keyword", "both"]),
    "cached": st.sampled_from([True, False]),
}
FEW = settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])


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
    await attack(shelf, name, **drawn)


@pytest.mark.parametrize("cached", [True, False])
async def test_names_that_collations_take_for_one(shelf: Shelf, cached: bool) -> None:
    """Tenants whose names differ in case, accents or trailing blanks only are strangers, on MariaDB, too."""
    for pair in (("acme", "ACME"), ("acme", "acme "), ("á", "a")):
        for name in ("get_or_none", "get_multi", "count", "update", "delete"):
            await attack(shelf, name, "without", pair, "both", cached)


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
