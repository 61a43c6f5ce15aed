"""The parts that are tools of their own, too: cancelled requests, and reads while Redis is away."""

from __future__ import annotations

import asyncio

from ..cancels import Plan, cancel_requests
from ..outage import ALLOWED_S, outage
from .part import Grounds, Outcome, Verdict
from .servers import place

__all__ = ["ALLOWED_S", "CANCELLATIONS", "away", "cancel"]

CANCELLATIONS, ROUNDS = 10_000, 100


def cancel(grounds: Grounds) -> Outcome:
    """Cancel requests at random points, and look everywhere for what they leave behind."""
    plan = Plan(grounds.wanted(CANCELLATIONS, least=50), seed=grounds.seed)
    with grounds.postgres.database() as url, place(proxied=False) as there:
        report = asyncio.run(cancel_requests(url, there.url, plan))
    found = f"{report.faults.total()} faults; {report.cancelled.total()} requests cancelled, {report.done.total()} done"
    return Outcome(found, Verdict.MET if report.holds else Verdict.MISSED, str(report))


def away(grounds: Grounds) -> Outcome:
    """Read while Redis is paused, and while it is killed, by one caller and by 64."""
    with grounds.postgres.database() as url:
        measured = outage(url, rounds=grounds.wanted(ROUNDS, least=3))
    above = ", ".join(f"{each.how}, {each.callers}: {each.above_s * 1e3:+.2f} ms" for each in measured)
    met = all(each.holds for each in measured)
    return Outcome(above, Verdict.MET if met else Verdict.MISSED, "\n".join(map(str, measured)))
