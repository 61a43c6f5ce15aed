"""Alembic: where it finds the database, what it looks at, operations for row-level security, tenants, the outbox."""

try:
    import alembic as _alembic  # noqa: F401  # to say what is missing
except ImportError as _error:
    raise ImportError("fastrdb.migrations needs Alembic: pip install 'fastrdb[alembic]'") from _error

from .hooks import run_post_migration_hooks
from .inclusion import include_object
from .operations import (
    CreateTenantPolicyOp,
    DisableRLSOp,
    DropTenantPolicyOp,
    EnableRLSOp,
    create_rls_policy,
    create_schema_if_not_exists,
    drop_schema_if_exists,
    enable_rls_on_table,
)
from .outbox import CreateOutboxOp, DropOutboxOp
from .tenants import MigrationHelpers, migrate_tenant_schemas
from .urls import get_alembic_config_url

__all__ = [
    "CreateOutboxOp",
    "CreateTenantPolicyOp",
    "DisableRLSOp",
    "DropOutboxOp",
    "DropTenantPolicyOp",
    "EnableRLSOp",
    "MigrationHelpers",
    "create_rls_policy",
    "create_schema_if_not_exists",
    "drop_schema_if_exists",
    "enable_rls_on_table",
    "get_alembic_config_url",
    "include_object",
    "migrate_tenant_schemas",
    "run_post_migration_hooks",
]
