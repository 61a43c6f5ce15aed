"""Soft deletion over the methods of many rows, upserts, walks, figures and related rows: marked, hidden, in the way."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel as Schema
from pydantic import ConfigDict
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Cache, Crud, NotFound, ReadOptions, RowsNotFound, UniqueViolation
from tests.policies import Doc, DocChange, DocIn, DocOut, Shelf, shelf_in

EVERY = ReadOptions(include_deleted=True)
TRASH = ReadOptions(only_deleted=True)


class Id(Schema):
    """Of a document."""

    model_config = ConfigDict(from_attributes=True)
    id: int


class Tree(Id):
    """A document with its children."""

    children: list[Id]


class JobBase(DeclarativeBase):
    """The tables of the jobs."""


class Job(JobBase):
    """A row whose mark is in its keys."""

    __tablename__ = "jobs"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    live: Mapped[bool] = mapped_column(default=True)


class JobOut(Id):
    """A job, and whether it is there."""

    live: bool


jobs = Crud[Job, JobOut, JobOut, JobOut](
    Job,
    JobOut,
    pattern=("job:{id}", "job:{id}:live:{live}"),
    list_pattern="jobs:{live}:page:{page}:limit:{limit}",
    soft_delete="live",
)


class Family:
    """Document 1 with its children 2 and 3, and how they are used.

    Attributes:
        given: What every call takes.
        trees: The same documents, shown with their children.
    """

    def __init__(self, shelf: Shelf, cached: bool) -> None:
        self.shelf, self.crud = shelf, shelf.loose
        self.given: dict[str, Any] = {"db": shelf.factory, "redis": shelf.cache if cached else None}
        self.trees = Crud[Doc, DocIn, DocChange, Tree](
            Doc, Tree, pattern="tree:{id}", list_pattern="trees:{page}:{limit}", tenant=False
        )

    async def ids(self, options: ReadOptions | None = None) -> dict[str, list[int]]:
        """The ids that each read shows; each is asked twice, and must say the same from the cache."""
        first = await self._ids(options)
        assert await self._ids(options) == first
        return first

    async def _ids(self, options: ReadOptions | None) -> dict[str, list[int]]:
        crud, told = self.crud, {**self.given, "options": options}
        (figures,) = await crud.aggregate(**told, functions={"n": "count", "all": ("sum", "id")})
        ones = [await crud.get_or_none(**told, id=id) for id in (1, 2, 3)]
        rows = {
            "get": [row for row in ones if row is not None],
            "get_multi": await crud.get_multi(**told),
            "get_by_keys": await crud.get_by_keys(**told, keys=[1, 2, 3]),
            "by slugs": await crud.get_by_keys(**told, keys=[{"slug": slug} for slug in ("one", "two", "three")]),
            "cursor_page": await self._walk(options),
            "stream": [row async for row in crud.stream(self.given["db"], options=options, order_by="id")],
        }
        found = {name: [row.id for row in shown] for name, shown in rows.items()}
        found["distinct"] = await crud.distinct(**told, field="id")
        assert (figures["n"], figures["all"] or 0) == (len(found["distinct"]), sum(found["distinct"]))
        assert await crud.count(**told) == len(found["distinct"])
        return found

    async def _walk(self, options: ReadOptions | None) -> list[DocOut]:
        page = await self.crud.cursor_page(**self.given, limit=1, options=options)
        rows = page.data
        while page.next is not None:
            page = await self.crud.cursor_page(**self.given, limit=1, options=options, cursor=page.next)
            rows += page.data
        return rows

    async def assert_shown(self, live: list[int], deleted: list[int]) -> None:
        """Every read shows just these."""
        for options, expected in ((None, live), (TRASH, deleted), (EVERY, sorted([*live, *deleted]))):
            shown = await self.ids(options)
            assert shown == dict.fromkeys(shown, expected), options


@pytest.fixture(params=["cached", "not cached"])
async def family(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[Family]:
    """A family, on each database, with a cache and without."""
    async with shelf_in(database_url, "memory://") as shelf:
        family = Family(shelf, request.param == "cached")
        for slug, parent in (("one", None), ("two", 1), ("three", 1)):
            await shelf.loose.create(**family.given, obj_in=DocIn(slug=slug, tenant_id="acme", parent_id=parent))
        yield family


def deletions(family: Family) -> dict[str, Any]:
    """Every way to delete the children, what it gives, and what it raises or gives when they are deleted."""
    crud, given = family.crud, family.given
    children: dict[str, Any] = {"fk_field": "parent_id", "fk_value": 1}
    items: list[dict[str, Any]] = [{"id": -2}, {"id": -3}]
    return {
        "delete_multi": (lambda **to: crud.delete_multi(**{**given, **to}, keys=[2, 3]), [2, 3], RowsNotFound),
        "delete_where": (lambda **to: crud.delete_where(**{**given, **to}, parent_id=1), 2, 0),
        "delete_where in batches": (lambda **to: crud.delete_where(**{**given, **to}, parent_id=1, batch=1), 2, 0),
        "delete_by_foreign_key": (lambda **to: crud.delete_by_foreign_key(**{**given, **to}, **children), 2, 0),
        "update_by_foreign_key": (
            lambda **to: crud.update_by_foreign_key(**{**given, **to}, **children, data=items), ([], [], 2), NotFound,
        ),
    }  # fmt: skip


WAYS = ["delete_multi", "delete_where", "delete_where in batches", "delete_by_foreign_key", "update_by_foreign_key"]


@pytest.mark.parametrize("way", WAYS)
async def test_deletions_of_many_rows_mark_them(family: Family, way: str) -> None:
    """Rows stay, marked, and their version counts; no read shows them, cached or not; a second call finds none."""
    delete, given, again = deletions(family)[way]
    await family.assert_shown([1, 2, 3], [])
    assert await delete() == given
    await family.assert_shown([1], [2, 3])
    for id in (2, 3):
        stored = await family.shelf.stored(id)
        assert (stored.is_active, stored.version) == (False, 2)
        assert stored.deleted_at is not None
    if isinstance(again, int):
        assert await delete() == again
    else:
        with pytest.raises(again):
            await delete()
    await family.crud.restore(**family.given, id=2)
    await family.assert_shown([1, 2], [3])


@pytest.mark.parametrize("way", WAYS)
async def test_joined_deletions_wait_for_their_commit(family: Family, way: str) -> None:
    """A deletion in the caller's transaction is seen by others with its commit, and by nobody after a rollback."""
    delete, _, _ = deletions(family)[way]
    await family.assert_shown([1, 2, 3], [])
    async with family.shelf.factory() as session:
        await delete(db=session, commit=False)
        await session.rollback()
        await family.assert_shown([1, 2, 3], [])
        await delete(db=session, commit=False)
        await session.commit()
    await family.assert_shown([1], [2, 3])


