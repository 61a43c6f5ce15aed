"""What one transaction touched in one cache, by name: no I/O."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import Table

from ..cache.protocol import Cell, is_hold
from ..cache.reads import Stamps
from .templates import Image, Listed, table_keys, templates_of

MAX_CELLS = 256


@dataclass(frozen=True, slots=True)
class Through:
    """A value to put in place of the old one, stamped with tokens that the write itself noted or made.

    Attributes:
        entry: Key of the entry; the write holds it.
        tokens: Keys of the value's tokens, the table's ``all`` first.
        listed: Its template, which must be confirmed in ``all`` before COMMIT.
        stamps: The stamps of its kind.
        dump: Gives the JSON, or ``None`` if it cannot be stored; called while the hold is on its way.
        ttl_ms: Its life.
    """

    entry: bytes
    tokens: tuple[bytes, ...]
    listed: bytes
    stamps: Stamps
    dump: Callable[[], bytes | None]
    ttl_ms: int


class TableWrite:
    """The rows of one table that a transaction wrote, before and after."""

    def __init__(self, table: Table, prefix: str) -> None:
        self.templates, self._prefix = templates_of(table), prefix
        self.any_key, self.all_key = table_keys(table, prefix)
        self.images: list[Image] = []
        self.everything = False
        self._named: set[bytes] = set()  # the templates whose cells are held at once

    def own_cells(self) -> set[bytes] | None:
        """Give the keys that the images name by the templates of this process; ``None`` if they cannot be named."""
        if self.everything or len(self.images) > MAX_CELLS:
            return None
        ours = self.templates.in_use(self._prefix)
        self._named = {listed.text for listed in ours}
        return self._cells(ours)

    def listed_cells(self, listing: Cell, *, pending: bool) -> set[bytes] | None:
        """Give the keys that the images name by the templates of other processes.

        Args:
            listing: The table's token ``all``.
            pending: Those that are not confirmed yet count, too.

        Returns:
            ``None``: some cannot be named, or nobody knows which templates there are.
        """
        if self.everything or listing is None:
            return set()
        if is_hold(listing):
            return None
        templates = self.templates.parse(listing).templates
        others = [text for text in templates if text not in self._named and (pending or not templates[text])]
        return self._cells(self.templates.see(others, self._prefix)) if others else set()

    def _cells(self, templates: Iterable[Listed | None]) -> set[bytes] | None:
        found: set[bytes] = set()
        for listed in templates:
            for image in self.images:
                key = listed.key(image) if listed is not None else None
                if key is None:
                    return None
                found.add(key)
        return found


class Touched:
    """The tables and the directories that a transaction touches in one cache.

    Attributes:
        tables: What was written, by table.
        directories: Keys of the tokens of directories that the cruds declared.
        all_of: Key of ``all`` by that of ``any``, of each table.
    """

    def __init__(self, prefix: str) -> None:
        self.tables: dict[Table, TableWrite] = {}
        self.directories: set[bytes] = set()
        self.all_of: dict[bytes, bytes] = {}
        self._prefix = prefix

    def table(self, table: Table) -> TableWrite:
        """Give the write of one table."""
        found = self.tables.get(table)
        if found is None:
            found = self.tables[table] = TableWrite(table, self._prefix)
            self.all_of[found.any_key] = found.all_key
        return found

    def cells(self) -> list[bytes]:
        """Name the cells of our own templates; too many to hold one by one become the table's ``all``."""
        found = dict.fromkeys(self.directories)
        for write in self.tables.values():
            cells = write.own_cells()
            if cells is None or len(cells) + len(found) > MAX_CELLS:
                write.everything = True
                cells = {write.all_key}
            found[write.any_key] = None
            found.update(dict.fromkeys(sorted(cells)))
        return list(found)

    def with_tables(self, held: Iterable[bytes]) -> set[bytes]:
        """Give cells, and the tokens of all tables with them: other cells of theirs may not be known."""
        return {*held, *self.all_of, *self.all_of.values()}

    def confirmed(self, template: bytes, all_key: bytes, cell: bytes) -> bool:
        """Tell whether a template is confirmed in the token ``all`` with this key."""
        write = next(write for write in self.tables.values() if write.all_key == all_key)
        return write.templates.parse(cell).confirmed(template)

    def listed_cells(self, listings: Iterable[Cell], held: Iterable[bytes], *, pending: bool) -> list[bytes]:
        """Name what templates of other processes name, and what is not held yet; ``all`` where that cannot be named.

        Args:
            listings: The tokens ``all``, in the order of the tables.
            held: What is held already.
            pending: As in ``TableWrite.listed_cells``.
        """
        more: list[bytes] = []
        known = set(held)
        for write, listing in zip(self.tables.values(), listings, strict=True):
            cells = write.listed_cells(listing, pending=pending)
            if cells is None or len(cells) + len(known) > MAX_CELLS:
                cells = {write.all_key}
            more += [key for key in sorted(cells) if key not in known]
        return more
