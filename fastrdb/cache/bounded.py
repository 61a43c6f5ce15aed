"""A dictionary of a bounded size in bytes: what was not used for longest goes first. No I/O."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Final, Generic, TypeVar

V = TypeVar("V")

ITEM_BYTES: Final = 280
"""What an item costs besides the bytes of its key and its value: objects, slots, links; measured on CPython 3.11."""


class Bounded(Generic[V]):
    """Values by key, whose bytes together stay below a limit; any thread may use it.

    Args:
        max_bytes: Of keys and values, with ``ITEM_BYTES`` for each item; 1 or more.

    Attributes:
        size: Bytes of all that is kept, so counted.
    """

    def __init__(self, max_bytes: int) -> None:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be at least 1, not {max_bytes}")
        self.max_bytes, self.size = max_bytes, 0
        self._items: OrderedDict[bytes, tuple[V, int]] = OrderedDict()  # the least recently used first
        self._guard = threading.Lock()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: bytes) -> bool:
        return key in self._items

    def get(self, key: bytes) -> V | None:
        """Give a value, which has been used now; ``None`` if it is not kept."""
        with self._guard:
            found = self._items.get(key)
            if found is None:
                return None
            self._items.move_to_end(key)
            return found[0]

    def put(self, key: bytes, value: V, size: int) -> None:
        """Keep a value in place of the one that was there, and let go what there is no room for.

        One that does not fit alone is not kept; then nothing is kept under its key.

        Args:
            key: Its key.
            value: Any object.
            size: Its bytes.
        """
        size += len(key) + ITEM_BYTES
        with self._guard:
            self._drop(key)
            if size > self.max_bytes:
                return
            while self.size + size > self.max_bytes:
                _, (_, freed) = self._items.popitem(last=False)
                self.size -= freed
            self._items[key] = value, size
            self.size += size

    def pop(self, key: bytes) -> V | None:
        """Take a value out, and give it; ``None`` if it is not kept."""
        with self._guard:
            return self._drop(key)

    def clear(self) -> None:
        """Let go everything."""
        with self._guard:
            self._items.clear()
            self.size = 0

    def after_fork(self) -> None:
        """Start empty in a child process: another thread may have had the lock."""
        self._guard = threading.Lock()
        self._items, self.size = OrderedDict(), 0

    def __repr__(self) -> str:
        return f"<Bounded {len(self._items)} items, {self.size} of {self.max_bytes} bytes>"

    def _drop(self, key: bytes) -> V | None:
        found = self._items.pop(key, None)
        if found is None:
            return None
        self.size -= found[1]
        return found[0]
