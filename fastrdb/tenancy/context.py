"""Who a session works for, told to the database, whose row-level security policies read it."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from typing import Any, TypeAlias
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from ..db.session_settings import settings_of, tell
from ..errors import ContextRefused, RLSError, TenancyError

Value: TypeAlias = str | int | UUID | IPv4Address | IPv6Address

SETTINGS = {
    "tenant_id": "app.current_tenant_id",
    "user_id": "app.current_user_id",
    "client_ip": "app.client_ip",
    "request_id": "app.request_id",
    "session_id": "app.session_id",
}


async def set_rls_context(
    session: AsyncSession,
    tenant_id: Value,
    user_id: Value | None = None,
    client_ip: Value | None = None,
    request_id: Value | None = None,
    session_id: Value | None = None,
) -> None:
    """Tell the database, in every transaction of this session, for whom it works.

    The settings ``app.current_tenant_id``, ``app.current_user_id``, ``app.client_ip``, ``app.request_id`` and
    ``app.session_id`` are made in the open transaction, if there is one, and at the start of each further one, until
    ``clear_rls_context`` or the session's end. They end with the transaction: no pool hands them on. What is not given
    is empty. All that is given is part of every cache key of the session: a *request_id* gives each request entries of
    its own, so pass it only where a policy or a trigger reads it.

    Args:
        session: On PostgreSQL, not inside ``begin_nested()``.
        tenant_id: Text, a whole number or a UUID.
        user_id, client_ip, request_id, session_id: The same, or an address.

    Raises:
        ContextRefused: A value is empty or of another type, or has characters that PostgreSQL cannot take.
        RLSError: The session is on another database, in AUTOCOMMIT, or inside ``begin_nested()``.
    """
    given = dict(
        tenant_id=tenant_id, user_id=user_id, client_ip=client_ip, request_id=request_id, session_id=session_id
    )
    texts = {SETTINGS[name]: _text(name, value) for name, value in given.items()}
    if texts[SETTINGS["tenant_id"]] is None:
        raise ContextRefused("tenant_id is None: pass the tenant, or call clear_rls_context")
    await _tell(session, texts)


async def clear_rls_context(session: AsyncSession) -> None:
    """Take the context back: policies find no tenant any more, in the open transaction and in further ones.

    Raises:
        RLSError: As ``set_rls_context``.
    """
    await _tell(session, dict.fromkeys(SETTINGS.values()))


async def get_rls_context(session: AsyncSession) -> dict[str, str | None]:
    """Give ``tenant_id``, ``user_id``, ``client_ip``, ``request_id`` and ``session_id``; ``None`` for what is not set.

    In a transaction it is what the database says; outside of one, what the session will tell it in the next.

    Raises:
        RLSError: The transaction is one of another database.
    """
    if not session.in_transaction():
        known = dict(settings_of(session))
        return {name: known.get(setting) for name, setting in SETTINGS.items()}
    if session.get_bind().dialect.name != "postgresql":
        raise RLSError("db: row-level security needs PostgreSQL")
    columns: list[Any] = [func.current_setting(setting, True) for setting in SETTINGS.values()]
    found = (await session.execute(select(*columns))).one()
    return {name: value or None for name, value in zip(SETTINGS, found, strict=True)}


async def _tell(session: AsyncSession, changes: dict[str, str | None]) -> None:
    try:
        await tell(session, changes)
    except TenancyError as error:
        raise RLSError(str(error)) from error


def _text(name: str, value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int, UUID, IPv4Address, IPv6Address)):
        raise ContextRefused(f"{name}: {type(value).__name__}; pass text, a whole number or a UUID")
    text = str(value)
    if not text.strip():
        raise ContextRefused(f"{name} is empty: pass a value, or leave it out")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ContextRefused(f"{name}: it has half a character (a lone surrogate), which is no text") from error
    if "\0" in text:
        raise ContextRefused(f"{name}: it has a NUL character, which PostgreSQL cannot store")
    return text
