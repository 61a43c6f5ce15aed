"""Cruds whose rows belong to tenants: who says for whom a call works, and what the cache makes of it."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel as Schema
from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import (
    Cache,
    ConfigurationError,
    Conflict,
    Crud,
    EmptyInput,
    InputError,
    KeyMismatch,
    NotFound,
    TemplateError,
    TenancyError,
    TenantMismatch,
    TenantRequired,
    UsageError,
    ValueRefused,
)
from fastrdb.context import tenant
from tests.policies import TEMPLATES, WITH, WITHOUT, Doc, DocChange, DocIn, DocOut, Shelf, doc_crud, shelf_in


@pytest.fixture
async def shelf(database_url: str, valkey_url: str) -> AsyncIterator[Shelf]:
    """An empty shelf, on each database."""
    async with shelf_in(database_url, valkey_url) as shelf:
        yield shelf


@pytest.fixture
async def small(sqlite_url: str) -> AsyncIterator[Shelf]:
    """An empty shelf, on SQLite and in memory, where neither makes a difference."""
    async with shelf_in(sqlite_url, "memory://") as shelf:
        yield shelf


@pytest.mark.parametrize("templates", TEMPLATES)
async def test_tenant_by_keyword_and_by_context_is_one(shelf: Shelf, templates: str) -> None:
    """A row that is read with ``tenant_id=`` is a hit in the tenant's block, and the other way round."""
    crud, given = doc_crud(**TEMPLATES[templates]), shelf.given
    with tenant("acme"):
        made = await crud.create(**given, obj_in=DocIn(slug="one"))
        assert made.tenant_id == "acme"
        await shelf.cached(lambda: crud.get(**given, id=made.id))
        await shelf.cached(lambda: crud.get_multi(**given, folder=1))
        await shelf.cached(lambda: crud.count(**given, folder=1))
    asked = {**given, "tenant_id": "acme"}
    assert await shelf.is_hit(lambda: crud.get(**asked, id=made.id))
    assert await shelf.is_hit(lambda: crud.get_multi(**asked, folder=1))
    assert await shelf.is_hit(lambda: crud.count(**asked, folder=1))


@pytest.mark.parametrize("templates", TEMPLATES)
async def test_written_rows_are_put_into_the_tenants_entries(shelf: Shelf, templates: str) -> None:
    """A row that was created, or changed, needs no SQL to be read, and is as it was written."""
    crud, given = doc_crud(**TEMPLATES[templates]), {**shelf.given, "tenant_id": "acme"}
    made = await crud.create(**given, obj_in=DocIn(slug="zero"))
    await shelf.cached(lambda: crud.get(**given, id=made.id))  # now the template is known
    for write in ("create", "update"):
        if write == "create":
            made = await crud.create(**given, obj_in=DocIn(slug="one"))
        else:
            made = await crud.update(**given, obj_in=DocChange(title="new"), id=made.id)
        before = len(shelf.sent)
        assert await crud.get(**given, id=made.id) == made
        assert len(shelf.sent) == before


async def test_each_write_is_seen_by_its_tenant_and_leaves_the_others_cached(shelf: Shelf) -> None:
    """After each write rows, lists and counts follow for whom it was; what others have cached of theirs stays."""
    crud, ours, theirs = shelf.crud, {**shelf.given, "tenant_id": "acme"}, {**shelf.given, "tenant_id": "other"}
    there = await crud.create(**theirs, obj_in=DocIn(slug="theirs"))

    async def look(given: dict[str, Any]) -> list[Any]:
        listed = await crud.get_multi(**given)
        assert await crud.count(**given) == len(listed)
        assert [await crud.get(**given, id=row.id) for row in listed] == listed
        return [row.title for row in listed]

    await shelf.cached(lambda: look(theirs))
    assert await look(ours) == []
    made = await crud.create(**ours, obj_in=DocIn(slug="a", title="a"))
    assert await look(ours) == ["a"]
    await crud.create_multi(**ours, instances=[DocIn(slug="b", title="b"), DocIn(slug="c", title="c")])
    assert await look(ours) == ["a", "b", "c"]
    await crud.update(**ours, obj_in=DocChange(title="A"), id=made.id)
    assert await look(ours) == ["A", "b", "c"]
    await crud.delete(**ours, id=made.id)
    assert await look(ours) == ["b", "c"]
    await crud.restore(**ours, id=made.id)
    assert await look(ours) == ["A", "b", "c"]
    await crud.purge(**ours, id=made.id)
    assert await look(ours) == ["b", "c"]
    assert await shelf.is_hit(lambda: look(theirs))
    assert await look(theirs) == [there.title]


