#!/usr/bin/env python3
"""Does a job in a fresh clone, set-up included.

    python3 dev.py demo  [args]    a tour on real data: SQLite and an embedded cache, no server
    python3 dev.py test  [args]    the whole suite on real servers; args go to pytest, and -n 0 means one process
    python3 dev.py check           format, lint, types, layers and documentation, side by side
    python3 dev.py docs            the documentation, built into site/
    python3 dev.py bench [args]    the benchmarks

Needs Linux and Python >= 3.11 with venv or pip, and the network the first time. Everything is put into .venv,
and again only when the dependencies in pyproject.toml change.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "fastrdb-stamp.json"
OLDEST_PIP = (22, 3)  # the first with --python


class Refusal(Exception):
    """The job cannot be done; the text says what to do about it."""


@dataclass(frozen=True)
class Job:
    """What a command needs (groups of pyproject.toml), and what it runs in .venv."""

    groups: tuple[str, ...]
    argv: tuple[str, ...]
    passes_arguments: bool = True

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The whole command line; what nox passes on stands behind ``--``."""
        if arguments and not self.passes_arguments:
            raise Refusal(f"takes no arguments, got {' '.join(arguments)}")
        divider = ["--"] if arguments and "nox" in self.argv else []
        return [str(PYTHON), *self.argv, *divider, *arguments]


JOBS = {
    "demo": Job(("demo",), ("-m", "examples.gazetteer")),
    "test": Job(("test",), ("-m", "nox", "-s", "test")),
    "check": Job(("test", "lint", "docs"), ("-m", "nox", "-s", "check"), False),
    "docs": Job(("docs",), ("-m", "nox", "-s", "docs"), False),
    "bench": Job(("bench",), ("-m", "nox", "-s", "bench")),
}


# Decisions: no I/O


def requirements(pyproject: Mapping[str, Any], group: str) -> list[str]:
    """The requirement lines of a dependency group, included groups flattened."""
    lines: list[str] = []
    for item in pyproject["dependency-groups"][group]:
        lines += [item] if isinstance(item, str) else requirements(pyproject, item["include-group"])
    return list(dict.fromkeys(lines))


def fingerprint(pyproject: Mapping[str, Any], group: str) -> str:
    """Changes when what pip would install for the group changes, and not with a linter's settings."""
    text = json.dumps([pyproject["project"], pyproject["build-system"], requirements(pyproject, group)])
    return hashlib.sha256(text.encode()).hexdigest()


def stale(pyproject: Mapping[str, Any], groups: Sequence[str], installed: Mapping[str, str]) -> list[str]:
    """Those of *groups* that were never installed, or have changed since."""
    return [group for group in groups if installed.get(group) != fingerprint(pyproject, group)]


def pip_version(text: str) -> tuple[int, ...]:
    """The version in the output of ``pip --version``; ``(0,)`` when there is none."""
    found = re.match(r"pip (\d+)\.(\d+)", text)
    return tuple(map(int, found.groups())) if found else (0,)


def ways_to_make_venv(
    python: str, *, has_venv: bool, has_ensurepip: bool, pip: Sequence[str] | None
) -> list[list[list[str]]]:
    """The ways to a .venv that has pip, best first; each a list of commands."""
    if not has_venv:
        return []
    make = [python, "-m", "venv", "--clear"]
    ways = [[[*make, str(VENV)]]] if has_ensurepip else []
    if pip is not None:
        fetch_pip = [*pip, "--python", str(PYTHON), "install", "-qq", "--no-input", "pip"]
        ways.append([[*make, "--without-pip", str(VENV)], fetch_pip])
    return ways


# The machine


def has_module(name: str) -> bool:
    """Whether this Python brings the module; Debian packs ensurepip separately."""
    return importlib.util.find_spec(name) is not None


