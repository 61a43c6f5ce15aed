"""The children that a call names, sorted into those to create, to change and to delete; nothing is sent here."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from sqlalchemy import Column, Integer

from ..errors import BatchRefused, InputError, RefusedRow, UnknownField, UsageError
from .arguments import Unset
from .model import Model

T = TypeVar("T")


class Parent(NamedTuple):
    """The row that children refer to.

    Attributes:
        field: Their attribute that does.
        value: Its value, as the column has it.
        column: The column of the parent that it equals.
        name: What the parent is called in errors.
        whose: The tenant of both, as the keywords of a call would say it; nothing where there is none.
    """

    field: str
    value: Any
    column: Column[Any]
    name: str
    whose: Mapping[str, Any]


class Item(NamedTuple):
    """One child of a list.

    Attributes:
        at: Its place.
        given: As it was given.
    """

    at: int
    given: Any


class Sorted(NamedTuple):
    """What a list of children asks for; keys are by attributes, as the columns have them."""

    creates: list[Item]
    updates: list[tuple[Item, dict[str, Any]]]
    deletes: list[tuple[Item, dict[str, Any]]]


def listed(argument: str, data: Iterable[Any] | Unset) -> list[Item]:
    """Give the items of an argument.

    Raises:
        UsageError: It is no list.
    """
    if isinstance(data, (Unset, BaseModel, Mapping, str, bytes)) or not hasattr(data, "__iter__"):
        raise UsageError(f"{argument}: pass a list of dicts, or of instances of the schemas")
    return [Item(at, given) for at, given in enumerate(data)]


def by_sign(model: Model, items: Sequence[Item], coerce: Callable[[str, Any], Any]) -> Sorted:
    """Sort items by their id: none or 0 creates, above 0 changes, below 0 deletes the row of the positive one.

    Raises:
        UsageError: The key is no single number.
        BatchRefused: An id is no number, or is there twice.
    """
    name = model.primary_key[0]
    if len(model.primary_key) > 1 or not isinstance(model.columns[name].type, Integer):
        key = ", ".join(model.primary_key)
        raise UsageError(
            f"data: the key of {model.name} ({key}) has no sign; pass create=, update= and delete= instead"
        )
    found = Sorted([], [], [])

    def sort(item: Item) -> None:
        given = fields_of(item.given).get(name)
        id = coerce(name, given) if given is not None else None
        if not id:
            found.creates.append(item)
        elif id > 0:
            found.updates.append((item, {name: id}))
        else:
            found.deletes.append((item, {name: -id}))

    of_all("data", items, sort)
    _refuse_twice("data", [*found.updates, *found.deletes])
    return found


def by_lists(
    model: Model,
    create: Sequence[Item],
    update: Sequence[Item],
    delete: Sequence[Item],
    coerce: Callable[[str, Any], Any],
) -> Sorted:
    """Take three lists; items to change carry their key, items to delete are keys, as values, tuples or dicts.

    Raises:
        BatchRefused: A key is missing, incomplete or there twice.
    """

    def key_of(given: Any) -> dict[str, Any]:
        fields = given if isinstance(given, Mapping) else dict(zip(model.primary_key, _parts(given), strict=False))
        missing = next((name for name in model.primary_key if fields.get(name) is None), None)
        if missing is not None or len(_parts(given)) > len(model.primary_key):
            raise InputError(f"the key of {model.name} is {', '.join(model.primary_key)}; give all of it")
        return {name: coerce(name, fields[name]) for name in model.primary_key}

    updates = of_all("update", update, lambda item: (item, key_of(fields_of(item.given))))
    deletes = of_all("delete", delete, lambda item: (item, key_of(item.given)))
    _refuse_twice("update", updates)
    _refuse_twice("delete", [*updates, *deletes])
    return Sorted(list(create), updates, deletes)


def _parts(given: Any) -> tuple[Any, ...]:
    return tuple(given) if isinstance(given, (tuple, list)) else (given,)


def _refuse_twice(argument: str, rows: Sequence[tuple[Item, dict[str, Any]]]) -> None:
    seen: set[tuple[Any, ...]] = set()
    refused = []
    for item, key in rows:
        values = tuple(key.values())
        if values in seen:
            named = ", ".join(f"{name}={value!r}" for name, value in key.items())
            refused.append(RefusedRow(item.at, next(iter(key)), f"{named} is there twice"))
        seen.add(values)
    if refused:
        raise BatchRefused(argument, refused)


def fields_of(given: Any) -> dict[str, Any]:
    """Give the fields of a dict, or those that were set of a schema.

    Raises:
        InputError: It is neither.
    """
    if isinstance(given, BaseModel):
        return given.model_dump(exclude_unset=True, by_alias=False)
    if isinstance(given, Mapping):
        return dict(given)
    raise InputError(f"it is {type(given).__name__}; pass a dict, or an instance of a schema")


def validated(schema: type[BaseModel] | None, kind: str, fields: Mapping[str, Any], owner: str) -> BaseModel:
    """Give an instance of a schema with these fields set, by name or by alias.

    Raises:
        pydantic.ValidationError: The schema refuses them.
        UnknownField: The schema would ignore one.
        UsageError: There is no schema.
    """
    if schema is None:
        raise UsageError(f"the {kind} schema of {owner} is not known: write it in Crud[…], or pass {kind}_schema=")
    if schema.model_config.get("extra", "ignore") == "ignore":
        fields_ = schema.model_fields.values()
        aliases = {each for f in fields_ for each in (f.alias, f.validation_alias) if isinstance(each, str)}
        for name in fields:
            if name not in schema.model_fields and name not in aliases:
                raise UnknownField(name, schema.__name__, schema.model_fields)
    return schema.model_validate(fields, by_alias=True, by_name=True)


def of_all(argument: str, items: Iterable[Item], work: Callable[[Item], T]) -> list[T]:
    """Give what is made of each item.

    Raises:
        BatchRefused: Something is wrong with some of them: it names each, and each field.
    """
    made: list[T] = []
    refused: list[RefusedRow] = []
    for item in items:
        try:
            made.append(work(item))
        except ValidationError as error:
            for each in error.errors(include_url=False, include_context=False, include_input=False):
                field = ".".join(map(str, each["loc"])) or None
                refused.append(RefusedRow(item.at, field, f"{field}: {each['msg']}" if field else each["msg"]))
        except InputError as error:
            refused.append(RefusedRow(item.at, getattr(error, "field", None), str(error)))
    if refused:
        raise BatchRefused(argument, refused)
    return made


def in_turn(*passes: Callable[[], list[Any]]) -> list[Any]:
    """Give what several passes over the items make.

    Raises:
        BatchRefused: All that any of them refuses in the first argument with a wrong item.
    """
    made: list[Any] = []
    refused: list[BatchRefused] = []
    for each in passes:
        try:
            made.append(each())
        except BatchRefused as error:
            refused.append(error)
    if refused:
        argument = refused[0].argument
        rows = [row for error in refused if error.argument == argument for row in error.rows]
        raise BatchRefused(argument, sorted(rows, key=lambda row: row.index))
    return made