async def test_joined_writes_wait_for_their_commit(shelf: Shelf) -> None:
    """In a caller's transaction, the tenant's rows change for others with its COMMIT, and not with its rollback."""
    made, crud = await shelf.make(), shelf.crud
    get = lambda: crud.get(**shelf.given, id=made.id, tenant_id="acme")  # noqa: E731
    await shelf.cached(get)
    async with shelf.factory() as session:
        for committed in (False, True):
            await session.begin()
            change = DocChange(title="new")
            given: dict[str, Any] = {"db": session, "redis": shelf.cache, "id": made.id, "tenant_id": "acme"}
            await crud.update(**given, obj_in=change)
            assert (await crud.get(**given)).title == "new"
            assert await shelf.is_hit(get)
            await (session.commit() if committed else session.rollback())
    assert (await get()).title == "new"


async def test_call_without_a_tenant_is_refused(small: Shelf) -> None:
    """Every method raises ``TenantRequired``, before anything is sent, with a cache and without."""
    made, crud = await small.make(), small.crud
    sent = list(small.sent)
    for redis in (small.cache, None):
        given: dict[str, Any] = {"db": small.factory, "redis": redis}
        written = DocIn(slug="x", tenant_id="acme")  # type: ignore[call-arg]
        calls: list[tuple[str, dict[str, Any]]] = [
            ("create", {"obj_in": written}),
            ("create_multi", {"instances": [written]}),
            *of_many(made.id, written, "x"),
            ("update", {"obj_in": DocChange(title="x"), "id": made.id}),
            *((name, {"id": made.id}) for name in ROWS),
            *((name, {}) for name in LISTS),
        ]
        for name, arguments in calls:
            with pytest.raises(TenantRequired) as caught:
                await getattr(crud, name)(**given, **arguments)
            assert isinstance(caught.value, InputError)
            assert isinstance(caught.value, TenancyError)
    for name in ("invalidate", "explain"):
        with pytest.raises(TenantRequired):
            await getattr(crud, name)(small.cache, id=made.id)
    assert small.sent == sent


def of_many(id: int, new: DocIn, title: str) -> list[tuple[str, dict[str, Any]]]:
    """Calls of the methods that take no fields: a row is read, changed, made again, given children, and deleted."""
    children: dict[str, Any] = {"fk_field": "parent_id", "fk_value": id}
    return [
        ("get_by_keys", {"keys": [id]}),
        ("update_multi", {"items": [(id, DocChange(title=title))]}),
        ("upsert_multi", {"instances": [new]}),
        ("create_by_foreign_key", {**children, "data": [{"slug": "child"}]}),
        ("update_by_foreign_key", {**children, "data": [{"slug": "other child"}]}),
        ("delete_by_foreign_key", children),
        ("delete_multi", {"keys": [id]}),
    ]


async def test_methods_without_fields_take_the_tenant_as_a_keyword(shelf: Shelf) -> None:
    """Each of them works for ``tenant_id=`` as in its block, drops what it has cached, and takes no other field."""
    made = await shelf.make()
    new = DocIn(slug="one", title="upserted", id=made.id)  # type: ignore[call-arg]
    told: dict[str, Any] = {"tenant_id": "acme"}

    async def seen() -> Any:
        return await shelf.crud.get_or_none(**shelf.given, **told, id=made.id), await shelf.crud.count(
            **shelf.given, **told
        )

    answers: list[Any] = []
    for name, arguments in of_many(made.id, new, "changed"):
        await shelf.cached(seen)
        call = getattr(shelf.crud, name)
        with pytest.raises(UsageError, match="folder"):
            await call(**shelf.given, **arguments, folder=1)
        answers.append(await call(**shelf.given, **arguments, **told))
        if name == "update_multi":
            assert (await seen())[0].title == "changed"
    assert answers[0] == [made]
    assert [row.title for row in answers[1]] == ["changed"]
    assert [(each.row.title, each.created) for each in answers[2]] == [("upserted", False)]
    assert [row.tenant_id for row in [*answers[3], *answers[4].created]] == ["acme", "acme"]
    assert answers[5:] == [2, [made.id]]
    assert await seen() == (None, 0)


