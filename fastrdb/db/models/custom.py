"""Which classes are bases of a user's own."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from typing import Any, get_args

from sqlalchemy import Column, PrimaryKeyConstraint
from sqlalchemy.orm import MappedColumn, declared_attr, has_inherited_table


def is_a_base(cls: type[Any], names_tables: type[Any]) -> bool:
    """Tell whether a class is meant to be a base: it names neither a table nor a primary key.

    Args:
        cls: A class that SQLAlchemy is about to map.
        names_tables: The class whose ``__tablename__`` stands for "none was given".
    """
    own = vars(cls)
    if "__abstract__" in own or "__table__" in own or has_inherited_table(cls):
        return False
    named = next((each for each in cls.__mro__ if "__tablename__" in vars(each)), None)
    return named is names_tables and not any(map(_is_key, _attributes(cls)))


def _attributes(cls: type[Any]) -> Iterator[Any]:
    """Give all that may say what the primary key is."""
    arguments = getattr(cls, "__table_args__", None)
    yield from arguments if isinstance(arguments, tuple) else ()
    for owner in cls.__mro__:
        for value in vars(owner).values():
            yield _declared(value, cls) if isinstance(value, declared_attr) else value
        for annotation in inspect.get_annotations(owner).values():
            yield from _annotated(annotation, owner)


def _declared(value: declared_attr[Any], cls: type[Any]) -> Any:
    """Give what a declared attribute of a mixin makes, outside of SQLAlchemy's own scan, which keeps it."""
    try:
        return value.fget(cls)
    except Exception:  # it wants more than an unmapped class has, as no primary key does
        return None


def _annotated(annotation: Any, owner: type[Any]) -> Iterator[Any]:
    """Give the columns inside ``Mapped[Annotated[int, mapped_column(…)]]``, which may be text."""
    if isinstance(annotation, str):
        if "Mapped" not in annotation:
            return
        try:
            annotation = eval(annotation, vars(sys.modules[owner.__module__]), dict(vars(owner)))
        except Exception:  # a name that is not defined yet, of a related class
            return
    for argument in get_args(annotation):
        yield from getattr(argument, "__metadata__", ())


def _is_key(value: object) -> bool:
    column = value.column if isinstance(value, MappedColumn) else value
    return isinstance(column, PrimaryKeyConstraint) or (isinstance(column, Column) and column.primary_key)
