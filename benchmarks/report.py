"""What a run says: a table for the screen, the same for the README, and JSON."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from .contest import Figure

_PACKAGES = ("sqlalchemy", "asyncpg", "redis", "hiredis", "pydantic", "uvloop")
_HEAD = ("work", "target", "ratio", "quartiles", "of CPU", "by hand", "fastrdb", "")
BEGIN, END = "<!-- figures: written by python -m benchmarks --readme -->", "<!-- end of figures -->"


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run, and what they were measured on.

    Attributes:
        servers: Name and version of each server.
        rounds: Turns of each contestant.
        figures: For each work, fastrdb's figure, then those beside it.
    """

    servers: dict[str, str]
    rounds: int
    figures: list[list[Figure]]
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def as_dict(self) -> dict[str, Any]:
        """Give what goes into the JSON file; times are in seconds."""
        return {
            "date": self.date,
            "machine": machine(),
            "versions": {**versions(), **self.servers},
            "rounds": self.rounds,
            "works": [[figure.as_dict() for figure in work] for work in self.figures],
        }

    def table(self) -> str:
        """Give the table for a screen."""
        rows = [_HEAD, *self._rows()]
        widths = [max(len(row[at]) for row in rows) for at in range(len(_HEAD))]
        lines = ["  ".join(_aligned(cell, width, at) for at, (cell, width) in enumerate(zip(row, widths, strict=True)))
                 for row in rows]  # fmt: skip
        lines.insert(1, "-" * len(lines[0]))
        return "\n".join(line.rstrip() for line in lines)

    def markdown(self) -> str:
        """Give the figures for the README."""
        lines = [self.conditions(), "", "| " + " | ".join(_HEAD[:-1]) + " | met |", "|---" * len(_HEAD) + "|"]
        lines += ["| " + " | ".join(row) + " |" for row in self._rows()]
        return "\n".join(lines)

    def conditions(self) -> str:
        """Say when, on what, and with which versions."""
        named = ", ".join(f"{name} {number}" for name, number in {**versions(), **self.servers}.items())
        return f"{self.date}, {self.rounds} rounds, on {machine()}; {named}."

    def write_into(self, readme: Path) -> None:
        """Put the figures between the marks of a README, in place of the last ones."""
        before, _, rest = readme.read_text().partition(BEGIN)
        _, _, after = rest.partition(END)
        readme.write_text(f"{before}{BEGIN}\n\n{self.markdown()}\n\n{END}{after}")

    def _rows(self) -> list[tuple[str, ...]]:
        return [_row(figure, beside=at > 0) for work in self.figures for at, figure in enumerate(work)]


def _row(figure: Figure, *, beside: bool) -> tuple[str, ...]:
    return (
        ("… " if beside else "") + figure.title,
        "" if figure.target is None else f"{figure.target:.2f}",
        f"{figure.ratio:.2f}",
        f"{figure.low:.2f} to {figure.high:.2f}",
        f"{figure.cpu_ratio:.2f}",
        _duration(figure.by_hand_s),
        _duration(figure.seconds),
        {True: "yes", False: "NO", None: ""}[figure.met],
    )


def _duration(seconds: float) -> str:
    return f"{seconds * 1e6:.1f} µs" if seconds < 0.001 else f"{seconds * 1e3:.2f} ms"


def _aligned(cell: str, width: int, at: int) -> str:
    return cell.ljust(width) if at in (0, len(_HEAD) - 1) else cell.rjust(width)


def versions() -> dict[str, str]:
    """Give the versions of what is measured and what it stands on."""
    return {"Python": platform.python_version(), **{name: version(name) for name in _PACKAGES}}


def machine() -> str:
    """Describe the class of the machine."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count()
    return f"{cores} cores {_processor()}, {platform.system()} {platform.machine()}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines: Sequence[str] = cpuinfo.read_text().splitlines() if cpuinfo.exists() else ()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "of an unknown kind")