async def test_methods_without_fields_see_one_tenant_of_all_tenants(small: Shelf) -> None:
    """From ``all_tenants()``, a tenant as a keyword narrows them to that tenant's rows, and owns what they insert."""
    made, everybody = await small.make(), small.crud.all_tenants()
    other = {**small.given, "tenant_id": "other"}
    assert await everybody.get_by_keys(**other, keys=[made.id]) == []
    assert await everybody.update_multi(**other, items=[(made.id, DocChange(title="x"))], missing="skip") == []
    assert await everybody.delete_multi(**other, keys=[made.id], missing="skip") == []
    ((row, created),) = await everybody.upsert_multi(**other, instances=[DocIn(slug="two", id=77)])  # type: ignore[call-arg]
    assert (row.tenant_id, created) == ("other", True)
    assert await everybody.get_by_keys(**small.given, keys=[made.id]) == [made]


class Elsewhere(DeclarativeBase):
    """Tables without mixins."""


class Firm(Elsewhere):
    """A tenant."""

    __tablename__ = "firms"
    id: Mapped[str] = mapped_column(String(20), primary_key=True)


class Seat(Elsewhere):
    """A row whose tenant is a row itself."""

    __tablename__ = "seats"
    id: Mapped[int] = mapped_column(primary_key=True)
    firm_id: Mapped[str] = mapped_column(ForeignKey("firms.id"))


class SeatOut(Schema):
    """A seat."""

    id: int


async def test_parent_that_is_another_tenant_is_refused(small: Shelf) -> None:
    """Where the tenant is the parent, a call that names two of them is refused, in a block and by the keyword."""
    async with small.engine.begin() as connection:
        await connection.run_sync(Elsewhere.metadata.create_all)
        await connection.exec_driver_sql("INSERT INTO firms VALUES ('a'), ('b')")
        await connection.exec_driver_sql("INSERT INTO seats VALUES (1, 'a'), (2, 'b')")
    seats: Crud[Seat, Any, Any, SeatOut] = Crud(Seat, SeatOut, "seat:{id}", tenant="firm_id")
    given = {**small.given, "fk_field": "firm_id"}
    with pytest.raises(TenantMismatch):
        await seats.delete_by_foreign_key(**given, fk_value="b", firm_id="a")
    with tenant("a"), pytest.raises(TenantMismatch):
        await seats.delete_by_foreign_key(**given, fk_value="b")
    assert await seats.delete_by_foreign_key(**given, fk_value="a", firm_id="a") == 1
    assert await seats.all_tenants().count(small.factory, small.cache) == 1


ROWS = ("get", "get_or_none", "get_json", "exists", "delete", "restore", "purge")
LISTS = ("get_multi", "get_multi_json", "count", "page")


async def test_two_tenants_in_one_call_are_refused(small: Shelf) -> None:
    """The context's and the keyword's, the call's and the schema's: they must agree, and an update moves no row."""
    made, crud, given = await small.make(), small.crud, small.given
    with tenant("acme"):
        assert await crud.get(**given, id=made.id, tenant_id="acme") == made
        with pytest.raises(TenantMismatch):
            await crud.get(**given, id=made.id, tenant_id="other")
        agreeing = DocIn(slug="two", tenant_id="acme")  # type: ignore[call-arg]
        assert (await crud.create(**given, obj_in=agreeing)).tenant_id == "acme"
        same = DocChange(title="new", tenant_id="acme")  # type: ignore[call-arg]
        assert (await crud.update(**given, obj_in=same, id=made.id)).title == "new"
        with pytest.raises(EmptyInput, match="besides the tenant"):
            await crud.update(**given, obj_in=DocChange(tenant_id="acme"), id=made.id)  # type: ignore[call-arg]
        with pytest.raises(TenantMismatch):
            await crud.update(**given, obj_in=DocChange(tenant_id="other"), id=made.id)  # type: ignore[call-arg]
    unset = DocIn(slug="three", tenant_id=None)  # type: ignore[call-arg]
    assert (await crud.create(**given, obj_in=unset, tenant_id="acme")).tenant_id == "acme"
    with pytest.raises(KeyMismatch):
        await crud.create(**given, obj_in=DocIn(slug="four"), tenant_id="acme", slug="five")


