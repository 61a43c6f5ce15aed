"""Sessions whose plain writes hold and release as Crud's own do: ``watch(factory, redis)``.

A flush names its rows, as far as their values are known here as they are in the database. Whatever else writes in such
a session (an ORM-enabled or Core UPDATE, a bulk insert, textual SQL) drops what is cached of its tables, and of those
that foreign keys change with them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary, ref

from sqlalchemy import Connection, MetaData, Table, event
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.orm import Session, SessionTransaction, UOWTransaction

from ..cache.cache import Cache
from ..cache.cache import resolve as resolve_cache
from ..db.sessions import isolation_of
from ..db.transactions import Transactions
from ..db.transactions import watch as follow_engine
from ..errors import ConfigurationError, RedisRefused, SessionRefused
from .effects import Effects
from .flushed import Rows, images_of, rows_of, set_in_sql
from .reach import reached_by_any_write, reached_by_delete, reached_by_update
from .statements import is_textual, reads_only, tables_mentioned, tables_written, texts_in
from .transaction import effects_on, follow

_FLUSHING = "fastrdb_flushing"
_TWO_PHASE = "watch: a two-phase session; the cache cannot know its outcome. Leave twophase=True out"


def watch(factory: async_sessionmaker[Any], redis: Any, metadata: MetaData | None = None) -> None:
    """Let the writes of a factory's sessions drop what they change from the cache, whoever sends them.

    It is for sessions that are made from then on, and for their own transactions: a session that is bound to a
    Connection holds at that connection's COMMIT, and lets the hold run out. Nothing is put into the cache.

    Args:
        factory: An ``async_sessionmaker``, whose sessions get a ``sync_session_class`` of their own.
        redis: The client, or the Cache, that the cruds use.
        metadata: The tables that textual SQL may write: of those, each that its text mentions is dropped, and all of
            them where it mentions none. Without, textual SQL that may write is refused.

    Raises:
        SessionRefused: *factory* is no ``async_sessionmaker``, or its sessions are two-phase; or, when such a session
            writes, its engine is in AUTOCOMMIT.
        RedisRefused: *redis* is no client and no Cache.
        ConfigurationError: The factory is watched already, for another cache.
    """
    if not isinstance(factory, async_sessionmaker):
        raise SessionRefused(f"factory: {type(factory).__name__}; pass an async_sessionmaker")
    if factory.kw.get("twophase"):
        raise SessionRefused(_TWO_PHASE)
    cache = resolve_cache(redis)
    if cache is None:
        raise RedisRefused("redis is None: there is no cache to keep right; leave watch() out")
    kind: type[Session] = factory.kw.get("sync_session_class") or factory.class_.sync_session_class
    known: Watcher | None = getattr(kind, "_fastrdb_watcher", None)
    if known is not None:
        if known.cache is cache:
            return
        raise ConfigurationError("the factory is watched already, for another cache: give each cache a factory")
    watcher = Watcher(cache, metadata)
    watched = type(f"Watched{kind.__name__}", (kind,), {"_fastrdb_watcher": watcher})
    for name, listener in (
        ("after_begin", watcher.began),
        ("before_flush", watcher.flushes),
        ("after_flush", watcher.flushed),
        ("after_soft_rollback", watcher.rolled_back),
    ):
        event.listen(watched, name, listener)
    for bind in [factory.kw.get("bind"), *(factory.kw.get("binds") or {}).values()]:
        if isinstance(bind, AsyncEngine):
            follow_engine(bind.sync_engine)  # from its first transaction on
    factory.configure(sync_session_class=watched)


class Watcher:
    """What is done around the writes of one factory's sessions."""

    def __init__(self, cache: Cache, metadata: MetaData | None) -> None:
        self.cache = cache
        self._metadata = metadata
        self._written: WeakKeyDictionary[Any, frozenset[Table]] = WeakKeyDictionary()

    def began(self, session: Session, transaction: SessionTransaction, connection: Connection) -> None:
        """Look at the statements of a transaction."""
        if session.twophase:  # whose COMMIT no event tells of
            raise SessionRefused(_TWO_PHASE)
        if not transaction.nested:
            transactions = follow_engine(connection.engine)
            watched = _Watched(self, session, connection, transactions)
            # A Connection that the session was bound to, for a model or for all, is not the session's to close.
            watched.bound = not transaction._connections[connection][-1]
            transactions.take_up(connection).watched = watched

    def flushes(self, session: Session, context: UOWTransaction, instances: object) -> None:
        """Gather the tables that a flush writes."""
        session.info[_FLUSHING] = _Flush(context)

    def rolled_back(self, session: Session, previous: SessionTransaction) -> None:
        """A flush that failed has written nothing; a listener's savepoint within one ends no flush."""
        if not previous.nested:
            session.info.pop(_FLUSHING, None)

    def flushed(self, session: Session, context: UOWTransaction) -> None:
        """Name the rows of a flush; of tables that have none, association tables for one, drop all."""
        flush: _Flush | None = session.info.pop(_FLUSHING, None)
        if flush is None or not flush.sent:
            return
        rows = rows_of(context)
        own = {id(state.manager.mapper.base_mapper._compiled_cache) for state in context.states}
        for (watched, table), sent in flush.sent.items():
            found = rows.get(table) if sent.caches <= own else None  # others have written it, too
            if found is not None:
                found.change(table, sent.in_sql)
            watched.record(table, found)

    def tables(self, statement: str, context: ExecutionContext | None) -> frozenset[Table]:
        """Give the tables that a statement may write.

        Raises:
            SessionRefused: Nobody can tell.
        """
        compiled: Any = getattr(context, "compiled", None)
        if compiled is None or is_textual(compiled.statement):
            return self._tables_in(statement)
        found = self._written.get(compiled)
        if found is None:
            statement = compiled.statement
            found = tables_written(statement).union(*map(self._tables_in, texts_in(statement)))
            self._written[compiled] = found
        return found

    def _tables_in(self, text: str) -> frozenset[Table]:
        if reads_only(text):
            return frozenset()
        if self._metadata is None:
            raise SessionRefused(
                "db: textual SQL in a watched session, which may write any table; "
                "give watch() the metadata of your tables"
            )
        return tables_mentioned(text, self._metadata)


