"""A reader process: batches of reads, each between two looks at the truth."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from math import inf
from random import Random
from typing import Any, NamedTuple

from sqlalchemy import literal, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from fastrdb.cache.cache import Cache
from fastrdb.db.sessions import SessionFactory

from .judging import Answer, Item, Look, Sandwich, Snapshot, lag_s, why_stale
from .subject import Count, Page, Read, Row, Subject
from .truth import Truth
from .windows import Doubt, Written

OLD_SNAPSHOT_S = 0.1
_SLACK_S = 5.0  # of a busy machine
TOGETHER = 1
MANY = 0.25  # of the reads of a row: by get_by_keys, whose claims and fills are its own


class Told(NamedTuple):
    """An answer, and when it was asked for, by ``time.monotonic``."""

    answer: Answer
    began: float


class Found(NamedTuple):
    """One stale answer.

    Attributes:
        text: The read, the answer, why, the truth.
        doubt: The same, for the judge of windows.
    """

    text: tuple[str, str, str, str]
    doubt: Doubt


class Reader:
    """Reads at random, in several ways.

    Args:
        subject: What is read.
        cache: Where from.
        sessions: Opens sessions.
        quick_sessions: Opens sessions in AUTOCOMMIT, which cost a third of the round trips.
        old_sessions: Opens sessions in REPEATABLE READ.
        random: Source of all choices.
        bound_s: How long an answer may be outdated, by a near tier; 0 for not at all.
    """

    def __init__(
        self,
        subject: Subject,
        cache: Cache,
        sessions: async_sessionmaker[AsyncSession],
        quick_sessions: async_sessionmaker[AsyncSession],
        old_sessions: async_sessionmaker[AsyncSession],
        random: Random,
        bound_s: float = 0.0,
    ) -> None:
        self._subject, self._cache, self._random = subject, cache, random
        self._bound_s, self._looks = bound_s, deque[Look]()
        self._sessions, self._quick_sessions, self._old_sessions = sessions, quick_sessions, old_sessions

    async def judge_batches(
        self,
        truth: Truth,
        size: int,
        cancelled: float,
        report: Callable[[int, Sequence[Found], Sequence[float]], None],
        *,
        doubts: bool,
    ) -> None:
        """Read for ever, and report after each batch how many answers were judged, which were stale, and lags.

        Args:
            truth: What the rows are.
            size: Reads in a batch.
            cancelled: Share of the reads that are cancelled.
            report: Takes that; the lags are of answers that a near tier may have given.
            doubts: Whether a window may explain a stale answer: then it is reported with what is needed to tell.
        """
        before, at = await truth.snapshot(), time.monotonic()
        while True:
            self._remember(at, before)
            reads = [self._subject.read(self._random) for _ in range(size)]
            answers = await self._batch(reads, cancelled)
            after, at = await truth.snapshot(), time.monotonic()
            known = [(reads[number], told.answer, told.began) for number, told in answers.items()]
            versions = await truth.versions(_unknown(known, before, after))
            sandwich = Sandwich(before, after, versions)
            verdicts = [(read, told, began, why_stale(read, told, sandwich)) for read, told, began in known]
            stale, lags = list[Found](), list[float]()
            for read, told, began, why in verdicts:
                lag = self._lag(read, told, sandwich, began) if why is not None else 0.0
                if why is not None and lag > self._bound_s:
                    stale.append(_found(read, told, began, why, sandwich))
                elif why is not None:
                    lags.append(lag)
            if stale and doubts:
                stale = _doubted(stale, await truth.history())
            report(len(verdicts), stale, lags)
            before = after

    def _remember(self, at: float, snapshot: Snapshot) -> None:
        """Keep a look at the truth for as long as an answer may be outdated."""
        if self._bound_s:
            self._looks.append(Look(at, snapshot))
            while self._looks[0].at < at - 2 * self._bound_s - _SLACK_S:
                self._looks.popleft()

    def _lag(self, read: Read, answer: Answer, truth: Sandwich, began: float) -> float:
        return lag_s(read, answer, truth, self._looks, began) if self._bound_s else inf

    async def _batch(self, reads: Sequence[Read], cancelled: float) -> dict[int, Told]:
        """Read all at once: most with a factory, some together in a session, some in a transaction begun before."""
        answers: dict[int, Told] = {}
        numbered = list(enumerate(reads))
        tasks = [
            asyncio.ensure_future(self._together(numbered[:TOGETHER], answers, transaction=False)),
            asyncio.ensure_future(self._together(numbered[TOGETHER : 2 * TOGETHER], answers, transaction=True)),
            *(asyncio.ensure_future(self._alone(at, read, answers)) for at, read in numbered[2 * TOGETHER :]),
        ]
        for task in tasks:
            if self._random.random() < cancelled:
                asyncio.get_running_loop().call_later(self._random.random() * 0.01, task.cancel)
        for failure in await asyncio.gather(*tasks, return_exceptions=True):
            if failure is not None and not isinstance(failure, asyncio.CancelledError):
                raise failure
        return answers

    async def _alone(self, at: int, read: Read, answers: dict[int, Told]) -> None:
        answers[at] = await self._told(read, self._quick_sessions if at % 4 else self._sessions)

    async def _together(
        self, reads: Sequence[tuple[int, Read]], answers: dict[int, Told], *, transaction: bool
    ) -> None:
        async with self._sessions() as session:
            if transaction:
                await session.execute(select(literal(1)))
            for at, read in reads:
                answers[at] = await self._told(read, session)

    async def _told(self, read: Read, db: AsyncSession | SessionFactory) -> Told:
        began = time.monotonic()
        return Told(await self._answer(read, db), began)

    async def _answer(self, read: Read, db: AsyncSession | SessionFactory) -> Answer:
        crud = self._subject.crud
        match read:
            case Row(fields) if self._random.random() < MANY:
                key = {self._subject.primary_key} & fields.keys() or fields.keys()
                named, rest = {n: fields[n] for n in key}, {n: fields[n] for n in fields.keys() - key}
                return [
                    self._item(row) for row in await crud.get_by_keys(db, self._cache, [named], filters=rest or None)
                ]
            case Row(fields):
                found = await crud.get_or_none(db, self._cache, **fields)
                return [self._item(found)] if found is not None else []
            case Page(limit, page, order_by, ascending, fields):
                rows = await crud.get_multi(db, self._cache, limit, page, order_by, ascending, **fields)
                return [self._item(row) for row in rows]
            case Count(fields):
                return await crud.count(db, self._cache, **fields)

    def _item(self, response: Any) -> Item:
        return Item(str(getattr(response, self._subject.primary_key)), str(getattr(response, self._subject.mark)))

    async def keep_old_snapshots(self, storm: Callable[[], Awaitable[None]]) -> None:
        """Read for ever in transactions with old snapshots: their answers are not judged, and may not be cached."""
        while True:
            await storm()
            async with self._old_sessions() as session:
                await session.execute(select(literal(1)))
                await asyncio.sleep(self._random.random() * OLD_SNAPSHOT_S)
                for _ in range(8):
                    await self._answer(self._subject.read(self._random), session)


def _unknown(known: Iterable[tuple[Read, Answer, float]], before: Snapshot, after: Snapshot) -> set[Item]:
    sandwich = Sandwich(before, after)
    return {item for _, answer, _ in known for item in sandwich.unknown(answer)}


def _found(read: Read, answer: Answer, began: float, why: str | None, truth: Sandwich) -> Found:
    shown = {item.id for item in answer} if not isinstance(answer, int) else set()
    keys = [key for key in truth.ids() if key in shown or not shown]
    lines = [f"row {key}: {_state(truth.before, key)} -> {_state(truth.after, key)}" for key in keys]
    doubt = Doubt(read, answer, truth, (), began, time.time() - (time.monotonic() - began))
    return Found((repr(read), repr(answer), str(why), "; ".join(lines)), doubt)


def _doubted(stale: Sequence[Found], history: Sequence[Written]) -> list[Found]:
    return [found._replace(doubt=found.doubt._replace(history=history)) for found in stale]


def _state(snapshot: Snapshot, key: str) -> str:
    image = snapshot.get(key)
    if image is None:
        return "nothing"
    return f"version {image.version} {dict(image.row)}" if image.alive else f"version {image.version} deleted"
