"""What a read can be told besides its filters: fields of one frozen object, so that none takes a column's name away."""

from __future__ import annotations

from dataclasses import dataclass, replace
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

    Raises:
        InputError: Options that contradict each other, or mean nothing.
    """

    include_deleted: bool = False
    only_deleted: bool = False
    for_update: ForUpdate = False
    search: str = ""
    total: Total = "exact"

    def __post_init__(self) -> None:
        if self.include_deleted and self.only_deleted:
            raise InputError("options: include_deleted and only_deleted are two answers to one question; take one")
        if not any(self.for_update is each or self.for_update == each for each in _FOR_UPDATE):
            raise UsageError(f"for_update: {self.for_update!r}; pass True, 'nowait' or 'skip_locked'")
        if not isinstance(self.search, str):
            raise InputError(f"search: pass a text, or '' to search for nothing, not {self.search!r}")
        if self.total not in get_args(Total):
            raise InputError(f"total: pass one of {', '.join(get_args(Total))}, not {self.total!r}")

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
