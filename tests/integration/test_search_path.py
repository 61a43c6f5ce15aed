"""A schema per tenant: the search path of a session, and schemas made, dropped, listed and copied."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from fastrdb.errors import SchemaManagementError, SchemaNameRefused
from fastrdb.tenancy import (
    copy_schema_structure,
    create_tenant_schema,
    drop_tenant_schema,
    get_schema_search_path,
    list_tenant_schemas,
    reset_schema_search_path,
    set_schema_search_path,
)

TEMPLATE = """
CREATE SCHEMA template;
CREATE TABLE public.kinds (id int PRIMARY KEY);
INSERT INTO public.kinds VALUES (1);
CREATE FUNCTION public.loud() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN NEW.name = upper(NEW.name); RETURN NEW; END $$;
CREATE TABLE template.teams (
    id serial PRIMARY KEY, name text NOT NULL UNIQUE CHECK (name <> ''),
    size int GENERATED ALWAYS AS (length(name)) STORED,
    kind int NOT NULL DEFAULT 1 REFERENCES public.kinds
);
CREATE TABLE template.members (
    id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    team int NOT NULL REFERENCES template.teams ON DELETE CASCADE, "odd Name" text
);
CREATE INDEX ON template.members (team);
CREATE VIEW template.crowded AS SELECT t.name, count(*) AS members FROM template.teams t JOIN template.members m
    ON m.team = t.id GROUP BY t.name;
CREATE TRIGGER louder BEFORE INSERT ON template.teams FOR EACH ROW EXECUTE FUNCTION public.loud();
ALTER TABLE template.members ENABLE ROW LEVEL SECURITY;
CREATE POLICY everybody ON template.members AS PERMISSIVE FOR SELECT TO PUBLIC
    USING (team IN (SELECT id FROM template.teams));
