"""When to stop asking a server that does not answer, and when to try it again: a state machine, no I/O."""

from __future__ import annotations

import random
from collections.abc import Callable
from enum import Enum
from time import monotonic

FAILURES = 3  # in a row: one may be a connection that was cut
FIRST_PAUSE_S, LAST_PAUSE_S = 0.05, 2.0


class State(Enum):
    """What a breaker does with a question."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Closed it lets everybody ask; open nobody; half-open one, whose answer decides.

    Args:
        failures: How many in a row open it.
        first_pause_s: Seconds until the first trial; each one that fails doubles them.
        last_pause_s: The longest pause.
        clock: Seconds, never going back.
        changed: Told when it stops letting everybody ask, and when it does so again.

    Attributes:
        state: What it is now.
    """

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        first_pause_s: float = FIRST_PAUSE_S,
        last_pause_s: float = LAST_PAUSE_S,
        clock: Callable[[], float] = monotonic,
        changed: Callable[[bool], None] = lambda closed: None,
    ) -> None:
        self.state = State.CLOSED
        self._limit, self._first_s, self._last_s = failures, first_pause_s, last_pause_s
        self._clock, self._changed = clock, changed
        self._failures = 0
        self._pause_s = first_pause_s
        self._until = 0.0

    def allows(self) -> bool:
        """Tell whether to ask now; who gets True from one that is not closed is the trial, and must say how it went."""
        if self.state is State.CLOSED:
            return True
        # A trial that never said how it went (its caller was cancelled) is given up after the same time.
        if self._clock() < self._until:
            return False
        self._until = self._clock() + self._last_s
        self._become(State.HALF_OPEN)
        return True

    def hurry(self) -> None:
        """Let the next one who asks try at once: there is reason to believe that things have changed."""
        self._until = self._clock()

    def succeeded(self) -> None:
        """Note an answer."""
        self._failures, self._pause_s = 0, self._first_s
        self._become(State.CLOSED)

    def failed(self) -> None:
        """Note that there was none."""
        self._failures += 1
        if self.state is State.CLOSED and self._failures < self._limit:
            return
        if self.state is not State.OPEN:  # of many who asked at the same time, one lengthens the pause
            self._until = self._clock() + self._pause_s * random.uniform(0.8, 1.2)  # apart from other processes
            self._pause_s = min(2 * self._pause_s, self._last_s)
        self._become(State.OPEN)

    def _become(self, state: State) -> None:
        closed, was_closed = state is State.CLOSED, self.state is State.CLOSED
        self.state = state
        if closed is not was_closed:
            self._changed(closed)

    def __repr__(self) -> str:
        return f"<Breaker {self.state.value}>"
