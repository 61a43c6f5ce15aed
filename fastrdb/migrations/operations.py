"""Operations for row-level security and schemas: ``op.enable_rls``, ``op.create_tenant_policy`` and their reverses.

Autogenerate proposes them for tables that say ``info={"rls": {"tenant_column": "tenant_id"}}`` and lack them in the
database. What is in the database beyond that is left alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alembic import op
from alembic.autogenerate import comparators, renderers
from alembic.autogenerate.api import AutogenContext
from alembic.operations import MigrateOperation, Operations
from alembic.operations.ops import UpgradeOps
from alembic.util import DispatchPriority
from sqlalchemy import CHAR, String, Table, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.types import TypeEngine

from ..errors import AlembicError
from ..tenancy.context import SETTINGS
from ..tenancy.names import Relation, checked_name, checked_schema, quoted
from ..tenancy.policies import Policy, disable, drop_policy, enable

INFO = "rls"
_STATE = text(
    "SELECT relrowsecurity AND relforcerowsecurity, "
    "EXISTS (SELECT FROM pg_policy WHERE polrelid = pg_class.oid AND polname = :policy) "
    "FROM pg_class WHERE oid = to_regclass(:relation)"
)


class _TableOp(MigrateOperation):
    """An operation on one table."""

    call: str

    def __init__(self, table: str, schema: str | None) -> None:
        self.relation = Relation(schema, table)

    def statements(self) -> Sequence[str]:
        """The SQL."""
        raise NotImplementedError

    def arguments(self) -> dict[str, Any]:
        """What ``op`` is called with, by name, besides the table."""
        return {"schema": self.relation.schema} if self.relation.schema is not None else {}

    def to_diff_tuple(self) -> tuple[Any, ...]:
        """What ``alembic check`` shows."""
        return (self.call, self.relation.name, self.arguments())


@Operations.register_operation("enable_rls")
class EnableRLSOp(_TableOp):
    """Enable row-level security, for the table's owner, too."""

    call = "enable_rls"

    @classmethod
    def enable_rls(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Let nobody see rows of the table that no policy shows."""
        operations.invoke(cls(table, schema))

    def statements(self) -> Sequence[str]:
        """The SQL."""
        return enable(self.relation, force=True)

    def reverse(self) -> MigrateOperation:
        """What undoes it."""
        return DisableRLSOp(self.relation.name, self.relation.schema)


@Operations.register_operation("disable_rls")
class DisableRLSOp(_TableOp):
    """Disable row-level security; policies stay, without effect."""

    call = "disable_rls"

    @classmethod
    def disable_rls(cls, operations: Operations, table: str, *, schema: str | None = None) -> None:
        """Show all rows of the table to everybody."""
        operations.invoke(cls(table, schema))

    def statements(self) -> Sequence[str]:
        """The SQL."""
        return disable(self.relation)

    def reverse(self) -> MigrateOperation:
        """What undoes it."""
        return EnableRLSOp(self.relation.name, self.relation.schema)


class _PolicyOp(_TableOp):
    """An operation on a tenant policy."""

    def __init__(self, table: str, column: str, type_: str, policy_name: str | None, schema: str | None) -> None:
        super().__init__(table, schema)
        self.policy = Policy(policy_name or f"{table}_tenant", column, SETTINGS["tenant_id"], type_)

    def same(self) -> tuple[str, str, str, str, str | None]:
        """The arguments, for the reverse."""
        policy = self.policy
        return self.relation.name, policy.column, policy.type, policy.name, self.relation.schema

    def arguments(self) -> dict[str, Any]:
        """What ``op`` is called with, by name."""
        found = {"column": self.policy.column, "type_": self.policy.type, "policy_name": self.policy.name}
        return {**found, **super().arguments()}


@Operations.register_operation("create_tenant_policy")
class CreateTenantPolicyOp(_PolicyOp):
    """Create the policy that shows a tenant its rows."""

    call = "create_tenant_policy"

    @classmethod
    def create_tenant_policy(
        cls,
        operations: Operations,
        table: str,
        column: str = "tenant_id",
        *,
        type_: str = "text",
        policy_name: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Show, and let change, the rows of the session's tenant only.

        Args:
            table, schema: Where; row-level security is enabled by ``op.enable_rls``.
            column: Says whose the row is.
            type_: Its type as SQL, without a length.
            policy_name: By default ``<table>_tenant``.
        """
        operations.invoke(cls(table, column, type_, policy_name, schema))

    def statements(self) -> Sequence[str]:
        """The SQL."""
        return self.policy.create(self.relation)

    def reverse(self) -> MigrateOperation:
        """What undoes it."""
        return DropTenantPolicyOp(*self.same())


@Operations.register_operation("drop_tenant_policy")
class DropTenantPolicyOp(_PolicyOp):
    """Drop the policy that shows a tenant its rows."""

    call = "drop_tenant_policy"

    @classmethod
    def drop_tenant_policy(
        cls,
        operations: Operations,
        table: str,
        column: str = "tenant_id",
        *,
        type_: str = "text",
        policy_name: str | None = None,
        schema: str | None = None,
    ) -> None:
        """Drop the policy, if there is one; column and type are what its reverse creates again."""
        operations.invoke(cls(table, column, type_, policy_name, schema))

    def statements(self) -> Sequence[str]:
        """The SQL."""
        return [drop_policy(self.relation, self.policy.name)]

    def reverse(self) -> MigrateOperation:
        """What undoes it."""
        return CreateTenantPolicyOp(*self.same())


@Operations.implementation_for(EnableRLSOp)
@Operations.implementation_for(DisableRLSOp)
@Operations.implementation_for(CreateTenantPolicyOp)
@Operations.implementation_for(DropTenantPolicyOp)
def _run(operations: Operations, operation: _TableOp) -> None:
    for statement in operation.statements():
        operations.execute(statement.replace(":", "\\:"))  # Alembic takes a colon for a parameter's


@renderers.dispatch_for(EnableRLSOp)
@renderers.dispatch_for(DisableRLSOp)
@renderers.dispatch_for(CreateTenantPolicyOp)
@renderers.dispatch_for(DropTenantPolicyOp)
def _render(context: AutogenContext, operation: _TableOp) -> str:
    named = "".join(f", {name}={value!r}" for name, value in operation.arguments().items())
    return f"op.{operation.call}({operation.relation.name!r}{named})"


@comparators.dispatch_for("schema", priority=DispatchPriority.LAST)  # after the tables are created
def _compare(context: AutogenContext, upgrade: UpgradeOps, schemas: Sequence[str | None]) -> None:
    connection = context.connection
    if connection is None or connection.dialect.name != "postgresql":
        return
    for table in context.sorted_tables:
        declared = table.info.get(INFO)
        if declared is None or not context.run_object_filters(table, table.name, "table", False, None):
            continue
        wanted = _wanted(table, declared["tenant_column"])
        given = {"relation": wanted.relation.quoted, "policy": wanted.policy.name}
        row = connection.execute(_STATE, given).one_or_none()
        enabled, there = row if row is not None else (False, False)
        if not enabled:
            upgrade.ops.append(EnableRLSOp(table.name, table.schema))
        if not there:
            upgrade.ops.append(wanted)


def _wanted(table: Table, column: str) -> CreateTenantPolicyOp:
    if column not in table.columns:
        raise AlembicError(f"table {table.fullname!r}: info['rls'] names a column {column!r} that it lacks")
    return CreateTenantPolicyOp(table.name, column, _cast(table.columns[column].type), None, table.schema)


def _cast(type_: TypeEngine[Any]) -> str:
    """Name a type for a cast, without a length, which would cut a longer tenant off."""
    dialect = postgresql.dialect()  # type: ignore[no-untyped-call]  # SQLAlchemy's
    own = type_.dialect_impl(dialect)
    if isinstance(own, CHAR):
        return "bpchar"
    return "text" if isinstance(own, String) else own.compile(dialect=dialect).partition("(")[0].lower()


def create_schema_if_not_exists(name: str) -> None:
    """Create a schema, in a migration.

    Raises:
        SchemaNameRefused: The name cannot be that of a schema.
    """
    op.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(checked_name(name))}")


