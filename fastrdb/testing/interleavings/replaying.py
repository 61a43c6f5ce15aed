"""The same readers and writers on a real store, one step at a time: along a path, or at random.

Every reply is compared with what the commands' own decisions say; a store that differs fails at that step.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

from fastrdb.cache.protocol import ALL_PARTS, Parts, is_hold
from fastrdb.cache.store import Command, Fill, Get, OfTable, Release, Reply, Store, Unclaim

from .configurations import KEYS, Configuration
from .exploring import Event, Expire, Pure, events, start, steps
from .readers import reader_steps
from .tables import HOLDS
from .world import (
    LIFE_MS,
    NOW_MS,
    Answer,
    Look,
    Request,
    Setup,
    StaleRead,
    Step,
    World,
    holders,
    stamped_header,
)
from .writers import writer_steps

_ACCIDENTS = 0.07  # how often a walk takes any step, accidents included, instead of one that goes on
_TURNS = (0.1, 0.4, 1.0)  # how often another process gets its turn; a walk keeps to one of these


class StoreDiffers(AssertionError):
    """A real store answered something else than the command's own decision."""


class Replayed(NamedTuple):
    """What came of a path: the steps that were taken, and the stale read, if there was one."""

    steps: tuple[str, ...]
    broken: str | None


class Walked(NamedTuple):
    """What a random walk did: steps, and reads by how they ended."""

    steps: int
    hits: int
    misses: int
    bypasses: int


class Stage:
    """Readers and writers on a real store.

    Args:
        store: The store; commands go there one at a time.
        configuration: Who takes part.
        parts: The parts of the protocol, for readers, writers and commands alike.
        prefix: Leads every key. Cells that lie under it are not cleared first.
    """

    def __init__(self, store: Store, configuration: Configuration, parts: Parts, prefix: bytes) -> None:
        self.setup = Setup(configuration, parts, stamped_header)
        self.world = start(self.setup)
        self.done: list[str] = []
        self._store, self._prefix, self._pure = store, prefix, Pure()

    async def lay(self) -> None:
        """Put what the configuration finds at first into the store."""
        for key, cell in zip(KEYS, self.setup.configuration.cells, strict=True):
            if cell is not None:
                await self._run(Fill(key, b"", cell, LIFE_MS, Parts(claims=False)))

    async def take(self, step: Step) -> None:
        """Take a step. Raises ``StaleRead``, and ``StoreDiffers``."""
        self.done.append(step.label)
        asked, expected = self._pure.ask(self.world, step.request)
        found = await self._ask(step.request)
        if _plain(found) != _plain(expected):
            raise StoreDiffers(f"{step.request}: {found!r} instead of {expected!r}, after {self.done}")
        self.world, note = step.then(asked, found)
        if note:
            self.done[-1] += f": {note}"

    async def suffer(self, event: Event) -> None:
        """Let something happen to a cell."""
        self.done.append(event.label)
        if isinstance(event.what, Expire):  # its writer is not heard of again, so it may as well let go
            await self._run(Release(event.what.key, event.what.writer))
        else:
            cell = await self._run(Get(event.what.key))
            assert isinstance(cell, bytes)
            await self._run(Unclaim(event.what.key, cell))
        self.world = event.after

    async def finish(self) -> None:
        """Let all that are left go on, in turn, until none can."""
        while following := list(_plain_steps(self.setup, self.world)):
            await self.take(following[len(self.done) % len(following)])

    async def _ask(self, request: Request) -> Answer:
        if request is None:
            return None
        if isinstance(request, Look):
            tokens = tuple(self._prefix + key for key in request.tokens)
            entry, cells = await self._store.read(self._prefix + request.entry, tokens)
            return entry, *cells
        return await self._run(request)

    async def _run(self, command: Command) -> Reply:
        (reply,) = await self._store.run([self._named(command)])
        return reply

    def _named(self, command: Command) -> Command:
        prefix = self._prefix
        if isinstance(command, OfTable):
            return command._replace(any_key=prefix + command.any_key, all_key=prefix + command.all_key)
        return command._replace(key=prefix + command.key)


def _plain(answer: Answer) -> object:
    """Give an answer without what may differ: deadlines, and writers whose deadline has passed."""
    if isinstance(answer, tuple):
        return tuple(map(_plain, answer))
    if not is_hold(answer):
        return answer
    live = {name for name, until in holders(answer).items() if until > NOW_MS}
    return answer[:3] if answer else None, frozenset(live)


