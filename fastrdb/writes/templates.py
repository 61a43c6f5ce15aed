"""The templates under which a table's rows are cached: this process's own, and those that others have listed.

They are kept in ``Table.info``, by the text in which they are listed in Redis: placeholders there are column names.
A text that ends in ``:`` is a directory, whose token is held; any other is an entry.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from weakref import ref

from sqlalchemy import Table

from ..cache.protocol import Listing, parse_listing
from ..errors import FastRDBError
from ..keys import BoundTemplate, Template
from ..values import column_values

_KEY = "fastrdb_templates"
_TOKEN = b"fastrdb:t:"

Image = Mapping[str, Any]


class Listed:
    """One template in the form in which it is listed: over column names."""

    def __init__(self, table: Table, text: str, prefix: str) -> None:
        template = Template(text)
        values = {c.name: column_values(c.name, c.type) for c in table.columns if c.name in template.fields}
        self.text = text.encode()
        self.bound = BoundTemplate(template, values, prefix)
        self.is_directory = text.endswith(":")

    def key(self, image: Image) -> bytes | None:
        """Give the key of the entry, or of the directory's token, that a row lies under.

        ``None``: the image lacks a column, or has a value that this code cannot format.
        """
        try:
            key = self.bound.key(image)
        except FastRDBError:
            return None
        return _TOKEN + key if self.is_directory else key


class TableTemplates:
    """What is known of one table's templates."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._own: dict[tuple[str, str], ref[Listed]] = {}
        self._parsed = b"", Listing(b"")
        self._seen: dict[tuple[str, str], Listed | None] = {}
        self._columns = frozenset[str]()

    def own(self, text: str, prefix: str) -> Listed:
        """Give our own template of this text; it counts as in use as long as the caller keeps it."""
        found = self._find(text, prefix)
        if found is None:
            found = Listed(self._table, text, prefix)
            in_use = {key: kept for key, kept in self._own.items() if kept() is not None}
            self._own = {**in_use, (text, prefix): ref(found)}
            self._columns |= {*found.bound.columns}
        return found

    def _find(self, text: str, prefix: str) -> Listed | None:
        kept = self._own.get((text, prefix))
        return kept() if kept is not None else None

    def in_use(self, prefix: str) -> list[Listed]:
        """Give our own templates, of the cache with this prefix."""
        kept = [listed() for (_, of), listed in self._own.items() if of == prefix]
        return [listed for listed in kept if listed is not None]

    def parse(self, cell: bytes) -> Listing:
        """Read the table's token ``all``: it is the same one for many writes."""
        known, listing = self._parsed
        if cell != known:
            listing = parse_listing(cell)
            self._parsed = cell, listing
        return listing

    def see(self, texts: Iterable[bytes], prefix: str) -> list[Listed | None]:
        """Remember the templates that a write found in the list; ``None`` for one that cannot be formatted here."""
        return [self._see(text.decode(errors="replace"), prefix) for text in texts]

    def _see(self, text: str, prefix: str) -> Listed | None:
        own = self._find(text, prefix)
        if own is not None:
            return own
        if (text, prefix) not in self._seen:
            self._seen[text, prefix] = self._parse(text, prefix)
        return self._seen[text, prefix]

    def _parse(self, text: str, prefix: str) -> Listed | None:
        try:
            found = Listed(self._table, text, prefix)
        except FastRDBError:
            return None
        self._columns |= {*found.bound.columns}
        return found

    def columns(self) -> frozenset[str]:
        """Give the names of the columns that row images need, for all templates that were ours or were seen."""
        return self._columns


def templates_of(table: Table) -> TableTemplates:
    """Give what is known of a table's templates."""
    if _KEY not in table.info:
        table.info.setdefault(_KEY, TableTemplates(table))
    found: TableTemplates = table.info[_KEY]
    return found


def table_keys(table: Table, prefix: str) -> tuple[bytes, bytes]:
    """Give the keys of a table's tokens ``any`` and ``all``; the hash tag keeps them on one node of a cluster."""
    return _table_key(table.fullname, prefix, "any"), _table_key(table.fullname, prefix, "all")


def any_key(table: str, prefix: str) -> bytes:
    """Give the key of the token ``any`` of a table by its name, with the schema where there is one."""
    return _table_key(table, prefix, "any")


def _table_key(table: str, prefix: str, token: str) -> bytes:
    return f"fastrdb:{{{prefix}{table}}}:{token}".encode()


def directory_key(directory: bytes) -> bytes:
    """Give the key of a directory's token."""
    return _TOKEN + directory
