"""The one door to every check. No environments of its own: sessions run in the .venv that dev.py makes."""

import sys
from pathlib import Path

import nox

BIN = Path(__file__).resolve().parent / ".venv" / "bin"
if not BIN.exists():
    BIN = Path(sys.executable).parent
PYTHON = str(BIN / "python")

nox.needs_version = ">=2024.3"
nox.options.default_venv_backend = "none"
nox.options.sessions = ["lint", "types", "layers", "docs", "test"]


@nox.session
def test(session: nox.Session) -> None:
    """The whole suite on real servers; arguments go to pytest."""
    session.run(PYTHON, "-m", "pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Format and lint with ruff; `nox -s lint -- --fix` mends what it can."""
    fix = "--fix" in session.posargs
    brief = ["--output-format", "concise"]
    session.run(PYTHON, "-m", "ruff", "check", *(["--fix"] if fix else []), *brief, ".")
    session.run(PYTHON, "-m", "ruff", "format", *([] if fix else ["--check", *brief]), ".")


@nox.session
def types(session: nox.Session) -> None:
    """The package, and the tests' servers, under mypy --strict; the package under pyright."""
    session.run(PYTHON, "-m", "mypy", "--strict")
    session.run(PYTHON, "-m", "pyright", "--pythonpath", PYTHON)


@nox.session
def layers(session: nox.Session) -> None:
    """Who may import whom."""
    session.run(str(BIN / "lint-imports"), "--no-logo")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation into site/, warnings being errors."""
    session.run(PYTHON, "-m", "mkdocs", "build", "--strict", "--quiet", env={"NO_MKDOCS_2_WARNING": "1"})


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
