"""Parsed key templates."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import NamedTuple

from fastrdb.errors import MissingKeyField, TemplateError

RESERVED = frozenset({"page", "limit"})

_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_UNSEEN = re.compile(r"[\s\x00-\x1f\x7f-\x9f\ud800-\udfff]")


class Segment(NamedTuple):
    """What stands between two colons: ``before``, a value of ``field``, ``after``; or just ``before``."""

    before: str
    field: str | None = None
    after: str = ""


class Template:
    """A parsed key template. Equal, and hashed, by its text.

    Attributes:
        text: The template as written.
        fields: Its placeholders, in order.
        root: Its first segment with the colon, ``"user:"``: the directory that all of its keys lie in.
        segments: Its parts between colons.
    """

    __slots__ = ("fields", "root", "segments", "text")

    def __init__(self, text: str) -> None:
        """Parse a template.

        Raises:
            TemplateError: Two values could share a key, or the text could not be told from a pattern or from
                what fastrdb keeps for itself; the message says what to change.
        """
        self.text = text
        _check_text(text)
        self.segments = tuple(_segment(text, part) for part in _split(text))
        self.fields = tuple(segment.field for segment in self.segments if segment.field is not None)
        self.root = f"{self.segments[0].before}:"
        _check_segments(self)

    @property
    def is_directory(self) -> bool:
        """Tell whether the text ends in a colon: it names what lies below, not an entry."""
        return self.text.endswith(":")

    def format(self, encoded: Mapping[str, str]) -> str:
        """Put encoded values into the placeholders.

        Raises:
            MissingKeyField: A placeholder has no value.
        """
        try:
            return ":".join(
                before if field is None else f"{before}{encoded[field]}{after}"
                for before, field, after in self.segments
            )
        except KeyError as error:
            raise MissingKeyField(error.args[0], self.text) from None

    def directory(self, columns: Container[str]) -> Template:
        """Give the path before the first placeholder that is none of *columns*, or the text and a colon."""
        kept: list[Segment] = []
        for segment in self.segments:
            if segment.field is not None and segment.field not in columns:
                break
            kept.append(segment)
        else:
            return self if self.is_directory else Template(f"{self.text}:")
        return Template(":".join(map(_written, kept)) + ":")

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Template) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"Template({self.text!r})"


def _check_text(text: str) -> None:
    if not text:
        raise TemplateError(text, "is empty: write a path such as 'user:email:{email}'")
    if _UNSEEN.search(text):
        raise TemplateError(text, "holds white space, a control character or a lone surrogate: leave it out")
    literal = _PLACEHOLDER.sub("", text)
    if "*" in literal:
        raise TemplateError(text, "holds '*', which stands for many keys in a pattern: leave it out")
    if "%" in literal:
        raise TemplateError(text, "holds '%', which marks encoded values: leave it out")
    if "{" in literal or "}" in literal:
        raise TemplateError(text, "has unbalanced braces: each placeholder is one '{name}'")
    if text.startswith("fastrdb:"):
        raise TemplateError(text, "starts with 'fastrdb:', which is reserved: choose another first word")


def _split(text: str) -> Iterable[str]:
    """Cut at the colons that are in no placeholder: '{a:b}' is to be refused as one."""
    return re.split(r":(?![^{}]*\})", text)


def _segment(text: str, part: str) -> Segment:
    if part.startswith("~"):
        raise TemplateError(text, f"{part!r} starts with '~', which marks further filters: leave it out")
    before, *rest = _PLACEHOLDER.split(part)
    if not rest:
        return Segment(before)
    if len(rest) > 2:
        raise TemplateError(text, f"two placeholders in {part!r} can give one key for two values: put ':' between")
    field, after = rest
    if not field.isidentifier():
        problem = f"placeholder '{{{field}}}' is no field's name: no formats, attributes, numbers or blanks"
        raise TemplateError(text, problem)
    return Segment(before, field, after)


def _check_segments(template: Template) -> None:
    text, fields = template.text, template.fields
    first = template.segments[0]
    if first.field is not None or not first.before or len(template.segments) < 2:
        raise TemplateError(text, "needs a literal first word and a colon, the root of its keys: 'user:{id}'")
    if repeated := [field for field in fields if fields.count(field) > 1]:
        raise TemplateError(text, f"has '{{{repeated[0]}}}' twice: once is enough")


def _written(segment: Segment) -> str:
    return segment.before if segment.field is None else f"{segment.before}{{{segment.field}}}{segment.after}"


def overlap(one: Template, other: Template) -> bool:
    """Tell whether two templates could format to one key. Errs towards yes."""
    pairs = zip(one.segments, other.segments, strict=False)
    return len(one.segments) == len(other.segments) and all(can_equal(a, b) for a, b in pairs)


def can_equal(one: Segment, other: Segment) -> bool:
    """Tell whether two segments could be the same part of a key. Errs towards yes."""
    if one.field is None and other.field is None:
        return one.before == other.before
    if one.field is None:
        return _can_be(other, one.before)
    if other.field is None:
        return _can_be(one, other.before)
    before = one.before.startswith(other.before) or other.before.startswith(one.before)
    return before and (one.after.endswith(other.after) or other.after.endswith(one.after))


def _can_be(segment: Segment, literal: str) -> bool:
    before, field, after = segment
    value = literal[len(before) : len(literal) - len(after)]
    if not (value and literal.startswith(before) and literal.endswith(after)):
        return False
    return value.isdecimal() if field in RESERVED else True
