"""The clock by which ages are counted."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

# Linux's monotonic clock stands still while the machine sleeps, or its snapshot is kept; the other one does not.
CLOCK: Final[Callable[[], float]] = (
    partial(time.clock_gettime, time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic
)
"""Seconds that never go back, and go on while the machine sleeps, where it has such a clock."""
