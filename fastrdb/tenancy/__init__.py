"""Tenants kept apart by the database: row-level security, and a schema per tenant."""

from .context import clear_rls_context, get_rls_context, set_rls_context
from .copying import copy_schema_structure
from .schemas import create_tenant_schema, drop_tenant_schema, list_tenant_schemas
from .search_path import get_schema_search_path, reset_schema_search_path, set_schema_search_path
from .security import RLSBypassWarning, RLSPolicyManager, check_rls

__all__ = [
    "RLSBypassWarning",
    "RLSPolicyManager",
    "check_rls",
    "clear_rls_context",
    "copy_schema_structure",
    "create_tenant_schema",
    "drop_tenant_schema",
    "get_rls_context",
    "get_schema_search_path",
    "list_tenant_schemas",
    "reset_schema_search_path",
    "set_rls_context",
    "set_schema_search_path",
]
