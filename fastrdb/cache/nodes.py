"""The masters of a cluster: the map of their slots, two lanes to each, and the name of the run that they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from hashlib import blake2b
from typing import Any, Final, Protocol

from redis import exceptions as redis_errors

from fastrdb.errors import CacheClosed, CacheError, ServerRefused

from .bound import Bound
from .dial import Dialer, Server
from .lane import Lane, Notice, copied
from .routed import NodeBatch, NodeCall
from .topology import Address, Master, Remap, View, slot_of, view_of
from .wire import Failure, Wire, unavailable

_BACKOFF_S: Final = 0.05
_MAX_BACKOFF_S: Final = 1.0
_GRACE_S: Final = 0.05  # for views of other nodes than the quickest, which may be the one that was cut off
_MOST_ASKED: Final = 16
_REMEMBERED: Final = 4_096  # places of tokens
_MOST_TOKENS: Final = 16  # of one scope, as a rule
_GONE = partial(unavailable, redis_errors.ConnectionError("the node has no slots any more"))


class Waiting(Protocol):
    """Who cannot go on before the map is known."""

    def send(self) -> None:
        """It is known now."""
        ...

    def fail(self, failure: Failure) -> None:
        """It cannot be had."""
        ...


class Node:
    """One master: its lanes, and its run as their handshakes told it (empty before the first)."""

    def __init__(self, master: Master, dialer: Dialer, nodes: Nodes) -> None:
        self.master, self.run = master, b""
        self._dialer, self._nodes = dialer, nodes
        notice = Notice()
        self.small = self._lane(notice, lambda: self.bulk)
        self.bulk = self._lane(notice, lambda: self.small)

    def _lane(self, notice: Notice, other: Callable[[], Lane]) -> Lane:
        async def dial() -> Wire:
            return self._note(await self._dialer.dial(), other())

        nodes = self._nodes
        return Lane(dial, nodes.timeout_s, notice, batch=NodeBatch, call=NodeCall, on_trouble=nodes.refresh)

    def _note(self, server: Server, other: Lane) -> Wire:
        """Learn which run answers at this address, before anything is asked of it."""
        if server.epoch != self.run:
            self.run = server.epoch
            other.leave(redis_errors.ConnectionError("the server was replaced by another one"))
            self._nodes.rename()
        return server.wire

    async def look(self) -> None:
        """Leave a server that has stepped down."""
        for lane in (self.small, self.bulk):
            await lane.look(self._same)

    async def _same(self, wire: Wire) -> bool:
        return await self._dialer.same(Server(wire, self.run))

    async def close(self, failure: Failure | None = None) -> None:
        """Close both lanes."""
        await asyncio.gather(self.small.aclose(failure), self.bulk.aclose(failure))


class Nodes(Bound):
    """What belongs to one event loop: lanes to the masters, and the task that draws the map anew.

    Args:
        seeds: Where the cluster is asked for its nodes first.
        dialer: Gives what opens connections to an address.
        timeout_s: Seconds from a call to its reply.
        remap: Gives the address at which clients reach a node.

    Attributes:
        epoch: Hashes the runs of all masters: whoever is replaced, no value from before is valid.
    """

    def __init__(
        self, seeds: Sequence[Address], dialer: Callable[[Address], Dialer], timeout_s: float, remap: Remap | None
    ) -> None:
        super().__init__()
        self.timeout_s = timeout_s
        self.ready = self.closed = False
        self._seeds, self._dialer, self._remap = seeds, dialer, remap
        self._nodes: dict[Master, Node] = {}
        self._owners: list[Node | None] = []
        self._places: dict[tuple[bytes, ...], dict[Node, tuple[bytes, ...]]] = {}
        self._waiting: list[Waiting] = []
        self._fresh: list[Waiting] = []
        self._wanted = asyncio.Event()
        self._refusal: Failure | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._guests: dict[Address, Node] = {}
        self._leaving: set[asyncio.Task[None]] = set()

    # -- the map

    def owner(self, key: bytes) -> Node:
        """Give the master that has a key.

        Raises:
            CacheUnavailable: None has its slot.
        """
        node = self._owners[slot_of(key)]
        if node is None:
            self.refresh()
            raise unavailable(redis_errors.ClusterDownError("no master has the slot of this key"))
        return node

    def places(self, keys: tuple[bytes, ...]) -> dict[Node, tuple[bytes, ...]]:
        """Give the keys by their masters. Raises as ``owner`` does."""
        found = self._places.get(keys)
        if found is None:
            grouped: dict[Node, list[bytes]] = {}
            for key in keys:
                grouped.setdefault(self.owner(key), []).append(key)
            found = {node: tuple(of_node) for node, of_node in grouped.items()}
            if len(keys) > _MOST_TOKENS:  # the rows of a get_by_keys, which hardly come together again
                return found
            if len(self._places) >= _REMEMBERED:
                self._places.clear()
            self._places[keys] = found
        return found

    def guest(self, address: Address) -> Node:
        """Give the node at an address that another one has named; it may have no slots yet."""
        address = self._remap(address) if self._remap is not None else address
        found = next((node for master, node in self._nodes.items() if master.address == address), None)
        if found is None:
            found = self._guests.get(address)
        if found is None:
            found = self._guests[address] = Node(Master(b"", address), self._dialer(address), self)
        return found

    def move(self, slot: int, address: Address) -> bool:
        """Note where a slot is now; tell whether that node is known. The rest of the map is drawn anew."""
        address = self._remap(address) if self._remap is not None else address
        node = next((node for master, node in self._nodes.items() if master.address == address), None)
        if node is not None:
            self._owners[slot] = node
            self._places.clear()
        self.refresh()
        return node is not None

    def rename(self) -> None:
        """Name the run of all masters anew, if it is another one."""
        digest = blake2b(digest_size=16)
        for master, node in sorted(self._nodes.items()):
            digest.update(b"%s=%s;" % (master.id, node.run))
        if (epoch := digest.hexdigest().encode()) != self.epoch:
            self.epoch = epoch

    # -- drawing it anew

    def wait(self, waiting: Waiting, *, fresh: bool = False) -> None:
        """Let somebody go on when the map has been drawn (again).

        Args:
            fresh: By an attempt that begins from now on, however many have failed: readers elsewhere may have found
                the nodes again, and a writer that did not try would leave old values to them.
        """
        if self.closed:
            waiting.fail(partial(CacheClosed, "the cache was closed"))
        elif fresh:
            self._fresh.append(waiting)
            self._wanted.set()
            self.refresh()
        elif self._refusal is not None:
            waiting.fail(self._refusal)  # it was just tried
        else:
            self._waiting.append(waiting)
            self._wanted.set()
            self.refresh()

    def refresh(self) -> None:
        """Ask the nodes who has which slots, unless that is under way; until all of these answer."""
        if not self.closed and (self._refreshing is None or self._refreshing.done()):
            self._refreshing = self.loop.create_task(self._refresh(), name="fastrdb-map", context=Context())
            self._refreshing.add_done_callback(_seen)

    async def _refresh(self) -> None:
        pause_s = _BACKOFF_S
        while not await self._drawn() or self._fresh:
            await asyncio.sleep(_BACKOFF_S)
            self._wanted.clear()
            self._refusal = None
            if not self._fresh and not self._waiting:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):  # wait_for would swallow a cancellation
                        await self._wanted.wait()
            pause_s = min(2 * pause_s, _MAX_BACKOFF_S)

    async def _drawn(self) -> bool:
        """Draw the map and connect to all who are on it; tell whether all answered."""
        fresh, self._fresh = self._fresh, []
        try:
            self._adopt(await self._view())
            if self.ready:
                self._go_on()
            self._waiting += fresh
            opened = await asyncio.gather(*(node.small.open() for node in self._nodes.values()), return_exceptions=True)
            if (refused := next((each for each in opened if isinstance(each, ServerRefused)), None)) is not None:
                raise refused
        except BaseException as error:
            self._waiting += [each for each in fresh if each not in self._waiting]
            if not isinstance(error, Exception):  # cancelled: `close` tells them
                raise
            self._refusal = partial(copied, error if isinstance(error, CacheError) else unavailable(error))
            self._fail_waiting(self._refusal)
            return False
        self.ready = True
        self._go_on()
        return not any(opened)

    async def _view(self) -> View:
        """Ask several nodes, and take the newest of the views that come in time."""
        known = dict.fromkeys([*(master.address for master in self._nodes), *self._seeds])
        asked = [asyncio.ensure_future(self._ask(address)) for address in list(known)[:_MOST_ASKED]]
        try:
            pending, views = set(asked), list[View]()
            while pending:
                done, pending = await asyncio.wait(
                    pending, timeout=_GRACE_S if views else None, return_when=asyncio.FIRST_COMPLETED
                )
                views += [task.result() for task in done if task.exception() is None]
                if not done:
                    break
            if views and any((best := max(views, key=lambda view: view.rank)).owners):
                return best
        finally:
            for task in asked:
                task.cancel()
        errors = [task.exception() for task in asked if task.done() and not task.cancelled()]
        raise next((e for e in errors if e), None) or unavailable(
            redis_errors.ClusterDownError("no master of the cluster has any slots")
        )

    async def _ask(self, address: Address) -> View:
        info, slots = await self._dialer(address).ask([(b"CLUSTER", b"INFO"), (b"CLUSTER", b"SLOTS")])
        for reply in (info, slots):
            if isinstance(reply, redis_errors.NoPermissionError):
                raise ServerRefused(
                    "this user may not ask for the map of the cluster: grant it +cluster|info and +cluster|slots"
                )
            if isinstance(reply, redis_errors.ResponseError) and "cluster support disabled" in str(reply):
                raise ServerRefused("this Redis is no node of a cluster: use redis:// or a redis.asyncio.Redis")
            if isinstance(reply, Exception):
                raise unavailable(reply)
        return view_of(info, slots, address, self._remap)

    def _adopt(self, view: View) -> None:
        old = self._nodes
        self._nodes = {
            master: old.get(master) or Node(master, self._dialer(master.address), self) for master in view.masters
        }
        self._owners = [self._nodes[owner] if owner is not None else None for owner in view.owners]
        self._places.clear()
        gone = [node for master, node in old.items() if master not in self._nodes]
        for node in (*gone, *self._guests.values()):
            leaving = self.loop.create_task(node.close(_GONE), context=Context())
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)
        self._guests = {}
        self.rename()

    def _go_on(self) -> None:
        self._refusal = None
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.send()

    def _fail_waiting(self, failure: Failure) -> None:
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.fail(failure)

    async def look(self) -> None:
        """Leave servers that have stepped down."""
        await asyncio.gather(*(node.look() for node in self._nodes.values()))

    async def close(self) -> None:
        """Close all lanes."""
        self.closed = True
        if (refreshing := self._refreshing) is not None:
            refreshing.cancel()
            await asyncio.wait([refreshing])
        self._waiting += self._fresh
        self._fail_waiting(partial(CacheClosed, "the cache was closed"))
        nodes = (*self._nodes.values(), *self._guests.values())
        await asyncio.gather(*self._leaving, *(node.close() for node in nodes))


def _seen(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()
