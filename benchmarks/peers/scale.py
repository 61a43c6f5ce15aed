"""How much is measured."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """The size of a run.

    Attributes:
        rounds: Turns of each peer in each work.
        turn_s: About how long a turn takes, in seconds.
        rows: Of the table.
        callers: Concurrent callers of the second work.
        storm_s: How long stale reads are counted in one turn, in seconds.
        storm_rounds: Turns of that.
        storm_rows: Rows that are read and written meanwhile.
        readers: Concurrent ones.
        writers: Processes.
        load_s: How long the app is under load in one turn, in seconds.
        load_rounds: Turns of that.
        connections: Of the load generator.
        uvicorns: Worker processes of the app.
    """

    rounds: int = 25
    turn_s: float = 0.05
    rows: int = 2_000
    callers: int = 64
    storm_s: float = 3.0
    storm_rounds: int = 2
    storm_rows: int = 8
    readers: int = 32
    writers: int = 2
    load_s: float = 1.0
    load_rounds: int = 5
    connections: int = 32
    uvicorns: int = 2


QUICK = Scale(rounds=2, turn_s=0.002, rows=150, storm_s=0.5, storm_rounds=1, load_s=0.2, load_rounds=1, uvicorns=1)
