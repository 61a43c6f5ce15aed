"""The promise, shown with processes: readers and writers on real servers, writers killed at random moments."""

import random
from collections.abc import Callable

from fastrdb.testing.harness import Scenario, Weather, run

READS = 200_000
WEATHER = Weather(storm_s=0.5, calm_s=0.75)  # in calms, what a storm has left shows at little cost


def test_no_read_is_older_than_a_commit_before_it(
    postgres_url: str, valkey_url: str, record_property: Callable[[str, object], None]
) -> None:
    """Of 200 000 reads, none is older than a COMMIT that it began after."""
    scenario = Scenario(postgres_url, valkey_url, reads=READS, seed=random.randrange(2**32), batch=64, weather=WEATHER)
    report = run(scenario)
    record_property("weather", str(report))
    assert report.stale == 0, report
    assert report.reads >= READS
    # A run in which nothing is cached, written or killed would show nothing.
    assert report.cache["hits"] > READS / 10
    assert report.writes.total() > 20
    assert report.kills > 0