@pytest.mark.parametrize(
    "value", [None, "", "  ", ["acme"], ("acme",), {"!=": "x"}, {"in": ["acme"]}, 5, Doc.tenant_id]
)
async def test_tenant_is_one_plain_value(small: Shelf, value: Any) -> None:
    """A list, operators, nothing at all, or what the column does not take is no tenant."""
    made = await small.make()
    for name in ("get", "delete", "count"):
        with pytest.raises(ValueRefused):
            await getattr(small.crud, name)(**small.given, id=made.id, tenant_id=value)
    with pytest.raises(ValueRefused):
        await small.crud.create(**small.given, obj_in=DocIn(slug="x"), tenant_id=value)


async def test_version_of_another_tenants_row_is_not_told(small: Shelf) -> None:
    """Another's row is not found, whatever its version; ``Conflict`` would say that it is there."""
    made, crud = await small.make(), small.crud
    key: dict[str, Any] = {**small.given, "id": made.id, "version": 7}
    with pytest.raises(NotFound):
        await crud.delete(**key, tenant_id="other")
    with pytest.raises(Conflict):
        await crud.delete(**key, tenant_id="acme")


# All tenants.


async def test_all_tenants_sees_every_row_past_the_cache(shelf: Shelf) -> None:
    """Its reads need no tenant and always ask the database; what tenants have cached it does not touch."""
    made = await shelf.make()
    there = await shelf.crud.create(**shelf.given, obj_in=DocIn(slug="two"), tenant_id="other")
    everybody = doc_crud(**WITH).all_tenants()
    with tenant("third"):
        for _ in range(2):
            before = len(shelf.sent)
            assert await everybody.get(**shelf.given, id=made.id) == made
            assert await everybody.get_multi(**shelf.given) == [made, there]
            assert await everybody.count(**shelf.given) == 2
            assert await everybody.exists(**shelf.given, id=made.id)
            assert len(shelf.sent) >= before + 4
            assert await everybody.get_multi(**shelf.given, tenant_id=["other", "x"]) == [there]
    with pytest.raises(InputError, match="nothing to explain"):
        await everybody.explain(shelf.cache, shelf.factory, id=made.id)
    assert everybody.all_tenants().model is Doc


async def test_all_tenants_writes_drop_what_tenants_have_cached(shelf: Shelf) -> None:
    """Rows, lists and counts of the tenants concerned follow, also where a row moves from one to the other."""
    crud, everybody, given = shelf.crud, shelf.crud.all_tenants(), shelf.given
    made = await shelf.make()

    async def seen() -> list[list[int]]:
        found = []
        for name in ("acme", "other"):
            rows = await crud.get_multi(**given, tenant_id=name)
            assert await crud.count(**given, tenant_id=name) == len(rows)
            one = await crud.get_or_none(**given, id=made.id, tenant_id=name)
            assert (one in rows) is (one is not None)
            found.append([row.id for row in rows])
        return found

    assert await seen() == [[made.id], []]
    assert await seen() == [[made.id], []]
    await everybody.update(**given, obj_in=DocChange(tenant_id="other"), id=made.id)  # type: ignore[call-arg]
    assert await seen() == [[], [made.id]]
    await everybody.delete(**given, id=made.id)
    assert await seen() == [[], []]
    await everybody.restore(**given, id=made.id)
    assert await seen() == [[], [made.id]]
    new = await everybody.create(**given, obj_in=DocIn(slug="new"), tenant_id="acme")
    assert await seen() == [[new.id], [made.id]]
    await everybody.purge(**given, id=made.id)
    assert await seen() == [[new.id], []]


