"""The cache protocol as decisions: what a cell becomes, what a reader may believe. No I/O.

A cell is what one Redis key holds, as bytes; ``None`` is a missing key. There are two kinds of key:

entry   nothing · claim ``"?id"`` · hold ``"!…"`` · value: a stamp of 32 white space characters, then JSON
token   nothing · random token · hold ``"!…"``

The token ``all`` of a table also lists the templates in use, a line each: ``template TAB writers``, where the writers
are those who held ``any`` when the template was listed and have not let go since; none left means *confirmed*.

A hold is ``"!`` + ``0`` (never shared) or ``1`` (shared at some time) + `` writer=deadline`` for each writer + ``"``;
deadlines are milliseconds of the server's clock. Readers take any hold for live and compare no clocks.

Every function here has a twin in ``scripts.py`` that runs inside Redis; a test compares the two on random cells.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NamedTuple

Cell = bytes | None

STAMP_LENGTH = 32
MAX_LISTED = 64  # templates of one table; a deploy adds a few, and nothing takes them off
_DIGITS = b" \t\r\n"  # two bits each, all of them white space to JSON
_PAIRS = bytes.maketrans(bytes(range(4)), _DIGITS)
_WRITER = re.compile(rb"([0-9a-zA-Z]+)=(\d+)")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of the protocol, all on. A test switches one off to see that the promise then breaks."""

    holds: bool = True
    claims: bool = True
    tokens_minted: bool = True
    stamp_before_commit: bool = True
    sole_holder_installs: bool = True
    fresh_snapshot: bool = True
    lists: bool = True
    hold_first: bool = True
    waits: bool = True
    pending_counts: bool = True
    through_listed: bool = True


ALL_PARTS = Parts()


class Hold(NamedTuple):
    """A parsed hold: whether it was ever shared, and each writer's deadline in milliseconds."""

    shared: bool
    writers: dict[bytes, int]

    def encode(self) -> bytes:
        """Give the bytes that lie in the cell."""
        listed = b"".join(b" %s=%d" % item for item in self.writers.items())
        return b'"!%d%s"' % (self.shared, listed)


@dataclass(frozen=True, slots=True)
class Listing:
    """A parsed ``all`` token: the token itself, and for each listed template the writers it still waits for."""

    token: bytes
    templates: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Give the bytes that lie in the cell."""
        return self.token + b"".join(b"\n%s\t%s" % (t, b",".join(w)) for t, w in self.templates.items())

    def confirmed(self, template: bytes) -> bool:
        """Tell whether every writer, present and future, knows of the template."""
        return self.templates.get(template) == ()


def random_name() -> bytes:
    """Give a new name for a token, a claim or a writer. Random: a counter that is evicted would start again."""
    return os.urandom(8).hex().encode()


def claim_mark(name: bytes) -> bytes:
    """Give the content of an entry that a reader has claimed."""
    return b'"?%s"' % name


def is_hold(cell: Cell) -> bool:
    """Tell whether a writer's hold lies in the cell."""
    return cell is not None and cell.startswith(b'"!')


def is_claim(cell: Cell) -> bool:
    """Tell whether a reader's claim lies in the cell."""
    return cell is not None and cell.startswith(b'"?')


def parse_hold(cell: bytes) -> Hold:
    """Read a hold."""
    return Hold(cell[2:3] == b"1", {name: int(until) for name, until in _WRITER.findall(cell)})


def parse_listing(cell: bytes) -> Listing:
    """Read the token ``all`` of a table."""
    token, *lines = cell.split(b"\n")
    templates = {}
    for line in lines:
        template, tab, writers = line.partition(b"\t")
        if tab:
            templates[template] = tuple(filter(None, writers.split(b",")))
    return Listing(token, templates)


