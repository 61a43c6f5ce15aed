"""The one door to every check. No environments of its own: sessions run in the .venv that dev.py makes."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nox

BIN = Path(__file__).resolve().parent / ".venv" / "bin"
if not BIN.exists():
    BIN = Path(sys.executable).parent
PYTHON = str(BIN / "python")

MYPY = (PYTHON, "-m", "mypy", "--strict")
PYRIGHT = (PYTHON, "-m", "pyright", "--pythonpath", PYTHON)
LAYERS = (str(BIN / "lint-imports"), "--no-logo")
DOCS = (PYTHON, "-m", "mkdocs", "build", "--strict", "--quiet")
RUFF = (PYTHON, "-m", "ruff")
BRIEF = ("--output-format", "concise")
QUIET = {"NO_MKDOCS_2_WARNING": "1"}

nox.needs_version = ">=2024.3"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["check", "test"]


@nox.session
def test(session: nox.Session) -> None:
    """The whole suite on real servers, parted over the cores; arguments go to pytest, `-n 0` is one process."""
    session.run(PYTHON, "-m", "pytest", "-n", "auto", *session.posargs)


@nox.session
def check(session: nox.Session) -> None:
    """Lint, types, layers and docs side by side; no failure hides another."""
    commands = [MYPY, PYRIGHT, DOCS, LAYERS, (*RUFF, "check", *BRIEF, "."), (*RUFF, "format", "--check", *BRIEF, ".")]
    with ThreadPoolExecutor(len(commands)) as pool:
        passed = list(pool.map(passes, commands))
    if not all(passed):
        session.error("what failed says so above")


def passes(command: Sequence[str]) -> bool:
    """Whether a tool finds nothing; what it printed is shown when it ends."""
    done = subprocess.run(command, env=os.environ | QUIET, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    verdict = f"exit status {done.returncode}" if done.returncode else "passed"
    print(f"{' '.join(command[1:])}: {verdict}\n{done.stdout}{done.stderr}".rstrip(), flush=True)
    return done.returncode == 0


@nox.session
def lint(session: nox.Session) -> None:
    """Format and lint with ruff; `nox -s lint -- --fix` mends what it can."""
    fix = "--fix" in session.posargs
    session.run(*RUFF, "check", *(["--fix"] if fix else []), *BRIEF, ".")
    session.run(*RUFF, "format", *([] if fix else ["--check", *BRIEF]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """The package, and the tests' servers, under mypy --strict; the package under pyright."""
    session.run(*MYPY)
    session.run(*PYRIGHT)


@nox.session
def layers(session: nox.Session) -> None:
    """Who may import whom."""
    session.run(*LAYERS)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation into site/, warnings being errors."""
    session.run(*DOCS, env=QUIET)


@nox.session
def bench(session: nox.Session) -> None:
    """Figures, not a test: fastrdb beside hand-written code on PostgreSQL and Redis."""
    session.run(PYTHON, "-m", "benchmarks", *session.posargs)


@nox.session
def peers(session: nox.Session) -> None:
    """Figures, not a test: fastrdb beside FastRDB 0.0.3, FastCRUD, advanced-alchemy, cashews and aiocache."""
    session.run(PYTHON, "-m", "benchmarks.peers", *session.posargs)


@nox.session
def growth(session: nox.Session) -> None:
    """Figures, not a test: whether fastrdb's cost grows with rows, keys and callers."""
    session.run(PYTHON, "-m", "benchmarks.growth", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """What must hold while Redis fails and writers are killed: an hour, or `-- --minutes 10`, `-- --quick`."""
    session.run(PYTHON, "-m", "benchmarks.soak", *session.posargs)
