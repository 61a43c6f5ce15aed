"""Whether Redis has memory for what is to be stored, and when that is worth telling: a state machine, no I/O."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

QUIET_S = 10.0  # a server at its limit refuses one value and takes the next


class Shortage:
    """Begins with the first value that is refused, and ends with one that is stored when none was refused for a while.

    Args:
        clock: Seconds, never going back.
        changed: Told when it begins (``True``), and when it ends.
    """

    def __init__(self, *, clock: Callable[[], float] = monotonic, changed: Callable[[bool], None]) -> None:
        self._clock, self._changed = clock, changed
        self._refused_at: float | None = None

    def refused(self) -> None:
        """Note that there was no memory for a value."""
        begins, self._refused_at = self._refused_at is None, self._clock()
        if begins:
            self._changed(True)

    def stored(self) -> None:
        """Note that there was."""
        if self._refused_at is not None and self._clock() - self._refused_at >= QUIET_S:
            self._refused_at = None
            self._changed(False)

    def __repr__(self) -> str:
        return f"<Shortage {'of' if self._refused_at is not None else 'no lack of'} memory>"
