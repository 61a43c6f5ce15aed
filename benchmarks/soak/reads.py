"""Stale reads: the harness, with writers killed, and with each kind of outage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from fastrdb import NearTier
from fastrdb.testing.harness import Outage, Report, Scenario, Weather, run
from fastrdb.testing.harness.outages import evicting, paused, replies_cut, restarted_empty, restarted_old

from .part import Grounds, Outcome, Part, Verdict
from .servers import Place, place

READS = 1_000_000
FEWER = 250_000  # of parts beyond what has to be shown
MAX_AGE_S = 0.5
WEATHER = Weather(storm_s=0.5, calm_s=0.75)
TIMEOUT_S = 1.0
PAUSE_S = 5.0

Outages = Callable[[Place, float], Sequence[Outage]]


def restarted(there: Place, share: float) -> Sequence[Outage]:
    """Killed, and empty when it is back."""
    return [restarted_empty(there, there.url)]


def restored(there: Place, share: float) -> Sequence[Outage]:
    """Killed, and back with data of half a second ago."""
    return [restarted_old(there, there.url, there.dump)]


def hung(there: Place, share: float) -> Sequence[Outage]:
    """Paused; for a shorter time in a quick run."""
    return [paused(there, PAUSE_S if share == 1 else 1.5)]


def replaced(there: Place, share: float) -> Sequence[Outage]:
    """Failed over."""
    return [there.failed_over()]


def cut(there: Place, share: float) -> Sequence[Outage]:
    """Replies cut in their middle."""
    assert there.proxy is not None
    return [replies_cut(there.proxy, lasts_s=2.0 if share == 1 else 1.0)]


def full(there: Place, share: float) -> Sequence[Outage]:
    """Out of memory, under each policy that is not refused and evicts tokens."""
    lasts_s = 2.0 if share == 1 else 1.0
    return [evicting(there.url, lasts_s), evicting(there.url, lasts_s, "allkeys-lru")]


def mixed(there: Place, share: float) -> Sequence[Outage]:
    """All of them in turn."""
    return [found for kind in (restarted, cut, restored, replaced, full, hung) for found in kind(there, share)]


def read(outages: Outages | None, proxied: bool, reads: int, near: NearTier | None, grounds: Grounds) -> Outcome:
    """Read until enough was read, or the time is up."""
    with grounds.postgres.database() as url, place(proxied=proxied) as there:
        chosen = tuple(outages(there, grounds.share)) if outages is not None else ()
        scenario = Scenario(
            url,
            there.url,
            near=near,
            reads=grounds.wanted(reads),
            limit_s=grounds.seconds,
            seed=grounds.seed,
            batch=64 if grounds.share == 1 else 16,
            weather=WEATHER if grounds.share == 1 else replace(WEATHER, kill_every_s=2.0),
            outages=chosen,
            outages_wanted=len(chosen),
            outage_every_s=6.0 if grounds.share == 1 else 0.7,
            timeout_s=TIMEOUT_S if chosen else 10.0,
        )
        report = run(scenario)
    return judged(report, scenario, {each.name for each in chosen})


def judged(report: Report, scenario: Scenario, names: set[str]) -> Outcome:
    """Say what came out; a run in which nothing was cached, written or broken shows nothing."""
    hits = 100 * report.cache["hits"] / max(1, report.reads)
    found = f"{report.stale} of {report.reads} reads ({hits:.0f} % hits), {report.writes.total()} writes, "
    found += f"{report.kills} kills"
    if names:
        found += f", {report.outages.total()} outages; in windows {report.bounded}"
        found += f", {report.longest_lag_s:.2f} s old at most" if report.bounded else ""
    if scenario.near is not None:
        near = 100 * report.cache["near hits"] / max(1, report.reads)
        found += f"; {near:.0f} % near, {report.bounded} outdated, for {report.longest_lag_s * 1e3:.0f} ms at most"
    all_done = report.reads >= scenario.reads and names <= set(report.outages)
    showing = report.cache["hits"] > 0 and report.writes.total() > 0 and (report.kills > 0 or bool(names))
    verdict = Verdict.MISSED if report.stale else Verdict.MET if all_done and showing else Verdict.SHORT
    return Outcome(found, verdict, "\n".join(map(str, report.examples)))


def part(
    name: str,
    title: str,
    outages: Outages | None,
    minutes: float,
    *,
    proxied: bool = False,
    reads: int = READS,
    near: NearTier | None = None,
) -> Part:
    """Give a part of this kind."""
    bound = " outside the windows that docs/coherence.md names" if outages is not None else ""
    if near is not None:
        bound = f" outdated for longer than {near.max_age_s * 1e3:.0f} ms"
    work = partial(read, outages, proxied, reads, near)
    return Part(name, f"stale reads, {title}", f"0 of {reads:,}{bound}", work, minutes)
