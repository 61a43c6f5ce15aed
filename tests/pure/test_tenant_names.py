"""Names of schemas and tables: what is taken, and that it stays a name."""

from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrdb.errors import InputError, RLSError, SchemaManagementError, SchemaNameRefused
from fastrdb.tenancy.names import Relation, checked_schema, literal, quoted, tenant_schema
from fastrdb.tenancy.policies import Policy
from tests.tenants import Note


@pytest.mark.parametrize(
    ("tenant", "name"),
    [
        ("acme", "tenant_acme"),
        ("Acme-2", "tenant_Acme-2"),
        (7, "tenant_7"),
        (UUID(int=1), "tenant_00000000-0000-0000-0000-000000000001"),
        ("münchen", "tenant_münchen"),
        ("東京", "tenant_東京"),
    ],
)
def test_dm_8_names_are_the_ids_own(tenant: Any, name: str) -> None:
    """UUIDs, numbers and letters of any script name a schema as they are."""
    assert tenant_schema(tenant) == name


@pytest.mark.parametrize(
    ("tenant", "problem"),
    [
        ("a, secret", "','"),
        ('a"b', "'\"'"),
        ("o'brien", '"\'"'),
        ("a b", "' '"),
        ("a.b", "'.'"),
        ("$user", r"'\$'"),
        ("a\0", r"'\\x00'"),
        ("", "empty"),
        ("x" * 100, "107 bytes"),
        ("é" * 29, "65 bytes"),
        (None, "a tenant's id is"),
        (True, "a tenant's id is"),
        (1.5, "a tenant's id is"),
    ],
)
def test_dm_8_other_ids_are_refused(tenant: Any, problem: str) -> None:
    """Quotes, commas, white space, dots, and what PostgreSQL would cut off, are refused by a typed error."""
    with pytest.raises(SchemaNameRefused, match=problem) as caught:
        tenant_schema(tenant)
    assert isinstance(caught.value, InputError)
    assert isinstance(caught.value, SchemaManagementError)


@pytest.mark.parametrize("name", ["public", "PUBLIC", "pg_catalog", "pg_anything", "information_schema"])
def test_schemas_of_all_are_no_tenants(name: str) -> None:
    """Without a prefix, a tenant cannot be given ``public`` or a schema of PostgreSQL's own."""
    with pytest.raises(SchemaNameRefused, match="no tenant's"):
        tenant_schema(name, "")


@given(st.text())
def test_taken_names_are_safe(name: str) -> None:
    """Whatever is taken has neither quotes nor commas nor blanks, and fits into a name."""
    try:
        taken = checked_schema(name)
    except SchemaNameRefused:
        return
    assert taken == name
    assert not set(name) & set("\"', \t\n$.;\\\0")
    assert 1 <= len(name.encode()) <= 63


@given(st.text())
def test_quoted_names_end_where_they_end(name: str) -> None:
    """In quotes, every quote of the name itself is doubled."""
    assert quoted(name)[1:-1].replace('""', "") == name.replace('"', "")
    assert quoted(name)[0] == quoted(name)[-1] == '"'


@given(st.text())
def test_literals_end_where_they_end(text: str) -> None:
    """In a literal, every quote is doubled, and a backslash is one."""
    inside = literal(text).strip().removeprefix("E")[1:-1]
    assert inside.replace("''", "'").replace("\\\\", "\\") == text or "\\" in text or "'" in text
    assert inside.count("'") == 2 * text.count("'")


def test_tables_are_named_in_several_ways() -> None:
    """A name with or without a schema, a Table and a mapped class mean a relation; anything else is refused."""
    assert Relation.of("notes").quoted == '"notes"'
    assert Relation.of('app.no"tes').quoted == '"app"."no""tes"'
    assert Relation.of(Note) == Relation.of(Note.__table__) == Relation(None, "notes")
    with pytest.raises(RLSError, match="type; pass a name"):
        Relation.of(int)


def test_policy_takes_no_setting_for_a_tenant() -> None:
    """A setting that is empty, as one is after the transaction that made it, is NULL to a policy."""
    policy = Policy("p", "tenant_id", "app.current_tenant_id", "uuid")
    assert policy.condition == "\"tenant_id\" = NULLIF(current_setting('app.current_tenant_id', true), '')::uuid"
