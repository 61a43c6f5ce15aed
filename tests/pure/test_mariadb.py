"""What is read from MariaDB's words: how a COMMIT ended, which constraint refused, whether a SELECT may be cached."""

from typing import Any

import asyncmy.errors
import pytest
from sqlalchemy import create_engine, exc
from sqlalchemy.dialects import mysql

from fastrdb import SessionRefused
from fastrdb.crud.integrity import translated
from fastrdb.db.servers import check, commits_by_itself, sees_commits
from fastrdb.errors import CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation
from fastrdb.writes.outcome import did_not_commit


def failed(number: int, words: str = "words", state: str | None = "HY000") -> exc.DBAPIError:
    """An error as SQLAlchemy wraps it."""
    driver = asyncmy.errors.OperationalError(number, words)
    driver.sqlstate = state
    return exc.OperationalError("COMMIT", None, driver)


@pytest.mark.parametrize("number", [1205, 1213, 1290])
def test_what_is_rolled_back_for_certain(number: int) -> None:
    """A deadlock, a timeout of a lock and a read-only server roll back before they say so."""
    assert did_not_commit(failed(number))


@pytest.mark.parametrize("number", [0, 1053, 1180, 1317, 1927, 2006, 2013, 4031])
def test_what_is_not_certain(number: int) -> None:
    """After a lost or killed connection, a shutdown, an error while committing, the outcome is not known."""
    assert not did_not_commit(failed(number, state="70100"))


@pytest.mark.parametrize(
    ("number", "words", "kind", "name"),
    [
        (1062, "Duplicate entry 'a' for key 'b' for key 'users_email'", UniqueViolation, "users_email"),
        (1062, "Duplicate entry '1' for key 'PRIMARY'", UniqueViolation, "PRIMARY"),
        (
            1452,
            "Cannot add or update a child row: … fails (`d`.`t`, CONSTRAINT `fk` FOREIGN KEY (`a`))",
            ForeignKeyViolation,
            "fk",
        ),
        (1217, "Cannot delete or update a parent row: a foreign key constraint fails", ForeignKeyViolation, None),
        (1048, "Column 'name' cannot be null", NotNullViolation, "name"),
        (1364, "Field 'name' doesn't have a default value", NotNullViolation, "name"),
        (4025, "CONSTRAINT `adult` failed for `d`.`t`", CheckViolation, "adult"),
        (3819, "Check constraint 'adult' is violated.", CheckViolation, "adult"),
    ],
)
def test_constraints_are_named(number: int, words: str, kind: type[Any], name: str | None) -> None:
    """The number says what kind of constraint refused, and the words which one."""
    found = translated(failed(number, words))
    assert (type(found), found and found.constraint) == (kind, name)


def test_other_errors_are_no_constraints() -> None:
    """What no constraint refused is the driver's affair."""
    assert translated(failed(1213, "Deadlock found when trying to get lock")) is None


USUAL = {"TX_ISOLATION": "REPEATABLE-READ", "READ_ONLY": "OFF", "SLAVES_RUNNING": "0", "WSREP_ON": "OFF"}


@pytest.mark.parametrize(
    ("said", "sees"),
    [
        ({}, True),
        ({"TX_ISOLATION": "READ-UNCOMMITTED"}, False),
        ({"READ_ONLY": "ON"}, False),
        ({"READ_ONLY": "NO_LOCK_NO_ADMIN"}, False),
        ({"SLAVES_RUNNING": "1"}, False),
        ({"WSREP_ON": "ON", "WSREP_SYNC_WAIT": "0"}, False),
        ({"WSREP_ON": "ON", "WSREP_SYNC_WAIT": "6"}, False),
        ({"WSREP_ON": "ON", "WSREP_SYNC_WAIT": "1"}, True),
    ],
)
def test_servers_whose_rows_may_be_cached(said: dict[str, str], sees: bool) -> None:
    """Dirty reads, replicas, and cluster nodes that do not wait for the others are not cached."""
    assert sees_commits(USUAL | said) is sees


def test_mysql_is_refused() -> None:
    """A server without INSERT … RETURNING is refused, and the message names one that has it."""
    with pytest.raises(SessionRefused, match=r"MariaDB 10\.11"):
        check(mysql.dialect())


@pytest.mark.parametrize(
    ("statement", "commits"),
    [
        ("ALTER TABLE t ADD c INT", True),
        ("\n/* why */ truncate t", True),
        ("CREATE OR REPLACE TABLE t (a INT)", True),
        ("DROP TEMPORARY TABLE t", False),
        ("CREATE OR REPLACE TEMPORARY TABLE t (a INT)", False),
        ("start  transaction", True),
        ("BEGIN", True),
        ("BEGIN NOT ATOMIC SELECT 1; END", False),
        ("SET @@session.autocommit = 1", True),
        ("SET autocommit=0", True),
        ("SET time_zone = '+00:00'", False),
        ("LOCK TABLES t WRITE", True),
        ("CHECK TABLE t", True),
        ("SELECT * FROM created", False),
        ("UPDATE t SET a = 'COMMIT'", False),
        ("SAVEPOINT a", False),
    ],
)
def test_statements_that_commit_by_themselves(statement: str, commits: bool) -> None:
    """Statements that end MariaDB's transaction are known by their first words."""

    class Connection:
        dialect = create_engine("mysql+asyncmy://").dialect

    assert commits_by_itself(Connection(), statement) is commits  # type: ignore[arg-type]  # all that is looked at
