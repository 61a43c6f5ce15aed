"""How the suite is parted: how many processes, and who gets what."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.parts import HEAVY, ByFile, in_order, number_of_workers
from tests.servers.census import Census, described

ROOT = Path(__file__).parents[2]


class Test:
    """As much of a test as its order depends on."""

    __test__ = False

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid


class Worker:
    """As much of a worker as the scheduler asks for; what it was told to run is in *given*."""

    shutting_down = False
    gateway = SimpleNamespace(id="gw")

    def __init__(self) -> None:
        self.given: list[int] = []

    def send_runtest_some(self, indices: Sequence[int]) -> None:
        """Take more tests."""
        self.given += indices

    def shutdown(self) -> None:
        """Nothing more will come."""
        self.shutting_down = True


@pytest.mark.parametrize(("cores", "number"), [(1, 3), (2, 3), (4, 4), (64, 4)])
def test_workers_are_as_many_as_cores(cores: int, number: int) -> None:
    """There is a worker per core, but three on few, because tests wait much, and never more than four."""
    assert number_of_workers(cores, ["tests"]) == number


@pytest.mark.parametrize(
    "chosen", [[__file__], [f"{__file__}::test_a"], [f"{__file__}::test_a", f"{__file__}::test_b"]]
)
def test_one_file_is_run_by_one_process(chosen: list[str]) -> None:
    """Tests of a single file run in the process that was started."""
    assert number_of_workers(4, chosen) == 0


def test_two_files_are_parted() -> None:
    """Two files, as a folder, are shared by workers."""
    assert number_of_workers(2, [__file__, f"{Path(__file__).with_name('test_servers.py')}"]) == 3


def test_heavy_files_are_there() -> None:
    """No heavy file was renamed without its entry."""
    assert [file for file in HEAVY if not (ROOT / file).is_file()] == []


def test_order() -> None:
    """Heavy files come first, then the longest; the tests of a file keep their order."""
    names = ["a.py::z", "b.py::z", "b.py::a", f"{HEAVY[1]}::z", "c.py::z", f"{HEAVY[0]}::z"]
    ordered = in_order(cast(list[pytest.Item], [Test(name) for name in names]))
    assert [item.nodeid for item in ordered] == [names[5], names[3], "b.py::z", "b.py::a", "a.py::z", "c.py::z"]


def test_heavy_files_meet_nobody(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """One worker gets all heavy tests, the other one whole file after another."""
    monkeypatch.setattr(pytestconfig.option, "tx", ["popen"] * 2)
    monkeypatch.setattr(pytestconfig.option, "loadscopereorder", True, raising=False)
    heavy = [f"{file}::test_{number}" for file in HEAVY for number in range(2)]
    light = [f"{file}.py::test_{number}" for file in "abc" for number in range(4)]
    scheduler, workers = ByFile(pytestconfig, None), [Worker(), Worker()]
    for worker in cast(list[Any], workers):
        scheduler.add_node(worker)
        scheduler.add_node_collection(worker, heavy + light)
    scheduler.schedule()
    assert [worker.given for worker in workers] == [[*range(8)], [*range(8, 12)]]
    for index in range(8, 10):
        scheduler.mark_test_complete(cast(Any, workers[1]), index)
    assert workers[1].given == [*range(8, 16)]


def test_census_of_all_workers() -> None:
    """What workers count is added up, and servers that are alike share a line."""
    whole, part = Census(), Census()
    part.count("valkey", "tests/pure")
    packed = part.packed() | {"calls": {"KEYS": 1}, "kinds": [["valkey", "9.1", "a wheel"]]}
    whole.add(packed)
    whole.add(packed)
    assert list(whole.lines()) == ["2 x valkey 9.1 (a wheel): tests/pure (2)"]
    assert described(whole.calls) == "KEYS x 2"
