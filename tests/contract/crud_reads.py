"""What the reading methods of Crud do, and those about the cache: ``method__claim`` is a check of the method."""

import json

import pytest

from fastrdb import (
    Committed,
    Crud,
    CursorRefused,
    InputError,
    MissingKeyField,
    NotFound,
    OutOfRange,
    ReadOptions,
    RowsNotFound,
    SessionRefused,
    TenantRequired,
    UnknownField,
    UsageError,
)
from tests.ground import (
    ALL_NOTES,
    ANN,
    BO,
    CID,
    FOREIGN,
    GONE,
    NOBODY,
    NOTE,
    Author,
    AuthorOut,
    Book,
    BookOut,
    Ground,
    Loose,
)


async def model__is_the_mapped_class(g: Ground) -> None:
    """The crud tells its model."""
    assert g.authors.model is Author


async def response_schema__is_the_schema(g: Ground) -> None:
    """The crud tells its schema."""
    assert g.authors.response_schema is AuthorOut


async def get__gives_the_row_by_every_template(g: Ground) -> None:
    """Twice the same row, by id and by a name with every kind of letter."""
    for _ in range(2):
        assert (await g.authors.get(**g.given, id=BO)).rank is None
        assert (await g.authors.get(**g.given, name="Бо:*🦊")).id == BO
        assert (await g.seats.get(**g.given, line="é", number=2)).guest is None


async def get__raises_where_there_is_no_row(g: Ground) -> None:
    """A row that is missing, deleted softly, or another tenant's is not found."""
    for _ in range(2):
        with pytest.raises(NotFound):
            await g.authors.get(**g.given, id=NOBODY)
        for id in (GONE, FOREIGN):
            with pytest.raises(NotFound):
                await g.notes.get(**g.given, id=id, tenant_id="acme")
    with pytest.raises(NotFound):
        await g.authors.get(**g.given, id=ANN, rank=2)


async def get__refuses_wrong_fields(g: Ground) -> None:
    """Unknown fields, half a key, and no tenant raise."""
    with pytest.raises(UnknownField):
        await g.authors.get(**g.given, id=ANN, nam="Ann")
    with pytest.raises(TenantRequired):
        await g.notes.get(**g.given, id=NOTE)
    if g.cache is not None:
        with pytest.raises(MissingKeyField):
            await g.seats.get(**g.given, line="é")


async def get__locks_in_a_transaction_only(g: Ground) -> None:
    """A row is locked in a session of the caller's; a factory is refused."""
    locked = ReadOptions(for_update=True)
    async with g.factory() as session, session.begin():
        assert (await g.authors.get(session, g.cache, id=ANN, options=locked)).name == "Ann"
    with pytest.raises(SessionRefused):
        await g.authors.get(**g.given, id=ANN, options=locked)


async def get_or_none__gives_none(g: Ground) -> None:
    """A row, or ``None``, however often it is asked."""
    for _ in range(2):
        assert await g.authors.get_or_none(**g.given, id=NOBODY) is None
        found = await g.notes.get_or_none(**g.given, id=GONE, tenant_id="acme", options=ALL_NOTES)
        assert found is not None
        assert found.text == "gone"


async def get_json__gives_the_row_as_json(g: Ground) -> None:
    """The JSON of the row, from SQL as from the cache."""
    for _ in range(2):
        found = await g.authors.get_json(**g.given, id=BO)
        assert json.loads(found) == {"id": BO, "name": "Бо:*🦊", "rank": None}
    with pytest.raises(NotFound):
        await g.authors.get_json(**g.given, id=NOBODY)


async def exists__tells_whether_a_row_matches(g: Ground) -> None:
    """By key and by filter."""
    for _ in range(2):
        assert await g.authors.exists(**g.given, id=ANN)
        assert not await g.authors.exists(**g.given, id=NOBODY)
        assert await g.authors.exists(**g.given, rank=None)
        assert not await g.notes.exists(**g.given, id=GONE, tenant_id="acme")


async def get_by_keys__keeps_the_order_of_keys(g: Ground) -> None:
    """Rows in the order of keys, the missing ones as told."""
    for _ in range(2):
        found = await g.authors.get_by_keys(**g.given, keys=[BO, NOBODY, ANN])
        assert [each.id for each in found] == [BO, ANN]
        with_gaps = await g.authors.get_by_keys(**g.given, keys=[NOBODY, ANN], missing="none")
        assert [each and each.id for each in with_gaps] == [None, ANN]
        seats = await g.seats.get_by_keys(**g.given, keys=[{"line": "é", "number": 2}, {"line": "é", "number": 1}])
        assert [each.number for each in seats] == [2, 1]
    with pytest.raises(RowsNotFound):
        await g.authors.get_by_keys(**g.given, keys=[ANN, NOBODY], missing="raise")
    assert await g.authors.get_by_keys(**g.given, keys=[]) == []


