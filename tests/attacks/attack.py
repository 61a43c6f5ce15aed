"""A tenant that tries to reach another one's rows, and the other one, who looks whether it did."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from sqlalchemy import ColumnElement, select, text, true

from fastrdb import ReadOptions, TenantMismatch
from fastrdb.context import tenant
from tests.policies import TEMPLATES, Doc, DocCrud, DocIn, DocOut, Shelf, doc_crud

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
    def links(self) -> list[int]:
        """What rows of B must not refer to."""
        return [self.theirs[0].id, self.theirs[-1].id]

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


Trial: TypeAlias = Callable[[Attack], Awaitable[None]]


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


async def attack(shelf: Shelf, trial: Trial, templates: str, pair: tuple[str, str], saying: str, cached: bool) -> None:
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
        await trial(Attack(crud, given, victim.rows, own, pair[0], hits, around))
    assert await victim.look() == before
    async with shelf.factory() as session:
        stored = (await session.scalars(select(Doc).order_by(Doc.id))).all()
    assert [DocOut.model_validate(row) for row in stored] == [*victim.rows, own]


def tenant_ids() -> st.SearchStrategy[str]:
    """Ids of tenants that databases, keys and patterns might take for others."""
    letters = st.sampled_from([*"aAáä%:*?{}~_ /'", "\\", "a\u0301", "\u200b", "\U0001f600"])
    return st.lists(letters, min_size=1, max_size=4).map("".join).filter(lambda found: found.strip() != "")


PAIRS = st.one_of(
    st.sampled_from([("acme", "ACME"), ("acme", "acme "), ("a", "a%3Aa"), ("á", "a\u0301"), ("ss", "ß"), ("1", "01")]),
    st.tuples(tenant_ids(), tenant_ids()).filter(lambda pair: pair[0] != pair[1]),
)

DRAWN = {
    "templates": st.sampled_from(sorted(TEMPLATES)),
    "pair": PAIRS,
    "saying": st.sampled_from(["context", "keyword", "both"]),
    "cached": st.sampled_from([True, False]),
}
FEW = settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
