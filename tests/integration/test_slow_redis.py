"""Redis that is slow, hangs up, or talks nonsense: no caller gets an error, and all answers are right."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest
from sqlalchemy import event

from fastrdb import Cache
from fastrdb.cache.redis import RedisStore
from fastrdb.cache.store import Get
from fastrdb.errors import CacheUnavailable
from fastrdb.testing.faults import Proxy
from tests.listening import gone, listening
from tests.models import UserIn, named
from tests.servers.redis import RedisServer
from tests.world import ANN, World, until

CALLERS = 64


class Line(NamedTuple):
    """A world whose cache talks through a proxy."""

    world: World
    proxy: Proxy


@pytest.fixture
async def line(pg_world: World, valkey_url: str) -> AsyncIterator[Line]:
    """Two users and 62 more, and a cache that gives Redis half a second."""
    host, _, port = valkey_url.removeprefix("redis://").partition("/")[0].partition(":")
    world = pg_world
    users = [UserIn(email=f"user{number}@x", name=f"user{number}") for number in range(CALLERS - 2)]
    await world.crud.create_multi(world.factory, None, users)
    async with Proxy.to(host, int(port)) as proxy:
        world.cache = world.another_cache_at(proxy.through(valkey_url), timeout_s=0.5)
        yield Line(world, proxy)


async def stay_slow(proxy: Proxy) -> None:
    """Everything takes 20 ms longer."""
    proxy.delay_s = 0.02


async def half_close(proxy: Proxy) -> None:
    """Nothing more will come, again and again."""
    for _ in range(5):
        proxy.half_close()
        await asyncio.sleep(0.01)


async def talk_nonsense(proxy: Proxy) -> None:
    """What comes is no protocol, for a while."""
    proxy.corrupt = lambda data: data.replace(b"\r\n", b"\n\r")
    await asyncio.sleep(0.1)
    proxy.corrupt = None


async def cut_replies(proxy: Proxy) -> None:
    """Connections end in the middle of a reply."""
    for _ in range(5):
        proxy.reply_bytes = 37
        await asyncio.sleep(0.01)
        proxy.reply_bytes = None
        await asyncio.sleep(0.01)


async def stall(proxy: Proxy) -> None:
    """Nothing comes, for longer than Redis is given."""
    proxy.stall()
    await asyncio.sleep(0.7)
    proxy.resume()


@pytest.mark.parametrize("misbehave", [stay_slow, half_close, talk_nonsense, cut_replies, stall])
async def test_whatever_redis_does_answers_are_right(line: Line, misbehave: Callable[[Proxy], Awaitable[None]]) -> None:
    """64 readers, each of one row, and a writer of it: no errors, and nobody sees less than what is written."""
    world, proxy = line
    done = asyncio.Event()
    names = dict.fromkeys(range(1, CALLERS + 1), 0)

    async def read(id: int) -> None:
        while not done.is_set():
            least = names[id]
            found = await world.crud.get(db=world.factory, redis=world.cache, id=id)
            assert found.id == id
            assert not least or int(found.name) >= least

    async def write() -> None:
        while not done.is_set():
            for id in (1, 2, 3):
                await world.crud.update(db=world.factory, redis=world.cache, obj_in=named(str(names[id] + 1)), id=id)
                names[id] += 1

    async with asyncio.TaskGroup() as group:
        for id in names:
            group.create_task(read(id))
        group.create_task(write())
        await misbehave(proxy)
        written = sum(names.values())

        async def more_is_written() -> bool:
            return sum(names.values()) > written + 3

        await until(more_is_written)
        done.set()
    proxy.delay_s = 0

    async def cached() -> bool:
        return (await world.read()).from_cache

    await until(cached)
    assert (await world.read()).name == await world.stored()


async def turns_until_sql(world: World, cache: Cache | None) -> int:
    """The turns of the loop from a read's start to when it has a connection for the statement that answers it."""
    turns, sent = 0, asyncio.Event()
    loop = asyncio.get_running_loop()
    engine = world.engine.sync_engine

    def count() -> None:
        nonlocal turns
        turns += 1
        if not sent.is_set():
            loop.call_soon(count)

    def note(*_: object) -> None:
        sent.set()

    event.listen(engine, "checkout", note)
    loop.call_soon(count)
    await world.crud.get(db=world.factory, redis=cache, id=ANN)
    event.remove(engine, "checkout", note)
    return turns


@pytest.mark.parametrize("how", ["paused", "killed"])
async def test_readers_do_not_wait_for_a_redis_that_is_away(
    pg_world: World, private_redis: Callable[[], RedisServer], how: str
) -> None:
    """Once it is known to be away, a read goes to SQL in the turn of the loop in which it would without a cache."""
    world, server = pg_world, private_redis()
    cache = world.cache = world.another_cache_at(server.url, timeout_s=0.2)
    await world.warm()
    server.pause() if how == "paused" else server.kill()
    assert (await world.read(id=ANN)).name == "Ann"
    for _ in range(30):  # through several trials, which another task makes
        assert await turns_until_sql(world, cache) <= await turns_until_sql(world, None)
        await asyncio.sleep(0.01)
    assert cache.stats.reasons["bypass: unreachable"] >= 30
    server.resume() if how == "paused" else server.restart()


async def test_a_redis_that_is_ever_slower_is_given_up(valkey_url: str) -> None:
    """Replies that keep coming, each later than the one before, do not stretch the time that Redis is given."""
    at, loop = urlsplit(valkey_url), asyncio.get_running_loop()
    began = loop.time()

    async def answer_late(there: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await there.read(65536):
            loop.call_later(max(0.0, (loop.time() - began - 0.5) / 2), writer.write, data)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(at.hostname, at.port)
        answering = asyncio.create_task(answer_late(there, writer))
        try:
            while data := await reader.read(65536):
                back.write(data)
        finally:
            answering.cancel()
            await gone(back)

    failed = asyncio.Event()

    async def ask(store: RedisStore) -> None:
        try:
            await store.run([Get(b"a")])
        except CacheUnavailable:
            failed.set()

    async with listening(serve) as port:
        store = RedisStore.factory_from_url(f"redis://127.0.0.1:{port}/0", timeout_s=0.5)()
        asking = []
        while not failed.is_set() and loop.time() < began + 20:
            asking.append(asyncio.create_task(ask(store)))
            await asyncio.sleep(0.005)
        await asyncio.gather(*asking)
        await store.aclose()
    assert failed.is_set()
