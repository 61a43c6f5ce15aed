"""Row-level security: what a session tells the database, for how long, and who is bound by policies."""

from collections.abc import AsyncIterator
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fastrdb.errors import ContextRefused, RLSError
from fastrdb.tenancy import (
    RLSBypassWarning,
    RLSPolicyManager,
    check_rls,
    clear_rls_context,
    get_rls_context,
    set_rls_context,
)
from tests.tenants import Note, Tenants, opened


@pytest.fixture
async def tenants(postgres_url: str, valkey_url: str) -> AsyncIterator[Tenants]:
    """Two tenants, a note of each, and a pool of one connection, so that what leaks is seen."""
    async with opened(postgres_url, valkey_url, pool_size=1, max_overflow=0, pool_timeout=5) as tenants:
        yield tenants


async def test_dm_9_context_outlives_a_commit(tenants: Tenants) -> None:
    """A session keeps its tenant after COMMIT and after ROLLBACK."""
    async with tenants.factory() as session:
        await set_rls_context(session, "a")
        assert await tenants.texts(session) == ["of a"]
        await session.commit()
        assert await tenants.texts(session) == ["of a"]
        await session.rollback()
        assert await tenants.texts(session) == ["of a"]


async def test_dm_9_owner_is_bound(tenants: Tenants) -> None:
    """The role that owns the table sees no rows without a tenant, and its tenant's with one."""
    async with tenants.factory() as session:
        assert await check_rls(session, Note) == []
        assert await tenants.texts(session) == []
        await set_rls_context(session, "b")
        assert await tenants.texts(session) == ["of b"]


async def test_dm_9_superuser_is_warned_of(tenants: Tenants) -> None:
    """A superuser, whom no policy binds, is told so."""
    async with tenants.admin() as session:
        await set_rls_context(session, "a")
        assert await tenants.texts(session) == ["of a", "of b"]
        with pytest.warns(RLSBypassWarning, match="superuser"):
            (said,) = await check_rls(session, "notes")
    assert "connect as an ordinary role" in said


async def test_owner_without_force_is_warned_of(tenants: Tenants) -> None:
    """The owner of a table without FORCE is told that it is not bound; so is everybody where nothing is enabled."""
    async with tenants.factory() as session:
        manager = RLSPolicyManager(session)
        await manager.enable_rls("public.notes", force=False)
        with pytest.warns(RLSBypassWarning, match="owns the table"):
            await check_rls(session, Note)
        await manager.disable_rls(Note.__table__)
        with pytest.warns(RLSBypassWarning, match="not enabled"):
            await check_rls(session, Note)
        with pytest.raises(RLSError, match="no such table"):
            await check_rls(session, "nothing")


async def test_nothing_is_left_in_the_pool(tenants: Tenants) -> None:
    """The next session on the same connection has no tenant, whatever became of the last one's transaction."""
    for end in ("commit", "rollback", "close"):
        async with tenants.factory() as session:
            await set_rls_context(session, "a", user_id=7)
            assert await tenants.texts(session) == ["of a"]
            await getattr(session, end)()
        async with tenants.factory() as session:
            assert await tenants.texts(session) == []
            assert set((await get_rls_context(session)).values()) == {None}


async def test_closed_session_forgets(tenants: Tenants) -> None:
    """A session that is closed and used again has no tenant, whether or not a transaction was open."""
    for used in (True, False):
        session = tenants.factory()
        await set_rls_context(session, "a")
        if used:
            assert await tenants.texts(session) == ["of a"]
        await session.close()
        assert await tenants.texts(session) == []
        await session.close()


async def test_context_is_whole(tenants: Tenants) -> None:
    """All five settings are made, in the database's own words, and a second call replaces all of them."""
    async with tenants.factory() as session:
        await set_rls_context(session, UUID(int=1), 7, "10.0.0.1", "r-1", "s-1")
        expected = {
            "tenant_id": "00000000-0000-0000-0000-000000000001",
            "user_id": "7",
            "client_ip": "10.0.0.1",
            "request_id": "r-1",
            "session_id": "s-1",
        }
        assert not session.in_transaction()
        assert await get_rls_context(session) == expected
        names = ["app.current_tenant_id", "app.current_user_id", "app.client_ip", "app.request_id", "app.session_id"]
        found = [await session.scalar(text(f"SELECT current_setting('{name}')")) for name in names]
        assert found == list(expected.values())
        await set_rls_context(session, "b")
        assert await get_rls_context(session) == dict.fromkeys(expected) | {"tenant_id": "b"}


async def test_clearing_works_at_once_and_for_good(tenants: Tenants) -> None:
    """A cleared context is gone in the open transaction and in the next one."""
    async with tenants.factory() as session:
        await set_rls_context(session, "a")
        assert await tenants.texts(session) == ["of a"]
        await clear_rls_context(session)
        assert await tenants.texts(session) == []
        await session.commit()
        assert await tenants.texts(session) == []
        assert set((await get_rls_context(session)).values()) == {None}


async def test_context_begins_no_transaction(tenants: Tenants) -> None:
    """After setting a context, the session can still be begun by the caller."""
    async with tenants.factory() as session:
        await set_rls_context(session, "a")
        async with session.begin():
            assert await tenants.texts(session) == ["of a"]
            async with session.begin_nested() as savepoint:
                assert await tenants.texts(session) == ["of a"]
                await savepoint.rollback()
            assert await tenants.texts(session) == ["of a"]


async def test_context_is_not_changed_in_a_savepoint(tenants: Tenants) -> None:
    """Inside a savepoint, whose rollback would take it back unnoticed, a context is not changed."""
    async with tenants.factory() as session, session.begin():
        await set_rls_context(session, "a")
        async with session.begin_nested():
            with pytest.raises(RLSError, match="begin_nested"):
                await set_rls_context(session, "b")
            assert await tenants.texts(session) == ["of a"]


