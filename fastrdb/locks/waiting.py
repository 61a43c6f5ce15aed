"""How long to wait for a lock, and how to try again and again until then."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Final, TypeAlias

from ..errors import InputError, ValueRefused

Seconds: TypeAlias = float | timedelta
Wait: TypeAlias = Seconds | None

_FIRST_PAUSE_S, _LAST_PAUSE_S = 0.01, 0.25


class Unset:
    """Says that an argument was not given."""

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset()


def positive(field: str, given: Seconds) -> float:
    """Give a duration in seconds.

    Raises:
        ValueRefused: It is no finite number of seconds above 0.
    """
    seconds = _seconds(given)
    if seconds is None or not seconds > 0:
        raise ValueRefused(field, "seconds above 0, or a timedelta", given)
    return seconds


def waiting_time(field: str, given: Wait) -> float | None:
    """Give how long to wait, in seconds; ``None`` stands for as long as it takes.

    Raises:
        ValueRefused: It is neither ``None`` nor a finite number of seconds from 0 on.
    """
    if given is None:
        return None
    seconds = _seconds(given)
    if seconds is None or seconds < 0:
        raise ValueRefused(field, "seconds from 0 on, a timedelta, or None to wait for ever", given)
    return seconds


def chosen_wait(own: float | None, timeout: Wait | Unset, blocking: bool | None) -> float | None:
    """Give how long one ``acquire`` waits: the lock's own time, unless its arguments say another.

    Raises:
        InputError: ``blocking=False`` with a timeout.
    """
    if blocking is False:
        if not isinstance(timeout, Unset):
            raise InputError("blocking=False does not wait: leave timeout out")
        return 0.0
    if not isinstance(timeout, Unset):
        return waiting_time("timeout", timeout)
    return None if blocking else own


async def keep_trying(attempt: Callable[[], Awaitable[bool]], wait_s: float | None) -> bool:
    """Try until an attempt succeeds or the time is over; at least once, and once more when it is over.

    Args:
        attempt: Tells whether it succeeded.
        wait_s: Seconds; ``None`` for as long as it takes.
    """
    loop = asyncio.get_running_loop()
    until = math.inf if wait_s is None else loop.time() + wait_s
    pause = _FIRST_PAUSE_S
    while not await attempt():
        left = until - loop.time()
        if left <= 0:
            return False
        await asyncio.sleep(min(left, pause * random.uniform(0.5, 1)))  # apart from others who wait
        pause = min(pause * 2, _LAST_PAUSE_S)
    return True


def _seconds(given: object) -> float | None:
    if isinstance(given, timedelta):
        return given.total_seconds()
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not math.isfinite(given):
        return None
    return float(given)
