"""Text, and what is written as text: UUIDs, bytes, Enums."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Collection
from typing import Any, cast

import sqlalchemy as sa
from pydantic import TypeAdapter
from sqlalchemy.types import TypeEngine

from fastrdb.values.kind import Kind, Stored, any_is, passing

_UUID: TypeAdapter[uuid.UUID] = TypeAdapter(uuid.UUID)


def string(type_: TypeEngine[Any]) -> Kind:
    """Describe text. NUL and lone surrogates are refused, as PostgreSQL does."""
    padded = isinstance(type_, (sa.CHAR, sa.NCHAR))
    exact = not padded and _binary(getattr(type_, "collation", None))
    expected = "text without NUL and lone surrogates"
    return Kind(str, expected, _plain_string, str, exact, "text", settled=_plain_strings, stored=_short(type_))


def _short(type_: TypeEngine[Any]) -> Stored | None:
    """Give how long a text may be that is written; also for SQLite, which takes any."""
    most = type_.length if isinstance(type_, sa.String) and not isinstance(type_, sa.Text) else None
    if most is None:
        return None

    def adapt(value: str) -> str:
        if len(value) > most:
            raise ValueError
        return value

    def settled(values: Collection[str]) -> bool:
        return max(map(len, values)) <= most

    return Stored(f"text of at most {most} characters", adapt, room=most, settled=settled)


def _binary(collation: str | None) -> bool:
    """Tell whether texts are equal only if their characters are.

    MySQL's other ``_bin`` collations ignore trailing spaces (PAD SPACE).
    """
    name = (collation or "").upper()
    return name in ("C", "POSIX", "BINARY", "UCS_BASIC") or name.endswith(("_0900_BIN", "_NOPAD_BIN"))


def _plain_string(value: Any) -> str:
    if type(value) is str and value.isascii() and "\0" not in value:  # nearly all of them
        return value
    if isinstance(value, enum.Enum):
        value = value.value
    if not isinstance(value, str) or "\0" in value:
        raise TypeError
    if not value.isascii():
        value.encode()
    return value if type(value) is str else str.__str__(value)


def _plain_strings(values: Collection[str]) -> bool:
    together = "".join(values)
    return together.isascii() and "\0" not in together


def octets(_: TypeEngine[Any]) -> Kind:
    """Describe bytes."""

    def adapt(value: Any) -> bytes:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise TypeError
        return bytes(cast("bytes", value))

    return Kind(bytes, "bytes", adapt, bytes.hex, True, settled=any_is)


def identifier(type_: TypeEngine[Any]) -> Kind:
    """Describe UUIDs, as objects or as text."""
    if getattr(type_, "as_uuid", True):
        return Kind(uuid.UUID, "a UUID", passing(uuid.UUID, _UUID.validate_python), str, True, settled=any_is)

    def adapt(value: Any) -> str:
        given = value if isinstance(value, str) else str(_UUID.validate_python(value))
        digits = given.replace("-", "")
        if len(digits) != 32 or uuid.UUID(digits).hex != digits.lower():
            raise ValueError
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"

    # Not exact: PostgreSQL ignores the case of the digits, SQLite keeps it.
    return Kind(str, "a UUID", adapt, str)


def enumeration(type_: TypeEngine[Any]) -> Kind:
    """Describe an Enum: members of its class, or plain labels. Text is the member's name, or the label."""
    assert isinstance(type_, sa.Enum)
    labels: list[str] = type_.enums
    exact = all(map(str.isascii, labels)) and len(set(map(str.casefold, labels))) == len(labels)
    expected = f"one of {', '.join(map(repr, labels))}"
    if type_.enum_class is None:
        stored = {label: label for label in labels}
        return Kind(str, expected, lambda value: stored[_plain_string(value)], str, exact)  # pyright: ignore[reportUnknownLambdaType]  # as all adapters
    members = _Members(type_.enum_class, labels, named=type_.values_callable is None)
    return Kind(type_.enum_class, expected, members.find, members.name, exact)


class _Members:
    """The members of an Enum class, found by stored label, name or value, in this order."""

    def __init__(self, class_: Any, labels: list[str], *, named: bool) -> None:
        self.class_ = class_
        self.found: dict[str, Any] = dict(class_.__members__)
        if not named:
            self.found.update(zip(labels, class_, strict=False))

    def find(self, value: Any) -> Any:
        if isinstance(value, self.class_):
            return value
        if isinstance(value, str) and value in self.found:
            return self.found[value]
        return self.class_(value)

    @staticmethod
    def name(member: Any) -> str:
        return str(member.name)
