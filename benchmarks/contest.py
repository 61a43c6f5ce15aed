"""Contestants that take turns, and the figures of their rounds."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from statistics import median, quantiles
from time import perf_counter, process_time
from typing import Any, NamedTuple

_MOST = 1_000_000  # operations of one turn


async def _nothing(count: int) -> None:
    """Prepare nothing."""


class WrongTurn(Exception):
    """A contestant did something else than what is measured, or answered something else than the other."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One way to do a work.

    Attributes:
        run: Does the work so many times; only this is timed.
        prepare: Called before each turn with the same number.
        counter: Must have grown by that number after each turn: hits, where the work is a cached read.
    """

    run: Callable[[int], Awaitable[object]]
    prepare: Callable[[int], Awaitable[None]] = _nothing
    counter: Callable[[], int] | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """One row of the table.

    Attributes:
        name: For the command line.
        title: For the table.
        target: Greatest ratio of fastrdb to hand-written code; ``None`` for none.
        by_hand: Hand-written code.
        fastrdb: The same by fastrdb.
        beside: Other ways to do it, by title; compared with hand-written code, too.
        step: A turn does a multiple of this many operations.
        most: Operations of one turn at most.
        rounds: Turns of each contestant at most; ``None``: as many as the run has.
        around: Entered before the first turn, where it raises if the contestants give different answers.
    """

    name: str
    title: str
    target: float | None
    by_hand: Contestant
    fastrdb: Contestant
    around: Callable[[], AbstractAsyncContextManager[object]]
    beside: dict[str, Contestant] = field(default_factory=dict)
    step: int = 1
    most: int = _MOST
    rounds: int | None = None


class Turn(NamedTuple):
    """What one turn took per operation, in seconds."""

    elapsed: float
    cpu: float


@dataclass(frozen=True, slots=True)
class Figure:
    """What one contestant took.

    Attributes:
        title: Its title.
        target: Greatest ratio, or ``None``.
        ratio: Median over the rounds of its time divided by that of hand-written code in the same round.
        low, high: First and third quartile of that.
        cpu_ratio: The same as *ratio* of the processor time of this process alone: what the machine does besides, and
            what the servers do, is not in it.
        seconds: Median time of one operation.
        by_hand_s: The same of hand-written code.
        rounds: Number of rounds.
        operations: Operations per turn.
    """

    title: str
    target: float | None
    ratio: float
    low: float
    high: float
    cpu_ratio: float
    seconds: float
    by_hand_s: float
    rounds: int
    operations: int

    @property
    def met(self) -> bool | None:
        """Whether the target is met; ``None`` where there is none."""
        return None if self.target is None else self.ratio <= self.target

    def as_dict(self) -> dict[str, Any]:
        """Give what goes into the JSON file."""
        return {name: getattr(self, name) for name in (*self.__slots__, "met")}


async def hold(work: Work, rounds: int, turn_s: float) -> list[Figure]:
    """Let the contestants of a work take turns, and give the figures: fastrdb's, then those beside it.

    Each round has one turn of each contestant, begun by another one each time: what else the machine does
    meanwhile falls on all of them alike.

    Args:
        work: What is to be done.
        rounds: Number of rounds, at least 2.
        turn_s: About how long a turn of hand-written code takes, in seconds.
    """
    rounds = min(rounds, work.rounds) if work.rounds is not None else rounds
    contestants = [work.by_hand, work.fastrdb, *work.beside.values()]
    turns: list[list[Turn]] = [[] for _ in contestants]
    async with work.around():
        count = await _operations(work, turn_s)
        for number in range(rounds):
            for place in range(len(contestants)):
                at = (number + place) % len(contestants)
                turns[at].append(await _turn(contestants[at], count))
    titles = [work.title, *work.beside]
    return [
        _figure(title, work.target if at == 0 else None, turns[0], own, count)
        for at, (title, own) in enumerate(zip(titles, turns[1:], strict=True))
    ]


async def _turn(contestant: Contestant, count: int) -> Turn:
    await contestant.prepare(count)
    before = contestant.counter() if contestant.counter is not None else 0
    gc.collect()  # or one would clear up what another one left
    start, cpu = perf_counter(), process_time()
    await contestant.run(count)
    turn = Turn((perf_counter() - start) / count, (process_time() - cpu) / count)
    if contestant.counter is not None and (done := contestant.counter() - before) != count:
        raise WrongTurn(f"{done} of {count} operations did what is measured")
    return turn


async def _operations(work: Work, turn_s: float) -> int:
    """Find how many operations take a turn's time; on the way all contestants get warm."""
    for contestant in (*work.beside.values(), work.fastrdb):
        await _turn(contestant, work.step)
    count = work.step
    while (took := (await _turn(work.by_hand, count)).elapsed * count) < turn_s and count < work.most:
        wanted = min(work.most, count * min(8.0, 1.2 * turn_s / took))
        count = max(count + work.step, int(wanted) // work.step * work.step)
    return min(count, work.most)


def same(answers: Sequence[object]) -> None:
    """Raise WrongTurn unless all answers are equal."""
    if any(answer != answers[0] for answer in answers):
        raise WrongTurn(f"the contestants give different answers: {answers}"[:2_000])


def _figure(title: str, target: float | None, by_hand: Sequence[Turn], own: Sequence[Turn], count: int) -> Figure:
    pairs = list(zip(own, by_hand, strict=True))
    ratios = [mine.elapsed / theirs.elapsed for mine, theirs in pairs]
    low, _, high = quantiles(ratios, n=4, method="inclusive")
    return Figure(
        title,
        target,
        ratio=median(ratios),
        low=low,
        high=high,
        cpu_ratio=median(mine.cpu / theirs.cpu for mine, theirs in pairs),
        seconds=median(turn.elapsed for turn in own),
        by_hand_s=median(turn.elapsed for turn in by_hand),
        rounds=len(pairs),
        operations=count,
    )
