"""Conditions that belong to every statement and every key of a crud: whose rows they are, and that they are there.

They are found once, when a crud is built: from the model's mixins, or from the names that the constructor is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, bindparam, func, null
from sqlalchemy.sql.elements import False_, True_

from ..context import current_tenant
from ..db.models import SoftDeleteMixin, TenantAwareMixin, UTCDateTime, utc_now
from ..errors import ConfigurationError, InputError, TenantMismatch, TenantRequired, ValueRefused
from ..keys import Pattern, Template
from ..values import ColumnValues, column_values
from .model import Model
from .options import PLAIN, ReadOptions

TenantField: TypeAlias = "str | Literal[False] | None"
Marking: TypeAlias = Literal["marks", "unmarks"] | None
DeletionFields: TypeAlias = "str | Sequence[str] | Literal[False] | None"

# Texts without padding: with ``exactly`` they are equal only if their characters are, whatever the collation.
_UNPADDED = (sa.String, sa.Text, sa.Unicode, sa.UnicodeText, sa.VARCHAR, sa.NVARCHAR, sa.TEXT)
_SPELLINGS = {"1": True, "true": True, "t": True, "0": False, "false": False, "f": False}


@dataclass(frozen=True, slots=True)
class Tenancy:
    """Rows belong to tenants: a call sees, and writes, those of one.

    Attributes:
        model: Name of the model, for errors.
        field: The attribute that says whose a row is.
        column: Name of its column.
        values: What it takes.
        exact: The attribute, where the database's own equality is wider than that of texts.
        everybody: The crud is for the rows of all tenants.
    """

    model: str
    field: str
    column: str
    values: ColumnValues
    exact: str | None
    everybody: bool = False

    def of(self, keywords: Mapping[str, Any]) -> Any:
        """Give for whom a call works: what its keywords say, or the block that it is in.

        Raises:
            TenantRequired: Neither says it.
            TenantMismatch: They differ.
            ValueRefused: It is not one plain value of the column.
        """
        around = current_tenant()
        if self.field not in keywords:
            if around is None:
                raise TenantRequired(self.model, self.field)
            return self._value(around)
        given = self._value(keywords[self.field])
        if around is not None and not self.everybody and given != self._value(around):
            raise TenantMismatch(self.field, keywords[self.field], around)
        return given

    def named(self, keywords: Mapping[str, Any]) -> Any:
        """Give for whom a call writes; for everybody, ``None`` where its keywords do not say it."""
        return None if self.everybody and self.field not in keywords else self.of(keywords)

    def told(self, keywords: Mapping[str, Any]) -> dict[str, Any]:
        """Give the keywords of a call with its tenant among them; for everybody, as they are."""
        return dict(keywords) if self.everybody else {**keywords, self.field: self.of(keywords)}

    def own(self, values: dict[str, Any], tenant: Any = None) -> None:
        """Give a row that is to be inserted its tenant.

        Args:
            values: Of the row, by attributes; brought to their types.
            tenant: For whom the call works; ``None``: for the tenant of the block that it is in.

        Raises:
            TenantRequired, TenantMismatch: Nobody says whose it is, or two say two things.
        """
        given = values.get(self.field)
        if given is not None and tenant is None and self.everybody:
            return
        tenant = self.of({}) if tenant is None else tenant
        if given is not None and self._value(given) != tenant:
            raise TenantMismatch(self.field, given, tenant)
        values[self.field] = tenant

    def keep(self, values: dict[str, Any], tenant: Any = None) -> None:
        """Take the tenant out of the values of an update, which may name no other than that of the call."""
        if self.everybody or self.field not in values:
            return
        tenant, given = self.of({}) if tenant is None else tenant, values.pop(self.field)
        if given is None or self._value(given) != tenant:
            raise TenantMismatch(self.field, given, tenant)

    def in_template(self, template: Template) -> Template:
        """Put the tenant behind the first word of a template that lacks it: one tenant's key is never another's."""
        if self.field in template.fields:
            return template
        return Template(f"{template.root}{{{self.field}}}:{template.text.removeprefix(template.root)}")

    def in_pattern(self, pattern: Pattern, templates: Sequence[Template]) -> Pattern:
        """Put the tenant into the pattern that writes drop, where that is a directory of these templates."""
        directory = pattern.directory
        if directory is None or self.field in pattern.fields or directory.root not in {t.root for t in templates}:
            return pattern
        return Pattern(f"{self.in_template(directory).text}*")

    def _value(self, given: object) -> Any:
        """Bring one plain value to the column's type. A missing one must never mean all tenants."""
        several = isinstance(given, (Mapping, list, tuple, set, frozenset))
        if given is None or several or (isinstance(given, str) and not given.strip()):
            raise ValueRefused(self.field, "one tenant, as a plain value", given)
        return self.values.coerce(given)


