"""What a ``db`` argument is, whose transaction it is in, and what its snapshot may be used for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Mapper, Session, SessionTransactionOrigin

from ..errors import SessionRefused
from .transactions import Transactions, watch

SessionFactory: TypeAlias = Callable[[], AsyncSession]
Database: TypeAlias = AsyncSession | SessionFactory | async_scoped_session[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a session's statements go.

    Attributes:
        identity: Name of the database and its schema map: what two databases on one Redis differ in.
        dialect: Name of the dialect, ``"postgresql"`` or ``"sqlite"``.
        bound: The session is bound to a Connection, whose transaction is never ours.
        private: An in-memory database, which no other process can see.
        may_fill: Its isolation level lets a SELECT be cached at all.
        autocommit: Every statement commits by itself.
        transactions: What is known of its open transactions.
    """

    identity: bytes
    dialect: str
    bound: bool
    private: bool
    may_fill: bool
    autocommit: bool
    transactions: Transactions


class Places:
    """The places of sessions and factories seen so far, kept weakly."""

    def __init__(self) -> None:
        self._of_bind: WeakKeyDictionary[Any, Place] = WeakKeyDictionary()
        self._of_factory: WeakKeyDictionary[Any, Place] = WeakKeyDictionary()
        self.last: Place | None = None

    def of(self, db: AsyncSession | SessionFactory, mapper: Mapper[Any]) -> Place:
        """Give the place of a session's, or of a factory's, statements on a mapper."""
        self.last = self._find(db, mapper)
        return self.last

    def _find(self, db: AsyncSession | SessionFactory, mapper: Mapper[Any]) -> Place:
        if isinstance(db, AsyncSession):
            return self._of_session(db, mapper)
        try:
            known = self._of_factory.get(db)
        except TypeError:  # no weak reference to it: a built-in callable
            return self._of_session(_opened(db), mapper)
        if known is None:
            known = self._of_factory[db] = self._of_session(_opened(db), mapper)
        return known

    def _of_session(self, session: AsyncSession, mapper: Mapper[Any]) -> Place:
        bind = session.bind
        place = self._of_bind.get(bind) if bind is not None else None
        if place is not None:
            return place
        sync_bind = session.sync_session.get_bind(mapper)
        place = self._of_bind.get(sync_bind)
        if place is None:
            place = self._of_bind[sync_bind] = _place(sync_bind)
        if isinstance(bind, AsyncEngine) and bind.sync_engine is sync_bind:
            self._of_bind[bind] = place
        return place


def resolve(db: object) -> AsyncSession | SessionFactory:
    """Check a ``db`` argument, and give the session or the factory in it.

    Raises:
        SessionRefused: It is neither, or one that fastrdb cannot use; the message says what to pass.
    """
    if isinstance(db, (AsyncSession, async_sessionmaker)):
        if isinstance(db, AsyncSession) and db.sync_session.twophase:
            raise SessionRefused("db: a two-phase session; the cache cannot know its outcome. Use a plain AsyncSession")
        return db
    if isinstance(db, async_scoped_session):
        session: AsyncSession = db()
        return resolve(session)
    if db is None:
        raise SessionRefused("db is missing: pass an AsyncSession or an async_sessionmaker")
    refused = {
        Session: "a sync Session",
        AsyncConnection: "an AsyncConnection",
        AsyncEngine: "an AsyncEngine",
    }
    for kind, words in refused.items():
        if isinstance(db, kind):
            raise SessionRefused(f"db: {words}; pass an AsyncSession or an async_sessionmaker")
    if callable(db):
        return db
    raise SessionRefused(f"db: {type(db).__name__}; pass an AsyncSession or an async_sessionmaker")


def joins(session: AsyncSession) -> bool:
    """Tell whether the caller began the transaction, so that the caller commits it.

    An autobegun transaction counts as ours, as FastRDB has it.
    """
    sync = session.sync_session
    transaction = sync.get_transaction()
    if transaction is None:
        return False
    return transaction.origin is SessionTransactionOrigin.BEGIN or sync.in_nested_transaction()


def answers_from_cache(session: AsyncSession, place: Place) -> bool:
    """Tell whether the cache may answer for this session: it has nothing of its own that the cache lacks."""
    if place.bound:
        return False
    sync = session.sync_session
    if sync.new or sync.deleted or (sync.identity_map.check_modified() and sync.dirty):
        return False
    if not sync.in_transaction():
        return True
    for connection in _connections(sync):
        transaction = place.transactions.get(connection)
        if transaction is None or transaction.writes or transaction.effects is not None:
            return False
    return True


def _connections(session: Session) -> set[Connection]:
    # A session offers no public way to its open connections that would not open one.
    transaction = session.get_transaction()
    found: set[Connection] = set()
    if transaction is not None:
        found = {entry[0] for entry in transaction._connections.values()}
    return found


def _opened(factory: SessionFactory) -> AsyncSession:
    session = resolve(factory())
    if not isinstance(session, AsyncSession):
        raise SessionRefused("db: a factory must give an AsyncSession")
    return session


def _place(bind: Engine | Connection) -> Place:
    engine = bind.engine
    url = engine.url
    options = bind.get_execution_options()
    database = url.database or ""
    dialect = engine.dialect
    schemas = sorted((options.get("schema_translate_map") or {}).items(), key=repr)
    isolation = options.get("isolation_level") or getattr(dialect, "_on_connect_isolation_level", None) or ""
    return Place(
        identity=repr((dialect.name, database, schemas)).encode(),
        dialect=dialect.name,
        bound=isinstance(bind, Connection),
        private=dialect.name == "sqlite" and ("memory" in str(url.query) or database in ("", ":memory:")),
        may_fill=isolation.replace("_", " ").upper() != "READ UNCOMMITTED",
        autocommit=isolation.upper() == "AUTOCOMMIT",
        transactions=watch(engine),
    )
