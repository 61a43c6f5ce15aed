"""A load that leaves its value for others, and that an aged value may stand in for where the database is away."""

from __future__ import annotations

from contextlib import suppress
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from ..cache.aged import Spare
from ..cache.cache import Cache
from ..cache.reads import NULL, Decode, Load, Loaded, decoded
from .arguments import Sources
from .outages import is_outage

T = TypeVar("T")

NOT_DELIVERED = "an invalidation is not delivered yet"


def or_aged(load: Load[T], decode: Decode[T], sources: Sources, cache: Cache, spare: Spare) -> Load[T]:
    """Give a load that also keeps what it read, and that gives the aged value where the database is away."""

    async def loaded(may_store: bool) -> Loaded[T]:
        session = sources.db if isinstance(sources.db, AsyncSession) else None
        began = session is not None and not session.in_transaction()
        sent = spare.aged.begin()
        try:
            found = await load(True)  # whether or not Redis may have it: what is fresh is kept here
        except Exception as error:
            raw = spare.answer() if is_outage(error) else None
            if raw is None:
                raise
            if session is not None and began:
                await _leave_usable(session)
            cache.stats.count("aged: the database failed")
            spare.aged.stood_in(sources.place.identity, error)
            return Loaded(decoded(raw, decode), None, "the database failed")
        spare.aged.answered(sources.place.identity)
        if found.payload is not None:
            spare.note(found.payload, sent, null=found.payload == NULL)
        return found if may_store else Loaded(found.answer, None, "not asked for")

    return loaded


async def _leave_usable(session: AsyncSession) -> None:
    """End the transaction that the failed read has begun: the caller's session is what it was, for its next read."""
    with suppress(SQLAlchemyError, OSError):
        await session.rollback()
