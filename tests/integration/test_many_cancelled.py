"""Requests of every kind, cancelled at random points, and all that they may leave behind."""

import pytest

from benchmarks.cancels import Plan, cancel_requests


async def test_cancelled_requests_leave_nothing_behind(postgres_url: str, valkey_url: str) -> None:
    """After 500 requests that were cancelled anywhere nothing is leaked, stuck, stale or half written."""
    report = await cancel_requests(postgres_url, valkey_url, Plan(cancellations=500))
    assert report.holds, str(report)
    assert report.cancelled.total() >= 500


@pytest.mark.parametrize("database_url", ["sqlite_url", "mariadb_url"], ids=["sqlite", "mariadb"], indirect=True)
async def test_cancelled_requests_of_other_databases(database_url: str) -> None:
    """The same on SQLite and MariaDB, with a cache in the process."""
    report = await cancel_requests(database_url, "memory://", Plan(cancellations=40, callers=6))
    assert report.holds, str(report)
