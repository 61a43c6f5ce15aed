"""The keys of one crud in one cache: its entries, and the tokens of their scopes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from ..cache.protocol import Parts
from ..cache.reads import Stamps
from ..errors import InputError
from ..keys import BoundTemplate, Pattern, Template
from ..writes.templates import any_key, directory_key, table_keys, templates_of
from .model import Model

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_JITTER = 0.1
_REMEMBERED = 1_000  # sets of names that were given for a row


@dataclass(frozen=True, slots=True)
class Layout:
    """What a crud was told of its keys, checked.

    Attributes:
        rows: Templates of one row.
        pages: Template of a page of a list, or ``None``.
        dropped: The directory that each write drops, or ``None``.
        depends_on: Names of the tables that the response shows besides the row itself.
        fingerprint: Hash of the response schema and what it is made from.
        exp_ms: Life of a value.
        negative_ms: Life of a null.
    """

    rows: tuple[Template, ...]
    pages: Template | None
    dropped: Pattern | None
    depends_on: tuple[str, ...]
    fingerprint: bytes
    exp_ms: int
    negative_ms: int

    def life_ms(self, entry: bytes) -> int:
        """Give the life of an entry's values: up to a tenth shorter, by its name, so that not all end together."""
        return max(1, round(self.exp_ms * (1 - _JITTER * crc32(entry) / 2**32)))


class Scope:
    """The tokens of one kind of value, and the stamps over them."""

    def __init__(self, tokens: Sequence[bytes], nulls: Sequence[bytes], context: bytes, parts: Parts) -> None:
        tokens = tuple(dict.fromkeys(tokens))
        self.tokens = tuple(dict.fromkeys([*tokens, *nulls]))
        self.value_tokens = tokens
        self._context, self._parts = context, parts
        self._stamps: dict[bytes, Stamps] = {}

    def stamps(self, place: bytes) -> Stamps:
        """Give the stamps for a database."""
        found = self._stamps.get(place)
        if found is None:
            found = self._stamps[place] = Stamps(self._context + place, len(self.value_tokens), self._parts)
        return found


class RowKeys:
    """The entries of one row template.

    Attributes:
        fields: The attributes that it needs.
        unique: They hold a unique key that is checked at once, so that a write may put its value in place.
        listed: The template as it is listed in Redis.
        prefix: That of the cache.
        one_scope: All of its rows have the same scope.
    """

    def __init__(self, model: Model, layout: Layout, template: Template, prefix: str, parts: Parts) -> None:
        self.bound = BoundTemplate(template, model.values, prefix)
        self.key = self.bound.key
        self.fields = frozenset(template.fields)
        self.unique = model.covers_unique_key(self.fields)
        text = by_columns(model, template.text)
        self.listed = text.encode()
        self.prefix = prefix
        self.directory_listed = self.listed + b":"
        self._text = text
        self._templates = templates_of(model.table)
        self._kept = [self._templates.own(text, prefix)]
        self._tokens = Tokens(model, layout, template, prefix)
        own_any, _ = table_keys(model.table, prefix)
        # A row that the database takes for equal may come: to be found instead of nothing, or, where no unique key
        # forbids it, beside the one that was found, which are then too many.
        inexact = () if self.bound.exact else (own_any,)
        self._nulls = inexact if self.unique else ()
        self._values = () if self.unique else inexact
        # The text, because another crud's template may give the same key for another row: user:{id}, user:{number}.
        self._context = prefix.encode() + b"\n" + layout.fingerprint + b"row " + self.listed
        self._parts = parts
        self._scopes: dict[tuple[bytes, ...], Scope] = {}
        self._fixed = self._scope(self._tokens.fixed) if self._tokens.declared is None else None
        self.one_scope = self._fixed is not None

    def scope(self, key: Mapping[str, Any]) -> Scope:
        """Give the scope of the row with these key fields."""
        return self._fixed or self._scope(self._tokens.of(key))

    def narrowed(self, key: Mapping[str, Any], entry: bytes, more: tuple[bytes, ...]) -> Scope:
        """Give the scope of the same row asked for with further filters: the directory ``<entry>:`` ages it, too."""
        if len(self._kept) == 1:
            self._kept.append(self._templates.own(self._text + ":", self.prefix))
        tokens = [*self._tokens.of(key), *self._values, directory_key(entry + b":"), *more]
        return Scope(tokens, self._nulls, self._context, self._parts)

    def _scope(self, tokens: tuple[bytes, ...]) -> Scope:
        found = self._scopes.get(tokens)
        if found is None:
            if len(self._scopes) > 10_000:
                self._scopes.clear()
            found = self._scopes[tokens] = Scope((*tokens, *self._values), self._nulls, self._context, self._parts)
        return found


