"""How long the tokens live that a process has seen, so that it need not lengthen their lives again and again."""

from __future__ import annotations

from .protocol import Cell, is_hold

_REMEMBERED = 4_096


class SeenTokens:
    """Tokens by key, each with the time until which it lives if nobody drops it.

    They are random: a cell that equals one that was seen is the same token, and has the life that is known of it.
    """

    def __init__(self) -> None:
        self._seen: dict[bytes, tuple[bytes, float]] = {}

    def note(self, key: bytes, cell: Cell, until_ms: float) -> None:
        """Remember a token that was minted just now, until a time of this process's monotonic clock."""
        if cell is None or is_hold(cell):
            return
        if len(self._seen) >= _REMEMBERED and key not in self._seen:
            self._seen = {}  # replaced whole: threads with loops of their own may be reading it
        self._seen[key] = cell, until_ms

    def forget(self, key: bytes) -> None:
        """Know nothing of a key's token any more: there is none, or another one."""
        self._seen.pop(key, None)

    def get(self, key: bytes, until_ms: float) -> bytes | None:
        """Give the token that was seen, if it is known to live that long."""
        cell, lives_ms = self._seen.get(key, (None, 0.0))
        return cell if lives_ms >= until_ms else None
