"""What a cache has in one event loop."""

from __future__ import annotations

import asyncio

from .outbox import Replay
from .relief import Relief
from .store import Store


class InLoop:
    """What a cache has in one event loop.

    Attributes:
        store: Its store.
        read, read_bulk: Read from it, while that loop runs.
        replay: Looks for what others have left in the outbox, if there is one.
        flights: The loads under way, by entry.
        reliefs: The loads of those who have waited in vain, by entry and kind of value.
        courier: Delivers what is kept, while anything is.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, store: Store, replay: Replay | None = None) -> None:
        self.loop, self.store = loop, store
        self.read, self.read_bulk = store.reader(), store.reader(bulk=True)
        self.replay = replay
        self.flights: dict[bytes, asyncio.Future[None]] = {}
        self.reliefs: dict[tuple[bytes, bytes], Relief] = {}
        self.courier: asyncio.Task[None] | None = None