def find_pip() -> list[str] | None:
    """A pip outside .venv that can install into another environment."""
    for candidate in ([sys.executable, "-m", "pip"], ["pip3"], ["pip"]):
        with contextlib.suppress(OSError):
            answer = subprocess.run([*candidate, "--version"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            if pip_version(answer.stdout) >= OLDEST_PIP:
                return candidate
    return None


def say(text: str) -> None:
    """One line about the set-up, kept apart from what the job prints."""
    print(f"dev.py: {text}", file=sys.stderr, flush=True)


def read_stamp() -> dict[str, Any]:
    """What .venv holds; empty when it is unfinished, moved, or its Python is gone."""
    try:
        stamp: dict[str, Any] = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    same = stamp.get("root") == str(ROOT) and stamp.get("python") == os.path.realpath(PYTHON)
    return stamp if same and os.access(PYTHON, os.X_OK) else {}


def write_stamp(installed: Mapping[str, str]) -> None:
    """Remember what was installed, and for which Python and folder."""
    stamp = {"root": str(ROOT), "python": os.path.realpath(PYTHON), "groups": dict(installed)}
    STAMP.write_text(json.dumps(stamp, indent=1))


def run_quietly(command: Sequence[str]) -> str | None:
    """None when the command succeeds, else the last line that it printed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    lines = f"{done.stdout}\n{done.stderr}".strip().splitlines() or ["no message"]
    return lines[-1] if done.returncode else None


def possible_ways() -> list[list[list[str]]]:
    """The ways to a .venv on this machine, or one line that says what is missing."""
    ways = ways_to_make_venv(
        sys.executable, has_venv=has_module("venv"), has_ensurepip=has_module("ensurepip"), pip=find_pip()
    )
    if not ways:
        raise Refusal("no virtual environment can be made here; as root: apt-get install python3-venv")
    return ways


def make_venv(ways: Sequence[Sequence[Sequence[str]]]) -> None:
    """Create .venv with pip in it, in the first way that works."""
    failure: str | None = None
    for way in ways:
        failure = next(filter(None, map(run_quietly, way)), None)
        if failure is None:
            return
    shutil.rmtree(VENV, ignore_errors=True)
    raise Refusal(f"no virtual environment could be made: {failure}")


def install(pyproject: Mapping[str, Any], groups: Sequence[str]) -> None:
    """Install the project, editable, and the groups."""
    lines = list(dict.fromkeys(line for group in groups for line in requirements(pyproject, group)))
    command = [str(PYTHON), "-m", "pip", "install", "-qq", "--no-input", "--disable-pip-version-check"]
    done = subprocess.run([*command, "--editable", str(ROOT), *lines], stdin=subprocess.DEVNULL)
    if done.returncode:
        raise Refusal("pip could not install what pyproject.toml asks for (its message is above)")


def prepare(groups: Sequence[str]) -> None:
    """Bring .venv up to date for the groups; does nothing, offline too, when it is."""
    import tomllib

    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    stamp = read_stamp()
    installed: dict[str, str] = stamp.get("groups", {})
    missing = stale(pyproject, groups, installed)
    if not missing:
        return
    if not os.access(VENV if VENV.exists() else ROOT, os.W_OK):
        raise Refusal(f"{VENV} cannot be written by this user; remove it, or use a clone of your own")
    ways = [] if stamp else possible_ways()
    started = time.monotonic()
    say(f"installing into .venv for: {', '.join(missing)} (a minute or two the first time)")
    if ways:
        make_venv(ways)
    install(pyproject, missing)
    write_stamp({**installed, **{group: fingerprint(pyproject, group) for group in missing}})
    say(f"installed in {time.monotonic() - started:.0f} s")


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold off a second dev.py of this clone while one sets up .venv."""
    with open(__file__) as myself:
        fcntl.flock(myself, fcntl.LOCK_EX)
        yield


def open_standard_streams() -> None:
    """Put /dev/null where stdin, stdout or stderr is closed, else the next file opened takes its place."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def environment() -> dict[str, str]:
    """The caller's environment with .venv activated."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "PIP_USER")}
    path = os.pathsep.join([str(PYTHON.parent), kept.get("PATH", os.defpath)])
    return {**kept, "VIRTUAL_ENV": str(VENV), "PATH": path}


def main(arguments: Sequence[str]) -> int:
    """Set up, then become the job; returns only when that fails."""
    open_standard_streams()
    if sys.version_info < (3, 11):  # noqa: UP036 - runs before anything could have checked it
        say(f"needs Python >= 3.11, this is {sys.version.split()[0]}")
        return 1
    if not arguments or arguments[0] not in JOBS:
        print(__doc__, file=sys.stdout if arguments[:1] in (["-h"], ["--help"]) else sys.stderr)
        return 0 if arguments[:1] in (["-h"], ["--help"]) else 2
    job = JOBS[arguments[0]]
    os.environ.pop("PIP_USER", None)
    try:
        command = job.command(arguments[1:])
        with alone():
            prepare(job.groups)
    except Refusal as refusal:
        say(str(refusal))
        return 1
    os.chdir(ROOT)
    os.execve(command[0], command, environment())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
