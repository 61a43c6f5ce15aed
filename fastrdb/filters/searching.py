"""A text that somebody typed, as a filter: every word of it must be found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from fastrdb.errors import InputError
from fastrdb.filters.conditions import AnyOf, Comparison, Filter, all_of, escaped
from fastrdb.filters.fields import FieldSet

MAX_WORDS: Final = 20
"""Most words of one search: each costs a scan of every column."""
MAX_LENGTH: Final = 1_000
"""Most characters of one search."""


def searched(given: Filter, fields: FieldSet, names: Sequence[str], text: str) -> Filter:
    """Give a filter that also finds every word of a text in at least one of the fields, whatever its case.

    Args:
        given: What must hold besides.
        fields: What *names* are fields of.
        names: Fields that are text; several through one to-many relationship need not be of the same row.
        text: Words between white space; ``%``, ``_`` and ``\\`` are themselves. Without a word, nothing is asked.

    Raises:
        InputError: There are more than ``MAX_WORDS`` words, or ``MAX_LENGTH`` characters.
        ValueRefused: A word that no text can contain.
    """
    words = sorted(set(text.split()))
    if len(words) > MAX_WORDS or len(text) > MAX_LENGTH:
        raise InputError(f"search: at most {MAX_WORDS} words of {MAX_LENGTH} characters in all; cut the text")
    if not words:
        return given
    return all_of([*given.conditions, *(_anywhere(fields, names, word) for word in words)])


def _anywhere(fields: FieldSet, names: Sequence[str], word: str) -> AnyOf:
    found = []
    for name in names:
        values = fields[name][1]
        found.append((Comparison(name, "found", (f"%{escaped(values.coerce(word))}%",), values),))
    return AnyOf(tuple(found))