@dataclass(frozen=True, slots=True, eq=False)
class SoftDeletion:
    """Rows are deleted by being marked so.

    Attributes:
        moments: Attributes that are NULL as long as a row is there.
        flags: Attribute -> its value as long as a row is there.
        columns: The columns of both, by attribute.
        live: The condition that a row is there.
        deleted: The condition that it is deleted.
    """

    moments: tuple[str, ...]
    flags: Mapping[str, bool]
    columns: Mapping[str, Column[Any]]
    live: ColumnElement[bool]
    deleted: ColumnElement[bool]

    @property
    def names(self) -> frozenset[str]:
        """Give the names of the columns."""
        return frozenset(column.name for column in self.columns.values())

    def marks(self, dialect: str) -> dict[str, ColumnElement[Any]]:
        """Give what a deletion sets, by attribute."""
        found: dict[str, ColumnElement[Any]] = {name: _clock(self.columns[name], dialect) for name in self.moments}
        return found | {name: sa.false() if live else sa.true() for name, live in self.flags.items()}

    def unmarks(self) -> dict[str, ColumnElement[Any]]:
        """Give what taking a deletion back sets, by attribute."""
        found: dict[str, ColumnElement[Any]] = {name: null() for name in self.moments}
        return found | {name: sa.true() if live else sa.false() for name, live in self.flags.items()}

    def hides(self, values: Mapping[str, Any]) -> bool:
        """Tell whether a new row with these values, by attributes, is deleted from the start."""
        gone = any(values.get(name) is not None for name in self.moments)
        return gone or any(values.get(name, live) is not live for name, live in self.flags.items())


@dataclass(frozen=True, slots=True)
class Policies:
    """What every statement and every key of a crud must mind.

    Attributes:
        model: Name of the model, for errors.
        tenancy: Rows belong to tenants, or ``None``.
        deletion: Rows are deleted softly, or ``None``.
    """

    model: str
    tenancy: Tenancy | None
    deletion: SoftDeletion | None

    def conditions(self, options: ReadOptions) -> list[ColumnElement[bool]]:
        """Give what rows must satisfy besides the caller's filters, which name the tenant."""
        if self.deletion is None or options.include_deleted:
            return []
        return [self.deletion.deleted if options.only_deleted else self.deletion.live]

    def check(self, options: ReadOptions) -> None:
        """Refuse options that mean nothing here.

        Raises:
            InputError: The model is not deleted softly.
        """
        if self.deletion is None and (options.include_deleted or options.only_deleted):
            raise InputError(
                f"options: {self.model} is not deleted softly, so there are no deleted rows to show; build the crud "
                "with soft_delete=, or leave include_deleted and only_deleted out"
            )

    def marking(self, marking: Marking, dialect: str) -> dict[str, ColumnElement[Any]]:
        """Give what a write sets to mark a row deleted, or to take the mark back, by attribute."""
        if self.deletion is None or marking is None:
            return {}
        return self.deletion.marks(dialect) if marking == "marks" else self.deletion.unmarks()

    @property
    def every_row(self) -> ReadOptions:
        """Give the options of a read that finds a row whether it is deleted or not."""
        return ReadOptions(include_deleted=True) if self.deletion is not None else PLAIN

    @property
    def text(self) -> str:
        """Say what values depend on: cruds that mind other things share none. Empty where there is nothing to mind."""
        tenancy = f"tenant {self.tenancy.field}" if self.tenancy is not None else ""
        return tenancy + (f" live {self.deletion.live}" if self.deletion is not None else "")

    def of_everybody(self) -> Policies:
        """Give the same for the rows of all tenants.

        Raises:
            ConfigurationError: Rows belong to nobody.
        """
        if self.tenancy is None:
            raise ConfigurationError(f"{self.model} has no tenants: use the crud itself, or build it with tenant=")
        return replace(self, tenancy=replace(self.tenancy, everybody=True))


