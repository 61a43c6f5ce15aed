"""The harness as a command: ``python -m fastrdb.testing.harness --postgres URL --redis URL``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from importlib import import_module
from random import randrange

from fastrdb.cache.near import NearTier
from fastrdb.cache.protocol import ALL_PARTS, Parts

from . import Report, Scenario, Subject, run

PARTS = tuple(part.name for part in fields(Parts))


def parser() -> argparse.ArgumentParser:
    """Give the parser of the command line."""
    found = argparse.ArgumentParser(
        prog="python -m fastrdb.testing.harness",
        description="Counts stale reads through fastrdb while writers are killed. Exit status 1 if there is one.",
    )
    found.add_argument(
        "--postgres", required=True, metavar="URL", help="postgresql+asyncpg://…, where schemas may be made"
    )
    found.add_argument("--redis", required=True, metavar="URL", help="redis://…, or redis+cluster://…")
    found.add_argument(
        "--subject",
        action="append",
        default=[],
        type=imported,
        metavar="MODULE:FUNCTION",
        help="what gives your Subject; twice: the old and the new code of a deploy (default: the harness's own table)",
    )
    found.add_argument("--reads", type=int, default=200_000, metavar="N", help="judged reads (default: %(default)s)")
    found.add_argument("--seconds", type=float, default=3_600, metavar="S", help="end then at the latest")
    found.add_argument("--seed", type=int, metavar="N", help="of what the processes do (default: random)")
    found.add_argument("--readers", type=int, default=3, metavar="N", help="processes (default: %(default)s)")
    found.add_argument("--writers", type=int, default=3, metavar="N", help="processes (default: %(default)s)")
    found.add_argument(
        "--without",
        action="append",
        default=[],
        choices=PARTS,
        metavar="PART",
        help=f"switch a part of the protocol off: {', '.join(PARTS)}; may be repeated",
    )
    found.add_argument(
        "--near",
        type=float,
        metavar="S",
        help="readers have a near tier with this max_age_s; answers that are outdated for less are counted apart",
    )
    found.add_argument("--stop", action="store_true", help="end with the first stale read")
    return found


def imported(name: str) -> Callable[[], Subject]:
    """Give the function that ``module:function`` names."""
    module, _, function = name.partition(":")
    found: Callable[[], Subject] = getattr(import_module(module), function)
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, show progress on a terminal, print the report."""
    given = parser().parse_args(arguments)
    scenario = Scenario(
        given.postgres,
        given.redis,
        reads=given.reads,
        limit_s=given.seconds,
        seed=randrange(2**32) if given.seed is None else given.seed,
        readers=given.readers,
        writers=given.writers,
        stop_at_first=given.stop,
        near=NearTier(max_age_s=given.near) if given.near is not None else None,
        parts=replace(ALL_PARTS, **dict.fromkeys(given.without, False)),
    )
    if given.subject:
        scenario = replace(scenario, subjects=tuple(given.subject))
    report = run(scenario, show if sys.stderr.isatty() else None)
    print(report)
    return 1 if report.stale else 0


def show(report: Report) -> None:
    """Overwrite one line with where the run is."""
    print(
        f"\r{report.reads} reads, {report.writes.total()} writes, {report.kills} kills: {report.stale} stale ",
        end="",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
