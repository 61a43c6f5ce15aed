"""The benchmarks run, each with the answers compared: their figures are nobody's test."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "benchmarks", "--quick"]


def test_every_work_runs(postgres_url: str, valkey_url: str, tmp_path: Path) -> None:
    """A quick run measures every work, beside the target of each."""
    figures = tmp_path / "figures.json"
    servers = ["--postgres", postgres_url, "--redis", valkey_url, "--json", str(figures)]
    done = subprocess.run([*COMMAND, *servers], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    works = json.loads(figures.read_text())["works"]
    targets = [1.05, 0.22, 1.15, 0.1, 1.05, 0.5, 1.35, 1.35, 0.9, 1.2, 1.5, 0.6, 0.2, 1.05, 1.05, 2.0]
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


def test_a_work_that_is_not_there_is_refused(postgres_url: str, valkey_url: str) -> None:
    """The names of the works are told to who asks for another one."""
    command = [*COMMAND, "cached_nothing", "--postgres", postgres_url, "--redis", valkey_url]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "cached_get, cached_get_64" in done.stderr
