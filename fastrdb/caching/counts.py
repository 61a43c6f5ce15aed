"""What a SmartCache counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any


@dataclass(frozen=True, slots=True)
class SmartStats(Mapping[str, Any]):
    """The counts of one SmartCache in this process, as attributes and as a mapping: ``stats["hit_rate"]``.

    Attributes:
        hits: Values that were given from the cache.
        misses: Values that were asked for, and were not there, or could not be read.
        sets: Values that were stored by ``set`` and ``multi_set``.
        deletes: Values that ``delete`` found and dropped.
        errors: Calls that Redis did not answer, or answered with an error.
        last_reset: When the counts began, with time zone.
    """

    hits: int = 0
    misses: int = 0
    sets: int = 0
    deletes: int = 0
    errors: int = 0
    last_reset: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def hit_rate(self) -> float:
        """Share of hits among what was asked for, from 0 to 1; 0 before the first."""
        return _share(self.hits, self.hits + self.misses)

    @property
    def error_rate(self) -> float:
        """Share of errors among everything counted, from 0 to 1; a read that failed counts as a miss, too."""
        return _share(self.errors, self.hits + self.misses + self.sets + self.deletes + self.errors)

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    @classmethod
    def _names(cls) -> tuple[str, ...]:
        return (*(each.name for each in fields(cls)), "hit_rate", "error_rate")


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
