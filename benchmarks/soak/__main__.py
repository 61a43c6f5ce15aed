"""The command line: ``python -m benchmarks.soak --help``."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from random import randrange

from tests.servers.postgres import PostgresServer

from ..report import machine
from .part import Grounds, Outcome, Part, Verdict
from .parts import PARTS
from .report import Report, Row

PAGE = Path(__file__).parents[1] / "SOAK.md"
MINUTES, QUICK_SECONDS, QUICK_SHARE = 60.0, 60.0, 0.0005  # a quick run ends by what it has done


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description="What must hold while Redis fails and writers are killed. Exit status 1: a target is missed; 2: "
        "the time was too short for one.",
    )
    parser.add_argument("parts", nargs="*", help=f"some of: {', '.join(part.name for part in PARTS)} (default: all)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all parts (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="each part briefly: a smoke test")
    parser.add_argument("--seed", type=int, help="of what is random (default: random)")
    parser.add_argument("--postgres", metavar="URL", help="a server to use instead of a private one")
    parser.add_argument("--write", nargs="?", const=PAGE, type=Path, metavar="FILE", help=f"write {PAGE.name}, too")
    parser.add_argument("--note", default="", help="a sentence for the page: what else the machine was doing")
    return parser.parse_args(given)


def main(given: Sequence[str] | None = None) -> int:
    """Run the parts, print the table, tell by the status whether all targets were met."""
    logging.getLogger("fastrdb").addHandler(logging.NullHandler())  # that Redis is away is what is wanted here
    options = arguments(given)
    chosen = [part for part in PARTS if not options.parts or part.name in options.parts]
    if unknown := set(options.parts) - {part.name for part in PARTS}:
        sys.exit(f"no such part: {', '.join(sorted(unknown))}")
    seed = randrange(2**32) if options.seed is None else options.seed
    rows, until = list[Row](), time.monotonic() + options.minutes * 60
    postgres = PostgresServer.given(options.postgres) if options.postgres else PostgresServer.start()
    try:
        for number, part in enumerate(chosen):
            # What one leaves of its time is the others'.
            share = part.minutes / sum(each.minutes for each in chosen[number:])
            seconds = QUICK_SECONDS if options.quick else max(0.0, until - time.monotonic()) * share
            grounds = Grounds(postgres, seed, seconds, QUICK_SHARE if options.quick else 1.0)
            rows.append(run(part, grounds))
    finally:
        postgres.stop()
    report = Report(rows, seed, machine(), {"PostgreSQL": postgres.version}, options.note, quick=options.quick)
    print(report.table())
    if options.write is not None:
        options.write.write_text(report.page())
    verdicts = {row.outcome.verdict for row in rows}
    return 1 if Verdict.MISSED in verdicts else 2 if Verdict.SHORT in verdicts else 0


def run(part: Part, grounds: Grounds) -> Row:
    """Run one part."""
    print(f"{part.title} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    try:
        outcome = part.run(grounds)
    except Exception:
        outcome = Outcome("it failed", Verdict.MISSED, traceback.format_exc())
    row = Row(part, outcome, time.monotonic() - began)
    print(f"  {outcome.found}: {outcome.verdict.value}", outcome.details, file=sys.stderr, flush=True)
    return row


if __name__ == "__main__":
    sys.exit(main())