@dataclass(slots=True)
class _Sent:
    """The statements of a flush that write one table.

    Attributes:
        caches: The ids of the caches that they were compiled for: a mapper's own statements come with its cache.
        in_sql: Names of the columns that they set to SQL expressions.
    """

    caches: set[int] = field(default_factory=set)
    in_sql: set[str] = field(default_factory=set)


class _Flush:
    """What is sent while a flush writes, by itself or by a listener of the user's."""

    def __init__(self, context: UOWTransaction) -> None:
        self._context = ref(context)
        self.sent: dict[tuple[_Watched, Table], _Sent] = {}

    def writes(self) -> bool:
        """Tell whether its objects are being written: one that finds none, or that a listener stops, ends untold."""
        context = self._context()
        return context is not None and context.has_work

    def note(self, watched: _Watched, table: Table, context: ExecutionContext | None) -> None:
        """Note a statement."""
        sent = self.sent.setdefault((watched, table), _Sent())
        sent.caches.add(id(context.execution_options.get("compiled_cache") if context is not None else None))
        sent.in_sql |= set_in_sql(getattr(context, "compiled", None))


class _Watched:
    """One transaction of a watched session, on one connection.

    Attributes:
        bound: The connection was the caller's before it was the session's.
    """

    bound = False

    def __init__(self, watcher: Watcher, session: Session, connection: Connection, transactions: Transactions) -> None:
        self.cache = watcher.cache
        self._watcher, self._transactions = watcher, transactions
        self._session, self._connection = ref(session), ref(connection)

    def wrote(self, statement: str, context: ExecutionContext | None) -> None:
        """Note a statement that may write, before it is sent."""
        self._note(self._watcher.tables(statement, context), context)

    def wrote_to(self, table: Table) -> None:
        """Note rows of a table, before they are written."""
        self._note([table], None)

    def _note(self, tables: Collection[Table], context: ExecutionContext | None) -> None:
        session, connection = self._session(), self._connection()
        if session is None or connection is None or not tables:
            return
        if isolation_of(connection) == "AUTOCOMMIT":
            raise SessionRefused("db: a watched session in AUTOCOMMIT; take another isolation level for its engine")
        flush: _Flush | None = session.info.get(_FLUSHING)
        for table in tables:
            if flush is not None and flush.writes():
                flush.note(self, table, context)
            else:
                self.record(table, None)

    def record(self, table: Table, rows: Rows | None) -> None:
        """Let the transaction drop rows of a table; ``None`` for all of them."""
        session, connection = self._session(), self._connection()
        assert session is not None
        assert connection is not None
        images = images_of(connection, table, rows) if rows is not None else None
        effects = effects_on(connection, self._transactions)
        touched = effects.of(self.cache).touch()
        if images is None:
            touched.table(table).everything = True
        else:
            touched.table(table).images += images
        for other in _reached(table, rows):
            touched.table(other).everything = True
        self._tie(session, effects)

    def _tie(self, session: Session, effects: Effects) -> None:
        if self.bound:
            effects.let_run_out()
        else:
            follow(session, effects)


def _reached(table: Table, rows: Rows | None) -> Iterable[Table]:
    if rows is None:
        return reached_by_any_write(table)
    deleted = reached_by_delete(table) if rows.deleted else set()
    return deleted | reached_by_update(table, rows.changed)
