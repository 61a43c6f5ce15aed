"""Tenants and the cache: under row-level security, and with a schema each, nobody is served what another saw."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import event, exists, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import Crud, NotFound
from fastrdb.context import tenant
from fastrdb.tenancy import clear_rls_context, create_tenant_schema, set_rls_context, set_schema_search_path
from tests.tenants import Base, Country, CountryOut, Note, NoteChange, NoteIn, NoteOut, Tenants, note_crud, opened
from tests.world import until


@pytest.fixture
async def tenants(postgres_url: str, valkey_url: str) -> AsyncIterator[Tenants]:
    """Two tenants, a note of each."""
    async with opened(postgres_url, valkey_url) as tenants:
        yield tenants


async def count_of_hits(tenants: Tenants, read: Callable[[], Awaitable[Any]]) -> tuple[Any, int]:
    """What a read gives, and how many hits it was."""
    before = tenants.cache.stats.hits
    return await read(), tenants.cache.stats.hits - before


async def warm(tenants: Tenants, read: Callable[[], Awaitable[Any]]) -> Any:
    """Read until it is a hit, and give what was read."""
    found: list[Any] = []

    async def is_hit() -> bool:
        answer, hits = await count_of_hits(tenants, read)
        found[:] = [answer]
        return hits > 0

    await until(is_hit)
    return found[0]


async def test_tenants_never_hit_each_others_rows(tenants: Tenants) -> None:
    """A row, a list and a count that one tenant has cached are another's no hit."""
    notes, cache, db = tenants.notes, tenants.cache, tenants.factory
    for name, other, id in (("a", "b", 1), ("b", "a", 2)):
        with tenant(name):
            assert (await warm(tenants, lambda id=id: notes.get(db, cache, id=id))).text == f"of {name}"
            (only,) = await warm(tenants, lambda: notes.get_multi(db, cache, folder=1))
            assert only.text == f"of {name}"
            assert await warm(tenants, lambda: notes.count(db, cache, folder=1)) == 1
        with tenant(other):
            assert await notes.get_or_none(db, cache, id=id) is None
            assert not await notes.exists(db, cache, id=id)
            assert not await notes.exists(db, cache, text=f"of {name}")


async def test_session_and_factory_of_a_tenant_share(tenants: Tenants) -> None:
    """What a session with a context has cached, a factory with the same tenant hits, and the other way round."""
    notes, cache = tenants.notes, tenants.cache
    async with tenants.factory() as session:
        await set_rls_context(session, "a")
        await warm(tenants, lambda: notes.get(session, cache, id=1))
    with tenant("a"):
        assert (await count_of_hits(tenants, lambda: notes.get(tenants.factory, cache, id=1)))[1] == 1


async def test_everything_that_was_set_keeps_values_apart(tenants: Tenants) -> None:
    """A context with a further setting, and one in another's place, share nothing."""
    notes, cache = tenants.notes, tenants.cache
    contexts: list[dict[str, Any]] = [{}, {"user_id": 1}, {"user_id": 2}, {"session_id": 1}, {"request_id": 1}]
    for more in contexts:
        async with tenants.factory() as session:
            await set_rls_context(session, "a", **more)
            _, hits = await count_of_hits(tenants, lambda session=session: notes.get(session, cache, id=1))
            assert hits == 0
            await warm(tenants, lambda session=session: notes.get(session, cache, id=1))


async def test_without_a_tenant_the_cache_is_left_alone(tenants: Tenants) -> None:
    """A factory, or a session, without a tenant reads SQL, which shows nothing, and stores nothing."""
    notes, cache = tenants.notes, tenants.cache
    async with tenants.factory() as session:
        for db in (tenants.factory, session):
            assert await notes.get_or_none(db, cache, id=1) is None
            assert await notes.get_multi(db, cache, folder=1) == []
            assert (await notes.explain(cache, db, id=1)).state == "bypass: row-level security, and no tenant"
    assert cache.stats.reasons["bypass: row-level security, and no tenant"] == 4
    assert "stored" not in cache.stats.reasons


