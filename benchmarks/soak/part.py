"""One thing that must hold: what it is given, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from tests.servers.postgres import PostgresServer


class Verdict(Enum):
    """Whether a target was met."""

    MET = "met"
    SHORT = "so far"  # nothing was found, and the time was up before all was done
    MISSED = "MISSED"


@dataclass(frozen=True, slots=True)
class Grounds:
    """What a part may use.

    Attributes:
        postgres: A server to make databases on; each part takes its own, ``with postgres.database() as url``.
        seed: Of all that is random.
        seconds: When these are over, the part ends.
        share: Of the full numbers (reads, outages), how much is wanted: 1, or less in a quick run.
    """

    postgres: PostgresServer
    seed: int
    seconds: float
    share: float = 1.0

    def wanted(self, full: int, *, least: int = 1) -> int:
        """Give how many of *full* are wanted."""
        return max(least, round(full * self.share))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a part found.

    Attributes:
        found: For the table, in a line.
        verdict: Whether the target was met.
        details: What was wrong, for the screen.
    """

    found: str
    verdict: Verdict
    details: str = ""


@dataclass(frozen=True, slots=True)
class Part:
    """A row of the table.

    Attributes:
        name: By which it may be chosen.
        title: What is measured.
        target: What must hold.
        run: Does it. May raise: then the target is missed.
        minutes: About what it takes: its share of the time, beside the others.
    """

    name: str
    title: str
    target: str
    run: Callable[[Grounds], Outcome]
    minutes: float
