"""Sends SELECTs through the caller's session or one of our own, and says whether what came back may be cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import Connection, Executable, Row, Select, event, func
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session

from ..db.cursors import has_open_cursor
from ..db.replicas import UNREACHED, ReadWrite
from ..db.servers import cacheable, check
from ..db.session_settings import settings_of
from ..db.sessions import Place, SessionFactory, place_of
from ..errors import ReplicaRefused, SessionRefused
from ..writes.outcome import finish
from .integrity import read_only
from .nested import in_key_order
from .sides import Kind, Side, opened, replica_of

T = TypeVar("T")

_UNWRITTEN = (func.pg_current_xact_id_if_assigned().is_(None)) & (
    func.current_setting("transaction_isolation") == "read committed"
)


class _Loading(Session):
    """A session of ours, in which instances are loaded and made responses."""


event.listen(_Loading, "do_orm_execute", in_key_order)


class Query(NamedTuple):
    """A SELECT in its two forms.

    Attributes:
        plain: The columns that were asked for.
        checked: The same and, last, whether its transaction has written nothing and sees what is committed now.
        by_entity: Rows are built from mapped instances, in a session of their own.
        lock: It locks the rows that it reads; this does it on SQLite, where a SELECT cannot.
    """

    plain: Select[Any]
    checked: Select[Any]
    by_entity: bool = False
    lock: Executable | None = None

    @classmethod
    def of(cls, statement: Select[Any], *, by_entity: bool = False) -> Query:
        """Give both forms of a statement."""
        return cls(statement, statement.add_columns(_UNWRITTEN), by_entity)


class Fetched(NamedTuple):
    """What a SELECT gave.

    Attributes:
        rows: As *build* made them.
        refusal: Why they may not be cached; empty if they may.
        counted: What to count, where there is a replica.
    """

    rows: list[Any]
    refusal: str
    counted: str = ""


_NOT_FRESH = "the session's snapshot may be old, or has writes"
_LAGS = "a replica answered, or a server that may lag behind"


async def run_sync(session: AsyncSession, place: Place, work: Callable[..., T], *arguments: Any) -> T:
    """Run work that sends statements; on SQLite a caller that is cancelled waits for its end.

    There a statement goes on in its thread, and the locks of one that nobody has finished stay with its cursor, which
    the frames of the cancellation keep alive, whether or not the connection is closed. On MariaDB a statement goes on
    in the server, which is not told; where it commits by itself, that may be long after.
    """
    running = session.run_sync(work, *arguments)
    goes_on = place.dialect == "sqlite" or (place.dialect == "mysql" and place.autocommit)
    return await (finish(running) if goes_on else running)


async def fetch(
    db: AsyncSession | SessionFactory,
    place: Place,
    mapper: Mapper[Any],
    query: Query,
    parameters: Mapping[str, Any],
    build: Callable[[Row[Any]], Any],
) -> Fetched:
    """Run a SELECT and build its rows."""
    if isinstance(db, ReadWrite):
        return await _fetch_by_pair(db, place, mapper, query, parameters, build)
    async with opened(db, place, mapper) as side:
        return await run_sync(side.session, place, _fetch, side, mapper, query, parameters, build)


async def _fetch_by_pair(
    pair: ReadWrite,
    place: Place,
    mapper: Mapper[Any],
    query: Query,
    parameters: Mapping[str, Any],
    build: Callable[[Row[Any]], Any],
) -> Fetched:
    """Run a SELECT on the replica, if it may answer, or else on the primary."""
    side, count = await replica_of(pair, place, mapper)
    if side is not None:
        try:
            async with side.session as session:
                found = await session.run_sync(_fetch, side, mapper, query, parameters, build)
                return found._replace(counted="replica: answered")
        except UNREACHED as error:  # it may have ended the query, too, as one that stands in the way of its replay
            if not isinstance(error, DBAPIError) or error.connection_invalidated:
                pair.lost(error)
            count = "replica: failed"
    async with pair.write() as session:
        side = Side(session, place, Kind.PRIMARY)
        return (await run_sync(session, place, _fetch, side, mapper, query, parameters, build))._replace(counted=count)


def connect(session: Session, mapper: Mapper[Any]) -> Connection:
    """Give the session's connection for a mapper, with what is pending flushed, as the session's own queries do.

    Raises:
        SessionRefused: The server cannot do what fastrdb needs.
    """
    if session.autoflush:
        session.flush()  # which looks first whether there is anything
    connection = session.connection(bind_arguments={"mapper": mapper})
    check(connection.dialect)
    return connection


def _fetch(
    session: Session,
    side: Side,
    mapper: Mapper[Any],
    query: Query,
    parameters: Mapping[str, Any],
    build: Callable[[Row[Any]], Any],
) -> Fetched:
    place, kind = side.place, side.kind
    # A replica was asked something in its transaction, and nobody else has it.
    began = kind is Kind.REPLICA or not session.in_transaction()
    connection = connect(session, mapper)
    found = place_of(connection, place)
    if query.lock is not None:
        _lock(connection, query.lock, found)
    allowed = found.may_fill and not place.bound and found.identity == place.identity
    # Whose eyes saw a row is part of its key, and the role was asked of the expected engine.
    allowed = allowed and (found is place or not settings_of(session))
    lags = kind is not Kind.REPLICA and (allowed or kind is Kind.PRIMARY)
    lags = lags and not cacheable(connection, found.options.isolation)
    if lags and kind is Kind.PRIMARY:
        raise ReplicaRefused("write: the factory leads to a replica; pass one that leads to the primary")
    allowed = allowed and not lags
    checked = allowed and not began and found.dialect == "postgresql" and not found.autocommit
    idle = _idle(connection, found)
    try:
        rows = _rows(connection, query, checked, parameters, build)
    except DBAPIError as error:
        if query.lock is None or (refusal := read_only(error)) is None:
            raise
        raise refusal from error
    if found.dialect == "sqlite":
        alone = began and not found.shared and not has_open_cursor(connection)
        fresh = alone or (idle is not None and _idle(connection, found) == idle)
    else:
        fresh = began or found.autocommit or rows.unwritten
    return Fetched(rows.built, "" if allowed and fresh else _LAGS if lags else _NOT_FRESH)


def _lock(connection: Connection, lock: Executable, place: Place) -> None:
    if place.autocommit:
        raise SessionRefused("db: for_update on a connection in AUTOCOMMIT would lock nothing; use a transaction")
    if place.dialect == "sqlite":  # no row locks: an UPDATE of no row takes the database's
        connection.execute(lock)


class _Rows(NamedTuple):
    built: list[Any]
    unwritten: bool


def _rows(
    connection: Connection,
    query: Query,
    checked: bool,
    parameters: Mapping[str, Any],
    build: Callable[[Row[Any]], Any],
) -> _Rows:
    statement = query.checked if checked else query.plain
    if not query.by_entity:
        rows = connection.execute(statement, parameters).fetchall()
        return _Rows([build(row) for row in rows], _all_unwritten(rows, checked))
    with _Loading(bind=connection) as own:
        rows = own.execute(statement, parameters).fetchall()
        return _Rows([build(row) for row in rows], _all_unwritten(rows, checked))


def _all_unwritten(rows: Sequence[Row[Any]], checked: bool) -> bool:
    # No row, no such column: an empty result says nothing about its transaction.
    return checked and bool(rows) and all(row[-1] is True for row in rows)


def _idle(connection: Connection, place: Place) -> int | None:
    """Give a number that stays the same as long as nobody writes on SQLite's connection.

    ``None`` while one does, and where its snapshot may be old.
    """
    if place.dialect != "sqlite" or has_open_cursor(connection):
        return None
    driver: Any = connection.connection.driver_connection
    return None if driver.in_transaction else place.transactions.writes


def read_back(
    connection: Connection, query: Query, parameters: Mapping[str, Any], build: Callable[[Row[Any]], Any]
) -> list[Any]:
    """Read rows that the same transaction has just written."""
    return _rows(connection, query, False, parameters, build).built