async def test_hand_written_context_is_not_cached(tenants: Tenants) -> None:
    """A session whose tenant was set by SQL of the caller's own reads SQL, and stores nothing."""
    async with tenants.factory() as session:
        await session.execute(text("SELECT set_config('app.current_tenant_id', 'a', false)"))
        await session.commit()
        assert (await tenants.notes.get(session, tenants.cache, id=1)).text == "of a"
        await session.execute(text("SELECT set_config('app.current_tenant_id', '', false)"))
        await session.commit()
    assert "stored" not in tenants.cache.stats.reasons


async def test_superuser_shares_nothing_with_tenants(tenants: Tenants) -> None:
    """A role that is bound by no policy has values of its own, even with the same context."""
    notes, cache = tenants.notes, tenants.cache
    assert len(await warm(tenants, lambda: notes.get_multi(tenants.admin, cache, folder=1))) == 2
    async with tenants.admin() as session:
        await set_rls_context(session, "a")
        assert len(await warm(tenants, lambda: notes.get_multi(session, cache, folder=1))) == 2
    with tenant("a"):
        assert len(await warm(tenants, lambda: notes.get_multi(tenants.factory, cache, folder=1))) == 1
    assert len(await notes.get_multi(tenants.admin, cache, folder=1)) == 2


async def test_tables_of_everybody_are_shared(tenants: Tenants) -> None:
    """A table without row-level security is cached once for all, with a tenant in the context and without."""
    crud, cache = tenants.countries, tenants.cache
    await warm(tenants, lambda: crud.get(tenants.factory, cache, id=1))
    with tenant("a"):
        assert (await count_of_hits(tenants, lambda: crud.get(tenants.factory, cache, id=1)))[1] == 1
    assert (await count_of_hits(tenants, lambda: crud.get(tenants.admin, cache, id=1)))[1] == 1


@pytest.mark.parametrize("writer", ["a", "another process", "superuser"])
async def test_writes_age_what_every_context_saw(tenants: Tenants, writer: str) -> None:
    """A write under one context drops what any other context has cached: rows, lists, and that there is no row."""
    notes, cache = tenants.notes, tenants.cache
    elsewhere = note_crud()

    async def seen() -> list[Any]:
        found = []
        for db, name in ((tenants.factory, "a"), (tenants.factory, "b"), (tenants.admin, None)):
            with tenant(name or "nobody"):
                row = await notes.get_or_none(db, cache, id=1)
                rows = await notes.get_multi(db, cache, folder=1)
                further = await notes.get_or_none(db, cache, id=1, text="new")
            found.append((row and row.text, [r.text for r in rows], further is not None))
        return found

    for _ in range(3):
        assert await seen() == [
            ("of a", ["of a"], False),
            (None, ["of b"], False),
            ("of a", ["of a", "of b"], False),
        ]
    crud = elsewhere if writer == "another process" else notes
    db = tenants.admin if writer == "superuser" else tenants.factory
    with tenant("a"):
        await crud.update(db, cache, NoteChange(text="new"), id=1)
    for _ in range(3):
        assert await seen() == [("new", ["new"], True), (None, ["of b"], False), ("new", ["new", "of b"], True)]
    with tenant("b"):
        made = await crud.create(db, cache, NoteIn(tenant_id="b", text="more"))
    for _ in range(2):
        assert (await seen())[1:] == [
            (None, ["of b", "more"], False),
            ("new", ["new", "of b", "more"], True),
        ]
    with tenant("b"):
        await crud.delete(db, cache, id=made.id)
    assert (await seen())[2] == ("new", ["new", "of b"], True)


async def test_row_that_changes_its_tenant_changes_hands(tenants: Tenants) -> None:
    """A row that is given to another tenant is gone for the first and there for the second, cached or not."""
    notes, cache = tenants.notes, tenants.cache
    mover = Crud(Note, NoteOut, pattern="note:id:{id}", update_schema=NoteIn)
    for name, there in (("a", True), ("b", False)):
        with tenant(name):
            for _ in range(3):
                assert (await notes.get_or_none(tenants.factory, cache, id=1) is not None) == there
    await mover.update(tenants.admin, cache, NoteIn(tenant_id="b", text="moved"), id=1)
    for name, there in (("a", False), ("b", True)):
        with tenant(name):
            for _ in range(3):
                assert (await notes.get_or_none(tenants.factory, cache, id=1) is not None) == there


