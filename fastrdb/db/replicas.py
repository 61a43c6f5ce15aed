"""A primary and its replica as one ``db`` argument: who writes where, and when the replica may answer."""

from __future__ import annotations

import asyncio
import logging
import time
from datetime import timedelta
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, WeakSet

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper, Session

from ..errors import ReplicaRefused, SessionRefused, SettingRefused
from .positions import BEHIND, Position, Positions, Replayed, replayed
from .restrictions import ask as ask_restrictions
from .sessions import Place, Places, SessionFactory, isolation_of
from .transactions import Transactions

logger = logging.getLogger("fastrdb")

REACH_S = 1.0
"""A replica that gives no connection, or no answer, for so long counts as away."""
AWAY_S = 1.0
"""For so long nobody tries a replica that was away."""
UNREACHED = (DBAPIError, PoolTimeout, OSError)
"""What a server raises that cannot be reached, or that cannot answer; ``TimeoutError`` is an OSError."""
_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.001, 0.05


class ReadWrite:
    """A pair of session factories for the ``db`` of a crud: what reads uses a replica, what writes the primary.

    No read is older than a write that has returned, also one that misses the cache: before a replica answers, the
    primary is asked how far its log goes, and the replica whether it has replayed that much. Where it has not, or
    cannot be reached, the primary answers.

    Called, a pair gives a session on the primary: it is a session factory wherever one is taken.

    Attributes:
        write: Gives sessions on the primary.
        read: Gives sessions on a replica of it.
        replica_lag_s: For how long a read waits for a replica that is behind.
    """

    def __init__(
        self, write: SessionFactory, read: SessionFactory, replica_lag: float | timedelta | None = None
    ) -> None:
        """Pair two factories; nothing is connected.

        Args:
            write: A factory of sessions on the primary, as ``async_sessionmaker`` is one.
            read: The same on a replica: the same database, seen by a role with the same rights; READ COMMITTED, or
                AUTOCOMMIT, which saves two round trips of each read.
            replica_lag: How far behind, in seconds or as a timedelta, a replica may be and still be waited for;
                ``None`` or 0: it is not, and the primary answers at once.

        Raises:
            SessionRefused: One of the two is no factory.
            SettingRefused: *replica_lag* is no number of seconds, or negative.
        """
        for name, factory in (("write", write), ("read", read)):
            if isinstance(factory, ReadWrite) or not callable(factory):
                raise SessionRefused(f"{name}: {type(factory).__name__}; pass an async_sessionmaker")
        lag = replica_lag.total_seconds() if isinstance(replica_lag, timedelta) else replica_lag
        if isinstance(lag, bool) or not (lag is None or (isinstance(lag, (int, float)) and 0 <= lag < float("inf"))):
            raise SettingRefused("replica_lag", f"seconds or a timedelta, at least 0, not {replica_lag!r}")
        self.write, self.read, self.replica_lag_s = write, read, float(lag or 0)
        self._known = _Known(write)

    def __call__(self) -> AsyncSession:
        """Give a session on the primary."""
        return self.write()

    def __repr__(self) -> str:
        return f"<ReadWrite replica_lag={self.replica_lag_s:g}>"

    def by(self, write: SessionFactory, read: SessionFactory) -> ReadWrite:
        """Give the same pair with other factories on the same engines, such as those that tell a tenant."""
        found = ReadWrite(write, read, self.replica_lag_s)
        found._known = self._known
        return found

    @property
    def away(self) -> bool:
        """Whether the replica could not be reached a moment ago."""
        return time.monotonic() < self._known.away_until

    def lost(self, error: BaseException) -> None:
        """Do without the replica for a while."""
        self._known.away_until = time.monotonic() + AWAY_S
        self._known.note_missed(error)

    async def reach(self, session: AsyncSession, place: Place, mapper: Mapper[Any], *, begin: bool = False) -> Reached:
        """Find out whether a session of ``read`` shows all that was committed before this was called.

        If so, every statement that it sends from now on is as new as if the primary had answered.

        Args:
            session: A new one.
            place: Where ``write`` leads to.
            begin: The session is to be in a transaction, also where its engine is in AUTOCOMMIT.

        Raises:
            SessionRefused: The two factories do not fit together.
            ReplicaRefused: ``write`` leads to a replica.
            DBAPIError, OSError: The replica cannot be reached.
        """
        known = self._known
        own = known.places.of(session, mapper)
        _check_places(place, own)
        autocommit = own.autocommit and not begin
        told = known.positions(place).ask(mapper)
        async with asyncio.timeout(REACH_S):
            found: Replayed = await session.run_sync(_look, mapper, begin)
            if place.transactions not in known.alike.get(own.transactions, ()):
                await known.compare(session, place, own, mapper)
        known.note_missed(None)
        await asyncio.wait((told,))  # not awaited itself: a caller who is cancelled would cancel it for all
        position = told.result()
        if position is None:
            return Reached(own, "the primary does not say how far its log goes")
        if position.lsn is None:
            raise ReplicaRefused("write: the factory leads to a replica; pass one that leads to the primary")
        return Reached(own, await self._wait(session, mapper, found, position, autocommit=autocommit))

    async def _wait(
        self, session: AsyncSession, mapper: Mapper[Any], found: Replayed, position: Position, *, autocommit: bool
    ) -> str | None:
        """Wait for a replica that is behind; say why it may not answer, if so."""
        loop = asyncio.get_running_loop()
        until, pause = loop.time() + self.replica_lag_s, 0.0
        while (reason := found.lacks(position, autocommit=autocommit)) == BEHIND:
            if pause:
                if loop.time() >= until:
                    break
                await asyncio.sleep(min(pause, until - loop.time()))
            # Once more even without a lag to wait for: it was asked before the primary had said anything.
            async with asyncio.timeout(REACH_S):
                found = await session.run_sync(_look_again, mapper)
            pause = min(pause * 2, _LAST_PAUSE_S) or _FIRST_PAUSE_S
        return reason


