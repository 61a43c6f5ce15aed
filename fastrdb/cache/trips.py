"""What is asked of several nodes of a cluster at once, and again of others where the map has changed."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from typing import Any, Final, Generic, TypeVar, cast

from redis import exceptions as redis_errors

from fastrdb.errors import CacheError, CacheFull

from .lane import Lane, copied
from .nodes import Node, Nodes
from .protocol import Cell
from .requests import answered
from .routed import AskingCall, Unsent
from .store import Command, Found, Get, Reply, keys_of
from .wire import Failure, fail, unavailable

T = TypeVar("T")

_PAUSE_S: Final = 0.02  # before a command whose two keys are just being moved is tried again
_AT_ONCE: Final = 3  # times that nodes may point to each other before that


class Trip(ABC, Generic[T]):
    """Something that goes to some nodes in parts, and ends when all have answered.

    Attributes:
        future: What came of it. Cancelling it stops nothing.
    """

    def __init__(self, nodes: Nodes, bulk: bool) -> None:
        self._nodes, self._bulk = nodes, bulk
        self._until = nodes.loop.time() + nodes.timeout_s
        self._open = self._turns = 0
        self._strays = False  # a node pointed to one that is not on the map
        self.future: asyncio.Future[T] = nodes.loop.create_future()

    def start(self) -> asyncio.Future[T]:
        """Send it now, or as soon as the map is known."""
        self._go()
        return self.future

    def _go(self) -> None:
        if self._nodes.ready and not self._nodes.closed:
            self.send()
        else:
            self._nodes.wait(self)

    @abstractmethod
    def send(self) -> None:
        """Send what is left to do, each part to the node that has its keys."""

    @abstractmethod
    def _arrived(self) -> None:
        """All parts are answered."""

    def fail(self, failure: Failure) -> None:
        """End in failure."""
        fail(self.future, failure)

    def _await(self, parts: Sequence[asyncio.Future[Any]]) -> None:
        self._open = len(parts)
        for part in parts:
            part.add_done_callback(self._answered)

    def _answered(self, _: object) -> None:
        self._open -= 1
        if not self._open and not self.future.done():
            self._arrived()

    def _redirect(self, error: Exception) -> bool:
        """Note what an error says of the map; tell whether what got it may be sent again."""
        if isinstance(error, redis_errors.MovedError):
            self._strays |= not self._nodes.move(error.slot_id, error.node_addr)
            return True
        return isinstance(error, redis_errors.TryAgainError)

    def _again(self, error: Exception) -> None:
        """Send what is left once more, if there is time."""
        nodes = self._nodes
        if nodes.loop.time() >= self._until:
            self.fail(partial(unavailable, error))
            return
        self._turns += 1
        if self._strays:
            self._strays = False
            nodes.wait(self)
        elif isinstance(error, redis_errors.TryAgainError) or self._turns > _AT_ONCE:
            nodes.loop.call_later(_PAUSE_S, self._resend)
        else:
            self._resend()

    def _give_up(self, error: Exception) -> None:
        self._nodes.refresh()
        self.fail(partial(unavailable, error))

    def _resend(self) -> None:
        if not self.future.done():
            self._go()

    def _lane(self, node: Node) -> Lane:
        return node.bulk if self._bulk else node.small


class ReadTrip(Trip[Found]):
    """One read: an entry from its node, tokens from theirs, shared with others who read them in this turn."""

    def __init__(self, nodes: Nodes, bulk: bool, entry: bytes, tokens: tuple[bytes, ...]) -> None:
        super().__init__(nodes, bulk)
        self._entry, self._tokens = entry, tokens
        self._parts: list[tuple[tuple[bytes, ...], asyncio.Future[Found]]] = []
        self._epoch = b""

    def send(self) -> None:
        """Ask each node for the keys that it has."""
        nodes, entry = self._nodes, self._entry
        self._epoch = nodes.epoch
        try:
            home, places = nodes.owner(entry), nodes.places(self._tokens)
        except CacheError as error:
            self.fail(partial(copied, error))
            return
        beside = places.get(home, ())
        self._parts = [((entry, *beside), self._lane(home).read(entry, beside))]
        self._parts += [(keys, self._shared(node, keys)) for node, keys in places.items() if node is not home]
        self._await([part for _, part in self._parts])

    def _shared(self, node: Node, keys: tuple[bytes, ...]) -> asyncio.Future[Found]:
        lane = self._lane(node)
        shared = lane.shared
        found = shared.get(keys)
        if found is None:
            found = lane.read(keys[0], keys[1:])
            if lane.shared is shared:  # else it has failed, or was sent, already: nobody who comes later may share it
                shared[keys] = found
        return found

    def _arrived(self) -> None:
        cells: dict[bytes, Cell] = {}
        for keys, part in self._parts:
            if (error := part.exception()) is not None:
                self._misled(error)
                return
            first, rest = part.result()
            cells.update(zip(keys, (first, *rest), strict=True))
        self._found(cells)

    def _found(self, cells: dict[bytes, Cell]) -> None:
        # A node may have been replaced while others answered: the stamp of now is not that of what it said before.
        if self._nodes.epoch != self._epoch:
            self._again(redis_errors.ConnectionError("a node of the cluster was replaced"))
        else:
            self.future.set_result((cells[self._entry], tuple([cells[token] for token in self._tokens])))

    def _misled(self, error: BaseException) -> None:
        cause = error.__cause__
        if type(cause) is redis_errors.AskError:
            self._look()
        elif isinstance(cause, Exception) and self._redirect(cause):
            self._again(cause)
        else:
            self._nodes.refresh()
            self.fail(partial(copied, cast("CacheError", error)))

    def _look(self) -> None:
        """Read by commands, which may follow a slot that is being moved."""
        keys = list(dict.fromkeys((self._entry, *self._tokens)))
        reading = CallTrip(self._nodes, self._bulk, [Get(key) for key in keys]).start()

        def read(done: asyncio.Future[list[Reply]]) -> None:
            if self.future.done() or done.cancelled():
                return
            if (error := done.exception()) is not None:
                self.fail(partial(copied, cast("CacheError", error)))
            else:
                self._found(dict(zip(keys, cast("list[Cell]", done.result()), strict=True)))

        reading.add_done_callback(read)


class CallTrip(Trip[list[Reply]]):
    """Commands that each run where their keys are, in order on each node; the replies come in the order asked.

    A command that a node did not run, and said so, is sent again; one whose reply was lost is not.
    """

    def __init__(self, nodes: Nodes, bulk: bool, commands: Sequence[Command]) -> None:
        super().__init__(nodes, bulk)
        self._commands = commands
        self._replies: list[Any] = [None] * len(commands)
        self._due: Sequence[int] = range(len(commands))
        self._retried = False
        self._asked: dict[int, Node] = {}  # the node that the slot of a command is being moved to
        self._parts: list[tuple[list[int], asyncio.Future[list[Reply]]]] = []

    def send(self) -> None:
        """Send each node its commands."""
        if not self._due:
            self.future.set_result([])
            return
        grouped: dict[tuple[Node, bool], list[int]] = {}
        try:
            for at in self._due:
                asked = self._asked.get(at)
                node = asked or self._nodes.owner(keys_of(self._commands[at])[0])
                grouped.setdefault((node, asked is not None), []).append(at)
        except CacheError as error:
            self.fail(partial(copied, error))
            return
        self._asked = {}
        self._parts = []
        for (node, asking), due in grouped.items():
            commands = [self._commands[at] for at in due]
            self._parts.append((due, self._lane(node).post(commands, AskingCall if asking else None)))
        self._await([part for _, part in self._parts])

    def _arrived(self) -> None:
        left: list[int] = []
        for due, part in self._parts:
            if (failure := part.exception()) is not None:
                self._lost(failure)
                return
            for at, reply in zip(due, part.result(), strict=True):
                self._replies[at] = reply
                if not self._is_answered(at):
                    left.append(at)
        self._due = sorted(left)
        if left:
            self._follow()
        elif any(isinstance(reply, Exception) for reply in self._replies):
            self.fail(partial(CacheFull, self._replies))
        else:
            self.future.set_result(self._replies)

    def _is_answered(self, at: int) -> bool:
        return answered(self._commands[at], self._replies[at])

    def _lost(self, failure: BaseException) -> None:
        """Try anew once, if nothing that was due has run; a node may have been found again just now."""
        parts = [part.exception() for _, part in self._parts]
        if not self._retried and all(isinstance(each, Unsent | None) for each in parts):
            self._retried = True
            done = [at for due, part in self._parts if part.exception() is None for at in due]
            for due, part in self._parts:
                if part.exception() is None:
                    for at, reply in zip(due, part.result(), strict=True):
                        self._replies[at] = reply
            self._due = [at for at in self._due if at not in done or not self._is_answered(at)]
            self._nodes.wait(self, fresh=True)
        elif isinstance(failure, Unsent):
            self.fail(partial(unavailable, failure.__cause__ or failure))
        else:
            self.fail(partial(copied, cast("CacheError", failure)))

    def _go(self) -> None:
        if self._nodes.ready and not self._nodes.closed:
            self.send()
        else:
            self._nodes.wait(self, fresh=True)

    def _follow(self) -> None:
        """Go where the nodes pointed; an error that is no hint ends it all."""
        errors: list[Exception] = [self._replies[at] for at in self._due]
        for at, error in zip(self._due, errors, strict=True):
            if type(error) is redis_errors.AskError:
                self._asked[at] = self._nodes.guest(error.node_addr)
            elif not self._redirect(error):
                self._give_up(error)
                return
        self._again(next((each for each in errors if isinstance(each, redis_errors.TryAgainError)), errors[0]))
