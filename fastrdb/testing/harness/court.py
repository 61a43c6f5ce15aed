"""Sits over the stale reads of a run with outages, when all is known of the writes that they lack."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from .outages import Outage
from .scenario import Report, Scenario, Stale
from .windows import Doubt, Fates, Span, explain, suspects

EXAMPLES = 10
WAIT_S = 1.0  # what has happened by now has been told by then
LOOK_S = 2.0  # outbox: from one look to the next, a second, and what a busy machine adds


class Court:
    """Judges one run's doubts.

    Attributes:
        fates: What is known of its writes.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.fates = Fates(scenario.hold_s, LOOK_S if scenario.outbox else None)
        self._open: list[tuple[float, Stale, Doubt]] = []

    def take(self, doubts: Iterable[tuple[Stale, Doubt]]) -> None:
        """Take what readers doubt."""
        now = time.monotonic()
        self._open += [(now, *doubt) for doubt in doubts]

    def judge(self, outages: Sequence[tuple[Outage, Span]], report: Report, *, last: bool) -> None:
        """Judge what can be judged, and put it in the report.

        Args:
            outages: All that happened so far.
            report: Where the verdicts go.
            last: Nothing more will be known.
        """
        for outage, _ in outages[report.outages.total() :]:
            report.outages[outage.name] += 1
        if not self._open:
            return
        self.fates.outages = [span for _, span in outages]
        self.fates.losses = [span for outage, span in outages if outage.loses]
        waiting = []
        for taken, stale, doubt in self._open:
            if last or (time.monotonic() > taken + WAIT_S and all(map(self.fates.has_ended, suspects(doubt)))):
                self._decide(stale, doubt, report)
            else:
                waiting.append((taken, stale, doubt))
        self._open = waiting

    def _decide(self, stale: Stale, doubt: Doubt, report: Report) -> None:
        found = explain(doubt, self.fates)
        if found is None:
            report.stale += 1
            if len(report.examples) < EXAMPLES:
                report.examples.append(stale)
            return
        report.bounded += 1
        report.windows |= found.deeds
        report.longest_lag_s = max(report.longest_lag_s, found.lag_s)
