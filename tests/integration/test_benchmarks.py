"""The benchmarks run, each with the answers compared: their figures are nobody's test."""

import json
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

from benchmarks.outage import outage
from benchmarks.pages import write_page

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick"]


def test_every_work_runs(postgres_url: str, valkey_url: str, tmp_path: Path) -> None:
    """A quick run measures every work, beside the target of each."""
    figures = tmp_path / "figures.json"
    servers = ["--postgres", postgres_url, "--redis", valkey_url, "--json", str(figures)]
    done = subprocess.run([*COMMAND, *servers], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    works = json.loads(figures.read_text())["works"]
    targets = [1.05, 0.22, 0.25, 1.15, 0.1, 1.05, 0.5, 1.35, 1.35, 0.9, 1.2, 1.5, 0.6, 0.2, 1.05, 1.05, 2.0]
    assert [work[0]["target"] for work in works] == targets
    assert all(figure["seconds"] > 0 for work in works for figure in work)


def test_the_memory_of_a_stream(postgres_url: str, valkey_url: str) -> None:
    """The measurement of a stream's memory runs, and counts every row."""
    command = [
        *COMMAND[:-2],
        "benchmarks.streaming",
        "--rows",
        "3000",
        "--postgres",
        postgres_url,
        "--redis",
        valkey_url,
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("3,000 rows in ")


def test_peers_without_a_network(postgres_url: str, valkey_url: str, tmp_path: Path) -> None:
    """A quick run beside hand-written code times works, counts stale reads and loads apps; none of ours is stale."""
    figures = tmp_path / "peers.json"
    servers = ["--postgres", postgres_url, "--redis", valkey_url, "--json", str(figures)]
    command = [sys.executable, "-W", "error", "-m", "benchmarks.peers", "--quick", *servers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text())
    titles = ["hand-written", "fastrdb"]
    assert list(found["peers"]) == titles
    works = [figure["work"] for figure in found["figures"] if figure["peer"] == "fastrdb"]
    assert works == [
        "cached get, one caller",
        "cached get, 64 callers",
        "cached list of 100",
        "update with invalidation",
        "requests/s of a FastAPI list of 100",
    ]
    assert all(figure["value"] > 0 and figure["ratio"] > 0 for figure in found["figures"])
    assert [(one["peer"], one["killing"]) for one in found["stale"]] == [(t, k) for k in (False, True) for t in titles]
    assert [one["stale"] for one in found["stale"] if one["peer"] == "fastrdb"] == [0, 0]
    assert all((one["killed"] > 0) == one["killing"] for one in found["stale"])


def test_growth(postgres_url: str, valkey_url: str, tmp_path: Path) -> None:
    """A quick run of the growth measures both works at two sizes of each axis."""
    figures = tmp_path / "growth.json"
    servers = ["--postgres", postgres_url, "--redis", valkey_url, "--json", str(figures)]
    command = [sys.executable, "-W", "error", "-m", "benchmarks.growth", "--quick", *servers]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    points = json.loads(figures.read_text())["figures"]
    sizes = {axis: [p["size"] for p in points if p["axis"] == axis] for axis in ("rows", "callers", "keys")}
    assert sizes == {"rows": [10, 10, 100, 100], "callers": [1, 1, 8, 8], "keys": [10, 10, 100, 100]}
    assert all(point["ratio"] > 0 for point in points)


def test_reads_while_redis_is_away(postgres_url: str) -> None:
    """A quick run takes Redis away in both ways, from one caller and from 64, and times each kind of read."""
    found = outage(postgres_url, rounds=2, reads=64)
    assert [(each.how, each.callers) for each in found] == [(h, c) for h in ("paused", "killed") for c in (1, 64)]
    assert all(0 < each.cached_p50_s <= each.cached_p99_s and 0 < each.sql_p50_s <= each.sql_p99_s for each in found)


def test_the_plots_are_xml(tmp_path: Path) -> None:
    """The page's plots are drawn again from the figures that are kept, as well-formed SVG, and all are shown."""
    page = tmp_path / "benchmarks.md"
    page.write_text((ROOT / "docs" / "benchmarks.md").read_text())
    write_page(page)
    plots = sorted(page.with_suffix("").glob("*.svg"))
    assert plots
    for plot in plots:
        assert ElementTree.parse(plot).getroot().tag.endswith("svg")
        assert f"(benchmarks/{plot.name})" in page.read_text()
    assert page.read_text() == (ROOT / "docs" / "benchmarks.md").read_text()


def test_a_work_that_is_not_there_is_refused(postgres_url: str, valkey_url: str) -> None:
    """The names of the works are told to who asks for another one."""
    command = [*COMMAND, "cached_nothing", "--postgres", postgres_url, "--redis", valkey_url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cached_get, cached_get_64" in done.stderr
