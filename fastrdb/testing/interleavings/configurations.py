"""What can be explored: a few readers and writers around one entry, and what may happen to them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fastrdb.cache.protocol import Cell

ENTRY = b"user:1"
DIRECTORY = b"fastrdb:t:user:"
ANY = b"fastrdb:{users}:any"
ALL = b"fastrdb:{users}:all"
KEYS = (ENTRY, DIRECTORY, ANY, ALL)
TEMPLATE = b"user:{id}"
SHORT = {ENTRY: "entry", DIRECTORY: "directory", ANY: "any", ALL: "all"}


@dataclass(frozen=True, slots=True)
class Plan:
    """One writer: what it holds and how.

    Attributes:
        holds: The cells that its own code names for its row images.
        table: It holds ``any`` and reads ``all`` first, and drops what the listed templates name.
        lists: It lists our template, because its own code has it.
        names: What the listed template, formatted from its row images, gives; ``None``: another cell than those here.
        formats: It can format a listed template that its own code lacks; else it holds ``all``.
        through: It writes its value through.
        renews: Each of its holds may be renewed once, until it begins to release.
        renews_as_shared: A renewed hold that had been lost counts as shared; off in a BREAKS row.
        releases_table: When it lets go of ``any`` and its hold there was lost, it drops ``all``; off in a BREAKS row.
        renews_table: When it renews ``any``, the same; off in a BREAKS row.
        may_fail: Its COMMIT may be refused by the database.
        outcome_lost: It may never learn how its COMMIT ended.
        trusts_lost: It then releases, as if that were a rollback; on in a BREAKS row.
    """

    holds: tuple[bytes, ...] = ()
    table: bool = False
    lists: bool = False
    names: bytes | None = ENTRY
    formats: bool = True
    through: bool = False
    renews: bool = False
    renews_as_shared: bool = True
    releases_table: bool = True
    renews_table: bool = True
    may_fail: bool = False
    outcome_lost: bool = False
    trusts_lost: bool = False


@dataclass(frozen=True, slots=True)
class Configuration:
    """A few processes around one entry.

    Attributes:
        writers: Each writes the row, or a row of the list, once.
        scopes: Keys of the tokens that age the value.
        readers: How many readers; all alike.
        reads: Reads of each, one after another.
        crashes: Writers that may be killed, at any step. (A reader that is killed is one that is not scheduled again.)
        evictions: Cells that may be evicted.
        evictable: Which ones.
        loses_holds: Holds may be evicted, too.
        fresh: A read must not be older than the last COMMIT before it began, or than the last returned write.
        locked: The writers share a row, whose lock they keep from update to COMMIT.
        split: Readers read entry and tokens one by one in any order, as on a cluster.
        cancels: Readers may be cancelled after their claim.
        outlived: A hold may expire while its writer is at its COMMIT.
        creates: There is no row at first: a reader finds, and caches, ``null``.
        rechecks: A reader looks for its template in the ``all`` that it stamps with; off in a BREAKS row.
        remembers: A reader that finds all its tokens, and its template confirmed, stamps with those and mints none.
        cells: What lies in Redis at first; names are ``n0``, ``n1``, …
    """

    writers: tuple[Plan, ...]
    scopes: tuple[bytes, ...] = (DIRECTORY,)
    readers: int = 1
    reads: int = 3
    crashes: int = 0
    evictions: int = 0
    evictable: tuple[bytes, ...] = KEYS
    loses_holds: bool = False
    fresh: Literal["commit", "return"] = "commit"
    locked: bool = True
    split: bool = False
    cancels: bool = False
    outlived: bool = False
    creates: bool = False
    rechecks: bool = True
    remembers: bool = False
    cells: tuple[Cell, ...] = (None, None, None, None)