def drop_schema_if_exists(name: str, cascade: bool = False) -> None:
    """Drop a schema, with all that is in it if *cascade*, in a migration.

    Raises:
        SchemaNameRefused: The name cannot be that of a schema, or is ``public`` or PostgreSQL's own.
    """
    op.execute(f"DROP SCHEMA IF EXISTS {quoted(checked_schema(name))} {'CASCADE' if cascade else 'RESTRICT'}")


def enable_rls_on_table(table: str, schema: str | None = None) -> None:
    """Enable row-level security, for the table's owner, too, in a migration: ``op.enable_rls``."""
    op.invoke(EnableRLSOp(table, schema))


def create_rls_policy(
    table: str, policy_name: str, using: str, with_check: str | None = None, schema: str | None = None
) -> None:
    """Create a policy with a condition of your own, in a migration, in place of one of its name.

    Args:
        table, schema: Where.
        policy_name: The policy's, unique on its table.
        using: SQL that holds of the rows that are shown.
        with_check: SQL that must hold of rows that are written; by default the same.
    """
    relation = Relation(schema, table)
    creating = f"CREATE POLICY {quoted(policy_name)} ON {relation.quoted}"
    for statement in (
        drop_policy(relation, policy_name),
        f"{creating} USING ({using}) WITH CHECK ({with_check or using})",
    ):
        op.execute(statement.replace(":", "\\:"))