async def test_rows_of_others_cannot_be_written(tenants: Tenants) -> None:
    """A tenant can neither write rows of another, nor change or delete them."""
    async with tenants.factory() as session:
        await set_rls_context(session, "a")
        with pytest.raises(DBAPIError, match="row-level security"):
            await session.execute(text("INSERT INTO notes (tenant_id, folder, text) VALUES ('b', 1, 'forged')"))
        await session.rollback()
        for statement in ("UPDATE notes SET text = 'forged' WHERE id = 2", "DELETE FROM notes WHERE id = 2"):
            assert (await session.execute(text(statement))).rowcount == 0  # type: ignore[attr-defined]  # a CursorResult


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("", "empty"),
        ("  ", "empty"),
        (None, "None"),
        (True, "bool"),
        (1.5, "float"),
        ("a\0b", "NUL"),
        ("\ud800", "half"),
    ],
)
async def test_bad_tenants_are_refused(tenants: Tenants, given: object, problem: str) -> None:
    """What is no tenant is refused by a typed error before anything is sent, and the old context stays."""
    async with tenants.factory() as session:
        await set_rls_context(session, "a")
        with pytest.raises(ContextRefused, match=problem):
            await set_rls_context(session, given)  # type: ignore[arg-type]  # on purpose
        assert await tenants.texts(session) == ["of a"]


@pytest.mark.parametrize("tenant", ["o'brien", "a, b", "ünï ©", "x" * 100, '"; DROP TABLE notes; --', "a', true) --"])
async def test_any_text_is_a_tenant(tenants: Tenants, tenant: str) -> None:
    """Quotes, commas, unicode and length do no harm: the tenant is compared as it is."""
    async with tenants.admin() as admin:
        admin.add(Note(tenant_id=tenant, folder=1, text="odd"))
        await admin.commit()
    async with tenants.factory() as session:
        await set_rls_context(session, tenant)
        assert await tenants.texts(session) == ["odd"]


async def test_other_databases_are_refused(sqlite_url: str, postgres_url: str) -> None:
    """SQLite, and PostgreSQL in AUTOCOMMIT, are refused when the context is set."""
    for engine, problem in (
        (create_async_engine(sqlite_url), "PostgreSQL"),
        (create_async_engine(postgres_url, isolation_level="AUTOCOMMIT"), "AUTOCOMMIT"),
    ):
        async with AsyncSession(engine) as session:
            with pytest.raises(RLSError, match=problem):
                await set_rls_context(session, "a")
        await engine.dispose()


async def test_policies_are_managed(tenants: Tenants) -> None:
    """Policies can be created again and dropped again; a user's narrows a tenant's; unknown columns are named."""
    async with tenants.factory() as session:
        manager = RLSPolicyManager(session)
        assert await manager.create_tenant_policy(Note) == "notes_tenant"
        assert await manager.create_user_policy(Note, "text", 'odd "name"') == 'odd "name"'
        await set_rls_context(session, "a")
        assert await tenants.texts(session) == []
        await set_rls_context(session, "a", user_id="of b")
        assert await tenants.texts(session) == []
        await set_rls_context(session, "a", user_id="of a")
        assert await tenants.texts(session) == ["of a"]
        for _ in range(2):
            await manager.drop_policy(Note, 'odd "name"')
        await set_rls_context(session, "a")
        assert await tenants.texts(session) == ["of a"]
        with pytest.raises(RLSError, match="no column 'owner'"):
            await manager.create_user_policy(Note, "owner")


async def test_long_tenant_is_not_cut_to_the_columns_length(tenants: Tenants) -> None:
    """A tenant that begins like another, and is longer than the column, is not taken for it."""
    async with tenants.factory() as session:
        for column in ("varchar(3)", "char(3)"):
            await session.execute(text(f"CREATE TABLE short (tenant_id {column})"))
            await session.execute(text("INSERT INTO short VALUES ('abc')"))
            manager = RLSPolicyManager(session)
            await manager.enable_rls("short")
            await manager.create_tenant_policy("short")
            for tenant, count in (("abc", 1), ("abcd", 0), ("ab", 0)):
                await set_rls_context(session, tenant)
                assert await session.scalar(text("SELECT count(*) FROM short")) == count
            await session.execute(text("DROP TABLE short"))


async def test_context_of_a_uuid_column(tenants: Tenants) -> None:
    """A policy compares in the column's own type; without a tenant it shows nothing instead of failing."""
    async with tenants.factory() as session:
        await session.execute(text("CREATE TABLE things (tenant_id uuid)"))
        await session.execute(text(f"INSERT INTO things VALUES ('{UUID(int=1)}'), ('{UUID(int=2)}')"))
        manager = RLSPolicyManager(session)
        await manager.enable_rls("things")
        await manager.create_tenant_policy("things")
        await session.commit()
        count = text("SELECT count(*) FROM things")
        await set_rls_context(session, UUID(int=2))
        assert await session.scalar(count) == 1
        await session.commit()
        await clear_rls_context(session)
        assert await session.scalar(count) == 0


async def test_sessions_of_several_factories_do_not_mix(tenants: Tenants) -> None:
    """Two sessions of one factory, side by side, each keep their own tenant."""
    engine = create_async_engine(tenants.url)
    factory = async_sessionmaker(engine)
    async with factory() as one, factory() as other:
        await set_rls_context(one, "a")
        await set_rls_context(other, "b")
        assert await tenants.texts(one) == ["of a"]
        assert await tenants.texts(other) == ["of b"]
        assert await tenants.texts(one) == ["of a"]
    await engine.dispose()
