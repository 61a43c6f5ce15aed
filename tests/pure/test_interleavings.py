"""The cache protocol under every interleaving of a few readers and writers."""

from dataclasses import fields, replace

import pytest

from fastrdb.cache.memory import MemoryStore
from fastrdb.cache.protocol import ALL_PARTS, Parts
from fastrdb.cache.store import Command, Fill, Get
from fastrdb.testing.interleavings import BREAKS, HOLDS, LIMITS, explore
from fastrdb.testing.interleavings.configurations import KEYS
from fastrdb.testing.interleavings.exploring import Cells
from fastrdb.testing.interleavings.tables import SIZES
from fastrdb.testing.interleavings.world import LIFE_MS, NOW_MS


@pytest.mark.parametrize(("readers", "reads"), SIZES)
@pytest.mark.parametrize("title", HOLDS)
def test_holds(title: str, readers: int, reads: int) -> None:
    """No read is older than what was committed, or had returned, before it began."""
    result = explore(replace(HOLDS[title], readers=readers, reads=reads))

    assert result.broken is None, "\n".join(result.path)


@pytest.mark.parametrize("title", BREAKS)
def test_breaks(title: str) -> None:
    """Without this part or rule of the protocol, a stale read is served."""
    result = explore(BREAKS[title].configuration, BREAKS[title].parts)

    assert result.broken is not None
    assert "was served version" in result.broken


@pytest.mark.parametrize("title", BREAKS)
def test_holds_with_the_part(title: str) -> None:
    """The same readers and writers are never served a stale read with the part or the rule."""
    result = explore(BREAKS[title].mended)

    assert result.broken is None, "\n".join(result.path)


@pytest.mark.parametrize("title", LIMITS)
def test_limits(title: str) -> None:
    """The windows that the documentation admits are there, until the release and no longer."""
    assert explore(LIMITS[title]).broken is not None
    assert explore(replace(LIMITS[title], fresh="return")).broken is None


def test_every_part_is_needed() -> None:
    """Each part of the protocol is switched off in one row, and nothing else with it."""
    switched_off = {break_.parts for break_ in BREAKS.values() if break_.parts != ALL_PARTS}

    assert switched_off == {Parts(**{part.name: False}) for part in fields(Parts)}


def test_explores_the_same_each_time() -> None:
    """An exploration does not depend on chance: it finds the same counterexample again."""
    break_ = BREAKS["pending templates left out by the writer"]

    assert explore(break_.configuration, break_.parts) == explore(break_.configuration, break_.parts)


@pytest.mark.may_block("it explores, and a memory store never waits")
@pytest.mark.parametrize("title", HOLDS)
async def test_memory_store_takes_every_transition(title: str) -> None:
    """From any situation, each command leaves in a memory store the cells that the exploration goes on with."""
    transitions: dict[tuple[Cells, Command], Cells] = {}

    def visit(before: Cells, command: Command, after: Cells) -> None:
        transitions[before, command] = after

    explore(HOLDS[title], visit=visit)

    assert transitions
    for (before, command), after in transitions.items():
        assert await _cells_after(before, command) == after, f"{command} on {before}"


async def _cells_after(before: Cells, command: Command) -> Cells:
    store = MemoryStore(clock=lambda: NOW_MS / 1000)
    unconditionally = Parts(claims=False)
    await store.run(
        [
            Fill(key, b"", cell, LIFE_MS, unconditionally)
            for key, cell in zip(KEYS, before, strict=True)
            if cell is not None
        ]
    )
    _, *cells = await store.run([command, *map(Get, KEYS)])
    return tuple(cell for cell in cells if not isinstance(cell, tuple))
