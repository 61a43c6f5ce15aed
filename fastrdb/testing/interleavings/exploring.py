"""Every interleaving of a configuration, by breadth: the first counterexample found is one of the shortest."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

from fastrdb.cache.protocol import ALL_PARTS, Cell, Hold, Parts, is_hold, latest, parse_hold
from fastrdb.cache.store import Command, Outcome, keys_of

from .configurations import KEYS, Configuration
from .readers import reader_steps
from .world import (
    NOW_MS,
    PASSED_MS,
    Answer,
    Look,
    Reader,
    Request,
    Setup,
    StaleRead,
    Step,
    World,
    holders,
    readable_header,
    short,
    situation,
    writer_name,
)
from .writers import fates, first_steps, writer_steps

Cells: TypeAlias = tuple[Cell, ...]
Visit: TypeAlias = Callable[[Cells, Command, Cells], None]
Path: TypeAlias = tuple[str, "Path"] | None


class Result(NamedTuple):
    """What an exploration found: how many situations, and the first stale read with the steps that lead to it."""

    states: int
    broken: str | None
    path: tuple[str, ...]


class Evict(NamedTuple):
    """A cell is lost."""

    key: bytes


class Expire(NamedTuple):
    """The deadline of a writer's hold on a cell passes."""

    key: bytes
    writer: bytes


class Event(NamedTuple):
    """Something that happens to a cell without any process doing it."""

    label: str
    what: Evict | Expire
    after: World


def start(setup: Setup) -> World:
    """Give the world before anything happened."""
    configuration = setup.configuration
    return World(
        db=0,
        returned=0,
        lock=None,
        cells=configuration.cells,
        readers=(Reader(),) * configuration.readers,
        writers=tuple(first_steps(setup, plan) for plan in configuration.writers),
        evictions=configuration.evictions,
        crashes=configuration.crashes,
        names=sum(cell is not None for cell in configuration.cells),
    )


def steps(setup: Setup, world: World) -> Iterator[Step]:
    """Give what the processes may do next, and what may happen to them."""
    for i in range(len(world.readers)):
        yield from reader_steps(setup, world, i)
    for i in range(len(world.writers)):
        yield from writer_steps(setup, world, i)
        yield from fates(setup, world, i)


def events(setup: Setup, world: World) -> Iterator[Event]:
    """Give what may happen to the cells: evictions, and holds that expire."""
    configuration = setup.configuration
    for key in KEYS:
        cell = world.cell(key)
        for i in _expiring(setup, world, cell):
            name = writer_name(i)
            label = f"W{i}'s hold on {short(key)} expires"
            yield Event(label, Expire(key, name), world.put(key, expired(cell, name)))
        lost = cell is not None and (configuration.loses_holds or not is_hold(cell))
        if world.evictions and lost and key in configuration.evictable:
            after = world.put(key, None)._replace(evictions=world.evictions - 1)
            yield Event(f"{short(key)} is evicted", Evict(key), after)


def _expiring(setup: Setup, world: World, cell: Cell) -> Iterator[int]:
    """Give the writers whose deadline in the cell may pass: the dead, and those whose COMMIT outlives it."""
    for i, writer in enumerate(world.writers):
        hangs = writer.todo and writer.todo[0].verb in ("commits", "releases")
        may = writer.fate == "gone" or (setup.configuration.outlived and hangs)
        if may and holders(cell).get(writer_name(i), 0) > NOW_MS:
            yield i


def expired(cell: Cell, writer: bytes) -> Cell:
    """Give the cell after the writer's deadline has passed: it stays as it is as long as another's has not."""
    if cell is None:
        return None
    hold = parse_hold(cell)
    after = Hold(hold.shared, {**hold.writers, writer: PASSED_MS}).encode()
    return after if latest(after) > NOW_MS else None


class Pure:
    """The commands' own decisions, remembered: most situations ask the same of the same cells."""

    def __init__(self, visit: Visit | None = None) -> None:
        self._known: dict[tuple[Command, Cells], Outcome] = {}
        self._visit = visit

    def ask(self, world: World, request: Request) -> tuple[World, Answer]:
        """Give the cells and the reply after a request."""
        if request is None:
            return world, None
        if isinstance(request, Look):
            return world, (world.cell(request.entry), *map(world.cell, request.tokens))
        outcome = self._decide(request, tuple(map(world.cell, keys_of(request))))
        after = world
        for key, write in zip(keys_of(request), outcome.writes, strict=True):
            if write is not None:
                after = after.put(key, write.cell)
        if self._visit is not None:
            self._visit(world.cells, request, after.cells)
        return after, outcome.reply

    def _decide(self, command: Command, cells: Cells) -> Outcome:
        known = self._known.get((command, cells))
        if known is None:
            known = self._known[command, cells] = command.apply(cells, NOW_MS)
            _check_lives(known)
        return known


def _check_lives(outcome: Outcome) -> None:
    """A hold must lie there until its last deadline, and nothing may be written without a life."""
    for write in outcome.writes:
        if write is not None and write.cell is not None:
            least = latest(write.cell) - NOW_MS if is_hold(write.cell) else 1
            assert write.ttl_ms is not None, f"{write.cell!r} is written without a life"
            assert write.ttl_ms >= least, f"{write.cell!r} lives for {write.ttl_ms} ms only"


def explore(
    configuration: Configuration, parts: Parts = ALL_PARTS, *, visit: Visit | None = None, limit: int | None = None
) -> Result:
    """Run every interleaving of a configuration.

    Args:
        configuration: Who takes part, and what may happen.
        parts: The parts of the protocol.
        visit: Called for each command that is run, with all cells before and after it; a situation that can be
            reached in several ways runs its commands once.
        limit: Stop with ``RuntimeError`` at so many situations.

    Returns:
        The number of situations, and the first stale read, if there is one.
    """
    setup = Setup(configuration, parts, readable_header)
    pure = Pure(visit)
    first = start(setup)
    seen = {situation(first)}
    queue: deque[tuple[World, Path]] = deque([(first, None)])
    while queue:
        world, path = queue.popleft()
        for label, after in _following(setup, pure, world):
            if isinstance(after, StaleRead):
                return Result(len(seen), str(after), _told((label, path)))
            if (key := situation(after)) not in seen:
                seen.add(key)
                queue.append((after, (label, path)))
        if limit is not None and len(seen) > limit:
            raise RuntimeError(f"more than {limit:,} situations")
    return Result(len(seen), None, ())


def _following(setup: Setup, pure: Pure, world: World) -> Iterator[tuple[str, World | StaleRead]]:
    for step in steps(setup, world):
        asked, answer = pure.ask(world, step.request)
        try:
            after, note = step.then(asked, answer)
        except StaleRead as stale:
            yield step.label, stale
            return
        yield f"{step.label}: {note}" if note else step.label, after
    for event in events(setup, world):
        yield event.label, event.after


def _told(path: Path) -> tuple[str, ...]:
    labels: list[str] = []
    while path is not None:
        label, path = path
        labels.append(label)
    return tuple(reversed(labels))
