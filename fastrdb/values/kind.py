"""A kind of value: what a SQL type stands for in Python."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal, NamedTuple, TypeAlias

Category: TypeAlias = Literal["text", "plain", "array", "json", "rows", "unknown"]
Adapt: TypeAlias = Callable[[Any], Any]
Text: TypeAlias = Callable[[Any], str]
Settled: TypeAlias = Callable[[Collection[Any]], bool]


class Stored(NamedTuple):
    """What is stored for an adapted value, and which of them are not: reads may ask for any.

    Attributes:
        expected: What is stored, in words.
        adapt: Gives what is written; refuses by ValueError or TypeError.
        null: What is written for ``None``.
        room: How much there is: of several variants the widest decides.
        settled: Tells of many values at once, at least one and none of them ``None``, that *adapt* would give each as
            it is; ``None``: it has to be asked.
    """

    expected: str
    adapt: Adapt
    null: Any = None
    room: int = 0
    settled: Settled | None = None


class Kind(NamedTuple):
    """What a SQL type stands for.

    Attributes:
        python_type: Type of the values; ``None``: unknown.
        expected: What is taken, in words.
        adapt: Brings a value to the type; refuses by ValueError, TypeError, LookupError or ArithmeticError.
        text: Writes an adapted value; TypeError where that cannot be the same in every process.
        exact: Databases compare such values as Python does.
        category: What filters may ask of it.
        bits: Size of an integer: of several variants the widest decides.
        settled: Tells of many values at once, at least one and all of ``python_type`` itself, that *adapt* would give
            each as it is; ``None``: it has to be asked.
        stored: What more is asked of a value that is written; ``None``: nothing.
    """

    python_type: type | None
    expected: str
    adapt: Adapt
    text: Text
    exact: bool = False
    category: Category = "plain"
    bits: int = 0
    settled: Settled | None = None
    stored: Stored | None = None


def passing(type_: type, validate: Adapt) -> Adapt:
    """Let values of just this type through, and validate all others."""

    def adapt(value: Any) -> Any:
        return value if type(value) is type_ else validate(value)

    return adapt


def any_is(_: Collection[Any]) -> bool:
    """Say that values of the type need nothing more."""
    return True
