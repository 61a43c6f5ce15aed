"""What a response shows of a row, and of the rows related to it: the columns, the relationships, and how they load.

Related rows are loaded by a SELECT for each relationship, whatever the number of rows, and never lazily. A
statement of its own sees a snapshot of its own under READ COMMITTED, so that parent and children may be of different
moments. What is stored is right all the same: the tokens of every table shown here are read before the first of the
statements, and whoever commits between the first and the last has changed the token of a table that they read. The
value is then stamped with what nobody has any more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Set
from inspect import isclass
from operator import itemgetter
from types import UnionType
from typing import Annotated, Any, Final, NamedTuple, Union, get_args, get_origin

from pydantic import AliasChoices, AliasPath, BaseModel, BeforeValidator, PlainValidator, RootModel, WrapValidator
from pydantic.fields import FieldInfo
from sqlalchemy import ColumnElement, Select, TableClause
from sqlalchemy.engine.default import StrCompileDialect
from sqlalchemy.ext.associationproxy import AssociationProxyExtensionType
from sqlalchemy.orm import Load, ORMExecuteState, RelationshipProperty, load_only, raiseload, selectinload, undefer
from sqlalchemy.sql import visitors
from typing_extensions import TypeAliasType

from ..errors import UnsupportedModel
from ..filters import Analysis, analyse, reads_other_rows
from .model import Model
from .policies import policies_of

_DIALECT: Final = StrCompileDialect()
_QUERIES: Final = frozenset({"dynamic", "write_only"})  # of which the attribute is a query, not the rows


class Related(NamedTuple):
    """A relationship that a schema shows.

    Attributes:
        prop: The relationship.
        level: What is shown of its rows.
        unordered: They come as a set, whose order is any.
        whose: The attributes of both rows that say whose they are, where both belong to tenants.
    """

    prop: RelationshipProperty[Any]
    level: Level
    unordered: bool
    whose: tuple[str, str] | None

    @property
    def settles(self) -> bool:
        """There is a set to be brought into order, or a tenant to be minded, here or below."""
        return self.unordered or self.whose is not None or self.level.settles

    def of_the_same(self, instance: object, found: Any) -> Any:
        """Give the related rows that belong to the tenant of the row they are related to.

        By the rows themselves: of a statement for the related rows alone, SQL cannot say to which of them each belongs.
        """
        if self.whose is None or found is None:
            return found
        own, theirs = self.whose
        tenant = vars(instance)[own]
        if isinstance(found, Mapping):
            return {key: row for key, row in found.items() if vars(row)[theirs] == tenant}
        if self.prop.uselist:
            return [row for row in found if vars(row)[theirs] == tenant]
        return found if vars(found)[theirs] == tenant else None


class Level:
    """What one schema shows of one model.

    Attributes:
        model: The model.
        schema: The schema.
        columns: The name that the schema reads -> the SQL that gives it.
        related: The same for relationships.
        by_entity: The schema needs a mapped instance: a Python property of the model, or a validator that runs before.
        settles: There is a set among the related rows, or some that may be another tenant's.
        whose: The attribute that says whose a row is, or ``None``.
    """

    def __init__(
        self,
        model: Model,
        schema: type[BaseModel],
        whose: str | None = None,
        above: tuple[tuple[type[BaseModel], str], ...] = (),
        apart: bool = False,
    ) -> None:
        """Describe a level.

        Args:
            above: The schemas that lead to this one, and their fields.
            apart: Rows of some level above belong to tenants.
        """
        self.model, self.schema, self._above = model, schema, above
        self.whose, self._apart = whose, apart or whose is not None
        self.columns: dict[str, ColumnElement[Any]] = {}
        self.related: dict[str, Related] = {}
        if not schema.__pydantic_complete__:
            schema.model_rebuild(raise_errors=False)  # a name that stood for a class which comes later
        self.by_entity = _validates_before(schema)
        elsewhere: list[str] = []
        for name, field in schema.model_fields.items():
            self._add(name, field, elsewhere)
        self.settles = any(related.settles for related in self.related.values())
        if elsewhere and (self.related or above):
            # It would be loaded row by row, of those rows that have it.
            raise self._refused(elsewhere[0], "is a subclass's; show the rows of that subclass by a schema of its own")

    def _add(self, name: str, field: FieldInfo, elsewhere: list[str]) -> None:
        for head in _path_heads(field):
            if head in self.model.relationships:
                raise self._refused(name, f"reads through the relationship {head!r}; show it by a schema of its own")
        looked_up = _looked_up(self.schema, name, field)
        for attribute in looked_up or [name]:
            if attribute in self.model.relationships:
                self.related[attribute] = self._related(name, attribute, field)
                return
            if attribute in self.model.expressions:
                self.columns[attribute] = self.model.expressions[attribute]
                return
            if hasattr(self.model.cls, attribute):
                if _is_proxy(self.model, attribute):
                    raise self._refused(name, "is an association proxy; show the relationship that it goes through")
                self.by_entity = True
                return
            if any(hasattr(each.class_, attribute) for each in self.model.mapper.self_and_descendants):
                elsewhere.append(name)
        if looked_up is None:
            self.by_entity = True
        elif field.is_required():
            valid = ", ".join(sorted(self.model.expressions))
            raise UnsupportedModel(
                self.schema.__name__, f"{self.model.name} has nothing for field {name!r}; it has: {valid}"
            )

    def _related(self, name: str, attribute: str, field: FieldInfo) -> Related:
        prop: RelationshipProperty[Any] = self.model.mapper.relationships[attribute]
        shown = f"shows the relationship {self.model.name}.{attribute}"
        if prop.lazy in _QUERIES:
            raise self._refused(name, f"{shown}, which is a query (lazy={prop.lazy!r}): use lists of {prop.argument}")
        if prop.entity.is_aliased_class:
            raise self._refused(name, f"{shown}, which leads to an alias; let it lead to a model")
        if not self.schema.__pydantic_complete__:
            raise self._refused(
                name, f"{shown}, by a class that is not there yet: define it first, or call model_rebuild()"
            )
        schemas = list(dict.fromkeys(_schemas(field.annotation)))
        if len(schemas) != 1:
            example = f"list[{prop.mapper.class_.__name__}Response]" if prop.uselist else "one, or None"
            raise self._refused(
                name, f"{shown}: annotate it with one pydantic model ({example}), or give its key column instead"
            )
        if prop.uselist is _is_one(field.annotation):
            wanted = "rows: annotate a collection, such as list" if prop.uselist else "one row: annotate no collection"
            raise self._refused(name, f"{shown}, which has {wanted}")
        above = (*self._above, (self.schema, name))
        if any(schemas[0] is schema for schema, _ in above):
            path = " → ".join(f"{schema.__name__}.{field}" for schema, field in above)
            raise UnsupportedModel(
                above[0][0].__name__,
                f"{path} → {schemas[0].__name__} shows itself without end; let the last one be a schema without it",
            )
        made = prop.collection_class() if prop.collection_class is not None and prop.uselist else None
        unordered = isinstance(made, Set)
        try:
            model = Model(prop.mapper.class_)
        except UnsupportedModel as error:
            raise self._refused(name, f"{shown}; {error}") from error
        policies = policies_of(model, None, None)
        needed = not (prop.uselist or _takes_none(field.annotation) or _validates_itself(self.schema, name, field))
        if policies.deletion is not None and needed:
            wanted = f"annotate it with {schemas[0].__name__} | None"
            raise self._refused(name, f"{shown}, whose row is deleted softly and then not shown: {wanted}")
        tenancy = policies.tenancy
        theirs = tenancy.field if tenancy is not None else None
        if theirs is not None and self.whose is None and self._apart:
            raise self._refused(name, f"{shown}: rows of tenants, by way of {self.model.name}, whose rows are nobody's")
        level = Level(model, schemas[0], theirs, above, self._apart)
        whose = (self.whose, theirs) if self.whose is not None and theirs is not None else None
        return Related(prop, level, unordered, whose)

    def _refused(self, name: str, problem: str) -> UnsupportedModel:
        path = "".join(f"{field}." for _, field in self._above)
        return UnsupportedModel((self._above[0][0] if self._above else self.schema).__name__, f"{path}{name} {problem}")

    # -- loading

    def options(self) -> tuple[Load, ...]:
        """Give the loader options for a SELECT of the model: what is shown is loaded at once, and nothing later."""
        return (*self._loads(),) if self.related else ()

    def _loads(self) -> Iterator[Any]:
        # Statements of their own, not joins, also for single rows: a LIMIT, a lock and a condition then mean what
        # they say, and a row that many share is read once.
        for name, related in self.related.items():
            yield selectinload(getattr(self.model.cls, name)).options(*related.level._loads())
        yield raiseload("*")
        loaded = {prop.key for prop in self.model.mapper.column_attrs}
        if self.by_entity or not self.columns.keys() <= loaded:
            yield undefer("*")  # a property may look at any column
            return
        keys = [c for related in self.related.values() for c in related.prop.local_columns]
        names = [*self.model.primary_key, *self.columns, *(n for n, c in self.model.columns.items() if c in keys)]
        names += [self.whose] if self.whose is not None else []
        yield load_only(*(getattr(self.model.cls, name) for name in dict.fromkeys(names)), raiseload=True)

    def settle(self, instance: object) -> None:
        """Bring the sets of a loaded instance into the order of their keys, and take out what is another tenant's.

        And so those of the instances that are related to it.
        """
        values = vars(instance)
        for name, related in self.related.items():
            if not related.settles:
                continue
            values[name] = related.of_the_same(instance, values[name])
            if related.unordered:
                values[name] = _by_key(related.level.model, values[name])
            found = values[name]
            if found is None:
                continue
            rows = found.values() if isinstance(found, Mapping) else found if related.prop.uselist else [found]
            for row in rows:
                related.level.settle(row)

    # -- what it depends on

    def models(self) -> Iterator[Model]:
        """Give the models whose rows are shown besides the row itself."""
        for related in self.related.values():
            yield related.level.model
            yield from related.level.models()

    def analyses(self) -> Iterator[Analysis]:
        """Tell what is read for the related rows: the tables, and why that may change while they do not."""
        for related in self.related.values():
            prop, level = related.prop, related.level
            yield Analysis(frozenset([level.model.table.fullname, *_tables(prop.secondary)]), "", None)
            for condition in (prop.primaryjoin, prop.secondaryjoin, *(prop.order_by or ())):
                if condition is not None:
                    yield self._analysis(condition)
            shown = [level.columns[name] for name in level.columns if name not in level.model.columns]
            for expression in (*level.model.criteria, *shown):
                yield analyse(expression, _DIALECT)
            yield from level.analyses()

    def _analysis(self, condition: ColumnElement[Any]) -> Analysis:
        """Tell what a relationship's condition reads besides the row that it starts from."""
        found, own = analyse(condition, _DIALECT), self.model.table
        if found.subquery and found.uncacheable is None and reads_other_rows(condition, own):
            return found
        return found._replace(tables=found.tables - {own.fullname})

    def text(self) -> str:
        """Write down what is read for the related rows, equal in every process that runs the same code."""
        shown = [(name, r.level.by_entity, r.whose, sorted(r.level.columns)) for name, r in self.related.items()]
        read = [(sorted(each.tables), each.text) for each in self.analyses()]
        return repr((shown, read, [related.level.text() for related in self.related.values()]))

    def same_names(self) -> bool:
        """Tell whether what goes to a client reads back: the same names both ways, and computed fields ignored."""
        return _same_names(self.schema) and all(related.level.same_names() for related in self.related.values())