class ListKeys:
    """The entries of pages of lists, and of counts.

    Attributes:
        fields: The columns in the template.
        counted_by: Those in the row directory, which is all of them that a count's key says.
        listed: Its row directory as it is listed in Redis, where that alone ages it; ``None``: ``any`` ages it.
        prefix: That of the cache.
    """

    def __init__(self, model: Model, layout: Layout, template: Template, prefix: str, parts: Parts) -> None:
        self.bound = BoundTemplate(template, model.values, prefix)
        self.fields = frozenset(self.bound.columns)
        self.template, self.prefix = template, prefix
        directory = template.directory(self.fields)
        self._directory = BoundTemplate(directory, model.values, prefix)
        self._tokens = Tokens(model, layout, template, prefix)
        self._any, _ = table_keys(model.table, prefix)
        precise = (
            bool(self._directory.columns) and self._directory.exact and len(self._directory.columns) == len(self.fields)
        )
        self.counted_by = frozenset(self._directory.columns)
        text = by_columns(model, directory.text)
        self.listed = text.encode() if precise else None
        self._kept = templates_of(model.table).own(text, prefix) if precise else None
        written = by_columns(model, template.text).encode()  # as for rows
        self._context = prefix.encode() + b"\n" + layout.fingerprint + b"list " + written
        self._parts = parts
        self._scopes: dict[tuple[bytes, ...], Scope] = {}

    def directory(self, given: Mapping[str, Any]) -> bytes:
        """Give the row directory of a list, or the literal one where no column is in it."""
        return self._directory.key(given)

    def directory_of_row(self, row: Mapping[str, Any]) -> bytes | None:
        """Give the row directory that a row lies in."""
        return key_of_row(self._directory, row)

    def scope(self, given: Mapping[str, Any], more: tuple[bytes, ...] = ()) -> Scope:
        """Give the scope of a list; *more* are the ``any`` tokens of other tables that its statement reads."""
        tokens = (*self._tokens.of(given), directory_key(self.directory(given)), *more)
        return self._scope(tokens if self.listed is not None else (*tokens, self._any))

    def lasting_scope(self, given: Mapping[str, Any]) -> Scope:
        """Give the scope of a value that writes of single rows leave as it is: its life alone bounds its age."""
        return self._scope(self._tokens.of(given))

    def _scope(self, tokens: tuple[bytes, ...]) -> Scope:
        found = self._scopes.get(tokens)
        if found is None:
            if len(self._scopes) > 10_000:
                self._scopes.clear()
            found = self._scopes[tokens] = Scope(tokens, (), self._context, self._parts)
        return found


class Tokens:
    """The tokens that every value of a template carries: ``all``, other tables' ``any``, root, declared directory."""

    def __init__(self, model: Model, layout: Layout, template: Template, prefix: str) -> None:
        _, all_key = table_keys(model.table, prefix)
        others = [any_key(table, prefix) for table in layout.depends_on]
        root = directory_key((prefix + template.root).encode())
        self.fixed = (all_key, *others, root)
        self.declared: BoundTemplate | None = None
        dropped = layout.dropped.directory if layout.dropped is not None and layout.dropped.covers(template) else None
        if dropped is not None and dropped.text != template.root:
            bound = BoundTemplate(dropped, model.values, prefix)
            if bound.columns:
                self.declared = bound if set(bound.columns) <= set(template.fields) else None
            else:
                self.fixed = (*self.fixed, directory_key(bound.key({})))

    def of(self, given: Mapping[str, Any]) -> tuple[bytes, ...]:
        """Give the tokens for these values."""
        if self.declared is None:
            return self.fixed
        return (*self.fixed, directory_key(self.declared.key(given)))


class Keyspace:
    """All keys of one crud in one cache."""

    def __init__(self, model: Model, layout: Layout, prefix: str, parts: Parts) -> None:
        self.any_key, self.all_key = table_keys(model.table, prefix)
        self.rows = tuple(RowKeys(model, layout, template, prefix, parts) for template in layout.rows)
        self.lists = ListKeys(model, layout, layout.pages, prefix, parts) if layout.pages is not None else None
        self.prefix = prefix
        self._by_names: dict[tuple[str, ...], RowKeys | None] = {}
        directory = layout.dropped.directory if layout.dropped is not None else None
        self._dropped = BoundTemplate(directory, model.values, prefix) if directory is not None else None

    def row(self, given: Mapping[str, Any]) -> RowKeys | None:
        """Give the template whose fields are all given, the longest first; ``None`` if there is none."""
        names = tuple(given)
        try:
            return self._by_names[names]
        except KeyError:
            if len(self._by_names) >= _REMEMBERED:
                self._by_names.clear()
            fitting = [keys for keys in self.rows if keys.fields <= given.keys()]
            found = self._by_names[names] = max(fitting, key=lambda keys: len(keys.fields), default=None)
            return found

    def dropped(self, rows: Iterable[Mapping[str, Any]]) -> set[bytes]:
        """Give the tokens of the directories that a write of these rows drops by the declared pattern."""
        if self._dropped is None:
            return set()
        found = {key_of_row(self._dropped, row) for row in rows}
        return {directory_key(key) for key in found if key is not None}

    def dropped_by(self, given: Mapping[str, Any]) -> set[bytes]:
        """Give the token of the declared directory for the fields of a call, if they are all there."""
        complete = self._dropped is not None and set(self._dropped.columns) <= given.keys()
        return self.dropped([given]) if complete else set()


def key_of_row(template: BoundTemplate, row: Mapping[str, Any]) -> bytes | None:
    """Format a key from a row as it was read.

    ``None`` where the row has a value that no caller could ask for (SQLite stores anything anywhere): nothing can
    lie under such a key.
    """
    try:
        return template.key(row)
    except InputError:
        return None


def by_columns(model: Model, text: str) -> str:
    """Write a template over attribute names as one over column names, as it is listed."""
    return _PLACEHOLDER.sub(lambda found: f"{{{_column_name(model, found[1])}}}", text)


def _column_name(model: Model, name: str) -> str:
    return model.columns[name].name if name in model.columns else name
