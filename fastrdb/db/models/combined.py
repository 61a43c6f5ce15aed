"""Column mixins that often go together."""

from __future__ import annotations

from .auditing import AuditMixin
from .soft_deletion import SoftDeleteMixin
from .tenants import TenantAwareMixin


class SoftDeleteAuditMixin(SoftDeleteMixin, AuditMixin):
    """Soft delete and audit."""


class TenantAuditMixin(TenantAwareMixin, AuditMixin):
    """Tenant and audit."""


class FullAuditMixin(TenantAwareMixin, SoftDeleteMixin, AuditMixin):
    """Tenant, soft delete and audit."""
