"""What happened in each transaction of an engine, as far as the cache must know.

Engine events count the statements of every transaction, so that a session that has written is never answered from
the cache, and call the transaction's *effects* just before COMMIT: the Connection's ``commit`` event fires once, after
the session's last flush and not for savepoints, and the cache can be awaited there.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from sqlalchemy import Connection, Engine, Table, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.base import OptionEngine
from sqlalchemy.engine.interfaces import ExecutionContext
from sqlalchemy.util import await_only

from ..errors import SessionRefused
from .cursors import note_cursor
from .servers import commits_by_itself, forget

_OPTION = "fastrdb_transactions"
_WRITING = re.compile(r"\b(?:INSERT|UPDATE|DELETE|MERGE|INTO|LOCK|FOR (?:KEY )?SHARE)\b", re.IGNORECASE)
_BEGIN = re.compile(r"\s*BEGIN\b", re.IGNORECASE)  # what listeners send to make SQLite's driver begin
_REMEMBERED = 2_000  # statement texts whose kind is remembered


class Effects(Protocol):
    """What has to be done around the COMMIT of one transaction."""

    def before_commit(self) -> Awaitable[None]:
        """Called just before COMMIT is sent; raising aborts it."""
        ...

    def write_down(self, connection: Connection) -> None:
        """Called after that, to send what belongs to the same transaction; raising aborts the COMMIT."""
        ...

    def fail(self) -> None:
        """Called when a statement of the transaction failed, or its COMMIT; maybe nothing else is called then."""
        ...

    def forget(self) -> None:
        """Called when the transaction is rolled back."""
        ...


class Watched(Protocol):
    """Somebody who names the rows of whatever is written in one transaction, for one cache."""

    @property
    def cache(self) -> object:
        """The cache that is told."""
        ...

    def wrote(self, statement: str, context: ExecutionContext | None) -> None:
        """Called before a statement that may write; raising keeps it from being sent."""
        ...

    def wrote_to(self, table: Table) -> None:
        """Called before rows of a table are written without a statement; raising keeps them from being sent."""
        ...


class Transaction:
    """One transaction on one Connection.

    Attributes:
        statements: Number of statements sent in it.
        writes: Number of those that are no plain SELECT; textual SQL counts as a write.
        effects: What waits for its COMMIT.
        failure: The driver's error, if a statement or the COMMIT failed.
        watched: Who is told of statements that may write.
        named: The cache to which whoever sends statements now names their rows by itself.
    """

    __slots__ = ("effects", "failure", "named", "statements", "watched", "writes")

    def __init__(self) -> None:
        self.statements = 0
        self.writes = 0
        self.effects: Effects | None = None
        self.failure: BaseException | None = None
        self.watched: Watched | None = None
        self.named: object = None


class Transactions:
    """The open transactions of one engine.

    Attributes:
        name: A random name of the engine.
        writes: Number of statements that are no plain SELECT, over all connections.
    """

    def __init__(self) -> None:
        self.name = secrets.token_hex(8)
        self._open: WeakKeyDictionary[Connection, Transaction] = WeakKeyDictionary()
        self._kinds: dict[str, bool] = {}
        self.writes = 0  # over all connections: SQLite's in-memory databases share a single one

    def get(self, connection: Connection) -> Transaction | None:
        """Give the transaction of a connection; ``None`` if it began before this engine was watched."""
        return self._open.get(connection)

    def began(self, connection: Connection) -> None:
        """Start to count."""
        self._open[connection] = Transaction()

    def take_up(self, connection: Connection) -> Transaction:
        """Give the transaction of a connection, also of one that began before this engine was watched.

        What was sent in such a one is not known: it counts as written.
        """
        found = self._open.get(connection)
        if found is None:
            connection.execution_options(**{_OPTION: self})
            found = self._open[connection] = Transaction()
            found.writes = 1
        return found

    def sent(self, connection: Connection, statement: str, context: ExecutionContext | None) -> None:
        """Count a statement."""
        writing = not self._plain(statement, context)
        if writing:
            forget(connection, statement)
            if (watched := self._watched(connection)) is not None:
                watched.wrote(statement, context)
        self._count(connection, writing=writing)

    def sent_by_driver(self, connection: Connection, table: Table) -> None:
        """Count a write to a table, which no statement of SQLAlchemy's sends."""
        if (watched := self._watched(connection)) is not None:
            watched.wrote_to(table)
        self._count(connection, writing=True)

    def _watched(self, connection: Connection) -> Watched | None:
        """Give who has to be told of a write."""
        transaction = self._open.get(connection)
        watched = transaction.watched if transaction is not None else None
        if transaction is None or watched is None or transaction.named is watched.cache:
            return None
        return watched

    def _count(self, connection: Connection, *, writing: bool) -> None:
        self.writes += writing
        if (transaction := self._open.get(connection)) is not None:
            transaction.statements += 1
            transaction.writes += writing

    def _plain(self, statement: str, context: ExecutionContext | None) -> bool:
        compiled: Any = getattr(context, "compiled", None)
        if compiled is None or compiled.statement is None:
            return _BEGIN.match(statement) is not None
        if not compiled.statement.is_select or compiled.statement.is_text:
            return False
        kind = self._kinds.get(statement)
        if kind is None:
            if len(self._kinds) >= _REMEMBERED:
                self._kinds.clear()
            kind = self._kinds[statement] = _WRITING.search(statement) is None
        return kind


