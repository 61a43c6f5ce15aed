"""The rows of all tenants: all_tenants."""

from __future__ import annotations

from copy import copy
from dataclasses import replace
from typing import Self

from .core import C, Core, M, R, U


class AllTenants(Core[M, C, U, R]):
    """The way out of one tenant's rows."""

    def all_tenants(self) -> Self:
        """Give a crud like this one that sees, and writes, the rows of all tenants.

        For the operator's own work: imports, reports, support. Its reads never use the cache. Its writes drop what they
        touch, whoever has cached it. What it inserts names its tenant, in the schema, among the keywords or by the
        block ``fastrdb.context.tenant``; nothing else asks for one. An update may move a row to another tenant.

        Raises:
            ConfigurationError: The rows of this crud belong to no tenants.
        """
        found = copy(self)
        found._policies = self._policies.of_everybody()
        found._tenancy = found._policies.tenancy
        found._keyed = replace(self._layout, rows=(), pages=None)
        found._uncacheable = "all tenants"
        found._spaces, found._statements, found._last = {}, {}, None
        return found
