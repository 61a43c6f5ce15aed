"""What a ``db`` argument is, whose transaction it is in, and what its snapshot may be used for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from inspect import isasyncgen, iscoroutine, isgenerator
from typing import Any, NamedTuple, TypeAlias, cast
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, StaticPool
from sqlalchemy.exc import UnboundExecutionError
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    async_scoped_session,
    async_sessionmaker,
)
from sqlalchemy.orm import Mapper, Session, SessionTransactionOrigin

from ..errors import SessionRefused
from .servers import commits_each, family
from .transactions import Transactions, watch, watched

SessionFactory: TypeAlias = Callable[[], AsyncSession]
Database: TypeAlias = AsyncSession | SessionFactory | async_scoped_session[Any]


class Options(NamedTuple):
    """The execution options that decide what a statement reads; ``None`` where there is none."""

    schemas: Mapping[Any, Any] | None
    isolation: str | None

    @classmethod
    def of(cls, bind: Engine | Connection) -> Options:
        """Give those of an engine or a connection."""
        options = bind.get_execution_options()
        return cls(options.get("schema_translate_map"), options.get("isolation_level"))


@dataclass(frozen=True, slots=True, eq=False)
class Place:
    """Where a session's statements go.

    Attributes:
        identity: Name of the database and its schema map: what two databases on one Redis differ in.
        options: What the engine, or the connection, was told of its schemas and its isolation level.
        dialect: ``"postgresql"``, ``"sqlite"``, or ``"mysql"``, which MariaDB is, too.
        bound: The session is bound to a Connection, whose transaction is never ours.
        private: An in-memory database, which no other process can see.
        shared: All sessions talk over one driver connection, and see each other's open writes.
        may_fill: Its isolation level lets a SELECT be cached at all.
        autocommit: Every statement commits by itself.
        transactions: What is known of its open transactions.
    """

    identity: bytes
    options: Options
    dialect: str
    bound: bool
    private: bool
    shared: bool
    may_fill: bool
    autocommit: bool
    transactions: Transactions


class _Known(NamedTuple):
    """What a factory was made of when it was called, and where its sessions' statements then went."""

    parts: tuple[Any, ...]
    place: Place


class Places:
    """The places of sessions and factories seen so far, kept weakly."""

    def __init__(self) -> None:
        self._of_bind: WeakKeyDictionary[Any, Place] = WeakKeyDictionary()
        self._of_factory: WeakKeyDictionary[async_sessionmaker[Any], _Known] = WeakKeyDictionary()
        self.last: Place | None = None

    def of(self, db: AsyncSession | SessionFactory, mapper: Mapper[Any]) -> Place:
        """Give the place of a session's, or of a factory's, statements on a mapper.

        An ``async_sessionmaker`` is called once and remembered, unless it was configured anew or its sessions choose
        their engine themselves; any other callable may choose by context, and is called each time.

        Raises:
            SessionRefused: The factory gives no AsyncSession, or the session is bound to no database.
        """
        self.last = self._of_session(db, mapper) if isinstance(db, AsyncSession) else self._of_callable(db, mapper)
        return self.last

    def remembers(self, factory: async_sessionmaker[Any]) -> bool:
        """Tell whether the factory's place is the same from call to call."""
        return factory in self._of_factory

    def set_apart(self, place: Place, path: str) -> None:
        """Keep what is read at a place apart from what other engines read along another search path."""
        for bind, known in list(self._of_bind.items()):
            if known is place:
                self._of_bind[bind] = replace(place, identity=place.identity + f" {path}".encode())
        self._of_factory.clear()

    def _of_callable(self, factory: SessionFactory, mapper: Mapper[Any]) -> Place:
        if not isinstance(factory, async_sessionmaker):
            return self._of_session(_opened(factory), mapper)
        parts = (factory.kw.get("bind"), factory.kw.get("binds"))
        known = self._of_factory.get(factory)
        if known is not None and known.parts == parts:
            return known.place
        session = _opened(factory)
        place = self._of_session(session, mapper)
        if type(session.sync_session).get_bind is Session.get_bind:
            self._of_factory[factory] = _Known(parts, place)
        return place

    def _of_session(self, session: AsyncSession, mapper: Mapper[Any]) -> Place:
        try:
            bind = session.sync_session.get_bind(mapper)
        except UnboundExecutionError as error:
            raise SessionRefused(
                f"db: the session has no engine for {mapper.class_.__name__}; bind it to one"
            ) from error
        place = self._of_bind.get(bind)
        if place is None:
            place = self._of_bind[bind] = _place(bind)
        return place


