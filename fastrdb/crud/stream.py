"""All rows of a list, however many, a batch at a time: stream."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine
from typing import Any, Final, TypeVar

from sqlalchemy import ColumnElement, Connection, Result, Row
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session

from ..db.sessions import Place
from ..db.transactions import Transaction, transaction_of
from ..errors import OutOfRange, SessionRefused, TransactionError
from ..writes.outcome import finish
from .arguments import Asked, Filters, MaybeDatabase
from .core import C, M, R, U
from .execution import Query, connect
from .lists import Lists
from .options import ReadOptions
from .ordering import OrderBy, Sorting, sorting_of
from .sides import opened

T = TypeVar("T")

MAX_BATCH = 10_000  # the event loop waits while a batch becomes responses


_HINTS: Final = {
    "redis": "a stream is read past the cache; leave it out",
    "limit": "leave the loop where it is enough, or use get_multi",
    "page": "a stream gives all rows; use page or cursor_page",
}


class Streams(Lists[M, C, U, R]):
    """Lists that are longer than memory."""

    def stream(
        self,
        db: MaybeDatabase = None,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        ascending: bool = True,
        batch: int = 1_000,
        options: ReadOptions | None = None,
        **keywords: Any,
    ) -> AsyncGenerator[R, None]:
        """Give all rows that match, one after the other, with no more than a few batches in memory.

        The rows are those of one statement, read by a cursor on the server, past the cache. Whoever may leave early
        says ``async with contextlib.aclosing(crud.stream(…)) as rows``, so that the cursor is closed at once, and with
        a factory the session.

        Args:
            db: With a factory, a session is opened for the first row and closed after the last. A session of the
                caller's is used in its transaction, which goes on afterwards.
            where, filters, options: As in ``get``.
            order_by, ascending: As in ``get_multi``.
            batch: Rows that are fetched at once, from 1 to 10 000.
            **keywords: Filters.

        Raises:
            OutOfRange: ``batch``.
            OrderRefused, UnknownField, UnknownOperator, ValueRefused: A filter, or ``order_by``.
            UsageError: ``redis``, ``limit`` or ``page`` is given: other lists take them.
            SessionRefused: With the first row: the caller's session commits each statement (AUTOCOMMIT), on PostgreSQL.
            TransactionError: With a later row: on MariaDB, the session was used for something else meanwhile.
        """
        if type(batch) is not int or not 1 <= batch <= MAX_BATCH:
            raise OutOfRange("batch", batch, MAX_BATCH)
        self._refuse_keywords("stream", keywords, _HINTS)
        sorting = sorting_of(self._model, order_by, ascending)
        asked = self._asked(keywords, filters, where, options)
        self._refuse_lock(asked)
        self._refuse_stale(asked)
        return self._streamed(db, asked, sorting, batch)

    async def _streamed(self, db: MaybeDatabase, asked: Asked, sorting: Sorting, batch: int) -> AsyncGenerator[R, None]:
        _, tables = self._list_reads(asked, sorting)
        sources = await self._asked_sources(db, None, tables)
        place = sources.place

        def build() -> Query:
            return Query.of(self._ordered(asked, sorting, place.dialect), by_entity=self._responses.by_entity)

        shape = ("stream", asked.shape, sorting.shape(place.dialect))
        query: Query = self._kept(shape, build) if asked.where is None else build()
        mapper, ours = self._model.mapper, not isinstance(sources.db, AsyncSession)
        async with opened(sources.db, place, mapper, begin=place.dialect == "postgresql") as side:
            reader = _Reader(side.session, side.place, mapper, ours=ours)
            try:
                await reader.open(query, asked.params, batch)
                while rows := await reader.fetch(lambda row: self._build(row)[0]):
                    for response in rows:
                        yield response
            finally:
                await reader.close()


class _Reader:
    """The cursor of one stream."""

    def __init__(self, session: AsyncSession, place: Place, mapper: Mapper[Any], *, ours: bool) -> None:
        self._session, self._place, self._mapper, self._ours = session, place, mapper, ours
        self._own: Session | None = None
        self._connection: Connection | None = None
        self._result: Result[Any] | None = None
        self._batch = 0
        self._seen: tuple[Transaction, int] | None = None

    async def open(self, query: Query, parameters: dict[str, Any], batch: int) -> None:
        """Send the statement."""
        self._batch = batch
        await self._run(lambda: self._open(query, parameters))

    async def fetch(self, build: Callable[[Row[Any]], T]) -> list[T]:
        """Give the next batch; an empty one is the end."""
        return await self._run(lambda: self._fetch(build))

    async def close(self) -> None:
        """Close the cursor, and leave the connection ready for the next statement."""
        await finish(self._session.run_sync(lambda _: self._close()))

    def _run(self, work: Callable[[], T]) -> Coroutine[Any, Any, T]:
        """Let the work end before a cancellation goes on: a connection that is interrupted is lost.

        A session of our own can do without on PostgreSQL, which is told to stop. MariaDB is not, and its driver may
        swallow the cancellation.
        """
        running = self._session.run_sync(lambda _: work())
        return running if self._ours and self._place.dialect == "postgresql" else finish(running)

    def _open(self, query: Query, parameters: dict[str, Any]) -> None:
        session, place = self._session.sync_session, self._place
        if place.dialect == "postgresql" and place.autocommit:
            # Its cursors live in a transaction.
            if not self._ours:
                raise SessionRefused("db: an AUTOCOMMIT session has no transaction to stream in; pass a factory")
            session.connection({"mapper": self._mapper}, {"isolation_level": "READ COMMITTED"})
        self._connection = connection = connect(session, self._mapper)
        options = {"yield_per": self._batch}
        if query.by_entity:  # nobody else's identity map; this one forgets an instance with its last reference
            self._own = Session(bind=connection)
            self._result = self._own.execute(query.plain, parameters, execution_options=options)
        else:
            self._result = connection.execute(query.plain, parameters, execution_options=options)
        if place.dialect == "mysql":
            transaction = place.transactions.take_up(connection)
            self._seen = transaction, transaction.statements

    def _fetch(self, build: Callable[[Row[Any]], T]) -> list[T]:
        assert self._result is not None
        self._check_alone()
        self._let_come(True)
        try:
            return [build(row) for row in self._result.fetchmany(self._batch)]
        finally:
            self._let_come(False)

    def _let_come(self, come: bool) -> None:
        """Take in what MariaDB sends, or leave it in the socket: its driver keeps all that comes while nobody asks.

        Not in the caller's session, whose next statement would wait for ever for its answer.
        """
        if (
            not self._ours
            or self._seen is None
            or self._connection is None
            or self._connection.closed
            or self._connection.invalidated
        ):
            return
        transport = getattr(self._connection.connection.driver_connection, "_transport", None)
        if transport is not None and not transport.is_closing():
            if come:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _check_alone(self) -> None:
        """Raise if another statement was sent: MariaDB's driver then drops the rows that were not read yet."""
        if self._disturbed():
            raise TransactionError(
                "on MariaDB a session has one cursor: it was used for something else while it streamed, and the rest "
                "of the rows is lost; stream from a factory, or in a session of its own"
            )

    def _disturbed(self) -> bool:
        if self._seen is None or self._connection is None or self._connection.invalidated:
            return False
        transaction, statements = self._seen
        found = transaction_of(self._connection) if not self._connection.closed else None
        return found is not transaction or transaction.statements != statements

    def _close(self) -> None:
        try:
            self._end()
        finally:
            if self._own is not None:
                self._own.close()

    def _end(self) -> None:
        result, connection = self._result, self._connection
        if result is None or connection is None or connection.closed or connection.invalidated:
            return
        self._let_come(True)
        if self._seen is not None and not self._disturbed() and not result.closed:
            self._abandon(result, connection)
        result.close()

    def _abandon(self, result: Result[Any], connection: Connection) -> None:
        """End a result that was not read to its end: MariaDB sends all of it before it takes another statement."""
        if self._ours:
            connection.invalidate()
        else:
            while result.fetchmany(self._batch):
                pass
