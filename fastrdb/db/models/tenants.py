"""Whose rows they are."""

from __future__ import annotations

from sqlalchemy import ColumnElement, String, Table
from sqlalchemy.orm import Mapped, mapped_column

from ...context import Identifier, current_tenant
from .mapping import Mapping, add_index

_LENGTH = 255


class TenantAwareMixin(Mapping):
    """A row belongs to one tenant.

    An INSERT that does not name the tenant takes that of the block ``fastrdb.context.tenant`` it runs in; outside of
    any it is refused, since the column is NOT NULL.

    Attributes:
        tenant_id: Id of the tenant, as text.
    """

    tenant_id: Mapped[str] = mapped_column(String(_LENGTH), default=current_tenant, nullable=False, index=True)

    @classmethod
    def by_tenant(cls, tenant_id: Identifier) -> ColumnElement[bool]:
        """Give the condition that a row is this tenant's."""
        return cls.tenant_id == str(tenant_id)

    @classmethod
    def exclude_tenant(cls, tenant_id: Identifier) -> ColumnElement[bool]:
        """Give the condition that a row is another tenant's."""
        return cls.tenant_id != str(tenant_id)

    def belongs_to_tenant(self, tenant_id: Identifier) -> bool:
        """Tell whether this row is the tenant's."""
        return self.tenant_id == str(tenant_id)

    @classmethod
    def _complete_table(cls, table: Table) -> None:
        super()._complete_table(table)
        add_index(table, "tenant_id", "created_at")
