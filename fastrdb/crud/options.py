"""What a read can be told besides its filters: fields of one frozen object, so that none takes a column's name away."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Final, Literal, TypeAlias, get_args

from ..errors import InputError, UsageError

ForUpdate: TypeAlias = Literal["nowait", "skip_locked"] | bool
Total: TypeAlias = Literal["exact", "cached", "estimate", "none"]
CACHED_TOTAL_S: Final = 60
"""Age, in seconds, up to which a total counts as ``"cached"``."""
ESTIMATED_FROM: Final = 10_000
"""Fewer rows than these are counted, not estimated."""
_FOR_UPDATE = (False, True, "nowait", "skip_locked")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read; pass it as ``options=``.

    Attributes:
        include_deleted: Of a model that is deleted softly, show deleted rows, too.
        only_deleted: Show deleted rows alone.
        for_update: Lock the rows that are read until the caller's transaction ends. ``True`` waits for others' locks,
            ``"nowait"`` raises the driver's error instead, ``"skip_locked"`` leaves locked rows out.
        search: Words that somebody typed, between white space. Each must be found, whatever its case, in at least one
            of the columns that the crud was given as ``search=``; ``%``, ``_`` and ``\\`` are themselves. Without a
            word, nothing is searched for.
        total: How ``page`` finds out the number of rows; no other method asks.

            - ``"exact"``: the number of rows that match.
            - ``"cached"``: what it was some time in the last ``CACHED_TOTAL_S`` seconds; without a cache, exact.
            - ``"estimate"``: what PostgreSQL's planner expects, if that is ``ESTIMATED_FROM`` or more; else exact.
            - ``"none"``: not at all.
        max_stale: Seconds, or a timedelta: accept an answer that was right at most so long ago, while another one
            loads the value or a writer holds it, and where the database cannot be read. The crud must allow it.

    Raises:
        InputError: Options that contradict each other, or mean nothing.
    """

    include_deleted: bool = False
    only_deleted: bool = False
    for_update: ForUpdate = False
    search: str = ""
    total: Total = "exact"
    # It changes neither statement nor key, and so does not tell two options apart.
    max_stale: float | timedelta | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.include_deleted and self.only_deleted:
            raise InputError("options: include_deleted and only_deleted are two answers to one question; take one")
        if not any(self.for_update is each or self.for_update == each for each in _FOR_UPDATE):
            raise UsageError(f"for_update: {self.for_update!r}; pass True, 'nowait' or 'skip_locked'")
        if not isinstance(self.search, str):
            raise InputError(f"search: pass a text, or '' to search for nothing, not {self.search!r}")
        if self.total not in get_args(Total):
            raise InputError(f"total: pass one of {', '.join(get_args(Total))}, not {self.total!r}")
        stale_s = self.max_stale_s
        if stale_s is not None and not 0 < stale_s < math.inf:
            raise InputError(f"max_stale: pass seconds above 0, or a timedelta, not {self.max_stale!r}")
        if stale_s is not None and self.for_update:
            raise InputError("options: for_update locks what is in the database now, max_stale accepts less; take one")

    @property
    def max_stale_s(self) -> float | None:
        """The age that is accepted, in seconds; ``None`` for what is right now."""
        given = self.max_stale
        if isinstance(given, timedelta):
            return given.total_seconds()
        if given is not None and (isinstance(given, bool) or not isinstance(given, (int, float))):
            return math.nan
        return given

    @property
    def shape(self) -> object | None:
        """What the statement depends on, and so the key: ``None`` for the defaults. JSON can say it."""
        told: dict[str, object] = {}
        if self.include_deleted or self.only_deleted:
            told["deleted"] = "only" if self.only_deleted else "included"
        if self.for_update:
            told["for_update"] = self.for_update
        return told or None

    @property
    def parsed(self) -> ReadOptions:
        """The same without what becomes part of the filter, or does not concern the rows."""
        return self if not self.search and self.total == "exact" else replace(self, search="", total="exact")


PLAIN: Final = ReadOptions()
