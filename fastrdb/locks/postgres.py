"""PgAdvisoryLock: one holder at a time, for as long as a connection or a transaction of PostgreSQL lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import Context
from types import TracebackType
from typing import Any, TypeAlias

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession, async_sessionmaker

from ..db import defaults
from ..errors import LockError, LockUnavailable, SessionRefused, ValueRefused
from ..writes.outcome import finish
from .advisory import Holding, Scope, advisory_number, attempt, discard
from .holder import Holder
from .loss import Loss
from .waiting import Wait

__all__ = ["PgAdvisoryLock", "advisory_number", "pg_advisory_lock"]

LockDatabase: TypeAlias = AsyncEngine | async_sessionmaker[Any] | AsyncSession


class PgAdvisoryLock(Holder):
    """A lock that PostgreSQL keeps, and drops as soon as the holder's connection ends.

    ``async with PgAdvisoryLock(key) as lock`` tries once, or for *wait* seconds, and raises nothing when somebody else
    has the lock: ask ``lock.acquired``. While it is held it keeps one connection of the pool; who waits keeps none.
    Not reentrant; one object is one holder.

    Args:
        key: An int of 64 bits, signed, or a text (``advisory_number``). One space of keys for each database.
        db: An ``AsyncEngine`` or an ``async_sessionmaker`` on one: the lock takes a connection of its own. An
            ``AsyncSession``, with ``scope="transaction"`` only: the lock is taken in its transaction, and ends with it.
            By default the engine of ``fastrdb.db.defaults``.
        shared: Any number of shared holders go together, but none with one that is not shared.
        scope: ``"session"``: held by a connection outside any transaction. ``"transaction"``: held by a transaction,
            which stays open for as long; the only one that works through PgBouncer in transaction mode.
        wait: Seconds to wait for the lock, a timedelta, or ``None`` for as long as it takes.

    Attributes:
        acquired: ``acquire`` succeeded, and ``release`` was not called since.
        number: What PostgreSQL knows the key by.
        lost: True, and awaitable (``await lock.lost.wait()``), once the connection was lost that had the lock. In a
            caller's session, its own statements fail instead.

    Raises:
        EmptyInput: The key is empty.
        ValueRefused: The key is no text and no int of 64 bits, or another argument is none that is known.
        SessionRefused: *db* is none of these, or not on PostgreSQL.
    """

    def __init__(
        self,
        key: int | str,
        *,
        db: LockDatabase | None = None,
        shared: bool = False,
        scope: Scope = "session",
        wait: Wait = 0,
    ) -> None:
        if scope not in ("session", "transaction"):
            raise ValueRefused("scope", "'session' or 'transaction'", scope)
        super().__init__(str(key), wait)
        self.key, self.number, self.shared = key, advisory_number(key), shared
        self.scope: Scope = scope
        self._db = _checked(db, scope)
        self._holding: Holding | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def release(self) -> bool:
        """Let go; tell whether the lock was still held.

        Raises:
            LockNotAcquired: This object does not hold the lock.
            LockError: It was taken in a caller's transaction: commit or roll that back.
        """
        self._must_hold("release")
        if self._holding is None:
            raise LockError(f"lock {self.key!r}: it ends with the session's transaction; commit or roll that back")
        return await finish(self._let_go(self._holding))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._holding is not None:
            await self.release()

    def __repr__(self) -> str:
        state = "lost" if self.lost else "held" if self.acquired else "not held"
        return f"<PgAdvisoryLock {self.key!r} {self.scope} {state}>"

    async def _try(self) -> bool:
        if isinstance(self._db, AsyncSession):
            return await self._try_in(self._db)
        engine = self._db if self._db is not None else _postgresql(defaults.engine())
        try:
            connection = await engine.connect()
            return await finish(self._try_on(connection))
        except Exception as error:  # drivers have many, and of their own, for a server that is away or full
            raise LockUnavailable(str(self.key), type(error).__name__) from error

    async def _undo(self) -> None:
        if self._holding is not None:
            await finish(self._let_go(self._holding))

    async def _try_in(self, session: AsyncSession) -> bool:
        connection = await session.connection()
        if connection.sync_connection.get_execution_options().get("isolation_level") == "AUTOCOMMIT":  # type: ignore[union-attr]  # it is open
            raise SessionRefused(
                "db: a session in AUTOCOMMIT has no transaction that could hold a lock; pass its engine"
            )
        self.acquired = (await session.execute(attempt(self.number, "transaction", self.shared))).one()[0]
        return self.acquired

    async def _try_on(self, connection: AsyncConnection) -> bool:
        try:
            isolation = "AUTOCOMMIT" if self.scope == "session" else "READ COMMITTED"  # whatever the engine's own is
            connection = await connection.execution_options(isolation_level=isolation)
            found = tuple((await connection.execute(attempt(self.number, self.scope, self.shared))).one())
        except BaseException:
            await discard(connection)
            raise
        if not found[0]:
            await connection.close()
            return False
        self._hold(Holding(connection, self.number, self.scope, self.shared, found[1]))
        return True

    def _hold(self, holding: Holding) -> None:
        self.acquired, self._holding, self.lost = True, holding, Loss(str(self.key))
        self._watcher = asyncio.create_task(holding.watch(self.lost.declare), context=Context())

    async def _let_go(self, holding: Holding) -> bool:
        self.acquired, self._holding = False, None
        holding.stop()
        if self._watcher is not None:
            await asyncio.wait([self._watcher])
        if await holding.release():
            return True
        self.lost.declare("it was gone when it was released")
        return False


@asynccontextmanager
async def pg_advisory_lock(
    key: int | str,
    *,
    db: LockDatabase | None = None,
    shared: bool = False,
    scope: Scope = "session",
    wait: Wait = 0,
) -> AsyncIterator[PgAdvisoryLock]:
    """Run a block only with the lock: where a ``PgAdvisoryLock`` would not be ``acquired``, this raises.

    The arguments are those of ``PgAdvisoryLock``.

    Raises:
        LockNotAcquired: Somebody else has the lock, and *wait* is 0.
        LockTimeout: Somebody else had it for all of *wait*.
        LockUnavailable: The database did not answer.
    """
    lock = PgAdvisoryLock(key, db=db, shared=shared, scope=scope, wait=wait)
    async with lock:
        lock.must_have_acquired()
        yield lock


def _checked(db: object, scope: Scope) -> AsyncEngine | AsyncSession | None:
    if db is None:
        return None
    if isinstance(db, AsyncSession):
        if scope != "transaction":
            raise SessionRefused(
                "db: an AsyncSession gives its connection back when it commits, with the lock still held; "
                "pass its engine, or scope='transaction' for a lock that ends with the transaction"
            )
        _refuse_others(db.get_bind().dialect.name)
        return db
    engine = db.kw.get("bind") if isinstance(db, async_sessionmaker) else db
    if not isinstance(engine, AsyncEngine):
        raise SessionRefused(
            f"db: {type(engine).__module__}.{type(engine).__qualname__}; "
            "pass an AsyncEngine, an async_sessionmaker bound to one, or an AsyncSession"
        )
    return _postgresql(engine)


def _postgresql(engine: AsyncEngine) -> AsyncEngine:
    _refuse_others(engine.dialect.name)
    return engine


def _refuse_others(dialect: str) -> None:
    if dialect != "postgresql":
        raise SessionRefused(f"db: advisory locks are PostgreSQL's, and this is {dialect}; use a RedisLock there")
