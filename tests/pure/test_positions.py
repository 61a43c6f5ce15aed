"""Which replica may answer: what is decided from two positions, without a server."""

import pytest

from fastrdb.db.positions import BEHIND, Cluster, Position, Replayed, last_record

SEGMENT, PAGE = 16 * 2**20, 8_192
HERE = Cluster(7, "shop", SEGMENT)
PRIMARY = Position(HERE, 1_000, 2)
LEVEL = Replayed(HERE, 1_000, 2, "read committed")


def test_level_replica_answers() -> None:
    """A replica that has replayed as much as the primary has written, or more, lacks nothing."""
    assert LEVEL.lacks(PRIMARY) is None
    assert LEVEL._replace(lsn=1_001).lacks(PRIMARY) is None


@pytest.mark.parametrize(
    ("replayed", "reason"),
    [
        (LEVEL._replace(lsn=999), BEHIND),
        (LEVEL._replace(lsn=None), "no replica"),
        (LEVEL._replace(timeline=1, lsn=9_999), "another timeline"),
        (LEVEL._replace(timeline=3, lsn=9_999), "another timeline"),
        (LEVEL._replace(cluster=HERE._replace(system=8)), "another database"),
        (LEVEL._replace(cluster=HERE._replace(database="other")), "another database"),
        (LEVEL._replace(level="repeatable read"), "its snapshot is older"),
    ],
)
def test_other_replicas_do_not(replayed: Replayed, reason: str) -> None:
    """Any doubt is a reason not to answer."""
    assert replayed.lacks(PRIMARY) == reason


def test_statements_of_autocommit_have_a_snapshot_each() -> None:
    """The level of the transaction that asked does not matter where the next statement is in another one."""
    assert LEVEL._replace(level="repeatable read").lacks(PRIMARY, autocommit=True) is None


@pytest.mark.parametrize(
    ("inserted", "ends"),
    [
        (5 * PAGE + 24, 5 * PAGE),
        (5 * PAGE + 32, 5 * PAGE + 32),
        (5 * PAGE + 40, 5 * PAGE + 40),
        (3 * SEGMENT + 40, 3 * SEGMENT),
        (3 * SEGMENT + 48, 3 * SEGMENT + 48),
        (5 * PAGE, 5 * PAGE),
    ],
)
def test_header_of_a_page_is_not_waited_for(inserted: int, ends: int) -> None:
    """Where the next record would begin behind the header of a page, the last one ended before it."""
    assert last_record(inserted, SEGMENT) == ends
