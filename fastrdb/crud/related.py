"""Filters through relationships: what can be said of related rows, as EXISTS.

An EXISTS neither repeats rows nor loses any, whatever the relationship: pages and totals stay right. Each step has an
alias of its own, so that a path may come back to a table it started from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, ColumnElement, Table, and_, exists, inspect
from sqlalchemy.orm import Mapper, RelationshipProperty, aliased, join
from sqlalchemy.sql import visitors
from sqlalchemy.sql.util import ClauseAdapter

from ..errors import UnsupportedModel
from ..filters import FieldSet, Related
from ..filters.exactness import exactly

if TYPE_CHECKING:
    from .model import Model
    from .policies import Policies


class Relationships(Mapping[str, Related]):
    """The relationships of a mapped class, or of an alias of one, each inspected when a filter first names it.

    Args:
        entity: The class or the alias.
        describe: Makes a ``Model`` of a related class.
    """

    def __init__(self, entity: Any, describe: Callable[[type[Any]], Model]) -> None:
        self._entity, self._describe = entity, describe
        self._properties: dict[str, RelationshipProperty[Any]] = dict(_mapper(entity).relationships.items())
        self._known: dict[str, RelatedRows] = {}

    def __getitem__(self, name: str) -> Related:
        if name not in self._known:
            self._known[name] = RelatedRows(self._entity, self._properties[name], self._describe)
        return self._known[name]

    def __contains__(self, name: object) -> bool:
        return name in self._properties

    def __iter__(self) -> Iterator[str]:
        return iter(self._properties)

    def __len__(self) -> int:
        return len(self._properties)


class RelatedRows:
    """The rows that one relationship leads to.

    Attributes:
        fields: What can be filtered of them.
    """

    def __init__(
        self, source: Any, relationship: RelationshipProperty[Any], describe: Callable[[type[Any]], Model]
    ) -> None:
        if inspect(relationship.entity).is_aliased_class:
            raise UnsupportedModel(str(relationship), "it leads to an alias; filter through it with where=")
        self._source, self._relationship, self._describe = source, relationship, describe
        self._model = describe(relationship.mapper.class_)
        self._target: Any = aliased(self._model.cls)
        fields = {name: (_expression(self._target, name), values) for name, values in self._model.values.items()}
        # A hybrid that names its class, not ``cls``, would be that of any row of the table, not of the related one.
        fields = {name: field for name, field in fields.items() if not _reads(field[0], self._model.table)}
        self.fields = FieldSet(self._model.name, fields, Relationships(self._target, describe))

    def exists(self, conditions: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
        """Give the condition that there is a related row which satisfies all of these."""
        asked = [*conditions, *related_conditions(self._model, self._target), *self._same_tenant()]
        if self._model.criteria:
            return self._joined(asked)
        attribute = getattr(self._source, self._relationship.key).of_type(self._target)
        found: ColumnElement[bool] = (attribute.any if self._relationship.uselist else attribute.has)(
            and_(*asked) if asked else None
        )
        return found

    def _same_tenant(self) -> list[ColumnElement[bool]]:
        """Give the condition that a related row belongs to the tenant of the row it is related to.

        Raises:
            UnsupportedModel: That row belongs to none.
        """
        tenancy = _policies(self._model).tenancy
        if tenancy is None:
            return []
        own = _policies(self._describe(_mapper(self._source).class_)).tenancy
        if own is None:
            raise UnsupportedModel(
                str(self._relationship), "its rows belong to tenants, and yours do not; filter through it with where="
            )
        target, source = getattr(self._target, tenancy.field), getattr(self._source, own.field)
        return [exactly(target, source) if tenancy.exact is not None else target == source]

    def _joined(self, asked: Sequence[ColumnElement[bool]]) -> ColumnElement[bool]:
        """Join a second alias of the source: ``has`` and ``any`` of SQLAlchemy 2.1 say the discriminator wrongly.

        They name that of the table itself, not that of the alias, which is then correlated, or joined crosswise.
        """
        again: Any = aliased(_mapper(self._source).class_)
        key = [getattr(again, p.key) == getattr(self._source, p.key) for p in _key_properties(self._source)]
        along = join(again, self._target, getattr(again, self._relationship.key).of_type(self._target))
        return exists(1).select_from(along).where(*key, *asked)


def related_conditions(model: Model, entity: Any) -> list[ColumnElement[bool]]:
    """Give what a related row must satisfy to be there at all: its place under inheritance, and that it is not deleted.

    Args:
        model: That of the related row.
        entity: The alias that stands for its table.
    """
    adapt = ClauseAdapter(inspect(entity).selectable)
    deletion = _policies(model).deletion
    return [adapt.traverse(each) for each in (*model.criteria, *([deletion.live] if deletion is not None else []))]


def _policies(model: Model) -> Policies:
    """Find what the mixins of a model say: of related rows nothing else is known."""
    from .policies import policies_of  # which describes models, and they stand on this module

    return policies_of(model, None, None)


def _reads(expression: ColumnElement[Any], table: Table) -> bool:
    """Tell whether an expression names columns of the table itself."""
    tables = (each.table for each in visitors.iterate(expression) if isinstance(each, Column))
    return any(isinstance(found, Table) and found.fullname == table.fullname for found in tables)


def _mapper(entity: Any) -> Mapper[Any]:
    found: Mapper[Any] = inspect(entity).mapper
    return found


def _key_properties(entity: Any) -> list[Any]:
    mapper = _mapper(entity)
    return [mapper.get_property_by_column(column) for column in mapper.primary_key]


def _expression(entity: Any, name: str) -> ColumnElement[Any]:
    attribute = getattr(entity, name)
    found: ColumnElement[Any] = getattr(attribute, "expression", attribute)
    return found