async def test_changed_and_cleared_contexts_are_followed(tenants: Tenants) -> None:
    """Within one transaction, a session is served what its present tenant may see."""
    notes, cache = tenants.notes, tenants.cache
    for name, id in (("a", 1), ("b", 2)):
        with tenant(name):
            await warm(tenants, lambda id=id: notes.get(tenants.factory, cache, id=id))
    async with tenants.factory() as session, session.begin():
        for name, other, id in (("a", 2, 1), ("b", 1, 2), ("a", 2, 1)):
            await set_rls_context(session, name)
            assert (await notes.get(session, cache, id=id)).text == f"of {name}"
            assert await notes.get_or_none(session, cache, id=other) is None
        await clear_rls_context(session)
        assert await notes.get_or_none(session, cache, id=1) is None


async def test_written_value_is_not_put_where_everybody_reads(tenants: Tenants) -> None:
    """What a tenant writes is not put in place for those who see everything, and they read it from SQL."""
    notes, cache = tenants.notes, tenants.cache
    await warm(tenants, lambda: notes.get(tenants.admin, cache, id=1))
    with tenant("a"):
        written = await notes.update(tenants.factory, cache, NoteChange(text="new"), id=1)
    assert written.text == "new"
    found, hits = await count_of_hits(tenants, lambda: notes.get(tenants.admin, cache, id=1))
    assert (found.text, hits) == ("new", 0)


async def test_conditions_on_hidden_tables_keep_values_apart(tenants: Tenants) -> None:
    """A crud on a table of everybody, filtered by a table under row-level security, is cached for each tenant."""
    crud, cache = tenants.countries, tenants.cache
    for _ in range(3):
        for name, folder, there in (("a", 1, True), ("c", 1, False)):
            where = exists(select(Note.id).where(Note.folder == folder, Note.tenant_id != "x"))
            with tenant(name):
                found = await crud.get_or_none(tenants.factory, cache, where=where, id=1)
            assert (found is not None) == there
    where = exists(select(Note.id))
    assert await crud.get_or_none(tenants.factory, cache, where=where, id=1) is None
    assert await crud.get_or_none(tenants.admin, cache, where=where, id=1) is not None


async def test_views_of_hidden_tables_count_as_hidden(tenants: Tenants) -> None:
    """A model on a view that reads a table under row-level security is not cached without a tenant."""
    async with tenants.factory() as session:
        await session.execute(text("DROP TABLE countries"))
        await session.execute(text("CREATE VIEW inner_view AS SELECT * FROM notes"))
        await session.execute(text("CREATE VIEW countries AS SELECT id, text AS name FROM inner_view"))
        await session.commit()
    crud = Crud(Country, CountryOut, pattern="country:id:{id}")
    assert await crud.get_or_none(tenants.factory, tenants.cache, id=1) is None
    with tenant("a"):
        assert (await crud.get(tenants.factory, tenants.cache, id=1)).name == "of a"
    with tenant("b"), pytest.raises(NotFound):
        await crud.get(tenants.factory, tenants.cache, id=1)


async def test_database_is_asked_once(tenants: Tenants) -> None:
    """Which tables hide rows is asked at a crud's first use of an engine, and not again."""
    asked: list[str] = []
    event.listen(
        tenants.engine.sync_engine,
        "before_cursor_execute",
        lambda *args: asked.append(args[2]) if "relrowsecurity" in args[2] else None,
    )
    for _ in range(3):
        await tenants.countries.get(tenants.factory, tenants.cache, id=1)
        async with tenants.factory() as session:
            await tenants.countries.get(session, tenants.cache, id=1)
    assert len(asked) == 1


async def test_question_needs_no_second_connection(tenants: Tenants) -> None:
    """A session whose transaction has the pool's only connection asks on it, and is still served from the cache."""
    engine = create_async_engine(tenants.url, pool_size=1, max_overflow=0, pool_timeout=0.5)
    await tenants.notes.count(async_sessionmaker(engine), tenants.cache, folder=1)  # from now on it is watched
    async with async_sessionmaker(engine)() as session, session.begin():
        await session.execute(select(Country))
        for _ in range(3):
            assert (await tenants.countries.get(session, tenants.cache, id=1)).name == "Chad"
    await engine.dispose()
    assert tenants.cache.stats.hits > 0