async def test_rows_of_all_tenants_still_name_theirs(small: Shelf) -> None:
    """What is inserted for one of all tenants says for whom: in the schema, by keyword or by a block."""
    everybody, given = small.crud.all_tenants(), small.given
    named = DocIn(slug="a", tenant_id="acme")  # type: ignore[call-arg]
    assert (await everybody.create(**given, obj_in=named)).tenant_id == "acme"
    assert (await everybody.create(**given, obj_in=DocIn(slug="b"), tenant_id="acme")).tenant_id == "acme"
    with tenant("acme"):
        assert [row.tenant_id for row in await everybody.create_multi(**given, instances=[DocIn(slug="c")])] == ["acme"]
    with pytest.raises(TenantRequired):
        await everybody.create(**given, obj_in=DocIn(slug="d"))
    with pytest.raises(TenantMismatch):
        await everybody.create(**given, obj_in=named, tenant_id="other")


async def test_dropping_everything_is_for_all_tenants(small: Shelf) -> None:
    """``invalidate()``, patterns and ``clear`` concern all tenants, and are refused to one."""
    made, crud = await small.make(), small.crud
    get = lambda: crud.get(**small.given, id=made.id, tenant_id="acme")  # noqa: E731
    drops: list[Any] = [
        lambda of: of.invalidate(small.cache),
        lambda of: of.invalidate(small.cache, "doc:*"),
        lambda of: of.clear(small.cache),
    ]
    for drop in drops:
        await small.cached(get)
        with tenant("acme"), pytest.raises(TenantRequired, match="all_tenants"):
            await drop(crud)
        assert await small.is_hit(get)
        await drop(crud.all_tenants())
        assert not await small.is_hit(get)
    await small.cached(get)
    await crud.invalidate(small.cache, id=made.id, slug=made.slug, tenant_id="acme")
    assert not await small.is_hit(get)


async def test_cruds_of_one_table_share_nothing_that_differs(small: Shelf) -> None:
    """A crud of nobody's rows with the very templates of a tenant's serves that nothing, and the other way round."""
    ours, nobodys, given = doc_crud(**WITH), doc_crud(**WITH, tenant=False), small.given
    made = await ours.create(**given, obj_in=DocIn(slug="one"), tenant_id="acme")
    for _ in range(3):
        assert await nobodys.get(**given, id=made.id, tenant_id="acme") == made
        assert await ours.get(**given, id=made.id, tenant_id="acme") == made
        assert await ours.get_or_none(**given, id=made.id, tenant_id="other") is None
        assert await nobodys.get_multi(**given, tenant_id="other") == []


async def test_crud_of_nobodys_rows_has_no_other_side(small: Shelf) -> None:
    """``all_tenants`` of a crud without tenants is a mistake, and so is a column that cannot be a tenant's."""
    with pytest.raises(ConfigurationError, match="has no tenants"):
        small.loose.all_tenants()
    with pytest.raises(ConfigurationError, match=r"tenant='owner': Doc has no such column; it has: created_by"):
        doc_crud(tenant="owner")
    with pytest.raises(ConfigurationError, match="no such column"):
        doc_crud(tenant=True)
    with pytest.raises(TemplateError, match="can give the same key"):
        doc_crud(pattern=("doc:{tenant_id}:{id}", "doc:{slug}"))


# Columns of one's own.


class Desk(Elsewhere):
    """Of an organization, known by a UUID, and on a floor."""

    __tablename__ = "desks"
    id: Mapped[int] = mapped_column(primary_key=True)
    org: Mapped[UUID] = mapped_column("organization_id")
    floor: Mapped[int]
    name: Mapped[str] = mapped_column(String(20))
    __table_args__ = (UniqueConstraint("organization_id", "name"),)


class DeskIn(Schema):
    """What is written."""

    name: str


class DeskOut(Schema):
    """A desk."""

    id: int
    name: str


