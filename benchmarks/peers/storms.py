"""Stale reads per million, without and with writers killed: each peer in turn, on a table of few rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from .conductor import Contestant, Worker, WorkerFailed, ended
from .scale import Scale
from .workers.rows import Place


@dataclass(frozen=True, slots=True)
class Staleness:
    """What the readers of one peer saw.

    Attributes:
        peer: Its title.
        killing: Whether writers were killed.
        reads: Number of reads.
        stale: How many of them gave an older row than PostgreSQL had before.
        killed: Number of writers killed.
    """

    peer: str
    killing: bool
    reads: int
    stale: int
    killed: int

    @property
    def per_million(self) -> int:
        """Stale reads per million reads."""
        return round(1_000_000 * self.stale / self.reads)


class NothingHappened(Exception):
    """Nobody wrote while the readers read, or nobody was killed: the count says nothing."""


def staleness(
    contestants: Sequence[Contestant], readers: Sequence[Worker], places: Sequence[Place], scale: Scale
) -> list[Staleness]:
    """Count for each peer, without kills and with them, in alternating turns."""
    found: list[Staleness] = []
    for killing in (False, True):
        turns: list[list[Staleness]] = [[] for _ in contestants]
        for _ in range(scale.storm_rounds):
            for at, contestant in enumerate(contestants):
                turns[at].append(_turn(contestant, readers[at], places[at], scale, killing))
        found += [_sum(own) for own in turns]
    return found


def _turn(contestant: Contestant, reader: Worker, place: Place, scale: Scale, killing: bool) -> Staleness:
    options = json.dumps({"writers": scale.writers, "rows": scale.storm_rows, "kill": killing})
    with ended(contestant.start("writing", place, options)) as writers:
        assert writers.stdout is not None
        if not writers.stdout.readline():
            raise WorkerFailed(f"the writers of {contestant.peer.title} ended before they wrote")
        seen = reader.ask("reads", seconds=scale.storm_s, readers=scale.readers, rows=scale.storm_rows)
        said, _ = writers.communicate(timeout=30)
    if writers.returncode:
        raise WorkerFailed(f"the writers of {contestant.peer.title} ended with {writers.returncode}")
    killed = json.loads(said)["killed"]
    if not seen["changes"] or (killing and not killed):
        raise NothingHappened(f"{contestant.peer.title}: {seen}, {killed} writers killed")
    return Staleness(contestant.peer.title, killing, seen["reads"], seen["stale"], killed)


def _sum(turns: Sequence[Staleness]) -> Staleness:
    return Staleness(
        turns[0].peer,
        turns[0].killing,
        sum(turn.reads for turn in turns),
        sum(turn.stale for turn in turns),
        sum(turn.killed for turn in turns),
    )
