"""What a run says: tables for the screen and PEERS.md, JSON, and plots for the docs."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from ..report import machine
from .catalogue import Peer
from .scale import Scale
from .storms import Staleness
from .works import Figure

SHARED = "The machine was shared with other work while this ran: read the ratios, and those roughly."


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run, and what they were measured on.

    Attributes:
        peers: Who took part.
        missing: Who could not be installed.
        servers: Name and version of each server.
        figures: Of the timed works and of the apps.
        stale: Stale reads; empty if they were not counted.
        shared: Whether the machine did other work meanwhile.
    """

    peers: Sequence[Peer]
    missing: Sequence[Peer]
    servers: dict[str, str]
    scale: Scale
    figures: Sequence[Figure]
    stale: Sequence[Staleness]
    shared: bool = False
    date: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    def as_dict(self) -> dict[str, Any]:
        """Give what goes into the JSON file; *value* is in seconds, or in requests per second."""
        return {
            "date": self.date,
            "machine": machine(),
            "versions": {"Python": platform.python_version(), **self.servers},
            "peers": {peer.title: list(peer.requirements) for peer in self.peers},
            "not installed": [peer.title for peer in self.missing],
            "scale": asdict(self.scale),
            "figures": [asdict(figure) for figure in self.figures],
            "stale": [{**asdict(one), "per_million": one.per_million} for one in self.stale],
        }

    def conditions(self) -> str:
        """Say when, on what, and with which versions."""
        named = ", ".join(f"{name} {number}" for name, number in self.servers.items())
        parts = [f"{self.date}, on {machine()}; Python {platform.python_version()}, {named}."]
        if self.shared:
            parts.append(SHARED)
        if self.missing:
            parts.append(f"Not installed, so not measured: {', '.join(peer.title for peer in self.missing)}.")
        return " ".join(parts)

    def tables(self) -> str:
        """Give the figures as Markdown tables."""
        parts = []
        if timed := [one for one in self.figures if not one.work.startswith("requests")]:
            parts += [
                "Time of each work, as a ratio to hand-written (less is faster); in brackets that of CPU time:",
                "",
            ]
            parts += [_table(timed), ""]
        if served := [one for one in self.figures if one.work.startswith("requests")]:
            parts += ["A FastAPI app that lists 100 rows, as ratios to hand-written:", "", _served(served), ""]
        if self.stale:
            parts += ["Stale reads per million:", "", _stale(self.stale), ""]
        return "\n".join(parts).rstrip()

    def markdown(self) -> str:
        """Give PEERS.md."""
        used = [f"- **{peer.title}**. {peer.configured} *What it does not do:* {peer.lacks}" for peer in self.peers]
        return "\n".join([_INTRODUCTION, self.conditions(), "", self.tables(), "", _CREDIT, "", *used, ""])


def _table(figures: Sequence[Figure]) -> str:
    works = list(dict.fromkeys(one.work for one in figures))
    by_peer: dict[str, dict[str, Figure]] = {}
    for one in figures:
        by_peer.setdefault(one.peer, {})[one.work] = one
    lines = ["| | " + " | ".join(works) + " |", "|---" * (len(works) + 1) + "|"]
    for peer, own in by_peer.items():
        cells = [f"{own[work].ratio:.2f}{_cpu(own[work])}" for work in works]
        lines.append(f"| {peer} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cpu(one: Figure) -> str:
    return "" if one.cpu_ratio is None else f" ({one.cpu_ratio:.2f})"


def _served(figures: Sequence[Figure]) -> str:
    lines = ["| | requests/s | quartiles | CPU per request |", "|---|---|---|---|"]
    for one in figures:
        cpu = "" if one.cpu_ratio is None else f"{one.cpu_ratio:.2f}"
        lines.append(f"| {one.peer} | {one.ratio:.2f} | {one.low:.2f} to {one.high:.2f} | {cpu} |")
    return "\n".join(lines)


def _stale(stale: Sequence[Staleness]) -> str:
    lines = ["| | nobody killed | of reads | writers killed | of reads | kills |", "|---|---|---|---|---|---|"]
    calm = {one.peer: one for one in stale if not one.killing}
    for one in stale:
        if one.killing:
            before = calm[one.peer]
            cells = [f"{before.per_million:,}", f"{before.reads:,}", f"{one.per_million:,}", f"{one.reads:,}"]
            lines.append(f"| {one.peer} | " + " | ".join([*cells, str(one.killed)]) + " |")
    return "\n".join(lines)


_INTRODUCTION = """# fastrdb beside its peers

Written by `python -m benchmarks.peers --write`.

Each peer runs in an environment of its own, with pinned versions, and does the same on one table of PostgreSQL and one
Redis, whose keys it shares with the others'. Peers take turns, round by round, each round begun by another one. The
ratio to the hand-written code in the same round counts; the tables give the median. Before that, all must give the same
rows. Works: a cached user by id, by one caller and by many; a cached list of 100 users; an update that invalidates what
is cached. The apps are served by uvicorn with two workers on loopback; the load generator is a process of its own with
32 connections. *Cached bytes* is an endpoint that sends what lies in Redis, without models.

A read is *stale* if its row is older than what PostgreSQL gave to the same reader before the read began; a trigger
counts each row's updates. 32 readers in one process and two writing processes share the 8 rows of a table of the peer's
own. Where writers are killed, SIGKILL comes at a random moment, a quarter of a second after a writer's first write at
most, and another one takes its place. Each read asks PostgreSQL, too, so there are few of them: a zero of some hundred
reads says little, and the numbers of a short run are rough.
"""
_CREDIT = "Each is configured as its documentation shows; what is good in fastrdb often comes from these libraries."