async def test_schemas_keep_values_apart(tenants: Tenants) -> None:
    """The same key in two tenants' schemas, and in ``public``, is three values, and writes age the right ones."""
    crud, cache = note_crud(), tenants.cache
    for name in ("x", "y"):
        async with tenants.factory() as session:
            await create_tenant_schema(session, name)
            await set_schema_search_path(session, name)
            await (await session.connection()).run_sync(Base.metadata.create_all, checkfirst=False)
            session.add(Note(tenant_id=name, folder=1, text=f"in {name}"))
            await session.commit()

    async def read(name: str, session: AsyncSession) -> tuple[str, list[str], int]:
        await set_schema_search_path(session, name)
        rows = await crud.get_multi(session, cache, folder=1)
        count = await crud.count(session, cache, folder=1)
        return (await crud.get(session, cache, id=1)).text, [row.text for row in rows], count

    for _ in range(3):
        for name in ("x", "y"):
            async with tenants.factory() as session:
                assert await read(name, session) == (f"in {name}", [f"in {name}"], 1)
        assert len(await crud.get_multi(tenants.admin, cache, folder=1)) == 2
    assert cache.stats.hits > 0
    async with tenants.factory() as session:
        await set_schema_search_path(session, "x")
        assert (await crud.update(session, cache, NoteChange(text="new"), id=1)).tenant_id == "x"
    for _ in range(3):
        for name, expected in (("x", "new"), ("y", "in y")):
            async with tenants.factory() as session:
                assert await read(name, session) == (expected, [expected], 1)
        assert (await crud.get(tenants.admin, cache, id=1)).text == "of a"


async def test_engines_with_search_paths_of_their_own_share_nothing(tenants: Tenants) -> None:
    """Engines whose connections look in different schemas from the start are never served each other's rows."""
    cache, engines = tenants.cache, []
    async with tenants.admin() as session:
        for name in ("x", "y"):
            await create_tenant_schema(session, name)
            await set_schema_search_path(session, name)
            await (await session.connection()).run_sync(Base.metadata.create_all, checkfirst=False)
            session.add(Note(tenant_id=name, folder=1, text=name))
            await session.commit()
    assert (await warm(tenants, lambda: tenants.notes.get(tenants.admin, cache, id=1))).text == "of a"
    for name in ("x", "y"):
        settings = {"search_path": f"tenant_{name}", "role": "none"}
        engines.append(create_async_engine(tenants.admin_engine.url, connect_args={"server_settings": settings}))
        sessions, crud = async_sessionmaker(engines[-1]), note_crud()
        assert (await warm(tenants, lambda c=crud, s=sessions: c.get(s, cache, id=1))).text == name
        (only,) = await warm(tenants, lambda c=crud, s=sessions: c.get_multi(s, cache, folder=1))
        assert only.text == name
        assert (await crud.update(sessions, cache, NoteChange(text=f"new {name}"), id=1)).text == f"new {name}"
    assert (await tenants.notes.get(tenants.admin, cache, id=1)).text == "of a"
    for engine in engines:
        await engine.dispose()


async def test_question_of_a_session_with_a_path_holds_for_all(tenants: Tenants) -> None:
    """What hides rows is known right even if a session in a tenant's schema asks first, in its transaction."""
    cache, crud = tenants.cache, note_crud()
    await tenants.countries.get(tenants.factory, cache, id=1)  # from now on the engine is watched
    async with tenants.factory() as session:
        await create_tenant_schema(session, "x")
        await set_schema_search_path(session, "x")
        await (await session.connection()).run_sync(Base.metadata.create_all, checkfirst=False)
        await session.commit()
        await session.execute(select(Country))
        assert await crud.get_multi(session, cache, folder=1) == []
    assert await crud.get_multi(tenants.factory, cache, folder=1) == []
    assert (await crud.explain(cache, tenants.factory, id=1)).state == "bypass: row-level security, and no tenant"