async def warm__puts_rows_into_the_cache(g: Ground) -> None:
    """Every row is read, and stored under both templates where there is a cache."""
    if g.cache is None:
        return
    assert await g.authors.warm(**g.given) == (3, 6)
    assert await g.authors.warm(**g.given) == (3, 0)
    assert (await g.authors.get(**g.given, name="Ann")).id == ANN


async def warm__puts_a_tenants_rows_into_the_cache(g: Ground) -> None:
    """Those that are not deleted, for the tenant that the call names; others stay hidden."""
    if g.cache is None:
        return
    assert await g.notes.warm(**g.given, tenant_id="acme") == (1, 1)
    for id, there in ((NOTE, True), (GONE, False), (FOREIGN, False)):
        assert await g.notes.exists(**g.given, id=id, tenant_id="acme") == there


async def get_multi__gives_pages_in_order(g: Ground) -> None:
    """Pages by any order; past the end there is nothing."""
    for _ in range(2):
        assert [each.id for each in await g.authors.get_multi(**g.given, limit=2)] == [ANN, BO]
        assert [each.id for each in await g.authors.get_multi(**g.given, limit=2, page=2)] == [CID]
        assert await g.authors.get_multi(**g.given, limit=2, page=3) == []
        assert [each.id for each in await g.authors.get_multi(**g.given, order_by="-id", rank={">": 0})] == [CID, ANN]
        assert [each.id for each in await g.notes.get_multi(**g.given, tenant_id="acme")] == [NOTE]
        assert await g.books.get_multi(**g.given, author_id=NOBODY) == []
        assert await g.authors.get_multi(**g.given, id=[]) == []
    with pytest.raises(OutOfRange):
        await g.authors.get_multi(**g.given, limit=0)


async def get_multi__searches(g: Ground) -> None:
    """Words are found in the columns that the crud names; a sign of LIKE is itself."""
    for _ in range(2):
        for word, ids in (("🦊", [BO]), ("an", [ANN]), ("%", [])):
            found = await g.authors.get_multi(**g.given, options=ReadOptions(search=word))
            assert [each.id for each in found] == ids


async def get_multi_json__gives_the_page_as_json(g: Ground) -> None:
    """The JSON of the list, empty lists too."""
    for _ in range(2):
        assert [each["id"] for each in json.loads(await g.authors.get_multi_json(**g.given, limit=2))] == [ANN, BO]
        assert json.loads(await g.authors.get_multi_json(**g.given, rank=77)) == []


async def count__counts_what_matches(g: Ground) -> None:
    """All rows, rows by filter, and rows that are there."""
    for _ in range(2):
        assert await g.authors.count(**g.given) == 3
        assert await g.authors.count(**g.given, rank=None) == 1
        assert await g.notes.count(**g.given, tenant_id="acme") == 1
        assert await g.notes.count(**g.given, tenant_id="acme", options=ALL_NOTES) == 2


async def page__says_the_total_and_whether_more_come(g: Ground) -> None:
    """Rows, their number and whether there is a next page, by every kind of total."""
    for _ in range(2):
        for total, number in (("exact", 3), ("cached", 3), ("estimate", 3), ("none", -1)):
            options = ReadOptions(total=total)  # type: ignore[arg-type]  # mypy takes it for any text
            page = await g.authors.page(**g.given, limit=2, options=options)
            assert ([each.id for each in page.data], page.total, page.has_next) == ([ANN, BO], number, True)
            last = await g.authors.page(**g.given, limit=2, page=2, options=options)
            assert (last.total, last.has_next) == (3, False)


async def cursor_page__walks_both_ways(g: Ground) -> None:
    """Every row once, NULLs included, and back again; a foreign cursor is refused."""
    at = {**g.given, "limit": 1, "order_by": ["rank", "name"]}
    pages = [await g.authors.cursor_page(**at)]
    while (cursor := pages[-1].next) is not None:
        pages.append(await g.authors.cursor_page(**at, cursor=cursor))
    assert sorted(page.data[0].id for page in pages) == [ANN, BO, CID]
    back = await g.authors.cursor_page(**at, cursor=pages[2].previous)
    assert back.data == pages[1].data
    with pytest.raises(CursorRefused):
        await g.authors.cursor_page(**g.given, cursor=pages[0].next)


async def stream__gives_every_row(g: Ground) -> None:
    """All rows that match, in order, in batches of any size."""
    assert [each.id async for each in g.authors.stream(g.factory, batch=1, order_by="-id")] == [CID, BO, ANN]
    assert [each.id async for each in g.notes.stream(g.factory, tenant_id="acme")] == [NOTE]
    assert [each.id async for each in g.authors.stream(g.factory, id=[])] == []


async def paginate__cuts_a_page(g: Ground) -> None:
    """A list is cut; a page that it does not have raises."""
    page = g.authors.paginate(["a", "b", "c"], limit=2, page=2)
    assert (page.data, page.total, page.has_next) == (["c"], 3, False)
    with pytest.raises(OutOfRange):
        g.authors.paginate(["a"], limit=2, page=2)


