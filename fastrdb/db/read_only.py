"""Sessions that cannot write, because the database refuses it.

PostgreSQL and MariaDB are told with each transaction, SQLite with each connection that such a session takes out, which
is told otherwise before the pool gets it back.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, PoolResetState, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Session

from ..errors import ConfigurationError
from .routing import ROUTING, Routing, RoutingSession

_QUERY_ONLY = "fastrdb_query_only"


def read_only_sessionmaker(sessions: async_sessionmaker[AsyncSession]) -> async_sessionmaker[AsyncSession]:
    """Give a factory like *sessions*, on the same pools, whose sessions the database lets only read.

    A write raises SQLAlchemy's error for what the database says, an ``OperationalError`` or another ``DBAPIError``.

    Raises:
        ConfigurationError: Its sessions choose their engine by themselves, in another way than a ``Routing``'s, or use
            something else than engines.
    """
    kind: type[Session] = sessions.kw.get("sync_session_class") or sessions.class_.sync_session_class
    changed: dict[str, Any] = {}
    if isinstance(routing := sessions.kw.get(ROUTING), Routing):
        changed[ROUTING] = Routing(
            read_only_engine(routing.primary),
            [read_only_engine(engine) for engine in routing.replicas],
            routing.read_your_writes_s,
        )
        changed["bind"] = changed[ROUTING].primary
    elif kind.get_bind is not Session.get_bind or issubclass(kind, RoutingSession):
        raise ConfigurationError(f"{kind.__name__} chooses its engine itself; pass a factory that is bound to one")
    else:
        changed["bind"] = _limited(sessions.kw.get("bind"))
        if sessions.kw.get("binds"):
            changed["binds"] = {entity: _limited(bind) for entity, bind in sessions.kw["binds"].items()}
    return async_sessionmaker(class_=sessions.class_, **{**sessions.kw, **changed})


def read_only_engine(engine: AsyncEngine) -> AsyncEngine:
    """Give an engine on the same pool whose transactions the database lets only read."""
    dialect = engine.dialect.name
    if dialect == "postgresql":
        return engine.execution_options(postgresql_readonly=True)
    limited = engine.execution_options()
    if dialect == "sqlite":
        event.listen(limited.sync_engine, "begin", _set_query_only)
        event.listen(engine.sync_engine, "reset", _unset_query_only)
    else:
        event.listen(limited.sync_engine, "begin", _begin_read_only)
    return limited


def _limited(bind: Any) -> AsyncEngine | None:
    if bind is None or isinstance(bind, AsyncEngine):
        return bind and read_only_engine(bind)
    raise ConfigurationError(f"read-only sessions need an AsyncEngine, not a {type(bind).__name__}")


def _send(connection: Any, statement: str) -> None:
    # Not by SQLAlchemy's connection, whose events would take it for a write.
    cursor = connection.cursor()
    cursor.execute(statement)
    cursor.close()


def _begin_read_only(connection: Connection) -> None:
    _send(connection.connection, "START TRANSACTION READ ONLY")


def _set_query_only(connection: Connection) -> None:
    connection.info[_QUERY_ONLY] = True
    _send(connection.connection, "PRAGMA query_only = ON")


def _unset_query_only(connection: Any, record: Any, state: PoolResetState) -> None:
    # A connection that was left to the garbage collector is not given back, but closed: nothing to await here.
    if record is not None and state.asyncio_safe and record.info.pop(_QUERY_ONLY, False):
        _send(connection, "PRAGMA query_only = OFF")
