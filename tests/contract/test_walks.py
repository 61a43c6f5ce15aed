"""The readers and writers of the explorations on real stores, one step at a time."""

import os
from collections.abc import AsyncIterator
from random import SystemRandom

import pytest

from fastrdb.cache.memory import MemoryStore
from fastrdb.cache.protocol import ALL_PARTS, Parts
from fastrdb.cache.redis import RedisStore
from fastrdb.cache.store import Store
from fastrdb.testing.interleavings import (
    BREAKS,
    Break,
    Configuration,
    Result,
    StaleRead,
    explore,
    replay,
    walk,
)


@pytest.fixture
def seed() -> int:
    """Another one for each test, unless FASTRDB_WALK_SEED repeats one."""
    seed = int(os.environ.get("FASTRDB_WALK_SEED") or SystemRandom().randrange(1_000_000))
    print(f"FASTRDB_WALK_SEED={seed}")
    return seed


@pytest.fixture
async def redis_store(redis_url: str) -> AsyncIterator[RedisStore]:
    """A store on the server."""
    store = RedisStore.factory_from_url(redis_url, timeout_s=10)()
    yield store
    await store.aclose()


@pytest.fixture(params=BREAKS)
def break_(request: pytest.FixtureRequest) -> Break:
    """A configuration that breaks without a part of the protocol."""
    return BREAKS[request.param]


@pytest.fixture
def found(break_: Break) -> Result:
    """Its shortest way to a stale read."""
    return explore(break_.configuration, break_.parts)


async def test_counterexample_in_memory(break_: Break, found: Result) -> None:
    """A path to a stale read leads to one in memory, too, and with all parts to none."""
    await _replays(break_, found, MemoryStore())


async def test_counterexample_on_redis(redis_store: RedisStore, break_: Break, found: Result) -> None:
    """A path to a stale read leads to one on a server, too, and with all parts to none."""
    await _replays(break_, found, redis_store)


async def _replays(break_: Break, found: Result, store: Store) -> None:
    without = await replay(found.path, store, break_.configuration, break_.parts, prefix=b"without:")
    with_it = await replay(found.path, store, break_.mended, prefix=b"with:")

    assert without == (found.path, found.broken)
    assert with_it.broken is None, "\n".join(with_it.steps)
    assert len(with_it.steps) > len(found.path)


async def test_walk_in_memory(seed: int) -> None:
    """Random steps of many readers and writers on a memory store meet no stale read."""
    walked = await walk(seed, 25_000, MemoryStore())

    assert walked.hits > 300


async def test_walk_on_redis(redis_store: RedisStore, seed: int) -> None:
    """Random steps of many readers and writers on a server meet no stale read."""
    walked = await walk(seed, 10_000, redis_store)

    assert walked.hits > 100


async def test_walk_repeats_itself() -> None:
    """The same seed takes the same steps."""
    assert await walk(7, 2_000, MemoryStore()) == await walk(7, 2_000, MemoryStore())


@pytest.mark.parametrize("title", [title for title, break_ in BREAKS.items() if break_.parts != ALL_PARTS])
async def test_walk_finds_what_a_missing_part_breaks(title: str) -> None:
    """Random steps do meet a stale read where a part of the protocol is missing."""
    configuration, parts, _ = BREAKS[title]

    with pytest.raises(StaleRead, match="was served version"):
        await _walks(100, parts, {title: configuration})


async def _walks(number: int, parts: Parts, among: dict[str, Configuration]) -> None:
    for seed in range(number):
        await walk(seed, 500, MemoryStore(), parts, among=among)