async def distinct__gives_each_value_once(g: Ground) -> None:
    """Values in order, NULL last."""
    for _ in range(2):
        assert await g.authors.distinct(**g.given, field="rank") == [1, 3, None]
        assert await g.books.distinct(**g.given, field="title", author_id=BO) == []
    with pytest.raises(UsageError):
        await g.authors.distinct(**g.given, field="rank", options=ReadOptions(for_update=True))
    with pytest.raises(UnknownField):
        await g.authors.distinct(**g.given, field="nothing")


async def aggregate__computes_figures_by_group(g: Ground) -> None:
    """Figures of all rows, of groups, and of no row."""
    for _ in range(2):
        given = {**g.given, "functions": {"n": "count", "sum": ("sum", "rank")}}
        assert await g.authors.aggregate(**given) == [{"n": 3, "sum": 4}]
        assert await g.authors.aggregate(**given, id=NOBODY) == [{"n": 0, "sum": None}]
        by_line = await g.seats.aggregate(**g.given, functions={"n": "count"}, group_by="line", having={"n": 2})
        assert by_line == [{"line": "é", "n": 2}]
    with pytest.raises(UsageError):
        await g.authors.aggregate(**g.given, functions={"n": "count"}, options=ReadOptions(for_update=True))
    with pytest.raises(InputError):
        await g.authors.aggregate(**g.given, functions={"x": ("sum", "name")})


async def all_tenants__sees_the_rows_of_all(g: Ground) -> None:
    """Without a tenant, every row that is not deleted."""
    everybody = g.notes.all_tenants()
    assert [each.id for each in await everybody.get_multi(**g.given)] == [NOTE, FOREIGN]
    assert (await everybody.get(**g.given, id=FOREIGN)).tenant_id == "other"


async def after_commit__is_told_what_was_committed(g: Ground) -> None:
    """One call for a transaction, with rows before and after; none for a rollback."""
    told = []
    authors = Crud[Author, Loose, Loose, AuthorOut](Author, AuthorOut, "author:{id}")

    @authors.after_commit
    async def hear(committed: object) -> None:
        told.append(committed)

    async with g.factory() as session:
        await session.begin()
        await authors.delete(session, g.cache, id=ANN)
        await session.rollback()
    assert told == []
    await authors.delete(**g.given, id=ANN)
    [change] = told[0].rows  # type: ignore[attr-defined]  # a Committed
    assert (change.kind, change.before["id"], change.after) == ("delete", ANN, None)


async def after_commit__is_told_of_children(g: Ground) -> None:
    """Rows that came, changed and went with their parent; nothing where nothing was written."""
    told: list[Committed] = []
    books = Crud[Book, Loose, Loose, BookOut](Book, BookOut, "book:{id}")

    @books.after_commit
    async def hear(committed: Committed) -> None:
        told.append(committed)

    at = {**g.given, "fk_field": "author_id"}
    await books.create_by_foreign_key(**at, fk_value=ANN, data=[{"title": "x"}])
    await books.update_by_foreign_key(**at, fk_value=ANN, data=[{"title": "y"}, {"id": 1001, "title": "z"}])
    await books.delete_by_foreign_key(**at, fk_value=ANN)
    await books.delete_by_foreign_key(**at, fk_value=ANN)
    await books.delete_where(**g.given, title="nothing")
    assert [sorted(each.kinds) for each in told] == [["create"], ["create", "update"], ["delete"]]
    assert [len(each.rows or ()) for each in told] == [1, 2, 4]


async def invalidate__makes_rows_be_read_again(g: Ground) -> None:
    """What was written past fastrdb is seen after the table, a row or a directory was dropped."""
    if g.cache is None:
        return
    for name, drop in (("A", {}), ("B", {"id": ANN}), ("C", {"pattern": "author:*"})):
        await g.authors.get(**g.given, id=ANN)
        async with g.engine.begin() as connection:
            await connection.exec_driver_sql(f"UPDATE ground_authors SET name = '{name}' WHERE id = {ANN}")
        await g.authors.invalidate(g.cache, **drop)
        assert (await g.authors.get(**g.given, id=ANN)).name == name


async def clear__makes_everything_be_read_again(g: Ground) -> None:
    """Rows, lists and counts are read again; of tenants' rows, for all tenants only."""
    if g.cache is None:
        return
    await g.warm()
    async with g.engine.begin() as connection:
        await connection.exec_driver_sql("DELETE FROM ground_authors")
        await connection.exec_driver_sql("DELETE FROM ground_notes")
    await g.authors.clear(g.cache)
    await g.books.clear(g.cache)
    await g.notes.all_tenants().clear(g.cache)
    assert await g.is_fresh()
    with pytest.raises(TenantRequired):
        await g.notes.clear(g.cache)


async def explain__says_what_is_cached(g: Ground) -> None:
    """A miss, then a hit."""
    if g.cache is None:
        return
    assert (await g.authors.explain(g.cache, g.factory, id=ANN)).state.startswith("miss")
    await g.authors.get(**g.given, id=ANN)
    assert (await g.authors.explain(g.cache, g.factory, id=ANN)).state == "hit"
    with pytest.raises(InputError):
        await g.authors.explain(g.cache, g.factory)