INSERT INTO template.teams (name) VALUES ('red'), ('blue');
INSERT INTO template.members (team, "odd Name") VALUES (1, 'ann'), (1, 'bob'), (2, 'cy')
"""


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    """A pool of one connection, so that what leaks is seen; schemas of tenants "x" and "y"."""
    engine = create_async_engine(postgres_url, pool_size=1, max_overflow=0, pool_timeout=5)
    async with AsyncSession(engine) as session:
        for tenant in ("x", "y"):
            name = await create_tenant_schema(session, tenant)
            await session.execute(text(f"CREATE TABLE {name}.things AS SELECT '{tenant}' AS owner"))
        await session.commit()
    yield engine
    await engine.dispose()


async def owners(session: AsyncSession) -> list[str]:
    """Whose things the session sees."""
    return list((await session.execute(text("SELECT owner FROM things"))).scalars())


async def test_dm_8_search_path_does_not_leak(engine: AsyncEngine) -> None:
    """The next session on the same connection has the server's path, whatever became of the last one's transaction."""
    for end in ("commit", "rollback", "close"):
        async with AsyncSession(engine) as session:
            assert await set_schema_search_path(session, "x") == "tenant_x"
            assert await owners(session) == ["x"]
            await getattr(session, end)()
        async with AsyncSession(engine) as session:
            assert await get_schema_search_path(session) is None
            with pytest.raises(DBAPIError, match="does not exist"):
                await owners(session)
            await session.rollback()
            assert await session.scalar(text("SHOW search_path")) == '"$user", public'


async def test_search_path_outlives_a_commit(engine: AsyncEngine) -> None:
    """A session keeps its path in further transactions, until it is reset, in the open transaction and for good."""
    async with AsyncSession(engine) as session:
        await set_schema_search_path(session, "x", additional_schemas=["tenant_y"])
        for _ in range(2):
            assert await owners(session) == ["x"]
            assert await get_schema_search_path(session) == '"tenant_x", "tenant_y", "public"'
            await session.commit()
        await set_schema_search_path(session, "y", include_public=False)
        assert await owners(session) == ["y"]
        assert await get_schema_search_path(session) == '"tenant_y"'
        await reset_schema_search_path(session)
        assert await get_schema_search_path(session) == '"$user", public'
        await session.commit()
        assert await session.scalar(text("SHOW search_path")) == '"$user", public'


@pytest.mark.parametrize("tenant", [UUID(int=1), "Ünï-2", "UPPER"])
async def test_dm_8_uuids_and_other_scripts(engine: AsyncEngine, tenant: Any) -> None:
    """A schema named by a UUID, with other scripts or capitals, is made, found, listed and dropped."""
    async with AsyncSession(engine) as session:
        name = await create_tenant_schema(session, tenant)
        assert await create_tenant_schema(session, tenant) == name == f"tenant_{tenant}"
        await set_schema_search_path(session, tenant)
        assert await session.scalar(text("SELECT current_schema()")) == name
        assert name in await list_tenant_schemas(session)
        assert await drop_tenant_schema(session, tenant)
        assert not await drop_tenant_schema(session, tenant)
        assert await list_tenant_schemas(session) == ["tenant_x", "tenant_y"]


@pytest.mark.parametrize("tenant", ["a, secret", 'x"; DROP SCHEMA tenant_y; --', "x" * 100, ""])
async def test_dm_8_no_injection(engine: AsyncEngine, tenant: str) -> None:
    """An id that would be more than a name is refused everywhere, before anything is sent."""
    async with AsyncSession(engine) as session:
        for work in (create_tenant_schema, drop_tenant_schema, set_schema_search_path):
            with pytest.raises(SchemaNameRefused):
                await work(session, tenant)  # type: ignore[operator]  # they share these arguments
        with pytest.raises(SchemaNameRefused):
            await set_schema_search_path(session, "x", additional_schemas=[tenant])
        assert not session.in_transaction()


async def test_full_schema_is_dropped_when_told(engine: AsyncEngine) -> None:
    """A schema with tables is dropped with ``cascade`` only, and a refusal leaves the transaction usable."""
    async with AsyncSession(engine) as session:
        with pytest.raises(SchemaManagementError, match="cascade=True"):
            await drop_tenant_schema(session, "x")
        assert await drop_tenant_schema(session, "x", cascade=True)
        assert await list_tenant_schemas(session) == ["tenant_y"]


async def test_schema_is_given_an_owner(engine: AsyncEngine) -> None:
    """A tenant's schema can be another role's, whatever its name."""
    async with AsyncSession(engine) as session:
        await session.execute(text('CREATE ROLE "odd ""role"'))
        await create_tenant_schema(session, "z", owner='odd "role')
        owner = "SELECT nspowner::regrole::text FROM pg_namespace WHERE nspname = 'tenant_z'"
        assert await session.scalar(text(owner)) == '"odd ""role"'


async def test_prefix_is_taken_literally(engine: AsyncEngine) -> None:
    """Listing by a prefix takes ``_`` and ``%`` for what they are, and an empty one leaves the server's schemas out."""
    async with AsyncSession(engine) as session:
        await create_tenant_schema(session, "x", schema_prefix="tenantX")
        assert await list_tenant_schemas(session) == ["tenant_x", "tenant_y"]
        assert await list_tenant_schemas(session, "") == ["tenantXx", "tenant_x", "tenant_y"]


async def test_other_databases_are_refused(sqlite_url: str) -> None:
    """SQLite has no schemas, and is refused."""
    engine = create_async_engine(sqlite_url)
    async with AsyncSession(engine) as session:
        for work in (create_tenant_schema, drop_tenant_schema, set_schema_search_path):
            with pytest.raises(SchemaManagementError, match="PostgreSQL"):
                await work(session, "x")  # type: ignore[operator]  # they share these arguments
        with pytest.raises(SchemaManagementError, match="PostgreSQL"):
            await list_tenant_schemas(session)
    await engine.dispose()


