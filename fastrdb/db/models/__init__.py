"""Declarative bases and column mixins."""

from .auditing import AuditMixin
from .bases import Base, BaseModel, Conventions
from .combined import FullAuditMixin, SoftDeleteAuditMixin, TenantAuditMixin
from .guid import GUID, uuid7
from .moments import UTCDateTime, utc_now
from .naming import (
    create_check_constraint_name,
    create_foreign_key_name,
    create_index_name,
    create_unique_constraint_name,
    naming_convention,
)
from .soft_deletion import SoftDeleteMixin
from .sortable import SortableKeyMixin
from .tenants import TenantAwareMixin
from .timestamps import TimestampMixin
from .versions import VersionedMixin

__all__ = [
    "GUID",
    "AuditMixin",
    "Base",
    "BaseModel",
    "Conventions",
    "FullAuditMixin",
    "SoftDeleteAuditMixin",
    "SoftDeleteMixin",
    "SortableKeyMixin",
    "TenantAuditMixin",
    "TenantAwareMixin",
    "TimestampMixin",
    "UTCDateTime",
    "VersionedMixin",
    "create_check_constraint_name",
    "create_foreign_key_name",
    "create_index_name",
    "create_unique_constraint_name",
    "naming_convention",
    "utc_now",
    "uuid7",
]