def _plain_steps(setup: Setup, world: World) -> Iterator[Step]:
    """Give the step of each process with which it simply goes on."""
    for i in range(len(world.readers)):
        yield from list(reader_steps(setup, world, i))[:1]
    for i in range(len(world.writers)):
        yield from writer_steps(setup, world, i)


async def replay(
    path: Sequence[str],
    store: Store,
    configuration: Configuration,
    parts: Parts = ALL_PARTS,
    *,
    prefix: bytes = b"",
) -> Replayed:
    """Take the steps of a path on a real store, then let everybody finish, and read twice more.

    Where a process is asked for a step that it is not at, since the path comes from a protocol with other parts, it
    takes its next one; what cannot happen at all is left out.

    Args:
        path: The steps, as ``explore`` tells them.
        store: The store; the cells under *prefix* must be empty.
        configuration: The one that was explored.
        parts: The parts of the protocol.
        prefix: Leads every key.

    Raises:
        StoreDiffers: A reply is not what the command's own decision says.
    """
    again = replace(configuration, reads=configuration.reads + 2)
    stage = Stage(store, again, parts, prefix)
    await stage.lay()
    try:
        for label in path:
            await _follow(stage, label.partition(": ")[0])
        await stage.finish()
    except StaleRead as stale:
        return Replayed(tuple(stage.done), str(stale))
    return Replayed(tuple(stage.done), None)


async def _follow(stage: Stage, label: str) -> None:
    for event in events(stage.setup, stage.world):
        if event.label == label:
            return await stage.suffer(event)
    for step in steps(stage.setup, stage.world):
        if step.label == label:
            return await stage.take(step)
    for step in _plain_steps(stage.setup, stage.world):
        if _actor(step.label) == _actor(label):
            return await stage.take(step)
    return None


async def walk(
    seed: int,
    least_steps: int,
    store: Store,
    parts: Parts = ALL_PARTS,
    *,
    among: Mapping[str, Configuration] = HOLDS,
) -> Walked:
    """Take random steps on a real store, in one configuration after another.

    Args:
        seed: The same seed takes the same steps.
        least_steps: Begin no other configuration after so many steps.
        store: The store; the cells under the prefix ``walk<seed>-`` must be empty.
        parts: The parts of the protocol.
        among: The configurations, by title; each is taken with more readers, reads, writers and accidents.

    Raises:
        StaleRead: With the seed, the configuration, and all its steps.
        StoreDiffers: A reply is not what the command's own decision says.
    """
    random, taken, runs = Random(seed), 0, 0
    notes: Counter[str] = Counter()
    while taken < least_steps:
        title, small = random.choice(list(among.items()))
        stage = Stage(store, _crowded(small), parts, b"walk%d-%d:" % (seed, runs))
        await stage.lay()
        try:
            await _wander(stage, random)
        except StaleRead as stale:
            raise StaleRead("\n  ".join([f"seed {seed}, {title}: {stale}, after", *stage.done])) from None
        taken, runs = taken + len(stage.done), runs + 1
        await asyncio.sleep(0)  # a store that never waits would keep the loop for itself
        notes.update(label.partition(": ")[2].split(" ")[0] for label in stage.done)
    return Walked(taken, notes["hit"], notes["misses"], notes["bypasses"])


def _crowded(small: Configuration) -> Configuration:
    """Give a configuration that is too big to be explored."""
    return replace(
        small,
        writers=small.writers * 3,
        readers=3,
        reads=8,
        crashes=small.crashes * 2,
        evictions=small.evictions * 3,
    )


async def _wander(stage: Stage, random: Random) -> None:
    """Let one process run ahead of the others, then another: fair turns would hardly ever meet a slow one."""
    ranks: dict[str, float] = {}
    turns = random.choice(_TURNS)
    while likely := list(_plain_steps(stage.setup, stage.world)):
        others: list[Step | Event] = [*steps(stage.setup, stage.world), *events(stage.setup, stage.world)]
        if random.random() < _ACCIDENTS:
            accident = random.choice(others)
            await (stage.suffer(accident) if isinstance(accident, Event) else stage.take(accident))
        else:
            step = min(likely, key=lambda step: ranks.setdefault(_actor(step.label), random.random()))
            if random.random() < turns:
                ranks[_actor(step.label)] = random.random() + 1
            await stage.take(step)


def _actor(label: str) -> str:
    return label.partition(" ")[0]
