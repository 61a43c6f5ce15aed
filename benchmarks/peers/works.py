"""The works that are timed: peers take turns, round by round, and each is compared with the hand-written one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any

from .conductor import Worker
from .scale import Scale


class WrongAnswer(Exception):
    """A peer gives other rows than the first one."""


@dataclass(frozen=True, slots=True)
class Figure:
    """What one peer took for one work, beside the hand-written one.

    Attributes:
        peer: Its title.
        work: What was done.
        ratio: Median of the rounds' ratios of elapsed time, or of requests per second.
        low: Lower quartile of these.
        high: Upper quartile of these.
        cpu_ratio: Median of the rounds' ratios of CPU time; ``None`` where it is not known.
        value: Median of the peer's own seconds per operation, or requests per second.
    """

    peer: str
    work: str
    ratio: float
    low: float
    high: float
    cpu_ratio: float | None
    value: float


def figure(peer: str, work: str, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]], key: str) -> Figure:
    """Compare the turns of a peer with the turns by hand of the same rounds."""
    ratios = [own[key] / hand[key] for own, hand in pairs]
    low, high = (min(ratios), max(ratios)) if len(ratios) < 2 else quantiles(ratios, n=4, method="inclusive")[::2]
    cpu = None if any(not turn["cpu"] for pair in pairs for turn in pair) else [o["cpu"] / h["cpu"] for o, h in pairs]
    return Figure(
        peer, work, median(ratios), low, high, median(cpu) if cpu else None, median(own[key] for own, _ in pairs)
    )


def compare_answers(workers: Sequence[Worker]) -> None:
    """Raise WrongAnswer unless all peers give the same rows, cold and cached."""
    answers = [worker.ask("answers") for worker in workers]
    for worker, answer in zip(workers, answers, strict=True):
        if answer != answers[0] or answer["one"] != answer["again"]:
            raise WrongAnswer(f"{worker.contestant.peer.title} gives other rows: {answer}"[:2_000])


def timed(workers: Sequence[Worker], scale: Scale) -> list[Figure]:
    """Give the figures of all works; the first worker is the hand-written one."""
    for worker in workers:
        worker.ask("warm", rows=scale.rows)
    works = [
        ("cached get, one caller", {"do": "get", "callers": 1}),
        (f"cached get, {scale.callers} callers", {"do": "get", "callers": scale.callers}),
        ("cached list of 100", {"do": "list", "callers": 1}),
        ("update with invalidation", {"do": "update", "callers": 1}),
    ]
    return [one for title, request in works for one in _raced(workers, title, {**request, "rows": scale.rows}, scale)]


def _raced(workers: Sequence[Worker], title: str, request: dict[str, Any], scale: Scale) -> list[Figure]:
    counts = [_count(worker, request, scale.turn_s) for worker in workers]
    turns: list[list[dict[str, Any]]] = [[] for _ in workers]
    for number in range(scale.rounds):
        for place in range(len(workers)):
            at = (number + place) % len(workers)
            turns[at].append(workers[at].ask(**request, count=counts[at]))
    return [
        figure(worker.contestant.peer.title, title, list(zip(own, turns[0], strict=True)), "elapsed")
        for worker, own in zip(workers, turns, strict=True)
    ]


def _count(worker: Worker, request: dict[str, Any], turn_s: float) -> int:
    """Find how many operations take a turn's time; on the way the worker gets warm."""
    callers: int = request["callers"]
    took = min(worker.ask(**request, count=callers * 4)["elapsed"] for _ in range(3))
    return max(callers * 2, int(turn_s / took))
