"""The command line: ``python -m benchmarks.peers --help``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from ..pages import PEERS_DATA, write_page
from ..servers import Servers, servers
from .catalogue import BY_HAND, OURS, PEERS, Peer
from .conductor import Contestant, workers
from .environments import CHECKOUT, NotInstalled, cache_folder, python_of
from .report import Report
from .scale import QUICK, Scale
from .serving import served
from .storms import staleness
from .table import table
from .workers.rows import Place
from .works import compare_answers, timed

MARKDOWN = CHECKOUT / "benchmarks" / "PEERS.md"
PARTS = ("timed", "stale", "served")


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers", description="fastrdb beside its peers, in one run.")
    names = [peer.name for peer in PEERS]
    parser.add_argument("peers", nargs="*", help=f"who takes part, of: {', '.join(names)}; all by default")
    parser.add_argument("--part", choices=PARTS, action="append", help="measure this part only; may be repeated")
    parser.add_argument("--postgres", metavar="URL", help="a server to use instead of a private one")
    parser.add_argument("--redis", metavar="URL", help="the same")
    parser.add_argument("--rounds", type=int, help="turns of each peer")
    parser.add_argument(
        "--quick", action="store_true", help="a smoke test: fastrdb and hand-written, nothing installed"
    )
    parser.add_argument("--environments", metavar="FOLDER", type=Path, help="where the peers' environments are kept")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures to a file, too")
    parser.add_argument("--write", action="store_true", help="write PEERS.md and the plots of the docs, too")
    parser.add_argument("--shared", action="store_true", help="say in the report that the machine was shared")
    options = parser.parse_args(given)
    if unknown := set(options.peers) - set(names):
        parser.error(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return options


def chosen(options: argparse.Namespace) -> tuple[list[Contestant], list[Peer]]:
    """Give who takes part, the hand-written code first, and who could not be installed."""
    if options.quick:
        return [Contestant(peer, Path(sys.executable)) for peer in (BY_HAND, OURS)], []
    there: list[Contestant] = []
    missing: list[Peer] = []
    for peer in PEERS:
        if options.peers and peer is not BY_HAND and peer.name not in options.peers:
            continue
        try:
            there.append(Contestant(peer, python_of(peer, options.environments or cache_folder())))
        except NotInstalled as failure:
            print(failure, file=sys.stderr)
            missing.append(peer)
    if BY_HAND in missing:
        raise SystemExit("without the hand-written code there is nothing to compare with")
    return there, missing


def run(options: argparse.Namespace, on: Servers) -> Report:
    """Measure what the command line asks for."""
    scale = QUICK if options.quick else Scale()
    if options.rounds:
        scale = replace(scale, rounds=options.rounds)
    there, missing = chosen(options)
    parts = options.part or PARTS
    figures, stale = [], []
    with ExitStack() as stack:
        users = stack.enter_context(table(on.postgres_url, scale.rows))
        places = [_place(on, users, one.peer) for one in there]
        if "timed" in parts:
            _say("timed works")
            with workers(there, places) as running:
                compare_answers(running)
                figures += timed(running, scale)
        if "stale" in parts:
            _say("stale reads")
            # A table each: what another peer writes is a write without this peer's cache.
            few = [stack.enter_context(table(on.postgres_url, scale.storm_rows, versions=True)) for _ in there]
            storms = [_place(on, name, one.peer) for name, one in zip(few, there, strict=True)]
            with workers(there, storms) as running:
                stale = staleness(there, running, storms, scale)
        if "served" in parts:
            _say("apps under load")
            figures += served(there, places, scale)
    return Report([one.peer for one in there], missing, on.versions, scale, figures, stale, options.shared)


def _place(on: Servers, table_name: str, peer: Peer) -> Place:
    return Place(on.postgres_url, on.redis_url, table_name, f"{table_name}:{peer.name}:")


def _say(part: str) -> None:
    print(f"{part} …", file=sys.stderr, flush=True)


def main() -> None:
    """Measure, and report."""
    options = arguments()
    with servers(options.postgres, options.redis) as on:
        report = run(options, on)
    print(report.conditions(), report.tables(), sep="\n\n")
    if options.json:
        options.json.write_text(json.dumps(report.as_dict(), indent=1))
    if options.write:
        MARKDOWN.write_text(report.markdown())
        PEERS_DATA.parent.mkdir(exist_ok=True)
        kept = report.as_dict()
        for figure in kept["figures"]:
            del figure["value"]  # times of this machine: only ratios are kept
        PEERS_DATA.write_text(
            json.dumps({**kept, "conditions": report.conditions(), "tables": report.tables()}, indent=1)
        )
        write_page()


if __name__ == "__main__":
    main()