def policies_of(model: Model, tenant: TenantField, soft_delete: DeletionFields) -> Policies:
    """Find the policies of a model.

    Args:
        tenant: The attribute that says whose a row is; ``None``: as ``TenantAwareMixin`` has it; ``False``: none.
        soft_delete: The attributes that mark a deleted row; ``None``: as ``SoftDeleteMixin`` has it; ``False``: none.

    Raises:
        ConfigurationError: There is no such attribute, or it cannot serve.
    """
    if tenant is None and issubclass(model.cls, TenantAwareMixin) and "tenant_id" in model.columns:
        tenant = "tenant_id"
    mixed_in = issubclass(model.cls, SoftDeleteMixin) and {"is_active", "deleted_at"} <= model.columns.keys()
    if soft_delete is None and mixed_in:
        soft_delete = ("is_active", "deleted_at")
    tenancy = _tenancy(model, tenant) if tenant is not None and tenant is not False else None
    marks = (soft_delete,) if isinstance(soft_delete, str) else soft_delete
    deletion = _deletion(model, marks) if marks is not None and marks is not False else None
    return Policies(model.name, tenancy, deletion)


def _tenancy(model: Model, name: object) -> Tenancy:
    column, values = _column(model, "tenant", name), model.values[str(name)]
    if values.category in ("json", "array"):
        raise ConfigurationError(f"tenant={name!r}: takes {values.expected}, which cannot say whose a row is")
    exact = None
    declared = column_values(str(name), column.type)  # not as an earlier look has left it
    if declared.category == "text" and not declared.exact:
        exact = str(name)
        if type(column.type) in _UNPADDED and not getattr(column.type, "_variant_mapping", None):
            values = model.values[exact] = replace(values, exact=True)  # compared by ``exactly``
    return Tenancy(model.name, str(name), column.name, values, exact)


def _deletion(model: Model, names: object) -> SoftDeletion:
    if not isinstance(names, (tuple, list)) or not names:
        raise ConfigurationError(f"soft_delete={names!r}: name an attribute, or several as a tuple; False for none")
    columns = {str(name): _column(model, "soft_delete", name) for name in names}
    moments = tuple(name for name in columns if model.values[name].python_type is datetime)
    flags = {name: _live_value(model, name, columns[name]) for name in columns if name not in moments}
    live: list[ColumnElement[bool]] = [columns[name].is_(None) for name in moments]
    live += [columns[name] == _literal(value) for name, value in flags.items()]
    gone: list[ColumnElement[bool]] = [columns[name].is_not(None) for name in moments]
    gone += [
        columns[name].is_distinct_from(_literal(value)) if columns[name].nullable else columns[name] != _literal(value)
        for name, value in flags.items()
    ]
    for name in moments:
        if not columns[name].nullable or columns[name].default is not None or columns[name].server_default is not None:
            raise ConfigurationError(f"soft_delete={name!r}: must be NULL while a row is there; make it nullable")
    return SoftDeletion(moments, flags, columns, sa.and_(*live), sa.or_(*gone))


def _column(model: Model, argument: str, name: object) -> Column[Any]:
    if not isinstance(name, str) or name not in model.columns:
        valid = ", ".join(sorted(model.columns))
        raise ConfigurationError(f"{argument}={name!r}: {model.name} has no such column; it has: {valid}")
    return model.columns[name]


def _live_value(model: Model, name: str, column: Column[Any]) -> bool:
    """Give the value of a flag as long as a row is there: the one that new rows get."""
    if model.values[name].python_type is not bool:
        raise ConfigurationError(f"soft_delete={name!r}: is neither a moment nor a truth value; name one that is")
    default: Any = column.default
    if default is not None and default.is_scalar and isinstance(default.arg, bool):
        return bool(default.arg)
    given = getattr(column.server_default, "arg", None)
    if isinstance(given, (True_, False_)):
        return isinstance(given, True_)
    found = _SPELLINGS.get(str(getattr(given, "text", given)).strip("'()").lower())
    if found is None:
        raise ConfigurationError(
            f"soft_delete={name!r}: which value has a row that is not deleted? Give the column a default "
            "(insert_default= in a dataclass model), or a server_default, of true or false"
        )
    return found


def _literal(value: bool) -> Any:
    return sa.true() if value else sa.false()


def _clock(column: Column[Any], dialect: str) -> ColumnElement[Any]:
    """Give the time now: by the database's clock where its type is known to take it, else by this process's."""
    kind = type(column.type)
    if kind is UTCDateTime or (kind in (sa.DateTime, sa.DATETIME) and dialect != "postgresql"):
        return utc_now()
    if kind in (sa.DateTime, sa.TIMESTAMP) and dialect == "postgresql":
        return utc_now() if getattr(column.type, "timezone", False) else func.timezone("UTC", utc_now())
    zoned = bool(getattr(column.type, "timezone", False))
    return bindparam(None, callable_=lambda: _now(zoned), type_=column.type, unique=True)


def _now(zoned: bool) -> datetime:
    now = datetime.now(UTC)
    return now if zoned else now.replace(tzinfo=None)