@pytest.fixture
async def template(engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """A session on a database with a schema that has a bit of everything."""
    async with AsyncSession(engine) as session:
        for statement in TEMPLATE.replace("NEW.name = upper(NEW.name); RETURN NEW; END", "§").split(";\n"):
            sql = statement.replace("§", "NEW.name = upper(NEW.name); RETURN NEW; END;")
            await (await session.connection()).exec_driver_sql(sql)
        await session.commit()
        yield session


async def test_structure_is_copied(template: AsyncSession) -> None:
    """A copy has tables, keys, defaults, views, triggers and policies of its own, no rows, and its own numbers."""
    assert await copy_schema_structure(template, "template", "tenant_new") == ["teams", "members"]
    assert await template.scalar(text("SHOW search_path")) == '"$user", public'
    await template.commit()
    await set_schema_search_path(template, "new")
    assert await template.scalar(text("SELECT count(*) FROM teams")) == 0
    await template.execute(text("INSERT INTO teams (name) VALUES ('green')"))
    assert (await template.execute(text("SELECT id, name, size, kind FROM teams"))).one() == (1, "GREEN", 5, 1)
    await template.execute(text('INSERT INTO members (team, "odd Name") VALUES (1, NULL)'))
    assert (await template.execute(text("SELECT * FROM crowded"))).one() == ("GREEN", 1)
    await template.execute(text("DELETE FROM teams"))
    assert await template.scalar(text("SELECT count(*) FROM members")) == 0
    assert await template.scalar(text("SELECT count(*) FROM template.members")) == 3
    policies = "SELECT tablename, policyname, qual FROM pg_policies WHERE schemaname = 'tenant_new'"
    ((table, policy, condition),) = (await template.execute(text(policies))).all()
    assert (table, policy) == ("members", "everybody")
    assert "template" not in condition
    for statement in ("INSERT INTO teams (name) VALUES ('')", "INSERT INTO members (team) VALUES (99)"):
        with pytest.raises(DBAPIError, match="violates"):
            async with template.begin_nested():
                await template.execute(text(statement))


async def test_rows_are_copied_when_told(template: AsyncSession) -> None:
    """With ``include_data`` the rows come along, generated columns aside, and numbers go on after theirs."""
    await copy_schema_structure(template, "template", "tenant_new", include_data=True)
    await set_schema_search_path(template, "new")
    assert list((await template.execute(text("SELECT size FROM teams ORDER BY id"))).scalars()) == [3, 4]
    await template.execute(text("INSERT INTO teams (name) VALUES ('green')"))
    assert await template.scalar(text("SELECT max(id) FROM teams")) == 3
    await template.execute(text("INSERT INTO members (team) VALUES (3)"))
    assert await template.scalar(text("SELECT max(id) FROM members")) == 4
    assert await template.scalar(text("SELECT nextval('template.teams_id_seq')")) == 3


async def test_what_cannot_be_copied_is_refused(template: AsyncSession) -> None:
    """A missing source, and one with functions, types or partitions, is refused, and nothing is made."""
    with pytest.raises(SchemaManagementError, match="does not exist"):
        await copy_schema_structure(template, "nowhere", "tenant_new")
    for statement, what in (
        ("CREATE TYPE template.mood AS ENUM ('ok')", "the type mood"),
        ("CREATE FUNCTION template.one() RETURNS int LANGUAGE sql AS 'SELECT 1'", "the function one"),
        ("CREATE TABLE template.parts (id int) PARTITION BY LIST (id)", "the relation parts"),
    ):
        async with template.begin_nested() as savepoint:
            await template.execute(text(statement))
            with pytest.raises(SchemaManagementError, match=what):
                await copy_schema_structure(template, "template", "tenant_new")
            await savepoint.rollback()
    assert await list_tenant_schemas(template) == ["tenant_x", "tenant_y"]