def in_key_order(state: ORMExecuteState) -> None:
    """Order related rows by their primary key, after the order that the relationship has: a listener of sessions.

    A hit, a miss and a write would else give the same rows in different orders.
    """
    if not state.is_relationship_load or not isinstance(state.statement, Select):
        return
    path = state.loader_strategy_path
    prop = path[-1] if path is not None else None
    if isinstance(prop, RelationshipProperty) and prop.uselist:
        # Written out from the first: where the relationship is joined, its own order would come after the key.
        order = [*(prop.order_by or ()), *prop.mapper.primary_key]
        state.statement = state.statement.order_by(None).order_by(*order)


def _by_key(model: Model, rows: Any) -> list[Any]:
    keyed = [(model.mapper.primary_key_from_instance(row), row) for row in rows]
    try:
        keyed.sort(key=itemgetter(0))
    except TypeError:  # an enumeration, say: any order will do that is always the same
        keyed.sort(key=lambda each: repr(each[0]))
    return [row for _, row in keyed]


def _tables(secondary: Any) -> list[str]:
    parts = visitors.iterate(secondary) if secondary is not None else ()
    return [part.fullname for part in parts if isinstance(part, TableClause)]


def _is_proxy(model: Model, attribute: str) -> bool:
    descriptor = model.mapper.all_orm_descriptors.get(attribute)
    return descriptor is not None and descriptor.extension_type is AssociationProxyExtensionType.ASSOCIATION_PROXY