class Reached(NamedTuple):
    """Where a replica's session leads to.

    Attributes:
        place: That.
        reason: Why it may not answer, if so.
    """

    place: Place
    reason: str | None


class _Known:
    """What a pair has found out about its servers."""

    def __init__(self, write: SessionFactory) -> None:
        self.places = Places()
        self.alike: WeakKeyDictionary[Transactions, WeakSet[Transactions]] = WeakKeyDictionary()
        self.away_until = 0.0
        self._write = write
        self._missed = False
        self._positions: WeakKeyDictionary[Any, WeakKeyDictionary[Transactions, Positions]] = WeakKeyDictionary()

    def note_missed(self, error: BaseException | None) -> None:
        """Say in the log, once, that the replica cannot be reached, or with ``None`` that it can again."""
        missed = error is not None
        if missed != self._missed:
            told = f"cannot be reached, the primary answers: {type(error).__name__}" if missed else "is back"
            logger.warning("the replica %s", told)
        self._missed = missed

    def positions(self, place: Place) -> Positions:
        """Give what asks the primary, in the running loop."""
        here = self._positions.setdefault(asyncio.get_running_loop(), WeakKeyDictionary())
        found = here.get(place.transactions)
        if found is None:
            found = here[place.transactions] = Positions(self._write)
        return found

    async def compare(self, session: AsyncSession, place: Place, own: Place, mapper: Mapper[Any]) -> None:
        """See that both sides are shown the same rows, by whatever role and search path; once for each engine.

        Raises:
            SessionRefused: They are not.
        """
        ours, theirs = await ask_restrictions(self._write, mapper), await ask_restrictions(session, mapper)
        if ours.tables != theirs.tables or (ours.tables and ours.role != theirs.role):
            raise SessionRefused("read: row-level security shows its role other rows than write's; use the same role")
        if ours.path != theirs.path:
            raise SessionRefused("read: its search path is not that of write; give both the same")
        self.alike.setdefault(own.transactions, WeakSet()).add(place.transactions)


def _check_places(write: Place, read: Place) -> None:
    if read.dialect != "postgresql":
        raise SessionRefused("read: no PostgreSQL; pass a factory of sessions on a replica of write's server")
    if read.bound:
        raise SessionRefused("read: sessions that are bound to a Connection; bind them to an engine")
    if read.options.schemas != write.options.schemas:
        raise SessionRefused("read: its schema_translate_map is not that of write; give both the same")


def _look(session: Session, mapper: Mapper[Any], begin: bool) -> Replayed:
    options = {"isolation_level": "READ COMMITTED"} if begin else None
    connection = session.connection({"mapper": mapper}, options)
    if isolation_of(connection) in ("REPEATABLE READ", "SERIALIZABLE"):
        # Asked for its position it would take its snapshot, before it is known to be new enough.
        raise SessionRefused("read: its transactions keep their first snapshot; use READ COMMITTED")
    return replayed(connection)


def _look_again(session: Session, mapper: Mapper[Any]) -> Replayed:
    return replayed(session.connection({"mapper": mapper}))
