"""Row-level security of tables: enabling it, its policies, and who is not bound by it."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import RLSError
from .context import SETTINGS
from .names import Relation, TableName
from .policies import Policy, disable, drop_policy, enable

_COLUMN = text(
    "SELECT format_type(atttypid, -1) FROM pg_attribute "
    "WHERE attrelid = to_regclass(:relation) AND attname = :name AND attnum > 0 AND NOT attisdropped"
)
_BINDING = text(
    "SELECT role.rolname, role.rolsuper, role.rolbypassrls, relation.relrowsecurity, relation.relforcerowsecurity, "
    "pg_has_role(current_user, relation.relowner, 'USAGE') "
    "FROM pg_class relation, pg_roles role WHERE relation.oid = to_regclass(:relation) AND role.rolname = current_user"
)


class RLSBypassWarning(UserWarning):
    """The role of a session sees all rows of a table, whatever its policies say."""


class RLSPolicyManager:
    """Changes row-level security in the session's transaction; the caller commits.

    A crud asks the database once, at its first use of an engine, which tables hide rows. Enable row-level security
    before that, or restart the processes that use the table.

    Args:
        session: On PostgreSQL, as the tables' owner.
    """

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def enable_rls(self, table: TableName, *, force: bool = True) -> None:
        """Let nobody see rows of the table that no policy shows; harmless to repeat.

        Args:
            table: ``"table"``, ``"schema.table"``, a Table or a mapped class.
            force: Bind the table's owner, too. Superusers and roles with BYPASSRLS are never bound.

        Raises:
            RLSError: The session is on another database.
        """
        await self._send(enable(Relation.of(table), force=force))

    async def disable_rls(self, table: TableName) -> None:
        """Show all rows of the table to everybody again; its policies stay, without effect. Harmless to repeat."""
        await self._send(disable(Relation.of(table)))

    async def create_tenant_policy(
        self,
        table: TableName,
        tenant_column: str = "tenant_id",
        policy_name: str | None = None,
        *,
        restrictive: bool = False,
    ) -> str:
        """Show, and let change, the rows of the session's tenant only; give the policy's name.

        It takes the place of a policy of the same name. The tenant is cast to the column's type: one that it cannot
        be cast to makes statements fail.

        Args:
            table: As in ``enable_rls``, which is not called here.
            tenant_column: The column that says whose the row is.
            policy_name: By default ``<table>_tenant``.
            restrictive: As in ``create_user_policy``.

        Raises:
            RLSError: There is no such column, or the session is on another database.
        """
        return await self._create(table, tenant_column, "tenant", policy_name, restrictive)

    async def create_user_policy(
        self,
        table: TableName,
        user_column: str = "user_id",
        policy_name: str | None = None,
        *,
        restrictive: bool = True,
    ) -> str:
        """Show, and let change, the rows of the session's user only; give the policy's name.

        Args:
            table, policy_name: As in ``create_tenant_policy``; by default ``<table>_user``.
            user_column: The column that says whose the row is.
            restrictive: Besides the table's other policies: a row must be the tenant's *and* the user's. A table whose
                only policy is restrictive shows nothing; ``False``: satisfying any policy is enough.

        Raises:
            RLSError: As ``create_tenant_policy``.
        """
        return await self._create(table, user_column, "user", policy_name, restrictive)

    async def drop_policy(self, table: TableName, policy_name: str) -> None:
        """Drop a policy, if there is one of that name."""
        await self._send([drop_policy(Relation.of(table), policy_name)])

    async def _create(self, table: TableName, column: str, of: str, name: str | None, restrictive: bool) -> str:
        relation = Relation.of(table)
        _check(self._session)
        found = await self._session.execute(_COLUMN, {"relation": relation.quoted, "name": column})
        type_ = found.scalar_one_or_none()
        if type_ is None:
            raise RLSError(f"{relation.quoted}: there is no such table, or it has no column {column!r}")
        policy = Policy(name or f"{relation.name}_{of}", column, SETTINGS[f"{of}_id"], type_, restrictive)
        await self._send(policy.create(relation))
        return policy.name

    async def _send(self, statements: Iterable[str]) -> None:
        _check(self._session)
        connection = await self._session.connection()
        for statement in statements:
            await connection.exec_driver_sql(statement)


async def check_rls(session: AsyncSession, *tables: TableName) -> list[str]:
    """Warn of, and give, what makes policies mean nothing to the session's role; an empty list: all is bound.

    Superusers, roles with BYPASSRLS, and the owner of a table without FORCE see all rows.

    Raises:
        RLSError: There is no such table, or the session is on another database.
    """
    _check(session)
    found = []
    for relation in map(Relation.of, tables):
        row = (await session.execute(_BINDING, {"relation": relation.quoted})).one_or_none()
        if row is None:
            raise RLSError(f"{relation.quoted}: there is no such table")
        if (reason := _bypassed(*row)) is not None:
            found.append(f"row-level security of {relation.quoted} does not bind the role {row[0]!r}: {reason}")
            warnings.warn(found[-1], RLSBypassWarning, stacklevel=2)
    return found


def _bypassed(role: str, superuser: bool, bypass: bool, enabled: bool, forced: bool, owner: bool) -> str | None:
    if not enabled:
        return "it is not enabled; call enable_rls"
    if superuser:
        return "it is a superuser; connect as an ordinary role"
    if bypass:
        return "it has BYPASSRLS; connect as another role"
    return "it owns the table; call enable_rls(force=True)" if owner and not forced else None


def _check(session: AsyncSession) -> None:
    if session.get_bind().dialect.name != "postgresql":
        raise RLSError("db: row-level security needs PostgreSQL")