# -- schemas


def _schemas(annotation: Any) -> Iterator[type[BaseModel]]:
    """Give the pydantic models in an annotation."""
    if isinstance(annotation, TypeAliasType):
        annotation = annotation.__value__
    if isclass(annotation) and issubclass(annotation, BaseModel) and not issubclass(annotation, RootModel):
        yield annotation
        return
    for argument in get_args(annotation):
        yield from _schemas(argument)


def _is_one(annotation: Any) -> bool:
    """Tell whether an annotation takes one pydantic model, or None, and no collection."""
    if isinstance(annotation, TypeAliasType):
        annotation = annotation.__value__
    if isclass(annotation) and issubclass(annotation, BaseModel):
        return True
    return get_origin(annotation) in (Annotated, Union, UnionType) and any(map(_is_one, get_args(annotation)))


def _takes_none(annotation: Any) -> bool:
    if isinstance(annotation, TypeAliasType):
        annotation = annotation.__value__
    return annotation is type(None) or any(map(_takes_none, get_args(annotation)))


def _validates_itself(schema: type[BaseModel], name: str, field: FieldInfo) -> bool:
    """Tell whether a validator may make something else of a field before its type is looked at."""
    if any(isinstance(each, (BeforeValidator, PlainValidator, WrapValidator)) for each in field.metadata):
        return True
    found = [each.info for each in schema.__pydantic_decorators__.field_validators.values()]
    return any(info.mode != "after" and {name, "*"} & set(info.fields) for info in found) or _validates_before(schema)