def stamp(token_cells: Iterable[bytes], *context: bytes) -> bytes:
    """Hash tokens and context into the 32 white space characters that lead a value.

    Args:
        token_cells: The tokens of the value's scopes, in their order; of ``all`` only the token counts.
        context: Run id, fingerprint of the schema, database, namespace: whatever else must not differ.
    """
    digest = blake2b(digest_size=STAMP_LENGTH // 4)
    for part in (*(cell.split(b"\n", 1)[0] for cell in token_cells), *context):
        digest.update(b"%d:%s" % (len(part), part))
    bits = int.from_bytes(digest.digest(), "big")
    return bytes(bits >> shift & 3 for shift in range(0, STAMP_LENGTH * 2, 2)).translate(_PAIRS)


# What a cell becomes.


def mint(cell: Cell, fresh: bytes) -> bytes:
    """Give the token that is there, or the fresh one where there is none."""
    return fresh if cell is None else cell


def claim(cell: Cell, mark: bytes) -> bytes:
    """Put a reader's claim; a hold and another reader's claim stay."""
    return cell if cell is not None and (is_hold(cell) or is_claim(cell)) else mark


def fill(cell: Cell, mark: bytes, value: bytes, parts: Parts = ALL_PARTS) -> Cell:
    """Put a value where our claim still lies, and only there."""
    return value if cell == mark or not parts.claims else cell


def keeps_out(cell: Cell, only_if_empty: bool) -> bool:
    """Tell whether what lies there keeps out a value that no load stands behind: a hold, or anything if so told."""
    return is_hold(cell) or (only_if_empty and cell is not None)


def unclaim(cell: Cell, mark: bytes) -> Cell:
    """Take our claim away, if it is still there."""
    return None if cell == mark else cell


def hold(cell: Cell, writer: bytes, now_ms: int, until_ms: int, *, again: bool = False) -> bytes:
    """Join the hold that is there, which then counts as shared for good, or start one.

    Args:
        again: The writer has held this cell before and wants more time. If its hold was lost meanwhile, others may
            have written: the new one counts as shared.
    """
    shared, writers = parse_hold(cell) if cell is not None and is_hold(cell) else Hold(False, {})
    live = {name: until for name, until in writers.items() if until > now_ms or name == writer}
    lost = again and writer not in writers
    return Hold(shared or lost or bool(writers.keys() - {writer}), {**live, writer: until_ms}).encode()


def release(cell: Cell, writer: bytes, now_ms: int, replacement: Cell = None, parts: Parts = ALL_PARTS) -> Cell:
    """Let go: leave a co-writer's hold, and put the replacement only where we held alone all the time.

    Where our own hold was lost, whatever came in its place may be old, and is deleted.
    """
    if not is_hold(cell):
        return None
    assert cell is not None
    shared, writers = parse_hold(cell)
    rest = {name: until for name, until in writers.items() if until > now_ms and name != writer}
    if rest:
        return Hold(True, rest).encode()
    if writer not in writers:
        return None
    sole = not shared and len(writers) == 1
    return replacement if sole or not parts.sole_holder_installs else None


def list_templates(
    any_cell: Cell,
    all_cell: Cell,
    templates: Sequence[bytes],
    fresh: bytes,
    now_ms: int,
    parts: Parts = ALL_PARTS,
) -> bytes:
    """List templates as pending on those who hold ``any`` now, or take those off who have let go since.

    Later writers do not matter: they read the list after they hold. Waiting for a free ``any`` would starve.
    A missing ``all`` is minted; one that is held lists nothing. A list that is full starts again under the fresh
    token, which ages every value of the table.
    """
    if all_cell is not None and is_hold(all_cell):
        return all_cell
    if all_cell is not None and templates and all(b"\n%s\t\n" % t in all_cell + b"\n" for t in templates):
        return all_cell  # each is listed, and waits for nobody: as nearly always
    holders = _live(any_cell, now_ms) if parts.waits else frozenset()
    listing = parse_listing(mint(all_cell, fresh))
    known = dict(listing.templates)
    if len(known.keys() | set(templates)) > MAX_LISTED:
        listing, known = Listing(fresh), {}
    for template in templates:
        waited_for = known.get(template, tuple(sorted(holders)))
        known[template] = tuple(name for name in waited_for if name in holders)
    return Listing(listing.token, known).encode()


def _live(cell: Cell, now_ms: int) -> frozenset[bytes]:
    if cell is None or not is_hold(cell):
        return frozenset()
    return frozenset(name for name, until in parse_hold(cell).writers.items() if until > now_ms)


def lost(any_cell: Cell, writer: bytes, now_ms: int) -> bool:
    """Tell whether a writer's hold on ``any`` has ended before the writer let go.

    A template that was first listed since then did not wait for this writer, and what lies under it may be old. The
    writer does not know it and cannot name its entries: it must drop ``all``.
    """
    return writer not in _live(any_cell, now_ms)


def latest(cell: bytes) -> int:
    """Give the last deadline of a hold, in milliseconds: the cell's own life ends then."""
    return max(parse_hold(cell).writers.values(), default=0)
