"""What fastrdb knows of a mapped class: its table, its names, its keys."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Column, ColumnElement, Index, Integer, Table, UniqueConstraint, inspect
from sqlalchemy.exc import InvalidRequestError, NoInspectionAvailable
from sqlalchemy.ext.hybrid import HybridExtensionType
from sqlalchemy.orm import Mapper

from ..errors import UnsupportedModel
from ..filters import FieldSet
from ..values import ColumnValues, column_values
from .related import Relationships


class Model:
    """A mapped class, inspected once.

    Attributes:
        name: Its class name, for errors.
        columns: Attribute name -> column, of the attributes that are plain columns of the table.
        expressions: Attribute name -> SQL, of hybrids, ``column_property`` and synonyms too.
        values: Attribute name -> how its values are brought to the column's type.
        primary_key: Attribute names.
        unique: Sets of attribute names that a non-deferrable unique key covers; the primary key first.
        criteria: Conditions that every statement needs: the subclass, under single-table inheritance.
        identity: Values that every inserted row gets: the same, for INSERT.
        version: The attribute that counts a row's versions, or ``None``.
    """

    def __init__(self, cls: type[Any]) -> None:
        mapper = _mapper(cls)
        _check_inheritance(cls, mapper)
        if not isinstance(mapper.local_table, Table):
            raise UnsupportedModel(cls.__name__, "it is mapped to a join or a SELECT; map it to one table")
        self.cls, self.mapper, self.name = cls, mapper, cls.__name__
        self.table: Table = mapper.local_table
        self.columns = _columns(mapper, self.table)
        self.expressions: dict[str, ColumnElement[Any]] = _expressions(cls, mapper, self.columns)
        self.values: dict[str, ColumnValues] = {
            name: column_values(name, expression.type, nullable=getattr(expression, "nullable", True))
            for name, expression in self.expressions.items()
        }
        self.relationships = frozenset(mapper.relationships.keys())
        fields = {n: (e, self.values[n]) for n, e in self.expressions.items()}
        self.fields = FieldSet(self.name, fields, Relationships(cls, Model))
        by_column = {column: name for name, column in self.columns.items()}
        self.attribute_of: dict[str, str] = {column.name: name for column, name in by_column.items()}
        key = [self.attribute_of.get(column.name) for column in self.table.primary_key.columns]
        if not key or None in key:
            raise UnsupportedModel(self.name, "its primary key is not mapped; map every column of it")
        self.primary_key = tuple(name for name in key if name is not None)
        self.unique = _unique_keys(self.table, by_column, self.primary_key)
        self.criteria, self.identity = _single_table(mapper, by_column)
        self.factories = _default_factories(cls, self.columns)
        self.version = _version(mapper, by_column)
        if self.version is not None and self.columns[self.version].default is None:
            self.factories[self.version] = _first_version

    def covers_unique_key(self, names: Mapping[str, Any] | frozenset[str]) -> bool:
        """Tell whether equality of the named attributes can match one row at most."""
        return any(key <= names.keys() if isinstance(names, Mapping) else key <= names for key in self.unique)

    def image(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Bring a row by attribute names to column names."""
        return {self.columns[name].name: value for name, value in row.items() if name in self.columns}


def _mapper(cls: type[Any]) -> Mapper[Any]:
    try:
        mapper = inspect(cls)
    except NoInspectionAvailable as error:
        raise UnsupportedModel(repr(cls), "it is no mapped class; pass a SQLAlchemy model") from error
    if not isinstance(mapper, Mapper):
        raise UnsupportedModel(repr(cls), "it is no mapped class; pass a SQLAlchemy model, not an instance or a table")
    try:
        mapper.registry.configure()
    except InvalidRequestError as error:
        problem = f"a mapper lacks something: import all modules with models before a crud is built ({error})"
        raise UnsupportedModel(cls.__name__, problem) from error
    return mapper