@pytest.mark.parametrize("field", ["org", "floor"])
async def test_tenant_of_another_name_and_type(database_url: str, field: str) -> None:
    """``tenant=`` names any column; the block's text is brought to its type, and so is the keyword's."""
    one, two = (uuid4(), uuid4()) if field == "org" else (1, 2)
    rest: dict[str, Any] = {"floor": 7} if field == "org" else {"org": uuid4()}

    def named(value: object) -> dict[str, Any]:
        return {field: str(value) if value == one else value}

    async with shelf_in(database_url, "memory://") as shelf:
        async with shelf.engine.begin() as connection:
            await connection.run_sync(Elsewhere.metadata.create_all)
        desks = Crud[Desk, DeskIn, DeskIn, DeskOut](
            Desk, DeskOut, ("desk:{id}", "desk:name:{name}"), "desks:{page}:{limit}", tenant=field, max_limit=10
        )
        with tenant(one):
            made = await desks.create(**shelf.given, obj_in=DeskIn(name="a"), **rest)
            assert await shelf.cached(lambda: desks.get_multi(**shelf.given)) == [made]
            assert await shelf.cached(lambda: desks.get(**shelf.given, name="a")) == made
        assert await desks.get(**shelf.given, id=made.id, **named(one)) == made
        for whose in (two, str(two)):
            assert await desks.get_or_none(**shelf.given, id=made.id, **named(whose)) is None
            assert await desks.get_multi(**shelf.given, **named(whose)) == []
        with tenant("nobody"), pytest.raises(ValueRefused):
            await desks.get(**shelf.given, id=made.id)


async def test_prefix_to_drop_is_the_tenants_own(small: Shelf) -> None:
    """A declared pattern over the crud's own keys drops those of the tenant that writes."""
    crud = doc_crud(**{**WITHOUT, "invalidate_pattern_prefix": "doc:*"})
    ours, theirs = {**small.given, "tenant_id": "acme"}, {**small.given, "tenant_id": "other"}
    first, second = [await crud.create(**ours, obj_in=DocIn(slug=slug)) for slug in ("a", "b")]
    there = await crud.create(**theirs, obj_in=DocIn(slug="c"))
    get = lambda: crud.get(**theirs, id=there.id)  # noqa: E731
    also = lambda: crud.get(**ours, id=second.id)  # noqa: E731
    await small.cached(get)
    await small.cached(also)
    await crud.update(**ours, obj_in=DocChange(title="new"), id=first.id)
    assert await small.is_hit(get)
    assert not await small.is_hit(also)


async def test_statements_carry_the_tenant(small: Shelf) -> None:
    """Every SELECT, UPDATE and DELETE has the tenant's condition, and every INSERT its value."""
    crud, given = small.crud, {**small.given, "tenant_id": "acme"}
    del small.sent[:]
    made = await crud.create(**given, obj_in=DocIn(slug="one"))
    await crud.create_multi(**given, instances=[DocIn(slug="two")])
    await crud.update(**given, obj_in=DocChange(title="new"), id=made.id)
    await crud.get(**{**given, "redis": None}, id=made.id)
    await crud.get_multi(**{**given, "redis": None})
    await crud.count(**{**given, "redis": None})
    await crud.delete(**given, id=made.id)
    await crud.restore(**given, id=made.id)
    await crud.purge(**given, id=made.id)
    assert len(small.sent) >= 9
    for statement in small.sent:
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            assert "docs.tenant_id = ?" in statement, statement


async def test_an_answer_that_is_read_back_is_found(small: Shelf) -> None:
    """Responses that a write has to read back come, whoever says the tenant, and of a row that is marked deleted."""

    class Computed(Schema):
        id: int
        is_deleted: bool

    crud = Crud[Doc, DocIn, DocChange, Computed](Doc, Computed, "computed:{id}")
    with tenant("acme"):
        made = await crud.create(**small.given, obj_in=DocIn(slug="one"))
    assert made == Computed(id=made.id, is_deleted=False)
    key: dict[str, Any] = {**small.given, "id": made.id, "tenant_id": "acme"}
    assert await crud.update(**key, obj_in=DocChange(title="new")) == made
    await crud.delete(**key)
    assert await crud.restore(**key) == made


async def test_row_in_another_service_without_tenants(small: Shelf, valkey_url: str) -> None:
    """What a crud without tenants writes drops the tenant's values, in another cache client, too."""
    async with Cache.from_url(valkey_url) as one, Cache.from_url(valkey_url) as two:
        made: DocOut = await small.crud.create(small.factory, one, DocIn(slug="one"), tenant_id="acme")
        get = lambda: small.crud.get(small.factory, one, id=made.id, tenant_id="acme")  # noqa: E731
        await small.cached(get)
        await small.loose.update(small.factory, two, DocChange(title="new"), id=made.id)
        assert (await get()).title == "new"
