"""What a session tells PostgreSQL in each of its transactions: its tenant, its user, its search path.

A setting ends with the transaction it was made in, so that no pool, and no PgBouncer, hands it on to somebody else.
The session remembers it, and makes it again at the start of each further transaction, until it is closed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, TypeAlias
from weakref import ref

from sqlalchemy import ColumnElement, Connection, Engine, Select, event, func, literal, literal_column, select, text
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session, SessionTransaction

from ..errors import TenancyError
from .replicas import ReadWrite
from .sessions import SessionFactory, connections_of, isolation_of

Settings: TypeAlias = tuple[tuple[str, str], ...]
"""Names and values, in the order of the names."""

_KEY = "fastrdb_settings"


def settings_of(session: AsyncSession | Session) -> Settings:
    """Give what a session tells the database; nothing where nobody said anything."""
    found: Settings = session.info.get(_KEY, ())
    return found


async def tell(session: AsyncSession, changes: Mapping[str, str | None]) -> None:
    """Change settings of the open transaction, if there is one, and of all that the session begins from now on.

    What was set in a transaction is lost with its COMMIT or ROLLBACK, and made again in the next one.

    Args:
        session: On PostgreSQL.
        changes: Settings and their values; ``None`` takes one back: an ``app.`` one is then empty, and any other as
            the role, the database or the server has it.

    Raises:
        TenancyError: The session is on another database, inside ``begin_nested()``, or its engine is in AUTOCOMMIT.
    """
    await session.run_sync(_tell, changes)


def remember(session: Session, changes: Mapping[str, str | None]) -> None:
    """Make settings in every transaction that the session begins from now on."""
    merged: dict[str, str | None] = {**dict(settings_of(session)), **changes}
    session.info[_KEY] = tuple(sorted((name, value) for name, value in merged.items() if value is not None))
    if not event.contains(session, "after_begin", _on_begin):
        event.listen(session, "after_begin", _on_begin)
        for name in ("close", "reset", "invalidate"):
            # No event tells of a session that is closed without a transaction.
            vars(session)[name] = partial(_forgetting, ref(session), name)


def telling(factory: SessionFactory, settings: Settings) -> SessionFactory:
    """Give a factory whose sessions tell the database these settings; of a pair, a pair of such."""
    if isinstance(factory, ReadWrite):
        return factory.by(telling(factory.write, settings), telling(factory.read, settings))

    def opened() -> AsyncSession:
        session = factory()
        remember(session.sync_session, dict(settings))
        return session

    return opened


def _tell(session: Session, changes: Mapping[str, str | None]) -> None:
    if session.in_nested_transaction():
        # A rollback to the savepoint would take the setting back in the database, and not here.
        raise TenancyError("db: inside begin_nested(); change tenant, user or search path outside of it")
    _check(session)
    for connection in connections_of(session):
        _send(connection, changes.items())
    remember(session, changes)


def _check(session: Session) -> None:
    try:
        bind = session.get_bind()
    except UnboundExecutionError:
        return  # it has an engine for each model: each is looked at when it is used
    _check_bind(bind)


def _check_bind(bind: Engine | Connection) -> None:
    if bind.dialect.name != "postgresql":
        raise TenancyError(f"db: {bind.dialect.name} has no settings of a transaction; use PostgreSQL")
    if isolation_of(bind) == "AUTOCOMMIT":
        raise TenancyError("db: the engine is in AUTOCOMMIT, where a setting ends at once; use another isolation level")


def _send(connection: Connection, settings: Iterable[tuple[str, str | None]]) -> None:
    _check_bind(connection)
    # A plain SELECT: textual SQL would count as a write, and keep the session from the cache.
    columns: list[Any] = [
        func.set_config(name, _value(name, value), literal_column("true")) for name, value in settings
    ]
    if columns:
        connection.execute(select(*columns))


def _value(name: str, value: str | None) -> ColumnElement[str]:
    if value is not None or name.startswith("app."):
        return literal(value or "")
    known: Select[Any] = (
        select(literal_column("reset_val")).select_from(text("pg_settings")).where(literal_column("name") == name)
    )
    return known.scalar_subquery()


def _on_begin(session: Session, transaction: SessionTransaction, connection: Connection) -> None:
    if not transaction.nested and (settings := settings_of(session)):
        _send(connection, settings)


def _forgetting(of: ref[Session], way: str) -> None:
    session = of()
    assert session is not None
    session.info.pop(_KEY, None)
    getattr(type(session), way)(session)