def _check_inheritance(cls: type[Any], mapper: Mapper[Any]) -> None:
    for other in mapper.base_mapper.self_and_descendants:
        if other.concrete or (other.inherits is not None and not other.single):
            kind = "concrete" if other.concrete else "joined"
            raise UnsupportedModel(
                cls.__name__,
                f"{kind} table inheritance ({other.class_.__name__}) spreads a row over tables, "
                "which one cached row cannot show; use single-table inheritance or a model of its own",
            )


def _columns(mapper: Mapper[Any], table: Table) -> dict[str, Column[Any]]:
    found = {}
    for prop in mapper.column_attrs:
        column = prop.columns[0]
        if isinstance(column, Column) and column.table is table:
            found[prop.key] = column
    return found


def _expressions(
    cls: type[Any], mapper: Mapper[Any], columns: Mapping[str, Column[Any]]
) -> dict[str, ColumnElement[Any]]:
    found: dict[str, ColumnElement[Any]] = dict(columns)
    for prop in mapper.column_attrs:
        found.setdefault(prop.key, prop.columns[0])
    for key, descriptor in mapper.all_orm_descriptors.items():
        if descriptor.extension_type is HybridExtensionType.HYBRID_PROPERTY:
            expression = getattr(cls, key)
            found[key] = getattr(expression, "expression", expression)
    for synonym in mapper.synonyms:
        if synonym.name in columns:
            found.setdefault(synonym.key, columns[synonym.name])
    return found


def _unique_keys(
    table: Table, by_column: Mapping[Column[Any], str], primary_key: tuple[str, ...]
) -> tuple[frozenset[str], ...]:
    keys = [frozenset(primary_key)]
    candidates: list[list[Column[Any]]] = [[c] for c in table.columns if c.unique]
    candidates += [
        list(constraint.columns)
        for constraint in table.constraints
        if isinstance(constraint, UniqueConstraint) and not constraint.deferrable and not constraint.initially
    ]
    candidates += [list(index.columns) for index in table.indexes if _whole(index)]
    mapped = [columns for columns in candidates if columns and all(column in by_column for column in columns)]
    return (*keys, *(frozenset(by_column[column] for column in columns) for columns in mapped))


def _whole(index: Index) -> bool:
    """Tell whether a unique index covers every row, by plain columns."""
    partial = any(options.get("where") is not None for options in index.dialect_options.values())
    return bool(index.unique) and not partial and all(isinstance(e, Column) for e in index.expressions)


def _single_table(
    mapper: Mapper[Any], by_column: Mapping[Column[Any], str]
) -> tuple[tuple[ColumnElement[bool], ...], dict[str, Any]]:
    discriminator = mapper.polymorphic_on
    if discriminator is None or mapper.inherits is None:
        identity = mapper.polymorphic_identity
        named = isinstance(discriminator, Column) and identity is not None
        return (), {by_column[discriminator]: identity} if named else {}  # type: ignore[index]  # a Column, as just seen
    identities = [m.polymorphic_identity for m in mapper.self_and_descendants if m.polymorphic_identity is not None]
    if not isinstance(discriminator, Column) or discriminator not in by_column:
        raise UnsupportedModel(mapper.class_.__name__, "polymorphic_on must be a mapped column")
    values = {by_column[discriminator]: mapper.polymorphic_identity}
    return (discriminator.in_(identities),), values


def _version(mapper: Mapper[Any], by_column: Mapping[Column[Any], str]) -> str | None:
    """Name the version attribute, where its values are counted; others are the ORM's own business."""
    column, generate = mapper.version_id_col, mapper.version_id_generator
    if not isinstance(column, Column) or column not in by_column or not callable(generate):
        return None
    return by_column[column] if isinstance(column.type, Integer) and generate(41) == 42 else None


def _first_version() -> int:
    return 1


def _default_factories(cls: type[Any], columns: Mapping[str, Column[Any]]) -> dict[str, Any]:
    """Give the dataclass factories that fill columns SQLAlchemy has no default for."""
    if not dataclasses.is_dataclass(cls):
        return {}
    return {
        field.name: field.default_factory
        for field in dataclasses.fields(cls)
        if field.default_factory is not dataclasses.MISSING
        and field.name in columns
        and columns[field.name].default is None
    }
