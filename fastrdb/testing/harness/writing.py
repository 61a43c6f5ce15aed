"""A writer process: every kind of transaction that a crud's write can be in."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from typing import Any

from asyncpg import InternalClientError
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm.exc import StaleDataError

from fastrdb.cache.cache import Cache
from fastrdb.db.sessions import SessionFactory
from fastrdb.errors import BatchRefused, NotFound, UniqueViolation
from fastrdb.writes.watching import watch

from .deeds import DEED, Ledger
from .storm import GATE, Gate, Sky
from .subject import Row, Subject

ROWS = (1, 2, 2, 3, 1_000)  # that a storm is about: in some, all writers fight for one
PAUSES = (1, 4, 10)  # factors: where all crowd together, much of what can go wrong does not
MARKS = 20_000  # of one life of a writer

# A deadlock, a lock awaited for too long, a connection cut; and the cancelling of an earlier statement of the same
# connection, which asyncpg asks for over another one, and which comes late.
_EXPECTED = ("40P01", "55P03", "57P01", "08003", "57014")


class Rollback(Exception):
    """Ends a transaction on purpose."""


class Writer:
    """Writes at random, in several ways.

    Args:
        subject: What is written.
        cache: What must know.
        sessions: Opens sessions.
        committing: Opens sessions in which every statement commits by itself.
        sky: Says when, and source of all choices.
        life: Number of this writer's life, >= 0; marks are made from it, so that no two are alike.
        ledger: Is told which deed is whose; where there are outages.
    """

    def __init__(
        self,
        subject: Subject,
        cache: Cache,
        sessions: async_sessionmaker[AsyncSession],
        committing: async_sessionmaker[AsyncSession],
        sky: Sky,
        life: int,
        ledger: Ledger | None = None,
    ) -> None:
        self._subject, self._cache, self._sky, self._random = subject, cache, sky, sky.random
        self._sessions, self._committing = sessions, committing
        self._watched = async_sessionmaker(sessions.kw["bind"])
        watch(self._watched, cache)
        self._marks = count(1 + life * MARKS)
        self._ledger, self._deeds = ledger, (f"{life}.{number}" for number in count())
        self.done: Counter[str] = Counter()

    async def write_for_ever(self, ways: Mapping[str, float], pause_s: float) -> None:
        """Write in every storm, with pauses between."""
        while True:
            await self._sky.storm()
            some = self._sky.some("ways", list(ways), 3, len(ways))
            (way,) = self._random.choices(some, [ways[name] for name in some])
            if await self._tolerant(getattr(self, f"_{way}")):
                self.done[way] += 1
            (crowd,) = self._sky.some("pauses", PAUSES, 1)
            await asyncio.sleep(self._random.expovariate(1 / (pause_s * crowd)))

    async def _tolerant(self, way: Callable[[], Awaitable[None]]) -> bool:
        """Write, and take what several writers of few rows do to each other."""
        deed = next(self._deeds)
        entered = DEED.set(deed)
        try:
            await way()
        except (BatchRefused, NotFound, UniqueViolation, Rollback):
            return False
        except DBAPIError as error:
            if not _expected(error):
                raise
            return False
        finally:
            DEED.reset(entered)
            if self._ledger is not None:
                self._ledger.end(deed, undelivered=self._cache.undelivered)
        return True

    # -- one write

    async def _write(self, db: AsyncSession | SessionFactory, key: Any, **options: Any) -> None:
        """Change a row, or delete it, or make it anew."""
        subject, random = self._subject, self._random
        chance = random.random()
        try:
            if chance < 0.1:
                await subject.crud.delete(db, self._cache, **self._named(key), **options)
            else:
                change = subject.change(random, next(self._marks))
                await subject.crud.update(db, self._cache, change, **self._named(key), **options)
        except NotFound:
            await subject.crud.create(db, self._cache, subject.create(random, key, next(self._marks)), **options)

    def _named(self, key: Any) -> dict[str, Any]:
        return {self._subject.primary_key: key}

    def _key(self) -> Any:
        return self._random.choice(self._sky.some("rows", self._subject.ids, *ROWS))

    def _keys(self, size: int) -> list[Any]:
        """Give several keys, one at least, in an order that all writers keep, so that they seldom deadlock."""
        ids = self._sky.some("rows", self._subject.ids, *ROWS)
        return sorted(self._random.sample(ids, min(size, len(ids))))

    # -- the ways

    async def _alone(self) -> None:
        """The crud opens the session and commits."""
        await self._write(self._sessions, self._key())

    async def _overtaken(self) -> None:
        """The crud commits, and before it has told the cache, another write of the row is through."""
        key, gate = self._key(), Gate()
        opened = GATE.set(gate)
        slow = asyncio.ensure_future(self._tolerant(lambda: self._write(self._sessions, key)))
        GATE.reset(opened)
        reached = asyncio.ensure_future(gate.reached.wait())
        try:
            await asyncio.wait({slow, reached}, return_when=asyncio.FIRST_COMPLETED)
            other = self._random.choice((self._sessions, self._committing))
            await self._tolerant(lambda: self._write(other, key))
            await self._sky.delay()
        finally:
            gate.opened.set()
            reached.cancel()
        await slow

    async def _in_session(self) -> None:
        """The crud commits the caller's session, in which something was read before."""
        async with self._sessions() as session:
            await self._read(session)
            await self._write(session, self._key())

    async def _joined(self) -> None:
        """Two writes and a read in the caller's transaction, which sometimes is rolled back."""
        async with self._sessions() as session, session.begin():
            for key in self._keys(2):
                await self._write(session, key)
                await self._read(session)
            if self._random.random() < 0.25:
                raise Rollback

    async def _savepoint(self) -> None:
        """Two writes, one of them in a savepoint that is rolled back or not."""
        async with self._sessions() as session, session.begin():
            first, *_, second = [*self._keys(2), self._key()]
            await self._write(session, first)
            try:
                async with session.begin_nested():
                    await self._write(session, second)
                    await self._read(session)
                    if self._random.random() < 0.5:
                        raise Rollback
            except Rollback:
                pass

    async def _committed_by_caller(self) -> None:
        """Writes with ``commit=False``, and a commit by the caller."""
        async with self._sessions() as session:
            await self._write(session, self._key(), commit=False)
            await session.commit()

    async def _by_itself(self) -> None:
        """In AUTOCOMMIT."""
        await self._write(self._committing, self._key())

    async def _many(self) -> None:
        """Several rows at once, where they are not there."""
        subject = self._subject
        rows = [subject.create(self._random, key, next(self._marks)) for key in self._keys(2)]
        await subject.crud.create_multi(self._sessions, self._cache, rows)

    async def _upserted(self) -> None:
        """One row or several, whether they are there or not."""
        subject = self._subject
        rows = [subject.create(self._random, key, next(self._marks)) for key in self._keys(2)]
        if len(rows) > 1 and self._random.random() < 0.5:
            await subject.crud.upsert_multi(self._sessions, self._cache, rows)
        else:
            await subject.crud.upsert(self._sessions, self._cache, rows[0])

    async def _patched(self) -> None:
        """A change of what differs."""
        change = self._subject.change(self._random, next(self._marks))
        await self._subject.crud.patch(self._sessions, self._cache, change, **self._named(self._key()))

    async def _several(self) -> None:
        """Rows by their keys, changed each in its own way, or deleted."""
        crud, keys = self._subject.crud, self._keys(3)
        if self._random.random() < 0.2:
            await crud.delete_multi(self._sessions, self._cache, keys, missing="skip")
            return
        items = [(key, self._subject.change(self._random, next(self._marks))) for key in keys]
        await crud.update_multi(self._sessions, self._cache, items, missing="skip")

    async def _by_condition(self) -> None:
        """Rows that satisfy a condition, changed alike, or deleted."""
        crud = self._subject.crud
        named: dict[str, Any] = {self._subject.primary_key: [self._key()]}
        if self._random.random() < 0.2:
            await crud.delete_where(self._sessions, self._cache, **named)
        else:
            change = self._subject.change(self._random, next(self._marks))
            await crud.update_where(self._sessions, self._cache, change, **named)

    async def _plain(self) -> None:
        """An instance of a plain session, which is watched."""
        async with self._watched() as session:
            found = await session.get(self._subject.crud.model, self._key())
            if found is None:
                raise Rollback
            change = self._subject.change(self._random, next(self._marks))
            for name, value in change.model_dump(exclude_unset=True).items():
                setattr(found, name, value)
            try:
                await session.commit()
            except (IntegrityError, StaleDataError):  # another row has its key; somebody has deleted it
                raise Rollback from None

    async def _invalidated(self) -> None:
        """By hand: one row, the table, or all."""
        crud = self._subject.crud
        chance = self._random.random()
        if chance < 0.5:
            await crud.invalidate(self._cache, **self._named(self._key()))
        elif chance < 0.8:
            await crud.invalidate(self._cache)
        else:
            await crud.clear(self._cache)

    async def _bound(self) -> None:
        """In a session that is bound to the caller's connection: its holds are never released."""
        async with self._sessions.kw["bind"].begin() as connection, self._sessions(bind=connection) as session:
            await self._write(session, self._key())

    async def _read(self, session: AsyncSession) -> None:
        """Read something in a writing transaction: it may see its own writes, and must cache none."""
        read = self._subject.read(self._random)
        if isinstance(read, Row):
            await self._subject.crud.get_or_none(session, self._cache, **read.fields)


def _expected(error: DBAPIError) -> bool:
    """Tell whether other writers, or the end of its connection, explain why a write failed."""
    driver_error = error.orig.__cause__ if error.orig is not None else None
    # What asyncpg says when it has read that its connection is to end, and not yet its end.
    ending = isinstance(driver_error, InternalClientError)
    return ending or error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _EXPECTED
