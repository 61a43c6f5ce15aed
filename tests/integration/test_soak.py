"""The soak in brief: five kinds of outage in turn, and lost invalidations, by the code that runs for an hour."""

from typing import cast

import pytest

from benchmarks.soak.__main__ import main, run
from benchmarks.soak.lost import lose
from benchmarks.soak.part import Grounds, Outcome, Part, Verdict
from benchmarks.soak.report import Report, Row
from tests.servers.postgres import PostgresServer


def test_nothing_is_stale_or_lost_through_outages(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Restarted empty and with old data, paused, failed over, cut, evicting: nothing is stale outside the windows,
    nothing is lost, with kept invalidations and with an outbox and killed writers."""
    status = main(["mixed", "proceed", "outbox", "--quick", "--postgres", postgres_url])
    said = capsys.readouterr()
    with capsys.disabled():
        print(f"\n{said.out}")
    assert status == 0, said.out + said.err


def test_lost_invalidations_are_found(postgres: PostgresServer) -> None:
    """Writers that are killed before they could deliver, and have no outbox, lose invalidations: that is counted."""
    outcome = lose(Grounds(postgres, 1, seconds=0.1), outbox=False, kills=True)
    assert outcome.verdict is Verdict.MISSED, outcome
    assert "instead of" in outcome.details


def test_part_that_fails_is_missed_and_the_page_says_so() -> None:
    """A part that raises ends neither the others nor in silence; the page has seed, machine, versions and verdicts."""

    def fail(grounds: Grounds) -> Outcome:
        raise RuntimeError("the server is gone")

    missed = run(Part("x", "what fails", "0", fail, 1), cast("Grounds", None))
    assert missed.outcome.verdict is Verdict.MISSED
    assert "the server is gone" in missed.outcome.details
    short = Row(Part("y", "what is slow", "0 of 9", fail, 1), Outcome("0 of 5", Verdict.SHORT), 61.4)
    page = Report([missed, short], 7, "2 cores", {"PostgreSQL": "17"}, "The machine was shared.").page()
    assert "| what is slow | 0 of 9 | 0 of 5 | 1:01 | so far |" in page
    for said in ("seed 7", "on 2 cores", "PostgreSQL 17", "redis ", "| MISSED |", "The machine was shared."):
        assert said in page
