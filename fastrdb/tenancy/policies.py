"""The SQL of row-level security: what enables it, and what a policy says. No I/O."""

from __future__ import annotations

from dataclasses import dataclass

from .names import Relation, literal, quoted


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy that compares a column with a setting of the session.

    A setting that was never made, or that was taken back, is NULL here: it equals nothing, and no row is shown.

    Attributes:
        name: The policy's, unique on its table.
        column: The column that says whose the row is.
        setting: Such as ``app.current_tenant_id``.
        type: The column's type as SQL, without a length: a cast to one would cut a longer tenant off, silently.
        restrictive: Rows must satisfy it besides every other policy; else it is enough to satisfy one.
    """

    name: str
    column: str
    setting: str
    type: str = "text"
    restrictive: bool = False

    @property
    def condition(self) -> str:
        """What must hold of a row."""
        return f"{quoted(self.column)} = NULLIF(current_setting({literal(self.setting)}, true), '')::{self.type}"

    def create(self, table: Relation) -> list[str]:
        """Give the statements that create the policy, in place of one of its name."""
        kind = "RESTRICTIVE" if self.restrictive else "PERMISSIVE"
        creating = f"CREATE POLICY {quoted(self.name)} ON {table.quoted} AS {kind} FOR ALL TO PUBLIC"
        return [drop_policy(table, self.name), f"{creating} USING ({self.condition}) WITH CHECK ({self.condition})"]


def enable(table: Relation, *, force: bool) -> list[str]:
    """Give the statements that enable row-level security; forced, it binds the table's owner, too."""
    binding = "FORCE" if force else "NO FORCE"
    change = f"ALTER TABLE {table.quoted}"
    return [f"{change} ENABLE ROW LEVEL SECURITY", f"{change} {binding} ROW LEVEL SECURITY"]


def disable(table: Relation) -> list[str]:
    """Give the statements that disable row-level security; policies stay, without effect."""
    change = f"ALTER TABLE {table.quoted}"
    return [f"{change} NO FORCE ROW LEVEL SECURITY", f"{change} DISABLE ROW LEVEL SECURITY"]


def drop_policy(table: Relation, name: str) -> str:
    """Give the statement that drops a policy, if there is one."""
    return f"DROP POLICY IF EXISTS {quoted(name)} ON {table.quoted}"
