"""What a cache leaves behind when it is closed, let go, or its event loop ends: nothing, and nobody waits for ever."""

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest

from fastrdb import Cache, CacheClosed, NearTier
from fastrdb.cache.cluster import ClusterStore
from fastrdb.cache.outbox import KeptRow, Replay
from fastrdb.cache.redis import RedisStore
from fastrdb.cache.store import Get
from fastrdb.cache.tracking import Tracking
from fastrdb.errors import CacheError
from tests.listening import listening
from tests.servers.process import free_port
from tests.servers.redis import RedisServer
from tests.world import until

LIMIT_S = 20.0


class EmptyBox:
    """An outbox in which nothing ever lies, which counts who looks."""

    def __init__(self, look_every_s: float = 0.01) -> None:
        self.look_every_s, self.looks = look_every_s, 0

    async def read(self, namespace: str, after: str) -> Sequence[KeptRow]:
        """Give nothing."""
        self.looks += 1
        return []

    async def delete(self, ids: Collection[str]) -> None:
        """Delete nothing."""


def tasks_named(name: str) -> list[asyncio.Task[Any]]:
    """The tasks of this loop that have a name of ours."""
    return [task for task in asyncio.all_tasks() if task.get_name() == name]


async def test_closing_in_the_turn_of_the_first_use(private_redis: Callable[[], RedisServer]) -> None:
    """A store that is closed before its tasks began closes its connections nevertheless, and opens no other."""
    store = RedisStore.factory_from_url(private_redis().url)()
    read = store.reader()
    first = asyncio.ensure_future(read(b"a", ()))
    await store.aclose()
    with pytest.raises(CacheClosed):
        await asyncio.wait_for(first, LIMIT_S)
    with pytest.raises(CacheClosed):
        await asyncio.wait_for(read(b"a", ()), LIMIT_S)
    assert not tasks_named("fastrdb-connect")


async def test_closing_while_the_map_is_asked_for() -> None:
    """Reads and commands that wait for the map of a cluster are told that the cache was closed."""

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def begun() -> bool:
        return bool(tasks_named("fastrdb-map"))

    async with listening(silent) as port:
        store = ClusterStore.factory_from_url(f"redis+cluster://127.0.0.1:{port}")()
        waiting = [asyncio.ensure_future(store.read(b"a", ())), asyncio.ensure_future(store.run([Get(b"a")]))]
        await until(begun)
        await store.aclose()
        for each in waiting:
            with pytest.raises(CacheClosed):
                await asyncio.wait_for(each, LIMIT_S)


@pytest.mark.parametrize("turns", [-1, 0], ids=["the end, then a read", "a read, then the end"])
async def test_closing_ends_the_search_for_a_cluster(turns: int) -> None:
    """A read in the turn in which a cluster that is away is given up does not keep the search alive."""
    store = ClusterStore.factory_from_url(f"redis+cluster://127.0.0.1:{free_port()}", timeout_s=0.5)()
    with pytest.raises(CacheError):
        await store.read(b"a", ())
    (search,), nodes = tasks_named("fastrdb-map"), store._bound
    assert nodes is not None

    async def pauses() -> bool:
        return bool(nodes._wanted._waiters) and nodes._refusal is None  # type: ignore[attr-defined]

    await until(pauses)
    closing = asyncio.create_task(store.aclose())
    if turns:
        await asyncio.sleep(0)
    read = asyncio.ensure_future(store.read(b"b", ()))
    await asyncio.wait({closing, read}, timeout=LIMIT_S)
    assert closing.done()
    assert search.done()
    with pytest.raises(CacheError):
        await read


def test_a_loop_ends_though_the_outbox_is_to_be_looked_at() -> None:
    """The task that looks into the outbox is cancelled with its loop, also where it was just told to look."""

    async def main() -> None:
        replay = Replay(EmptyBox(look_every_s=600), "", lambda: pytest.fail("nothing is to be delivered"))
        await asyncio.sleep(0.05)  # it begins to wait; one that has not is cancelled all the same
        replay.soon()

    running = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
    running.start()
    running.join(LIMIT_S)
    assert not running.is_alive()


async def test_a_cache_that_is_let_go_looks_into_no_outbox(private_redis: Callable[[], RedisServer]) -> None:
    """A cache that nobody has any more ends its looks into the outbox, as it ends its connections."""
    box = EmptyBox()
    cache = Cache.from_url(private_redis().url, outbox=box)
    await cache.store.read(b"a", ())
    assert tasks_named("fastrdb-outbox")
    gone = weakref.ref(cache)
    del cache

    async def ended() -> bool:
        gc.collect()
        return gone() is None and not tasks_named("fastrdb-outbox")

    await until(ended)


def test_a_near_tier_keeps_no_loop_alive(private_redis: Callable[[], RedisServer]) -> None:
    """A cache with a near tier that is used in one event loop after the other keeps none that has ended."""
    cache = Cache.from_url(private_redis().url, near=NearTier())

    links = list[weakref.ref[Tracking]]()

    async def use() -> None:
        assert cache.near is not None
        await cache.store.read(b"user:1", ())
        cache.near._ticket(cache.store, b"user:1")
        assert cache.near._link is not None
        links.append(weakref.ref(cache.near._link))
        await asyncio.sleep(0)

    for _ in range(6):
        asyncio.run(use())
    gc.collect()
    assert sum(link() is not None for link in links) <= 2