def _validates_before(schema: type[BaseModel]) -> bool:
    validators = schema.__pydantic_decorators__.model_validators.values()
    return any(validator.info.mode in ("before", "wrap") for validator in validators)


def _choices(field: FieldInfo) -> list[str | AliasPath]:
    alias = field.validation_alias if field.validation_alias is not None else field.alias
    return alias.choices if isinstance(alias, AliasChoices) else [alias] if alias is not None else []


def _path_heads(field: FieldInfo) -> list[Any]:
    return [each.path[0] for each in _choices(field) if isinstance(each, AliasPath) and len(each.path) > 1]


def _looked_up(schema: type[BaseModel], name: str, field: FieldInfo) -> list[str] | None:
    """Give the attribute names that pydantic tries for a field, in its order; ``None``: it walks a path."""
    names: list[str] = []
    for choice in _choices(field):
        if isinstance(choice, AliasPath):
            if len(choice.path) > 1 or not isinstance(choice.path[0], str):
                return None
            choice = choice.path[0]
        names.append(choice)
    config = schema.model_config
    by_name = config.get("populate_by_name") or config.get("validate_by_name")
    return [*names, name] if by_name or not names else names


def _same_names(schema: type[BaseModel]) -> bool:
    for field in schema.model_fields.values():
        validation = field.validation_alias if field.validation_alias is not None else field.alias
        if validation != (field.serialization_alias if field.serialization_alias is not None else field.alias):
            return False
    computed = bool(schema.model_computed_fields)
    return not (computed and schema.model_config.get("extra") in ("forbid", "allow"))
