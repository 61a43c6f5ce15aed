"""Alembic: URLs, filters, hooks, operations that autogenerate writes, and migrations of each tenant's schema."""

import inspect
import io
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata, produce_migrations, render_python_code
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, Table, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb.errors import AlembicError
from fastrdb.migrations import get_alembic_config_url, include_object, run_post_migration_hooks
from fastrdb.tenancy import create_tenant_schema, list_tenant_schemas, set_schema_search_path


class Base(DeclarativeBase):
    """The tables of these tests."""


class Note(Base):
    """A table under row-level security."""

    __tablename__ = "notes"
    __table_args__ = {"info": {"rls": {"tenant_column": "tenant_id"}}}
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    created_at: Mapped[int]


class Country(Base):
    """A table of everybody."""

    __tablename__ = "countries"
    id: Mapped[int] = mapped_column(primary_key=True)


ENVIRONMENT = """
from alembic import context
from fastrdb.migrations import get_alembic_config_url, include_object, migrate_tenant_schemas
from tests.integration.test_migrations import Base

config = context.config
config.set_main_option("sqlalchemy.url", get_alembic_config_url())

def include_object_callback(object, name, type_, reflected, compare_to):
    return include_object(
        object, name, type_, reflected, compare_to,
        skip_schemas={"information_schema", "pg_catalog"},
        skip_views=True
    )

options = {"target_metadata": Base.metadata, "include_object": include_object_callback}
if context.is_offline_mode():
    context.configure(url=config.get_main_option("sqlalchemy.url"), literal_binds=True, **options)
    with context.begin_transaction():
        context.run_migrations()
elif "schemas" in config.attributes:
    migrate_tenant_schemas(config.attributes["connection"], config.attributes["schemas"], **options)
else:
    context.configure(connection=config.attributes["connection"], **options)
    with context.begin_transaction():
        context.run_migrations()
"""
TEMPLATE = """
from alembic import op
import sqlalchemy as sa
revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
def upgrade():
    ${upgrades if upgrades else "pass"}
def downgrade():
    ${downgrades if downgrades else "pass"}
"""
HELPERS = """
from alembic import op
import sqlalchemy as sa
from fastrdb.migrations import (
    MigrationHelpers, create_rls_policy, create_schema_if_not_exists, drop_schema_if_exists, enable_rls_on_table
)
revision = "by_hand"
down_revision = {down!r}
def upgrade():
    create_schema_if_not_exists("extra")
    MigrationHelpers.create_tenant_schema("acme")
    op.create_table("things", sa.Column("tenant_id", sa.Uuid), sa.Column("created_at", sa.Integer), schema="extra")
    MigrationHelpers.setup_tenant_rls("things", schema="extra", type_="uuid")
    MigrationHelpers.create_indexes_for_tenant_aware_table("things", schema="extra")
    enable_rls_on_table("countries")
    create_rls_policy("countries", "odd", "id::text <> ':no'")
def downgrade():
    op.drop_tenant_policy("things", type_="uuid", schema="extra")
    op.disable_rls("countries")
    op.execute("DROP POLICY odd ON countries")
    drop_schema_if_exists("extra", cascade=True)
    drop_schema_if_exists("tenant_acme")
"""


