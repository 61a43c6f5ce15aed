"""How much is cancelled, and what came of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

_SHOWN = 20


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is done.

    Attributes:
        cancellations: Requests that end as cancelled; those that come to their end before are done besides.
        callers: How many at once; each writes rows of its own.
        seed: Of what is drawn. The turns of the loop are the machine's, so no run is quite like another.
        pool: Size of the connection pool.
        hold_s: Life of a hold that nobody releases.
    """

    cancellations: int = 500
    callers: int = 24
    seed: int = 0
    pool: int = 10
    hold_s: float = 1.0


@dataclass(slots=True)
class Report:
    """What came of it.

    Attributes:
        where: Database and cache.
        cancelled: Requests that ended as cancelled, by kind.
        by_way: The same, by how they were cancelled.
        done: Requests that came to their end, by kind.
        looked: What was compared: values of rows, lists and marks.
        left: Claims and holds that lay in the cache when the last request had ended; they have to run out.
        by_drivers: Complaints of a driver's own, which a plain session would have caused, too.
        seconds: Length of the run.
        faults: What was wrong.
    """

    where: str
    cancelled: Counter[str] = field(default_factory=Counter)
    by_way: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)
    looked: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)
    by_drivers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)

    @property
    def holds(self) -> bool:
        """The verdict: nothing was wrong."""
        return not self.faults

    def as_dict(self) -> dict[str, Any]:
        """Give what goes into a JSON file."""
        return {**asdict(self), "holds": self.holds}

    def __str__(self) -> str:
        verdict = "nothing was wrong" if self.holds else f"{self.faults.total()} FAULTS"
        lines = [
            f"{self.cancelled.total():,} requests cancelled, {self.done.total():,} done: {verdict}",
            f"on {self.where}, in {self.seconds:.0f} s",
            f"cancelled: {_listed(self.cancelled)}",
            f"by: {_listed(self.by_way)}",
            f"compared: {_listed(self.looked)}",
            f"left at first in the cache, and gone when their life was over: {_listed(self.left) or 'nothing'}",
            *(f"by the driver ({count} x): {text}" for text, count in self.by_drivers.items()),
            *(f"FAULT ({count} x): {fault}" for fault, count in self.faults.most_common(_SHOWN)),
        ]
        return "\n".join(lines)


def _listed(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in sorted(counter.items()))
