"""A schema per tenant: which schemas a session finds its tables in."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ..db.session_settings import settings_of, tell
from ..errors import SchemaManagementError, TenancyError
from .names import DEFAULT_PREFIX, TenantId, checked_name, quoted, tenant_schema

SETTING = "search_path"


async def set_schema_search_path(
    session: AsyncSession,
    tenant_id: TenantId,
    schema_prefix: str = DEFAULT_PREFIX,
    include_public: bool = True,
    additional_schemas: Iterable[str] = (),
) -> str:
    """Let the session find its tables in the tenant's schema in all of its transactions; give that schema's name.

    The search path is then ``tenant_{id}``, *additional_schemas*, ``public``. It ends with each transaction and is
    set again in the next, until ``reset_schema_search_path`` or the session's end: no pool hands it on. It is part of
    every cache key of the session. Tables whose metadata names a schema are not looked for.

    Args:
        session: On PostgreSQL, not inside ``begin_nested()``.
        tenant_id: Text, a whole number or a UUID; with the prefix at most 63 bytes of letters, digits, ``_``, ``-``.
        schema_prefix: What leads the names of all tenants' schemas.
        include_public: Look in ``public`` last.
        additional_schemas: Further schemas, looked through after the tenant's.

    Raises:
        SchemaNameRefused: A name cannot be that of a tenant's schema.
        SchemaManagementError: The session is on another database, in AUTOCOMMIT, or inside ``begin_nested()``.
    """
    name = tenant_schema(tenant_id, schema_prefix)
    path = [name, *map(checked_name, additional_schemas), *(["public"] if include_public else [])]
    await _tell(session, ", ".join(map(quoted, dict.fromkeys(path))))
    return name


async def reset_schema_search_path(session: AsyncSession) -> None:
    """Let the session find its tables where the role, the database or the server says.

    Raises:
        SchemaManagementError: As ``set_schema_search_path``.
    """
    await _tell(session, None)


async def get_schema_search_path(session: AsyncSession) -> str | None:
    """Give the search path as SQL: what the database says in a transaction, else what will be set, or ``None``.

    Raises:
        SchemaManagementError: The transaction is one of another database.
    """
    if not session.in_transaction():
        return dict(settings_of(session)).get(SETTING)
    if session.get_bind().dialect.name != "postgresql":
        raise SchemaManagementError("db: schemas per tenant need PostgreSQL")
    found: str = (await session.execute(select(func.current_setting(SETTING)))).scalar_one()
    return found


async def _tell(session: AsyncSession, path: str | None) -> None:
    try:
        await tell(session, {SETTING: path})
    except TenancyError as error:
        raise SchemaManagementError(str(error)) from error
