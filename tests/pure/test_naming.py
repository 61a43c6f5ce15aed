"""Names of tables, constraints and indexes."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import CheckConstraint, Column, ForeignKey, Index, Integer, MetaData, Table, UniqueConstraint, func
from sqlalchemy.schema import CreateTable

from fastrdb.db import (
    create_check_constraint_name,
    create_foreign_key_name,
    create_index_name,
    create_unique_constraint_name,
    naming_convention,
)
from fastrdb.db.models.naming import snake_case

WORDS = st.text(min_size=1, max_size=40)


def test_names_are_made_of_their_parts() -> None:
    """A name says what it is of, and takes columns one by one or as lists."""
    assert create_index_name("orders", "owner_id", "day") == "idx_orders_owner_id_day"
    assert create_index_name("orders", ["owner_id", "day"]) == "idx_orders_owner_id_day"
    assert create_unique_constraint_name("users", "email") == "uq_users_email"
    assert create_foreign_key_name("orders", "owner_id", "users") == "fk_orders_owner_id_users"
    assert create_foreign_key_name("orders", ["a", "b"], "users", "x", "y") == "fk_orders_a_b_users"
    assert create_check_constraint_name("orders", "positive") == "ck_orders_positive"


@given(WORDS, st.lists(WORDS, min_size=1, max_size=5))
def test_no_name_is_longer_than_postgresql_takes(table: str, columns: list[str]) -> None:
    """Whatever the parts, a name has 63 bytes at most, and is text."""
    for name in (create_index_name(table, columns), create_foreign_key_name(table, columns, table)):
        assert 0 < len(name.encode()) <= 63


def test_long_names_that_begin_alike_differ() -> None:
    """What is cut off leaves a hash, so that two indexes of a long table name do not collide."""
    table = "a_table_whose_name_is_as_long_as_the_database_can_take_it"
    names = {create_index_name(table, column) for column in ("first", "second", "third")}
    assert len(names) == 3
    assert all(name.startswith("idx_a_table_whose_name_is_as_long") for name in names)


def test_convention_names_everything() -> None:
    """With the convention, no constraint and no index is left to the database to name."""
    metadata = MetaData(naming_convention=naming_convention())
    Table("users", metadata, Column("id", Integer, primary_key=True))
    orders = Table(
        "orders",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("user_id", ForeignKey("users.id"), index=True),
        Column("total", Integer, CheckConstraint("total > 0"), unique=True),
        CheckConstraint("total < 9", name="small"),
        CheckConstraint("total < 8", name="ck_orders_smaller"),
        UniqueConstraint("user_id", "total"),
        Index(None, "total", "user_id"),
    )
    Index(None, func.abs(orders.c.total))
    ddl = str(CreateTable(orders))
    checks = set(re.findall(r"CONSTRAINT (ck_\w+) CHECK", ddl))
    assert {"ck_orders_small", "ck_orders_smaller"} < checks
    assert len(checks) == ddl.count("CHECK") == 3, "that without a name has one, too"
    others = {str(constraint.name) for constraint in orders.constraints} - checks
    assert others == {"pk_orders", "fk_orders_user_id_users", "uq_orders_total", "uq_orders_user_id_total"}
    indexes = {str(index.name) for index in orders.indexes}
    assert indexes == {"idx_orders_user_id", "idx_orders_total_user_id", "idx_orders_abs_total"}


@pytest.mark.parametrize(
    ("name", "snake"),
    [
        ("User", "user"),
        ("OrderItem", "order_item"),
        ("HTTPRequestLog", "http_request_log"),
        ("Item2Box", "item2_box"),
        ("already_snake", "already_snake"),
    ],
)
def test_snake_case(name: str, snake: str) -> None:
    """Words and acronyms are set apart."""
    assert snake_case(name) == snake
