"""What a soak says: a table for the screen, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from ..report import versions
from .part import Outcome, Part

_HEAD = ("measured", "target", "found", "time", "")


@dataclass(frozen=True, slots=True)
class Row:
    """What one part found, and in how many seconds."""

    part: Part
    outcome: Outcome
    seconds: float

    def cells(self) -> tuple[str, ...]:
        """Give the row of a table."""
        minutes, seconds = divmod(round(self.seconds), 60)
        outcome = self.outcome
        return self.part.title, self.part.target, outcome.found, f"{minutes}:{seconds:02}", outcome.verdict.value


@dataclass(frozen=True, slots=True)
class Report:
    """All of a run.

    Attributes:
        rows: What the parts found.
        seed: Of what was random.
        machine: Its class.
        servers: Name and version of each server.
        note: What else there is to say.
        quick: It was a smoke test.
    """

    rows: Sequence[Row]
    seed: int
    machine: str
    servers: dict[str, str]
    note: str = ""
    quick: bool = False
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def table(self) -> str:
        """Give the table, as Markdown, which a screen shows as well."""
        rows = [row.cells() for row in self.rows]
        lines = [_HEAD, ("---",) * len(_HEAD), *rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def page(self) -> str:
        """Give the page."""
        named = ", ".join(f"{name} {number}" for name, number in {**versions(), **self.servers}.items())
        minutes = sum(row.seconds for row in self.rows) / 60
        said = f"{self.date}, {minutes:.0f} minutes in all, on {self.machine}; seed {self.seed}; {named}."
        quick = " A smoke test." if self.quick else ""
        return f"""# Soak

Written by `nox -s soak -- --write`. {said}{quick} {self.note}

{self.table()}

`met`: all that was wanted was done. `so far`: nothing was found, and the time was up before that. `MISSED`: something
was found.
"""
