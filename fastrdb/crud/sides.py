"""Which session answers a read: the caller's, one of our own, or of a pair one on the replica or on the primary."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import Enum
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapper

from ..db.replicas import UNREACHED, ReadWrite
from ..db.sessions import Place, SessionFactory
from ..writes.outcome import finish


class Kind(Enum):
    """What is known of a session's server."""

    ANY = "nothing"
    REPLICA = "a replica that has replayed all that was committed when the read began"
    PRIMARY = "it must be the primary"


class Side(NamedTuple):
    """A session that is to answer.

    Attributes:
        session: The session.
        place: Where its statements go.
        kind: What is known of its server.
    """

    session: AsyncSession
    place: Place
    kind: Kind = Kind.ANY


def primary_of(db: AsyncSession | SessionFactory) -> AsyncSession | SessionFactory:
    """Give what writes: of a pair its factory for that."""
    return db.write if isinstance(db, ReadWrite) else db


@asynccontextmanager
async def opened(
    db: AsyncSession | SessionFactory, place: Place, mapper: Mapper[Any], *, begin: bool = False
) -> AsyncIterator[Side]:
    """Give the caller's session, left open, or one of our own, closed at the end.

    Args:
        place: Where *db* leads to; for a pair the primary.
        begin: A replica's session is to be in a transaction, also where its engine is in AUTOCOMMIT.
    """
    if isinstance(db, AsyncSession):
        yield Side(db, place)
        return
    found = None
    if isinstance(db, ReadWrite):
        found, _ = await replica_of(db, place, mapper, begin=begin)
        found = found or Side(db.write(), place, Kind.PRIMARY)
    side = found or Side(db(), place)
    async with side.session:
        yield side


async def replica_of(
    pair: ReadWrite, place: Place, mapper: Mapper[Any], *, begin: bool = False
) -> tuple[Side | None, str]:
    """Give a session on the replica that shows all that is committed now, or ``None``; and what to count."""
    if place.bound:
        return None, "replica: the primary's session is bound to a connection"
    if pair.away:
        return None, "replica: away"
    session = pair.read()
    try:
        reached = await pair.reach(session, place, mapper, begin=begin)
    except UNREACHED as error:
        pair.lost(error)
        await finish(session.close())
        return None, "replica: away"
    except BaseException:
        await finish(session.close())
        raise
    if reached.reason is not None:
        await finish(session.close())
        return None, f"replica: {reached.reason}"
    return Side(session, reached.place, Kind.REPLICA), ""
