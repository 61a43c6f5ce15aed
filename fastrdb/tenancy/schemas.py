"""The schemas of tenants: made, dropped, listed."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import SchemaManagementError
from .names import DEFAULT_PREFIX, TenantId, quoted, tenant_schema

_NOT_EMPTY = "2BP01"  # dependent_objects_still_exist
_EXISTS = text("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = :name)")
_LIST = text(
    "SELECT nspname FROM pg_namespace WHERE starts_with(nspname::text, :prefix) "
    "AND nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('information_schema', 'public') ORDER BY nspname"
)


async def create_tenant_schema(
    session: AsyncSession, tenant_id: TenantId, schema_prefix: str = DEFAULT_PREFIX, owner: str | None = None
) -> str:
    """Create the schema of a tenant, if there is none, and give its name; the caller commits.

    Args:
        session: On PostgreSQL.
        tenant_id, schema_prefix: As in ``set_schema_search_path``.
        owner: The role that is to own it; by default the one that is connected.

    Raises:
        SchemaNameRefused: The id cannot be part of a schema's name.
        SchemaManagementError: The session is on another database.
    """
    name = tenant_schema(tenant_id, schema_prefix)
    owned = f" AUTHORIZATION {quoted(owner)}" if owner is not None else ""
    await _send(session, f"CREATE SCHEMA IF NOT EXISTS {quoted(name)}{owned}")
    return name


async def drop_tenant_schema(
    session: AsyncSession, tenant_id: TenantId, schema_prefix: str = DEFAULT_PREFIX, cascade: bool = False
) -> bool:
    """Drop the schema of a tenant, and tell whether there was one; the caller commits.

    Args:
        session, tenant_id, schema_prefix: As in ``create_tenant_schema``.
        cascade: Also if there is something in it.

    Raises:
        SchemaNameRefused: The id cannot be part of a schema's name.
        SchemaManagementError: It is not empty; or the session is on another database. Nothing is dropped.
    """
    name = tenant_schema(tenant_id, schema_prefix)
    check_postgresql(session)
    if not (await session.execute(_EXISTS, {"name": name})).scalar_one():
        return False
    try:
        async with session.begin_nested():
            await _send(session, f"DROP SCHEMA {quoted(name)} {'CASCADE' if cascade else 'RESTRICT'}")
    except DBAPIError as error:
        if getattr(error.orig, "sqlstate", None) != _NOT_EMPTY:
            raise
        raise SchemaManagementError(f"schema {name!r} is not empty: pass cascade=True to drop all of it") from error
    return True


async def list_tenant_schemas(session: AsyncSession, schema_prefix: str = DEFAULT_PREFIX) -> list[str]:
    """Give the names of all schemas with the prefix, in order, but for ``public`` and PostgreSQL's own.

    Raises:
        SchemaManagementError: The session is on another database.
    """
    check_postgresql(session)
    return list((await session.execute(_LIST, {"prefix": schema_prefix})).scalars())


def check_postgresql(session: AsyncSession) -> None:
    """Refuse a session on another database."""
    if session.get_bind().dialect.name != "postgresql":
        raise SchemaManagementError("db: schemas per tenant need PostgreSQL")


async def _send(session: AsyncSession, statement: str) -> None:
    check_postgresql(session)
    await (await session.connection()).exec_driver_sql(statement)
