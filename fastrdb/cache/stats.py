"""Counts of what the cache did, and why it did not do the rest."""

from __future__ import annotations

from collections import Counter


class Stats:
    """Counts since the cache was made, or since ``reset``.

    Attributes:
        hits: Reads that were answered from the cache.
        reasons: Everything else under its reason: ``miss: …``, ``bypass: …``, ``not stored: …``, ``hold: …``,
            ``replica: …``.
    """

    def __init__(self) -> None:
        self.hits = 0
        self.reasons: Counter[str] = Counter()

    def count(self, reason: str) -> None:
        """Count one event under its reason."""
        self.reasons[reason] += 1

    @property
    def misses(self) -> int:
        """Reads that loaded from SQL, whether or not the value could be stored afterwards."""
        return sum(n for reason, n in self.reasons.items() if reason.startswith(("miss", "bypass")))

    @property
    def hit_rate(self) -> float:
        """Share of the reads that were hits, from 0 to 1; 0 before the first read."""
        reads = self.hits + self.misses
        return self.hits / reads if reads else 0.0

    def snapshot(self) -> dict[str, int]:
        """Give all counts as a plain dict, ``hits`` included."""
        return {"hits": self.hits, **dict(sorted(self.reasons.items()))}

    def reset(self) -> None:
        """Start at zero again."""
        self.hits = 0
        self.reasons.clear()

    def __repr__(self) -> str:
        return f"Stats({self.snapshot()})"