async def test_a_deleted_row_is_in_the_way(family: Family) -> None:
    """Upserts neither change nor give a deleted row with the key: a UniqueViolation, and nothing is written."""
    crud, given = family.crud, family.given
    await crud.delete(**given, id=2)
    over = DocIn(id=2, slug="new", tenant_id="acme")  # type: ignore[call-arg]
    other = DocIn(id=9, slug="nine", tenant_id="acme")  # type: ignore[call-arg]
    for fields in (None, ["slug"], []):
        with pytest.raises(UniqueViolation):
            await crud.upsert(**given, obj_in=over, update_fields=fields)
        with pytest.raises(UniqueViolation):
            await crud.upsert_multi(**given, instances=[other, over], update_fields=fields)
    with pytest.raises(UniqueViolation):
        await crud.get_or_create(**given, obj_in=over)
    assert (await family.shelf.stored(2)).slug == "two"
    await family.assert_shown([1, 3], [2])


async def test_changes_do_not_reach_deleted_rows(family: Family) -> None:
    """A deleted row is not changed by any method, has no new children, and is not warmed."""
    crud, given, change = family.crud, family.given, DocChange(title="new")
    await crud.delete(**given, id=2)
    with pytest.raises(NotFound):
        await crud.patch(**given, obj_in=change, id=2)
    with pytest.raises(RowsNotFound):
        await crud.update_multi(**given, items=[(2, change)])
    assert await crud.update_where(**given, obj_in=change, id=2) == 0
    children: dict[str, Any] = {"fk_field": "parent_id", "fk_value": 1}
    with pytest.raises(NotFound):
        await crud.update_by_foreign_key(**given, **children, data=[{"id": 2, "title": "new"}])
    orphan = {"slug": "four", "tenant_id": "acme"}
    with pytest.raises(NotFound):
        await crud.create_by_foreign_key(**given, fk_field="parent_id", fk_value=2, data=[DocIn(**orphan)])
    stored = await family.shelf.stored(2)
    assert (stored.title, stored.version) == ("t", 2)
    if given["redis"] is not None:
        assert (await crud.warm(**given)).rows == 2
    await family.assert_shown([1, 3], [2])