@pytest.fixture
async def engine(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[AsyncEngine]:
    """An empty database, which the environment names."""
    monkeypatch.setenv("DATABASE_URL", postgres_url)
    engine = create_async_engine(postgres_url)
    yield engine
    await engine.dispose()


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """Scripts of migrations, none yet, with the environment that the documentation shows."""
    (tmp_path / "versions").mkdir()
    (tmp_path / "env.py").write_text(ENVIRONMENT)
    (tmp_path / "script.py.mako").write_text(TEMPLATE)
    config = Config(output_buffer=io.StringIO(), stdout=io.StringIO())
    config.set_main_option("script_location", str(tmp_path))
    config.set_main_option("path_separator", "os")
    return config


async def run(engine: AsyncEngine, config: Config, work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Run a command of Alembic's on a connection."""

    def on(connection: Connection) -> Any:
        config.attributes["connection"] = connection
        found = work(config, *arguments, **options)
        connection.commit()
        return found

    async with engine.connect() as connection:
        return await connection.run_sync(on)


def differences(connection: Connection) -> Any:
    """What autogenerate would still change."""
    return compare_metadata(MigrationContext.configure(connection), Base.metadata)


async def state(engine: AsyncEngine) -> tuple[list[str], list[str]]:
    """The tables under row-level security, and the policies."""
    async with engine.connect() as connection:
        tables = await connection.execute(
            text("SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity ORDER BY 1")
        )
        policies = await connection.execute(text("SELECT policyname FROM pg_policies ORDER BY 1"))
        return list(tables.scalars()), list(policies.scalars())


async def test_autogenerate_writes_row_level_security(engine: AsyncEngine, config: Config) -> None:
    """What autogenerate writes creates tables and policies, leaves no difference, and goes down and up again."""
    await run(engine, config, command.revision, "first", autogenerate=True)
    (script,) = ScriptDirectory.from_config(config).walk_revisions()
    written = inspect.getsource(script.module)
    assert "op.enable_rls('notes')" in written
    assert "op.create_tenant_policy('notes', column='tenant_id', type_='text', policy_name='notes_tenant')" in written
    for _ in range(2):
        await run(engine, config, command.upgrade, "head")
        async with engine.connect() as connection:
            assert await connection.run_sync(differences) == []
        assert await state(engine) == (["notes"], ["notes_tenant"])
        await run(engine, config, command.check)
        await run(engine, config, command.downgrade, "base")
        assert await state(engine) == ([], [])


async def test_missing_security_is_a_difference(engine: AsyncEngine) -> None:
    """A table that was created without its policy is found, and the operations undo each other."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        found = await connection.run_sync(differences)
        assert [(name, table) for name, table, _ in found] == [
            ("enable_rls", "notes"),
            ("create_tenant_policy", "notes"),
        ]
        produced = await connection.run_sync(lambda c: produce_migrations(MigrationContext.configure(c), Base.metadata))
    assert produced.downgrade_ops is not None
    undone = render_python_code(produced.downgrade_ops)
    assert undone.index("op.drop_tenant_policy('notes'") < undone.index("op.disable_rls('notes')")


async def test_helpers_work_in_migrations(engine: AsyncEngine, config: Config) -> None:
    """The helpers do in a migration what they say, and it can be undone and done again."""
    await run(engine, config, command.revision, "first", autogenerate=True)
    scripts = ScriptDirectory.from_config(config)
    head = scripts.get_current_head()
    (Path(scripts.versions) / "by_hand.py").write_text(HELPERS.format(down=head))
    for _ in range(2):
        await run(engine, config, command.upgrade, "head")
        assert await state(engine) == (["countries", "notes", "things"], ["notes_tenant", "odd", "things_tenant"])
        async with engine.connect() as connection:
            indexes = await connection.execute(text("SELECT indexname FROM pg_indexes WHERE schemaname = 'extra'"))
            assert sorted(indexes.scalars()) == ["ix_things_tenant_id", "ix_things_tenant_id_created_at"]
            schemas = await connection.execute(text("SELECT 1 FROM pg_namespace WHERE nspname = 'tenant_acme'"))
            assert schemas.scalars().all() == [1]
        await run(engine, config, command.downgrade, "-1")
        assert await state(engine) == (["notes"], ["notes_tenant"])


async def test_offline_sql_is_complete(engine: AsyncEngine, config: Config) -> None:
    """What ``alembic upgrade --sql`` writes, sent as it is, does the same as an upgrade; so does the downgrade's."""
    await run(engine, config, command.revision, "first", autogenerate=True)
    head = ScriptDirectory.from_config(config).get_current_head()
    (Path(ScriptDirectory.from_config(config).versions) / "by_hand.py").write_text(HELPERS.format(down=head))
    async with engine.begin() as connection:
        await connection.execute(text("DROP TABLE IF EXISTS alembic_version"))  # which writing a revision makes
    for work, span in ((command.upgrade, "head"), (command.downgrade, "by_hand:base")):
        config.output_buffer = io.StringIO()
        work(config, span, sql=True)
        async with engine.connect() as connection:
            raw: Any = (await connection.get_raw_connection()).driver_connection
            await raw.execute(config.output_buffer.getvalue())
        if work is command.upgrade:
            async with engine.connect() as connection:
                assert await connection.run_sync(differences) == []
    assert await state(engine) == ([], [])


async def test_each_tenants_schema_is_migrated(engine: AsyncEngine, config: Config) -> None:
    """Each schema gets the tables and a version of its own, and a schema that is made later catches up."""
    await run(engine, config, command.revision, "first", autogenerate=True)
    for count in (1, 2, 3):
        async with AsyncSession(engine) as session:
            await create_tenant_schema(session, count)
            await session.commit()
            config.attributes["schemas"] = await list_tenant_schemas(session)
        await run(engine, config, command.upgrade, "head")
    async with AsyncSession(engine) as session:
        for tenant in (1, 2, 3):
            await set_schema_search_path(session, tenant, include_public=False)
            assert await session.scalar(text("SELECT count(*) FROM notes")) == 0
            assert await session.scalar(text("SELECT count(*) FROM alembic_version")) == 1
        assert await session.scalar(text("SELECT to_regclass('public.notes')")) is None
    assert await state(engine) == (["notes"] * 3, ["notes_tenant"] * 3)
    await run(engine, config, command.downgrade, "base")
    assert await state(engine) == ([], [])


async def test_open_transaction_is_refused(engine: AsyncEngine, config: Config) -> None:
    """Tenants' schemas are migrated one by one, and so not in a transaction of the caller's."""
    await run(engine, config, command.revision, "first", autogenerate=True)
    config.attributes["schemas"] = ["tenant_x"]
    async with engine.begin() as connection:
        config.attributes["connection"] = connection.sync_connection
        with pytest.raises(AlembicError, match="transaction open"):
            await connection.run_sync(lambda _: command.upgrade(config, "head"))


def test_url_is_the_explicit_one_first() -> None:
    """An explicit URL wins over the environment's, and that over the fallback; none at all is an error."""
    environ = {"DATABASE_URL": "postgresql://env/db"}
    assert get_alembic_config_url("sqlite://", environ=environ, fallback="mysql://x/y") == "sqlite://"
    assert get_alembic_config_url(environ=environ, fallback="mysql://x/y") == "postgresql://env/db"
    assert get_alembic_config_url(environ={}, fallback="mysql://x/y") == "mysql://x/y"
    with pytest.raises(AlembicError, match="DATABASE_URL"):
        get_alembic_config_url(environ={})


def test_url_survives_the_configuration() -> None:
    """A password with a percent sign comes out of Alembic's configuration as it was, and is in no message."""
    url = "postgresql://u:p%40ss@h/db"
    config = Config()
    config.set_main_option("sqlalchemy.url", get_alembic_config_url(url))
    assert config.get_main_option("sqlalchemy.url") == url == get_alembic_config_url(url, escape=False)
    with pytest.raises(AlembicError, match="cannot be read") as caught:
        get_alembic_config_url("no url with secret")
    assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize("kind", ["table", "column", "index"])
def test_dm_10_skipped_schemas_are_skipped(kind: str) -> None:
    """A set of schemas may be given, and tables, columns and indexes inside of one are left out."""
    metadata = MetaData()
    Base.metadata.tables["notes"].to_metadata(metadata, schema="audit")
    Base.metadata.tables["notes"].to_metadata(metadata)

    def included(table: Table, **options: Any) -> bool:
        thing = table if kind == "table" else table.c.id
        return include_object(thing, "id", kind, False, None, **options)

    inside, outside = metadata.tables["audit.notes"], metadata.tables["notes"]
    assert not included(inside, skip_schemas={"audit"})
    assert included(outside, skip_schemas={"audit"})
    assert included(inside, skip_schemas={"pg_catalog"})
    assert not included(inside, schema_patterns={"tenant_*"})
    assert included(inside, schema_patterns={"tenant_*", "au*"})
    assert included(outside, schema_patterns={"tenant_*"})
    assert not included(inside, skip_tables={"audit.notes"})
    assert included(outside, skip_tables={"audit.notes"})
    assert not included(outside, skip_tables={"notes"})


def test_views_and_indexes_are_skipped() -> None:
    """Models of views are left out unless told otherwise; indexes by name."""
    view = Table("seen", MetaData(), info={"is_view": True})
    assert not include_object(view, "seen", "table", False, None)
    assert include_object(view, "seen", "table", False, None, skip_views=False)
    index = Table("t", MetaData())
    assert not include_object(index, "ix", "index", True, None, skip_indexes={"ix"})
    assert include_object(index, "ix2", "index", True, None, skip_indexes={"ix"})
    assert not include_object(None, "audit", "schema", True, None, skip_schemas={"audit"})


def test_hooks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules by name come first, then the files of the folder; a hook that fails is named, and ends it."""
    seen: list[tuple[str, str]] = []
    config = Config()
    config.attributes["seen"] = seen
    body = "def after_migration(config, revision):\n    config.attributes['seen'].append((__name__, revision))\n"
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    for path in (tmp_path / "by_name.py", hooks / "b.py", hooks / "a.py", hooks / "_left_out.py"):
        path.write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    assert run_post_migration_hooks(config, "r1", ["by_name"], hooks) == ["by_name", "a", "b"]
    assert [name.rpartition("_")[2] for name, _ in seen] == ["name", "a", "b"]
    assert {revision for _, revision in seen} == {"r1"}
    (hooks / "a.py").write_text("def after_migration(config, revision):\n    raise ValueError('oh')\n")
    with pytest.raises(AlembicError, match="hook a: ValueError: oh") as caught:
        run_post_migration_hooks(config, "r2", ["by_name"], hooks)
    assert isinstance(caught.value.__cause__, ValueError)
    assert seen[-1][1] == "r2"
    assert len(seen) == 4
    for wrong in ({"hook_modules": ["no_such_module"]}, {"hook_directory": tmp_path / "nowhere"}):
        with pytest.raises(AlembicError):
            run_post_migration_hooks(config, "r3", **wrong)  # type: ignore[arg-type]  # one of two


async def test_sqlite_has_no_policies(sqlite_url: str) -> None:
    """A database that is not PostgreSQL is not asked for policies: after creation nothing differs."""
    engine = create_async_engine(sqlite_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        assert await connection.run_sync(differences) == []
    await engine.dispose()