def watch(engine: Engine) -> Transactions:
    """Give the transactions of an engine, listening to its events from the first call on."""
    options = engine.get_execution_options()
    found: Transactions | None = options.get(_OPTION)
    if found is None:
        found = Transactions()
        engine.update_execution_options(**{_OPTION: found})
    root = engine
    while isinstance(root, OptionEngine):  # whose connections have the events of the engine that it was made of, too
        root = root._proxied
    if not event.contains(root, "begin", _on_begin):
        event.listen(root, "begin", _on_begin)
        event.listen(root, "before_cursor_execute", _on_statement)
        event.listen(root, "savepoint", begin_before_savepoint)
        event.listen(root, "commit", _on_commit)
        event.listen(root, "rollback", _on_rollback)
        event.listen(root, "handle_error", _on_error)
    return found


def transaction_of(connection: Connection) -> Transaction | None:
    """Give what is known of the connection's transaction; ``None`` if nothing is."""
    transactions = watched(connection)
    return transactions.get(connection) if transactions is not None else None


def watched(connection: Connection) -> Transactions | None:
    """Give the transactions of the connection's engine; ``None`` if it was opened before the engine was watched."""
    found: Transactions | None = connection.get_execution_options().get(_OPTION)
    return found


def sent_by_driver(connection: Connection, table: Table) -> None:
    """Count a write to a table that is sent by the driver's own connection, of which no event tells."""
    if (transactions := watched(connection)) is not None:
        transactions.sent_by_driver(connection, table)


def _on_begin(connection: Connection) -> None:
    if (transactions := watched(connection)) is not None:
        transactions.began(connection)


def _on_statement(
    connection: Connection,
    cursor: object,
    statement: str,
    parameters: object,
    context: ExecutionContext | None,
    executemany: bool,
) -> None:
    note_cursor(connection, context)
    if (transactions := watched(connection)) is None:
        return
    transaction = transactions.get(connection)
    if transaction is not None and transaction.effects is not None and commits_by_itself(connection, statement):
        raise SessionRefused(
            "db: on MariaDB this statement would commit what was written before it, and the cache would not know; "
            "call commit() first"
        )
    transactions.sent(connection, statement, context)


def begin_before_savepoint(connection: Connection, name: str | None) -> None:
    """Begin first: where SQLite's driver has not, releasing the outermost savepoint would commit, unnoticed."""
    if connection.dialect.name != "sqlite":
        return
    driver: Any = connection.connection.driver_connection
    if not driver.in_transaction and driver.isolation_level is not None:  # None: AUTOCOMMIT
        connection.exec_driver_sql("BEGIN")


def _on_commit(connection: Connection) -> None:
    transaction = transaction_of(connection)
    if transaction is not None and transaction.effects is not None:
        try:
            await_only(transaction.effects.before_commit())
            transaction.effects.write_down(connection)
        except BaseException:
            _roll_back(connection)
            raise


def _roll_back(connection: Connection) -> None:
    """Roll back on the driver's connection, where a listener aborts the COMMIT.

    A session that is closed without a ``rollback()`` would else give the connection back to the pool with the
    transaction still open, and who takes it out next would read, and commit, what it wrote.
    """
    try:
        connection.engine.dialect.do_rollback(connection.connection)
    except BaseException:
        if connection.dialect.name != "sqlite":  # whose thread does it anyway, and whose memory would be lost
            connection.invalidate()
        raise


def _on_rollback(connection: Connection) -> None:
    transaction = transaction_of(connection)
    if transaction is not None and transaction.effects is not None:
        transaction.effects.forget()
        transaction.effects = None


def _on_error(context: ExceptionContext) -> None:
    transaction = transaction_of(context.connection) if context.connection is not None else None
    if transaction is not None:
        transaction.failure = context.original_exception
        if transaction.effects is not None:
            transaction.effects.fail()