async def test_related_rows_that_are_deleted_are_hidden(family: Family) -> None:
    """Related filters, nested responses and answers of writes pass over them; ``include_deleted`` shows them."""
    crud, trees, given = family.crud, family.trees, family.given

    async def shown(options: ReadOptions | None = None) -> list[int]:
        found = await trees.get(**given, id=1, options=options)
        assert (await trees.get_multi(**given, options=options))[0] == found
        assert await trees.get(**given, id=1, options=options) == found
        return sorted(child.id for child in found.children)

    async def parents_of(slug: str) -> list[int]:
        return [row.id for row in await crud.get_multi(**given, filters={"children.slug": slug})]

    assert (await shown(), await parents_of("two")) == ([2, 3], [1])
    await crud.delete_multi(**given, keys=[2])
    assert (await shown(), await parents_of("two"), await parents_of("three")) == ([3], [], [1])
    assert await shown(EVERY) == [2, 3]
    changed = await trees.update(**given, obj_in=DocChange(title="new"), id=1)
    assert [child.id for child in changed.children] == [3]
    assert await trees.get(**given, id=1) == changed
    await crud.delete(**given, id=1)
    restored = await trees.restore(**given, id=1)
    assert [child.id for child in restored.children] == [3]


@pytest.mark.parametrize("how", ["delete", "delete_multi", "delete_where"])
async def test_a_row_that_is_marked_is_shown_at_once_where_its_mark_moves_it(database_url: str, how: str) -> None:
    """Keys that are made of what a deletion marks are never stale, however many rows it marks: rows, lists, counts."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(JobBase.metadata.create_all)
        await connection.execute(insert(Job), [{"id": 1, "live": True}, {"id": 2, "live": True}])
    async with Cache.from_url("memory://") as cache:
        given: dict[str, Any] = {"db": async_sessionmaker(engine), "redis": cache}
        deleted: dict[str, Any] = {**given, "live": False, "options": EVERY}
        for _ in range(2):  # the second time from the cache
            assert await jobs.get_or_none(**deleted, id=1) is None
            assert (await jobs.get_multi(**deleted), await jobs.count(**deleted)) == ([], 0)
        match how:
            case "delete_multi":
                assert await jobs.delete_multi(**given, keys=[1]) == [1]
            case "delete_where":
                assert await jobs.delete_where(**given, id=1) == 1
            case _:
                await jobs.delete(**given, id=1)
        assert await jobs.get(**deleted, id=1) == JobOut(id=1, live=False)
        listed = await jobs.get_multi(**deleted)
        assert (listed, await jobs.count(**deleted)) == ([JobOut(id=1, live=False)], 1)
    await engine.dispose()
