"""How the suite is parted over processes: how many, who gets which file, and in which order."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

MOST = 4  # each has servers of its own: some 0.5 GB
FEWEST = 3  # tests wait for servers and processes half of the time: on two cores 13 minutes instead of 15
# Their own processes fill the machine, and some of them measure: one after the other, and first, because a run
# that ends with one of them alone takes longer.
HEAVY = (
    "tests/integration/test_harness.py",
    "tests/integration/test_promise.py",
    "tests/integration/test_benchmarks.py",
    "tests/integration/test_demo.py",
)


def number_of_workers(cores: int, chosen: Sequence[str]) -> int:
    """How many processes run the tests that were *chosen* on the command line; 0 is this one alone.

    A single file is not parted: one worker would run it, for the price of two starts.
    """
    files = {name.split("::")[0] for name in chosen}
    if len(files) == 1 and Path(*files).is_file():
        return 0
    return max(FEWEST, min(cores, MOST))


def file_of(nodeid: str) -> str:
    """The file that a test stands in."""
    return nodeid.split("::", 1)[0]


def in_order(items: Sequence[pytest.Item]) -> list[pytest.Item]:
    """The tests in the order in which workers get them: heavy files, then those with the most tests."""
    tests = Counter(file_of(item.nodeid) for item in items)

    def place(item: pytest.Item) -> tuple[int, int, str]:
        file = file_of(item.nodeid)
        return HEAVY.index(file) if file in HEAVY else len(HEAVY), -tests[file], file

    return sorted(items, key=place)


class ByFile(LoadScopeScheduling):  # type: ignore[misc]  # xdist is untyped
    """Gives each worker a file at a time, in the order of :func:`in_order`, and all heavy files to one.

    The fixtures of a module are set up once, and the tests of a file keep their order.
    """

    def __init__(self, config: pytest.Config, log: object) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return "heavy" if file in HEAVY else file
