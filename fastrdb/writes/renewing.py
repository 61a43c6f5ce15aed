"""More time for the holds of a write, while its COMMIT hangs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress

from ..cache.cache import Cache
from ..cache.store import Command
from ..errors import CacheClosed

_MAX_RENEWALS = 20


class Renewing:
    """Asks for more time, again and again, until it is stopped or has asked often enough.

    Args:
        cache: Where the holds are.
        again: Gives the commands that renew them.
    """

    def __init__(self, cache: Cache, again: Callable[[], Sequence[Command]]) -> None:
        self._cache, self._again = cache, again
        self._left = _MAX_RENEWALS
        self._timer = self._arm()

    def stop(self) -> None:
        """Let the holds end by themselves, unless they are released."""
        self._timer.cancel()

    def _arm(self) -> asyncio.TimerHandle:
        return asyncio.get_running_loop().call_later(self._cache.hold_ms / 2_000, self._renew)

    def _renew(self) -> None:
        """Ask for more time. The hold then ends later, and is no other hold."""
        self._left -= 1
        with suppress(CacheClosed):
            self._cache.drop(self._cache.store.post(self._again()))
            if self._left:
                self._timer = self._arm()