def place_of(connection: Connection, expected: Place) -> Place:
    """Give the place that a connection really leads to: factories, and sessions that route, may surprise."""
    found = expected
    if watched(connection) is not expected.transactions or Options.of(connection) != expected.options:
        found = replace(_place(connection), bound=expected.bound)
    if found.dialect == "mysql" and not found.autocommit and commits_each(connection):
        found = replace(found, autocommit=True)
    return found


def isolation_of(bind: Engine | Connection) -> str:
    """Give the isolation level that an engine or a connection was told, ``"READ COMMITTED"``; ``""`` for none."""
    # The level that ``create_engine`` was given is kept nowhere else.
    told = Options.of(bind).isolation or getattr(bind.engine.dialect, "_on_connect_isolation_level", None) or ""
    return told.replace("_", " ").upper()


def resolve(db: object) -> AsyncSession | SessionFactory:
    """Check a ``db`` argument, and give the session or the factory in it.

    Raises:
        SessionRefused: It is neither, or one that fastrdb cannot use; the message says what to pass.
    """
    if isinstance(db, (AsyncSession, async_sessionmaker)):
        if isinstance(db, AsyncSession) and db.sync_session.twophase:
            raise SessionRefused("db: a two-phase session; the cache cannot know its outcome. Use a plain AsyncSession")
        if isinstance(db, AsyncSession) and "schema_translate_map" in getattr(db.sync_session, "execution_options", ()):
            # SQLAlchemy applies it to the session's own statements only, and ours would go to another schema.
            raise SessionRefused("db: a schema_translate_map of the session; give it to the engine's execution_options")
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
        Engine: "a sync Engine",
    }
    for kind, words in refused.items():
        if isinstance(db, kind):
            raise SessionRefused(f"db: {words}; pass an AsyncSession or an async_sessionmaker")
    if callable(db):
        return cast("SessionFactory", db)  # what it gives is looked at when it is called
    raise SessionRefused(f"db: {type(db).__name__}; pass an AsyncSession or an async_sessionmaker")


def new_session(factory: SessionFactory) -> AsyncSession:
    """Give a session of a factory.

    Raises:
        SessionRefused: It is no factory, or gives no AsyncSession.
    """
    if not callable(factory):
        raise SessionRefused(f"factory: {type(factory).__name__}; pass an async_sessionmaker")
    session = resolve(factory())
    if not isinstance(session, AsyncSession):
        raise SessionRefused("factory: it gives another factory; pass one that gives an AsyncSession")
    return session


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
    for connection in connections_of(sync):
        transaction = place.transactions.get(connection)
        if transaction is None or transaction.writes or transaction.effects is not None:
            return False
        if Options.of(connection).schemas != place.options.schemas:
            return False
    return True


def connections_of(session: Session) -> set[Connection]:
    """Give the connections of the session's open transaction."""
    # A session offers no public way to its open connections that would not open one.
    transaction = session.get_transaction()
    found: set[Connection] = set()
    if transaction is not None:
        found = {entry[0] for entry in transaction._connections.values()}
    return found


def _opened(factory: SessionFactory) -> AsyncSession:
    given: Any = factory()
    if iscoroutine(given):
        given.close()  # it would complain that nobody awaited it
        raise SessionRefused("db: a coroutine function; pass an AsyncSession or an async_sessionmaker")
    if isasyncgen(given) or isgenerator(given):
        raise SessionRefused("db: a generator, so a dependency; pass an AsyncSession that it yields")
    session = resolve(given)
    if not isinstance(session, AsyncSession):
        raise SessionRefused("db: a factory of factories; pass an AsyncSession or an async_sessionmaker")
    return session


def _place(bind: Engine | Connection) -> Place:
    engine, options = bind.engine, Options.of(bind)
    database, dialect = engine.url.database or "", family(engine.dialect)
    private = dialect == "sqlite" and ("memory" in str(engine.url.query) or database in ("", ":memory:"))
    if dialect == "sqlite" and not private and not database.startswith("file:"):
        database = os.path.abspath(database)  # two programs may each have an "app.db" of their own
    transactions = watch(engine)
    if private:
        database = f"{database} {transactions.name}"  # each engine has one of its own
    schemas = sorted((options.schemas or {}).items(), key=repr)
    isolation = isolation_of(bind)
    return Place(
        identity=repr((dialect, database, schemas)).encode(),
        options=options,
        dialect=dialect,
        bound=isinstance(bind, Connection),
        private=private,
        shared=isinstance(engine.pool, StaticPool),
        may_fill=isolation != "READ UNCOMMITTED",
        autocommit=isolation == "AUTOCOMMIT",
        transactions=transactions,
    )
