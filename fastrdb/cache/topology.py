"""Which master of a cluster has which slot, as ``CLUSTER SLOTS`` tells it. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

from redis.crc import REDIS_CLUSTER_HASH_SLOTS, key_slot

Address: TypeAlias = tuple[str, int]
Remap: TypeAlias = Callable[[Address], Address]

SLOTS = REDIS_CLUSTER_HASH_SLOTS


class Master(NamedTuple):
    """A node that has slots: its name in the cluster, which outlives restarts, and where it listens."""

    id: bytes
    address: Address


class View(NamedTuple):
    """The cluster as one node sees it.

    Attributes:
        epoch: Number of the last election or move of a slot that the node knows of: the highest is the newest view.
        serves: The node says that the cluster works.
        owners: The master of each slot, ``None`` where there is none.
    """

    epoch: int
    serves: bool
    owners: tuple[Master | None, ...]

    @property
    def masters(self) -> list[Master]:
        """Those that have slots."""
        return sorted({owner for owner in self.owners if owner is not None})

    @property
    def rank(self) -> tuple[bool, bool, int]:
        """What makes one view better than another."""
        return any(self.owners), self.serves, self.epoch


def view_of(info: bytes, slots: Sequence[Any], asked: Address, remap: Remap | None = None) -> View:
    """Read the replies of ``CLUSTER INFO`` and ``CLUSTER SLOTS``.

    Args:
        info, slots: The replies.
        asked: Where the node was reached that gave them: a node may not know its own address.
        remap: Gives the address at which clients reach a node.
    """
    owners: list[Master | None] = [None] * SLOTS
    for first, last, master, *_ in slots:
        host, port, name = master[:3]
        known = host.decode() if host and host != b"?" else asked[0]
        address = known, int(port)
        owner = Master(bytes(name), remap(address) if remap is not None else address)
        owners[first : last + 1] = [owner] * (last + 1 - first)
    told = {name: value for name, _, value in (line.partition(b":") for line in info.splitlines())}
    return View(int(told.get(b"cluster_current_epoch", 0)), told.get(b"cluster_state") == b"ok", tuple(owners))


def slot_of(key: bytes) -> int:
    """Give the slot of a key, or of its hash tag: the first text between braces."""
    slot: int = key_slot(key)
    return slot
