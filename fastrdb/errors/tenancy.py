"""Errors of tenants."""

from __future__ import annotations

from .arguments import InputError
from .base import FastRDBError


class TenancyError(FastRDBError):
    """Tenants cannot be kept apart in this way; the message says what to change."""


class TenantRequired(TenancyError, InputError):
    """Nobody says for which tenant the call works. Nothing was sent.

    Attributes:
        model: Name of the model.
        field: The attribute that says whose a row is.
    """

    def __init__(self, model: str, field: str, problem: str = "") -> None:
        super().__init__(model, field, problem)
        self.model, self.field, self.problem = model, field, problem

    def __str__(self) -> str:
        problem = self.problem or (
            "for which tenant? call it inside `with fastrdb.context.tenant(…):`, or pass "
            f"{self.field}=…; all_tenants() gives a crud for the rows of all of them"
        )
        return f"{self.model}: {problem}"


class TenantMismatch(TenancyError, InputError):
    """A call works for one tenant and names another. Nothing was sent.

    Attributes:
        field: The attribute that says whose a row is.
        given: What the call, or its schema, names.
        tenant: For whom it works.
    """

    def __init__(self, field: str, given: object, tenant: object) -> None:
        super().__init__(field, given, tenant)
        self.field, self.given, self.tenant = field, given, tenant

    def __str__(self) -> str:
        return (
            f"{self.field}={self.given!r}, but the call works for {self.tenant!r}: leave {self.field} out, or use "
            "all_tenants() where rows of several tenants, or a row that moves to another one, are meant"
        )


class RLSError(TenancyError):
    """Row-level security cannot be used in this way; nothing was changed."""


class ContextRefused(RLSError, InputError):
    """A value of a row-level security context is none that PostgreSQL can be told; nothing was sent."""


class SchemaManagementError(TenancyError):
    """A tenant's schema cannot be used, made or dropped in this way; nothing was changed."""


class SchemaNameRefused(SchemaManagementError, InputError):
    """A name cannot be that of a schema; nothing was sent.

    Attributes:
        name: The name.
    """

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(name, problem)
        self.name, self.problem = name, problem

    def __str__(self) -> str:
        shown = self.name if len(self.name) <= 80 else self.name[:77] + "…"
        return f"schema {shown!r}: {self.problem}"
