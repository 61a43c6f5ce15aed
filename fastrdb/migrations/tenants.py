"""Migrations of tenants: of their tables under row-level security, and of a schema for each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from alembic import context, op
from sqlalchemy import Connection, text

from ..errors import AlembicError
from ..tenancy.names import DEFAULT_PREFIX, TenantId, checked_schema, quoted, tenant_schema
from .operations import CreateTenantPolicyOp, EnableRLSOp, create_schema_if_not_exists


class MigrationHelpers:
    """What migrations of tenants do again and again; each works in ``upgrade()``, online and offline."""

    @staticmethod
    def create_tenant_schema(tenant_id: TenantId, schema_prefix: str = DEFAULT_PREFIX) -> str:
        """Create a tenant's schema, if there is none, and give its name.

        Raises:
            SchemaNameRefused: The id cannot be part of a schema's name.
        """
        name = tenant_schema(tenant_id, schema_prefix)
        create_schema_if_not_exists(name)
        return name

    @staticmethod
    def setup_tenant_rls(
        table: str, tenant_column: str = "tenant_id", schema: str | None = None, *, type_: str = "text"
    ) -> None:
        """Enable row-level security, and create the policy that shows a tenant its rows.

        Args:
            table, schema: Where.
            tenant_column: Says whose the row is.
            type_: Its type as SQL, without a length.
        """
        op.invoke(EnableRLSOp(table, schema))
        op.invoke(CreateTenantPolicyOp(table, tenant_column, type_, None, schema))

    @staticmethod
    def create_indexes_for_tenant_aware_table(
        table: str,
        tenant_column: str = "tenant_id",
        columns: Iterable[str] = ("created_at",),
        schema: str | None = None,
    ) -> list[str]:
        """Create an index by tenant, and one by tenant and each of these columns; give their names.

        Each is named ``ix_<table>_<columns>``.
        """
        names = []
        for by in ([tenant_column], *([tenant_column, column] for column in columns)):
            names.append("_".join(["ix", table, *by]))
            op.create_index(names[-1], table, by, schema=schema)
        return names


def migrate_tenant_schemas(connection: Connection, schemas: Iterable[str], **options: Any) -> list[str]:
    """Run the migrations in each schema, one transaction for each, and give the schemas' names; for ``env.py``.

    Each schema has a version table of its own, and the search path is that schema, then ``public``.

    Args:
        connection: To PostgreSQL, without an open transaction.
        schemas: Such as ``list_tenant_schemas`` gives.
        options: Of ``context.configure``.

    Raises:
        AlembicError: The connection has a transaction open. Schemas that were done before a failure stay done.
        SchemaNameRefused: A name cannot be that of a schema.
    """
    if connection.in_transaction():
        raise AlembicError("connection: it has a transaction open; commit it first")
    done = []
    for schema in map(checked_schema, schemas):
        with connection.begin():
            path = f"{quoted(schema)}, public"
            connection.execute(text("SELECT set_config('search_path', :path, true)"), {"path": path})
            context.configure(connection=connection, version_table_schema=schema, **options)
            context.run_migrations()
        done.append(schema)
    return done
