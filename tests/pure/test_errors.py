"""The tree of errors, its further names, and what can be imported without an extra."""

import subprocess
import sys

import pytest

from fastrdb import errors

WITHOUT = """
import sys
for name in ("fastapi", "alembic", "psycopg", "asyncmy"):
    sys.modules[name] = None
import fastrdb, fastrdb.db, fastrdb.health
from fastrdb import *
from fastrdb.db import *
from fastrdb.errors import *
import builtins
hidden = {name for name in vars(builtins) if name in globals() and globals()[name] is not getattr(builtins, name)}
print(sorted(name for name in hidden if not name.startswith("_")))
"""


def test_core_imports_without_extras_and_hides_nothing() -> None:
    """Everything public is imported without any extra, and a star import hides no builtin name."""
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("DatabaseConnectionError", "DatabaseError"),
        ("TransactionError", "DatabaseError"),
        ("ValidationError", "DatabaseError"),
        ("ConstraintError", "ValidationError"),
        ("UniqueConstraintError", "ConstraintError"),
        ("ForeignKeyError", "ConstraintError"),
        ("MigrationError", "DatabaseError"),
        ("ConfigurationError", "DatabaseError"),
        ("SchemaError", "DatabaseError"),
        ("LockError", "DatabaseError"),
        ("LockTimeoutError", "LockError"),
        ("LockNotAcquiredError", "LockError"),
        ("CacheError", "DatabaseError"),
        ("CacheConnectionError", "CacheError"),
        ("CacheSerializationError", "CacheError"),
    ],
)
def test_further_names_lie_in_the_one_tree(name: str, base: str) -> None:
    """Each further name is a class of the tree, below the one it belongs to."""
    assert issubclass(getattr(errors, name), getattr(errors, base))


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("SettingRefused", ValueError),
        ("MissingExtra", ImportError),
        ("NotStarted", RuntimeError),
        ("DatabaseUnavailable", ConnectionError),
        ("LockTimeout", TimeoutError),
    ],
)
def test_builtin_handlers_catch_them(name: str, builtin: type[Exception]) -> None:
    """Errors whose kind Python knows are caught by its own name, too."""
    assert issubclass(getattr(errors, name), builtin)
