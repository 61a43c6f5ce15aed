"""Foreign keys to rows that belong to tenants: nobody's row may come to refer to a row of another tenant.

The database compares the columns of a foreign key and nothing else. Where the tenant is not among them, it lets a row
refer to any tenant's, which related filters, children and nested responses would then follow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from sqlalchemy import ColumnElement, Connection, ForeignKeyConstraint, Table, select, tuple_
from sqlalchemy.exc import NoReferencedTableError

from ..db.servers import family
from ..errors import InputError, NotFound, UnsupportedModel
from ..filters import Filter, parse
from .arguments import Asked
from .core import NO_TABLES, C, M, R, U
from .model import Model
from .options import PLAIN
from .policies import Policies, Tenancy, policies_of
from .reading_back import ReadingBack
from .upsert_statements import sqlite_lock

_KEYS: Final = 5_000  # values of one SELECT
_PREFIX: Final = "fastrdb_link"

Key = tuple[Any, ...]


class Link(NamedTuple):
    """A foreign key that does not say whose row it refers to.

    Attributes:
        columns: Keys of its own columns.
        model: The model of the rows that it refers to.
        tenancy: How those belong to tenants.
        fields: Their attributes that it equals.
    """

    columns: tuple[str, ...]
    model: Model
    tenancy: Tenancy
    fields: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """The database takes none of its values for another that Python tells apart."""
        return all(self.model.values[name].exact for name in self.fields)

    def of(self, columns: Mapping[str, Sequence[Any]]) -> set[Key]:
        """Give the keys that rows refer to, of the values of their columns; NULL refers to nothing.

        Raises:
            InputError: Only some columns of the key are set: whose row it would be shows from all of them only.
        """
        given = [columns[key] for key in self.columns if key in columns]
        if not given:
            return set()
        if len(given) < len(self.columns):
            raise InputError(f"set {', '.join(self.columns)} together: they name one {self.model.name}")
        return {key for key in zip(*given, strict=True) if None not in key}

    def made(self, columns: Mapping[str, Sequence[Any]]) -> set[Key]:
        """Give the keys of new rows of the same table, to which others of them may refer."""
        keys = [self.model.columns[name].key for name in self.fields]
        return set(zip(*(columns[key] for key in keys), strict=True)) if columns.keys() >= set(keys) else set()

    def text(self, key: Key) -> tuple[str, ...]:
        """Write a key as equal ones are written."""
        values = [self.model.values[name] for name in self.fields]
        return tuple(each.text(each.coerce(value)) for each, value in zip(values, key, strict=True))

    def missing(self, keys: Sequence[Key]) -> NotFound:
        """Give the error that names rows which the tenant does not have."""
        first, *others = self.fields
        if others:
            return NotFound(self.model.name, {"keys": [dict(zip(self.fields, key, strict=True)) for key in keys]})
        values = [key[0] for key in keys]
        return NotFound(self.model.name, {first: values[0] if len(values) == 1 else values})


class Links(ReadingBack[M, C, U, R]):
    """What every write asks about the rows that it would refer to."""

    def _links(self) -> tuple[Link, ...]:
        """Give the foreign keys to look at; none for a crud without tenants, or for the rows of all of them."""
        if self._tenancy is None or self._tenancy.everybody:
            return ()
        tables = len(self._model.table.metadata.tables)  # what a key refers to may be defined later
        found: tuple[Link, ...] = self._kept(("links", tables), lambda: tuple(self._found_links()))
        return found

    def _found_links(self) -> Iterable[Link]:
        for constraint in self._model.table.foreign_key_constraints:
            with suppress(NoReferencedTableError):  # of a table that this program does not know
                link = self._link(constraint)
                if link is not None and not self._says_whose(constraint, link):
                    yield link

    def _link(self, constraint: ForeignKeyConstraint) -> Link | None:
        """Describe a foreign key to rows of tenants; ``None`` where it is another, or cannot be told."""
        referred = self._referred(constraint.referred_table)
        if referred is None or referred[1].tenancy is None:
            return None
        model, tenancy = referred[0], referred[1].tenancy
        fields = [model.attribute_of.get(each.column.name) for each in constraint.elements]
        names = tuple(name for name in fields if name is not None)
        if len(names) < len(fields):
            return None
        return Link(tuple(each.parent.key for each in constraint.elements), model, tenancy, names)

    def _referred(self, table: Table) -> tuple[Model, Policies] | None:
        """Find the model of a table, and its policies; of others' tables, what the mixins say."""
        if table is self._model.table:
            return self._model, self._policies
        for mapper in self._model.mapper.registry.mappers:
            if mapper.local_table is table and mapper.inherits is None:
                with suppress(UnsupportedModel):
                    model = Model(mapper.class_)
                    return model, policies_of(model, None, None)
        return None

    def _says_whose(self, constraint: ForeignKeyConstraint, link: Link) -> bool:
        """Tell whether the tenant is part of the key, so that the database itself minds it."""
        tenancy = self._tenancy
        assert tenancy is not None
        pairs = [(each.parent.name, each.column.name) for each in constraint.elements]
        return (tenancy.column, link.tenancy.column) in pairs

    def _linked_tables(self) -> frozenset[str]:
        """Name the tables that a write looks at."""
        links = self._links()
        return frozenset(link.model.table.fullname for link in links) if links else NO_TABLES

    def _visible(self, table: Table, whose: Mapping[str, Any]) -> tuple[list[ColumnElement[bool]], dict[str, Any]]:
        """Give what a row of a table that is referred to must satisfy to be there for this call, and the parameters.

        Args:
            table: The table.
            whose: The tenant of the call, as its keywords would say it.

        Raises:
            TenantRequired: It belongs to a tenant, and nobody says to which.
        """
        referred = self._referred(table)
        if referred is None:
            return [], {}
        model, policies = referred
        found = policies.conditions(PLAIN)
        if policies.tenancy is None or self._tenancy is None or self._tenancy.everybody:
            return found, {}
        owned = _whose(model, policies.tenancy, self._tenancy.of(whose))
        return [*found, *owned.build(model.fields, _PREFIX)], owned.params_of(_PREFIX)

    # -- before a write

    def _check_links_of_rows(
        self,
        connection: Connection,
        rows: Iterable[Mapping[str, Any]],
        asked: Asked | None = None,
        known: str | None = None,
    ) -> None:
        """Look whether what rows would refer to is the tenant's.

        Args:
            rows: Values by attributes.
            asked: The rows that get these values; ``None``: they are new, and say whose they are.
            known: An attribute whose row was looked at already.

        Raises:
            NotFound: As ``_check_links``.
        """
        if not self._links():
            return
        keys = {name: column.key for name, column in self._model.columns.items()}
        parts = [{keys[name]: (value,) for name, value in row.items()} for row in rows if row]
        tenant = next(iter(self._whose(asked).values())) if asked is not None else None
        self._check_links(connection, parts, tenant, keys[known] if known is not None else None)

    def _check_links_of_columns(
        self, connection: Connection, asked: Asked, batches: Iterable[Mapping[str, Sequence[Any]]]
    ) -> None:
        """Look whether what rows of the call's tenant would refer to is that tenant's.

        Args:
            asked: The rows that get these values.
            batches: Values by attributes, of many rows each.

        Raises:
            NotFound: As ``_check_links``.
        """
        if not self._links():
            return
        parts = [{self._model.columns[name].key: values for name, values in each.items()} for each in batches]
        self._check_links(connection, parts, next(iter(self._whose(asked).values())))

    def _check_links(
        self,
        connection: Connection,
        parts: Sequence[Mapping[str, Sequence[Any]]],
        tenant: Any = None,
        known: str | None = None,
    ) -> None:
        """Look whether what rows would refer to is the tenant's.

        Args:
            parts: Values of rows by the keys of their columns.
            tenant: Whose they are; ``None``: their own columns say it.
            known: The key of a column whose row was looked at already.

        Raises:
            NotFound: Some of it is not there, or another tenant's, which to this one is the same.
        """
        for link in self._links():
            wanted = set[Key]().union(*map(link.of, parts)) if link.columns != (known,) else set()
            if wanted and link.model is self._model:
                wanted -= set[Key]().union(*map(link.made, parts))
            if wanted:
                self._require_own(connection, link, sorted(wanted, key=repr), self._tenant_of(parts, tenant))

    def _tenant_of(self, parts: Sequence[Mapping[str, Sequence[Any]]], tenant: Any) -> Any:
        assert self._tenancy is not None
        return parts[0][self._model.columns[self._tenancy.field].key][0] if tenant is None else tenant

    def _require_own(self, connection: Connection, link: Link, keys: Sequence[Key], tenant: Any) -> None:
        if family(connection.dialect) == "sqlite":
            connection.execute(sqlite_lock(self._model.table))  # a transaction that begins by reading may fail to write
        there: set[tuple[str, ...]] = set()
        for start in range(0, len(keys), _KEYS):
            there |= set(map(link.text, _rows_of(connection, link, keys[start : start + _KEYS], tenant)))
        missing = [key for key in keys if link.text(key) not in there]
        if not link.exact:  # by a collation, 'JOHN' may refer to 'john'
            missing = [key for key in missing if not _rows_of(connection, link, [key], tenant)]
        if missing:
            raise link.missing(missing)


def _whose(model: Model, tenancy: Tenancy, tenant: Any) -> Filter:
    """Give the filter that rows are a tenant's."""
    return parse(model.fields, {tenancy.field: tenant}, exact=tenancy.exact)


def _rows_of(connection: Connection, link: Link, keys: Sequence[Key], tenant: Any) -> Sequence[Any]:
    """Give the keys that rows of the tenant have, of these."""
    fields = link.model.fields
    whose = _whose(link.model, link.tenancy, tenant)
    columns = [link.model.columns[name] for name in link.fields]
    named = tuple_(*columns).in_(keys) if len(columns) > 1 else columns[0].in_([key[0] for key in keys])
    statement = select(*columns).where(named, *whose.build(fields, _PREFIX))
    if family(connection.dialect) == "mysql":  # not from a snapshot that may be older than the row
        statement = statement.with_for_update(read=True)
    return connection.execute(statement, whose.params_of(_PREFIX)).fetchall()
