"""How far a primary's log goes, and how far a replica has replayed it.

A replica shows every COMMIT whose record it has replayed. So one that has replayed up to where the primary's log ended
at some moment shows whatever had been committed by then. The log's *insert* position counts, not the flushed one: a
COMMIT under ``synchronous_commit=off`` returns before it is flushed.

A position means something on its timeline only. After a failover a replica may have replayed further than the new
primary, on the timeline that this one has left, and lack what was written since. It has therefore to say that it was on
the primary's own timeline: it can have left that one again only further on.
"""

from __future__ import annotations

import asyncio
from contextvars import Context
from typing import Any, NamedTuple

from sqlalchemy import Connection, Executable, literal_column, select
from sqlalchemy.orm import Mapper, Session

from .sessions import SessionFactory

_CLUSTER = "fastrdb_cluster"
_PAGE, _HEADER, _LONG_HEADER = 8_192, 24, 40  # bytes; the first page of a segment has the long one

_IDENTITY: Executable = select(
    literal_column("(SELECT system_identifier FROM pg_control_system())"),
    literal_column("current_database()::text"),
    literal_column("pg_size_bytes(current_setting('wal_segment_size'))"),
)
_INSERTED: Executable = select(
    literal_column(
        "CASE WHEN NOT pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::int8 END"
    ),
    literal_column("CASE WHEN NOT pg_is_in_recovery() THEN pg_walfile_name(pg_current_wal_insert_lsn()) END"),
)
_REPLAYED: Executable = select(
    literal_column("CASE WHEN pg_is_in_recovery() THEN pg_wal_lsn_diff(pg_last_wal_replay_lsn(), '0/0')::int8 END"),
    literal_column("(SELECT min_recovery_end_timeline FROM pg_control_recovery())"),
    literal_column("current_setting('transaction_isolation')"),
)


class Cluster(NamedTuple):
    """Which database of which servers: a primary's replicas have the same."""

    system: int
    database: str
    segment: int


class Position(NamedTuple):
    """How far a primary's log goes.

    Attributes:
        lsn: Bytes; ``None``: the server is a replica.
        timeline: The number of its timeline.
    """

    cluster: Cluster
    lsn: int | None
    timeline: int


class Replayed(NamedTuple):
    """How far a replica has replayed its primary's log.

    Attributes:
        lsn: Bytes; ``None``: the server is no replica, or has replayed nothing.
        timeline: A timeline that it was on.
        level: The isolation level of the transaction that it was asked in.
    """

    cluster: Cluster
    lsn: int | None
    timeline: int
    level: str

    def lacks(self, position: Position, *, autocommit: bool = False) -> str | None:
        """Say why the next statement on the same connection may not show all up to a position; ``None`` if it does.

        Args:
            autocommit: Every statement has a transaction, and so a snapshot, of its own.
        """
        if self.lsn is None or position.lsn is None:
            return "no replica"
        if self.cluster != position.cluster:
            return "another database"
        if self.timeline != position.timeline:
            return "another timeline"
        if not autocommit and self.level != "read committed":
            return "its snapshot is older"
        return None if self.lsn >= position.lsn else BEHIND


BEHIND = "behind"


class Positions:
    """Asks one primary how far its log goes, once for all who ask before the question is sent.

    One question is under way at a time, so that it takes one connection of the pool, whoever asks.
    """

    def __init__(self, factory: SessionFactory) -> None:
        self._factory = factory
        self._next: asyncio.Future[Position | None] | None = None
        self._task: asyncio.Task[None] | None = None

    def ask(self, mapper: Mapper[Any]) -> asyncio.Future[Position | None]:
        """Give what will be the position, not older than this call; ``None`` where the primary does not say.

        Why not, the next statement that is sent to it will tell.
        """
        if self._next is None:
            loop = asyncio.get_running_loop()
            self._next = loop.create_future()
            if self._task is None or self._task.done():
                self._task = loop.create_task(self._run(mapper), context=Context())
        return self._next

    async def _run(self, mapper: Mapper[Any]) -> None:
        await asyncio.sleep(0)  # all who ask in this turn of the loop share the first question
        while (asked := self._next) is not None:
            position = None
            try:
                position = await self._asked(mapper)
            except Exception:  # the primary's next statement says it to those who wait
                pass
            finally:
                if self._next is asked:
                    self._next = None
                if not asked.done():
                    asked.set_result(position)

    async def _asked(self, mapper: Mapper[Any]) -> Position:
        async with self._factory() as session:
            return await session.run_sync(self._ask, mapper)

    def _ask(self, session: Session, mapper: Mapper[Any]) -> Position:
        # AUTOCOMMIT: neither BEGIN nor ROLLBACK is sent.
        connection = session.connection({"mapper": mapper}, {"isolation_level": "AUTOCOMMIT"})
        cluster = cluster_of(connection)
        self._next = None  # who asks from here on may have seen a COMMIT that the answer does not cover
        lsn, file = connection.execute(_INSERTED).one()
        return Position(cluster, lsn and last_record(lsn, cluster.segment), int(file[:8], 16) if file else 0)


def replayed(connection: Connection) -> Replayed:
    """Ask a replica how far it has replayed its primary's log."""
    cluster = cluster_of(connection)
    lsn, timeline, level = connection.execute(_REPLAYED).one()
    return Replayed(cluster, lsn, timeline, level)


def cluster_of(connection: Connection) -> Cluster:
    """Give the servers that a connection belongs to, asked once for each connection."""
    found: Cluster | None = connection.info.get(_CLUSTER)
    if found is None:
        found = connection.info[_CLUSTER] = Cluster(*connection.execute(_IDENTITY).one())
    return found


def last_record(inserted: int, segment: int) -> int:
    """Give where the last record ends, if the next one begins at *inserted*.

    At the start of a page the next record begins behind the page's header; a replica, which has no more to replay,
    stands before it. No record ends just there.

    Args:
        inserted: Bytes.
        segment: Size of a segment, in bytes.
    """
    if inserted % segment == _LONG_HEADER:
        return inserted - _LONG_HEADER
    return inserted - _HEADER if inserted % _PAGE == _HEADER else inserted
