"""Invalidations that Redis could not be told, kept until it can."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from typing import Final

from ..errors import CacheError
from .in_loop import InLoop
from .protocol import random_name
from .store import Release

logger = logging.getLogger("fastrdb.cache")

_FIRST_PAUSE_S: Final = 0.05
_LAST_PAUSE_S: Final = 1.0
_AT_ONCE: Final = 1_000  # keys of one round trip


class Courier:
    """Keeps invalidations, and delivers them from whichever event loop is there.

    Attributes:
        kept: Keys of what is not delivered yet.
    """

    def __init__(self) -> None:
        self.kept: set[bytes] = set()
        self._under_way: dict[InLoop, set[bytes]] = {}  # what each loop's release in flight will have delivered

    def keep(self, keys: set[bytes], here: InLoop) -> None:
        """Keep an invalidation, and see to it that it is delivered."""
        if not self.kept:
            logger.warning("an invalidation could not be delivered: it is kept, and SQL answers until it is")
        self.kept |= keys
        for sent in list(self._under_way.values()):  # another thread may end one
            sent -= keys  # to be delivered once more: the row has changed again
        self.send(here)

    def send(self, here: InLoop) -> None:
        """See to it that a task of this event loop delivers what is kept: the one that kept it may have ended."""
        if here.courier is None or here.courier.done():
            here.courier = here.loop.create_task(self._deliver(here), context=Context())

    async def _deliver(self, here: InLoop) -> None:
        pause = _FIRST_PAUSE_S
        while self.kept:
            batch = list(self.kept)[:_AT_ONCE]
            sent = self._under_way[here] = set(batch)
            nobody = random_name()
            try:
                await here.store.run([Release(key, nobody) for key in batch])
            except CacheError:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LAST_PAUSE_S)
            else:
                self.kept -= sent
            finally:
                del self._under_way[here]
        logger.warning("all kept invalidations are delivered")
        if here.replay is not None:
            here.replay.soon()  # to delete what was written down of them
