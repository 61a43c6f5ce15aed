"""The command line: ``python -m benchmarks --help``."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import uvloop

from .batches import batches
from .contest import Work, hold
from .profiling import profile
from .reading import reads
from .report import Report
from .servers import Servers, servers
from .sessions import sessions
from .upserting import upserts
from .walking import walks
from .world import QUICK, Scale, World, world
from .writing import writes

README = Path(__file__).with_name("README.md")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks", description="fastrdb beside hand-written code, in one run.")
    parser.add_argument("works", nargs="*", help="names of works, or how they begin; all by default")
    parser.add_argument("--postgres", metavar="URL", help="a server to use instead of a private one")
    parser.add_argument("--redis", metavar="URL", help="the same")
    parser.add_argument("--rounds", type=int, help="turns of each contestant")
    parser.add_argument("--quick", action="store_true", help="so little that the figures say nothing: a smoke test")
    parser.add_argument("--walked", type=int, metavar="ROWS", help="of the list that cursors walk, a multiple of 100")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures to a file, too")
    parser.add_argument("--readme", action="store_true", help="write the figures into benchmarks/README.md, too")
    parser.add_argument("--profile", metavar="WORK", help="profile fastrdb's part of one work instead")
    parser.add_argument("--operations", type=int, default=5_000, help="operations to profile")
    parser.add_argument("--by-hand", action="store_true", help="profile the hand-written part")
    return parser.parse_args(given)


async def run(options: argparse.Namespace, on: Servers) -> Report | None:
    """Do what the command line asks for."""
    scale = QUICK if options.quick else Scale()
    if options.rounds:
        scale = replace(scale, rounds=options.rounds)
    if options.walked:
        scale = replace(scale, walked=options.walked)
    async with world(on.postgres_url, on.redis_url, scale) as there:
        if options.profile:
            (work,) = _chosen(there, [options.profile])
            await profile(work, work.by_hand if options.by_hand else work.fastrdb, min(options.operations, work.most))
            return None
        figures = []
        for work in _chosen(there, options.works):
            print(f"{work.title} …", file=sys.stderr, flush=True)
            figures.append(await hold(work, min(work.rounds or scale.rounds, scale.rounds), scale.turn_s))
        return Report(on.versions, scale.rounds, figures)


def _chosen(there: World, names: Sequence[str]) -> list[Work]:
    works = [*reads(there), *writes(there), *upserts(there), *batches(there), *sessions(there), *walks(there)]
    found = [work for work in works if not names or work.name in names]
    found = found or [work for work in works if work.name.startswith(tuple(names))]
    if not found:
        raise SystemExit(f"no such work: {', '.join(names)}; there are {', '.join(work.name for work in works)}")
    return found


def main() -> None:
    """Measure, and report."""
    options = arguments()
    with servers(options.postgres, options.redis) as on, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        report = runner.run(run(options, on))
    if report is None:
        return
    print(report.table(), report.conditions(), sep="\n\n")
    if options.json:
        options.json.write_text(json.dumps(report.as_dict(), indent=1))
    if options.readme:
        report.write_into(README)


if __name__ == "__main__":
    main()
