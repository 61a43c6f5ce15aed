"""RedisStore when connections and servers come and go: lost, hung, restarted, forked, left open."""

import asyncio
import gc
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import uvloop
from redis import exceptions as redis_errors

from fastrdb.cache.redis import RedisStore
from fastrdb.cache.store import Claim, Fill, Get, Mint
from fastrdb.errors import CacheClosed, CacheUnavailable
from fastrdb.testing.faults import Proxy
from tests.servers.redis import RedisServer, client

LIFE_MS = 60_000


def proxy_to(url: str) -> AbstractAsyncContextManager[Proxy]:
    """Stand before a test server."""
    return Proxy.to("127.0.0.1", port_of(url))


def port_of(url: str) -> int:
    """Give the port of a URL of the test servers."""
    return int(url.removeprefix("redis://127.0.0.1:").partition("/")[0])


def connection_count(url: str) -> int:
    """Count the connections that are called fastrdb."""
    with client(url) as connection:
        return sum(line["name"] == "fastrdb" for line in connection.client_list())


async def settled(condition: Callable[[], object]) -> None:
    """Wait until something has come true; fail after five seconds."""
    async with asyncio.timeout(5):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.01)


async def recovered(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a call until the store has found its server again; fail after five seconds."""
    async with asyncio.timeout(5):
        while True:
            try:
                return await attempt()
            except CacheUnavailable:
                await asyncio.sleep(0.02)


async def refused(attempt: Awaitable[Any]) -> BaseException | None:
    """Await what must fail with CacheUnavailable, and give the cause."""
    with pytest.raises(CacheUnavailable) as caught:
        await attempt
    return caught.value.__cause__


def kill_connections_meanwhile(url: str) -> None:
    """Keep the server busy, and kill the other clients' connections before it reads what they sent meanwhile."""
    with client(url) as other, other.pipeline(transaction=True) as transaction:
        transaction.eval("for _ = 1, 5e7 do end", 0)  # some 200 ms: scripts may see the time stand still
        transaction.client_kill_filter(_type="normal", skipme=True)
        transaction.execute()


# Connections that are lost


async def test_a_read_under_way_survives_a_killed_connection(redis_url: str) -> None:
    """Reads whose connection the server kills are answered over another one; a call fails: it may have run."""
    store = RedisStore.factory_from_url(redis_url)()
    await store.run([Claim(b"entry", b'"?r"', LIFE_MS), Fill(b"entry", b'"?r"', b"value", LIFE_MS)])
    killing = asyncio.create_task(asyncio.to_thread(kill_connections_meanwhile, redis_url))
    await asyncio.sleep(0.05)
    reads = [store.read(b"entry", ()) for _ in range(5)]
    call = store.post([Mint(b"token", b"a", LIFE_MS)])
    assert await asyncio.gather(*reads) == [(b"value", ())] * 5
    assert isinstance(await refused(call), (redis_errors.ConnectionError, ConnectionError))
    await killing
    assert await store.run([Get(b"token")]) == [None]
    await store.aclose()


async def test_a_read_is_tried_twice_and_no_more(valkey_url: str) -> None:
    """A read that loses its second connection, too, fails with the cause."""
    async with proxy_to(valkey_url) as proxy:
        store = RedisStore.factory_from_url(f"redis://127.0.0.1:{proxy.port}")()
        await store.read(b"entry", ())
        proxy.cut_at = b"MGET"
        cause = await refused(store.read(b"entry", ()))
        assert isinstance(cause, (redis_errors.ConnectionError, ConnectionError))
        assert proxy.accepted == 2
        proxy.cut_at = None
        assert await store.read(b"entry", ()) == (None, ())
        await store.aclose()


async def test_a_call_is_never_sent_twice(valkey_url: str) -> None:
    """A call whose connection is lost fails, and is not tried again; the next one goes over a new connection."""
    async with proxy_to(valkey_url) as proxy:
        store = RedisStore.factory_from_url(f"redis://127.0.0.1:{proxy.port}")()
        await store.read(b"entry", ())
        proxy.cut_at = b"EVALSHA"
        await refused(store.run([Mint(b"token", b"a", LIFE_MS)]))
        proxy.cut_at = None
        assert await store.run([Get(b"token")]) == [None]
        assert proxy.accepted == 2
        await store.aclose()


async def test_a_handshake_may_be_cut(valkey_url: str) -> None:
    """A connection that is closed during its handshake counts as a failed attempt."""
    for command in (b"SETINFO", b"INFO"):
        async with proxy_to(valkey_url) as proxy:
            proxy.cut_at = command
            store = RedisStore.factory_from_url(f"redis://127.0.0.1:{proxy.port}")()
            assert isinstance(await refused(store.read(b"x", ())), Exception)
            proxy.cut_at = None
            assert await recovered(lambda store=store: store.read(b"x", ())) == (None, ())
            await store.aclose()


async def test_many_callers_open_one_connection(valkey_url: str) -> None:
    """Whoever comes while a connection is being opened waits for it; each lane has one."""
    async with proxy_to(valkey_url) as proxy:
        store = RedisStore.factory_from_url(f"redis://127.0.0.1:{proxy.port}")()
        reads = [store.read(b"x", ()) for _ in range(20)]
        posts = [store.post([Mint(b"x", b"a", LIFE_MS)]) for _ in range(20)]
        bulk = [store.read(b"x", (), bulk=True) for _ in range(20)]
        await asyncio.gather(*reads, *posts, *bulk)
        assert proxy.accepted == 2
        await store.aclose()


async def test_cancelling_who_opens_the_connection_harms_no_other(valkey_url: str) -> None:
    """The caller that came first gives up while the connection is being opened; the others are answered."""
    store = RedisStore.factory_from_url(valkey_url)()
    first, second = (asyncio.ensure_future(store.read(b"x", ())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == (None, ())
    await store.aclose()


async def test_a_server_that_cannot_be_reached_is_left_alone_for_a_while(valkey_url: str) -> None:
    """After a failed attempt callers are refused without one, for 50 ms and then longer, 1 s at most."""
    async with proxy_to(valkey_url) as proxy:
        proxy.cut_at = b"SETINFO"
        store = RedisStore.factory_from_url(f"redis://127.0.0.1:{proxy.port}")()
        for _ in range(60):
            await refused(store.read(b"x", ()))
            await asyncio.sleep(0.01)
        assert 3 <= proxy.accepted <= 5, "at about 0, 50, 150, 350 ms"
        proxy.cut_at = None
        assert await recovered(lambda: store.read(b"x", ())) == (None, ())
        await store.aclose()


# Servers that hang and restart


async def test_a_hanging_server_is_given_up_in_time(private_redis: Callable[..., RedisServer]) -> None:
    """Reads and calls to a paused server fail within the timeout, and get no late replies when it goes on."""
    server = private_redis()
    store = RedisStore.factory_from_url(server.url, timeout_s=0.3)()
    await store.run([Mint(b"a", b"in a", LIFE_MS), Mint(b"b", b"in b", LIFE_MS)])
    server.pause()
    started = time.monotonic()
    results = await asyncio.gather(
        store.read(b"a", ()), store.run([Get(b"a")]), store.read(b"a", (), bulk=True), return_exceptions=True
    )
    assert 0.25 < time.monotonic() - started < 0.6
    assert {type(result) for result in results} == {CacheUnavailable}
    assert {type(result.__cause__) for result in results} == {redis_errors.TimeoutError}
    server.resume()
    assert await recovered(lambda: store.read(b"b", ())) == (b"in b", ())
    assert await store.run([Get(b"b")]) == [b"in b"]
    await store.aclose()


async def test_connecting_to_a_hanging_server_ends_in_time(private_redis: Callable[..., RedisServer]) -> None:
    """The whole of connecting takes one timeout at most, and whoever came meanwhile waits no longer than his."""
    server = private_redis()
    server.pause()
    store = RedisStore.factory_from_url(server.url, timeout_s=0.3)()
    started = time.monotonic()
    first = store.read(b"x", ())
    await asyncio.sleep(0.1)
    second = store.run([Get(b"x")])
    for attempt in (first, second):
        assert isinstance(await refused(attempt), redis_errors.TimeoutError)
    assert time.monotonic() - started < 0.5
    server.resume()
    await store.aclose()


async def test_a_restarted_server_is_another_epoch(private_redis: Callable[..., RedisServer]) -> None:
    """After a restart the store finds the server again, whose run has another name."""
    server = private_redis()
    store = RedisStore.factory_from_url(server.url)()
    await store.run([Mint(b"token", b"a", LIFE_MS)])
    before = store.epoch
    await asyncio.to_thread(server.restart)
    assert await recovered(lambda: store.read(b"token", ())) == (None, ())
    assert store.epoch not in (before, b"")
    assert await store.run([Mint(b"token", b"b", LIFE_MS)]) == [b"b"]
    await store.aclose()


async def test_both_lanes_speak_to_one_server(private_redis: Callable[..., RedisServer]) -> None:
    """When one lane reaches another server than before, the other lane leaves the old one."""
    old, new = private_redis(), private_redis()
    async with proxy_to(old.url) as proxy:
        store = RedisStore.factory_from_url(f"redis://127.0.0.1:{proxy.port}")()
        await store.run([Mint(b"token", b"old", LIFE_MS)])
        before = store.epoch
        proxy.target = "127.0.0.1", port_of(new.url)
        assert await store.read(b"token", (), bulk=True) == (None, ())
        assert store.epoch != before
        assert await store.read(b"token", ()) == (None, ())
        await settled(lambda: connection_count(old.url) == 0)
        assert connection_count(new.url) == 2
        await store.aclose()


@pytest.mark.may_block("the point of the test")
@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_blocked_loop_does_not_blame_the_server(
    valkey_url: str, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    """A reply that came in time is taken, though the event loop was blocked for longer than the timeout."""

    async def block() -> None:
        store = RedisStore.factory_from_url(valkey_url, timeout_s=0.2)()
        await store.read(b"x", ())  # connects, which may take its time
        for _ in range(3):
            read = store.read(b"x", ())
            await asyncio.sleep(0)
            time.sleep(0.4)  # noqa: ASYNC251
            assert await read == (None, ())
        await store.aclose()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(block())


async def test_an_answered_call_causes_no_timeout(valkey_url: str) -> None:
    """The timer of a call that was answered looks at later ones, and at nothing when there are none."""
    store = RedisStore.factory_from_url(valkey_url, timeout_s=0.1)()
    for _ in range(4):
        assert await store.read(b"x", ()) == (None, ())
        await asyncio.sleep(0.07)
    assert connection_count(valkey_url) == 1
    await store.aclose()


# Event loops and processes


def test_a_store_may_be_used_in_one_loop_after_another(valkey_url: str) -> None:
    """A store that was left open works in the next event loop, and the first loop's connections are closed."""
    store = RedisStore.factory_from_url(valkey_url)()

    async def once() -> bytes:
        await store.run([Mint(b"token", b"a", LIFE_MS)])
        await store.read(b"token", (), bulk=True)
        assert await asyncio.to_thread(connection_count, valkey_url) == 2
        return store.epoch

    assert asyncio.run(once()) == asyncio.run(once())
    gc.collect()  # an unclosed transport would warn, and warnings are errors
    assert connection_count(valkey_url) == 0


async def test_a_store_belongs_to_one_loop(valkey_url: str) -> None:
    """A second event loop, while the first is open, is told to build a store of its own."""
    store = RedisStore.factory_from_url(valkey_url)()
    await store.read(b"x", ())

    async def other() -> None:
        with pytest.raises(CacheClosed, match="another event loop"):
            await store.read(b"x", ())

    await asyncio.to_thread(asyncio.run, other())
    assert await store.read(b"x", ()) == (None, ())
    await store.aclose()


async def test_a_forgotten_store_closes_its_connections(valkey_url: str) -> None:
    """A store that nobody has any more leaves no connections behind."""
    store = RedisStore.factory_from_url(valkey_url)()
    await asyncio.gather(store.read(b"x", ()), store.read(b"x", (), bulk=True))
    assert await asyncio.to_thread(connection_count, valkey_url) == 2
    del store
    gc.collect()
    await settled(lambda: connection_count(valkey_url) == 0)


async def test_who_waits_while_the_store_is_closed_is_told(valkey_url: str) -> None:
    """Closing ends what is under way, and what waits for a connection, with CacheClosed."""
    store = RedisStore.factory_from_url(valkey_url)()
    connecting = [store.read(b"x", (), bulk=True), store.post([Get(b"x")], bulk=True)]
    await store.read(b"x", ())
    with client(valkey_url) as other:
        other.client_pause(100)
    waiting = [store.read(b"x", ()), store.post([Get(b"x")]), *connecting]
    await asyncio.sleep(0.01)
    late = store.read(b"x", ())
    await store.aclose()
    results = await asyncio.gather(*waiting, late, return_exceptions=True)
    assert {type(result) for result in results if isinstance(result, Exception)} == {CacheClosed}
    assert sum(isinstance(result, CacheClosed) for result in results) >= 3


FORKING = """
import asyncio, os, sys
from fastrdb.cache.redis import RedisStore
from fastrdb.cache.store import Mint

store = RedisStore.factory_from_url(sys.argv[1])()

async def mint(value):
    replies = await asyncio.gather(*[store.run([Mint(b"token", value, 60_000)]) for _ in range(20)])
    found = await store.read(b"token", (), bulk=True)
    assert {reply[0] for reply in replies} == {found[0]} == {b"parent"}, (replies, found)

def child_in_a_new_loop():
    asyncio.run(mint(b"child"))

def child_in_the_same_loop():
    loop.run_until_complete(mint(b"child"))

loop = asyncio.new_event_loop()
loop.run_until_complete(mint(b"parent"))
for child in (child_in_a_new_loop, child_in_the_same_loop):
    if (pid := os.fork()) == 0:
        child()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    loop.run_until_complete(mint(b"again"))
loop.run_until_complete(store.aclose())
loop.close()
"""


def test_a_forked_process_opens_its_own_connections(valkey_url: str) -> None:
    """Parent and child go on after a fork, in a new event loop or the inherited one, without mixing up replies."""
    command = [sys.executable, "-W", "error", "-c", FORKING, valkey_url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


async def read_once(url: str) -> None:
    """Use a cache that nobody has any more afterwards."""
    store = RedisStore.factory_from_url(url, timeout_s=10)()
    assert await store.read(b"nothing", ()) == (None, ())


@pytest.mark.parametrize("turns", range(6))
def test_a_cache_and_its_loop_may_end_together(turns: int, valkey_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cache that nobody has any more closes its connections, even when the loop ends in the middle of that."""
    complaints: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", complaints.append)
    with asyncio.Runner() as runner:
        runner.run(read_once(valkey_url))
        for _ in range(turns):
            runner.get_loop().call_soon(runner.get_loop().stop)
            runner.get_loop().run_forever()  # one turn
    gc.collect()
    assert complaints == []


@pytest.mark.may_block
async def test_a_server_that_died_is_not_written_to_again(
    private_redis: Callable[[], RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """Commands of the turn in which a connection proves lost fail together, and asyncio logs nothing of its own."""
    server = private_redis()
    store = RedisStore.factory_from_url(server.url)()
    await store.run([Get(b"x")])
    server.kill()
    posted = [asyncio.ensure_future(store.post([Get(b"x")])) for _ in range(20)]
    for reply in posted:
        with pytest.raises(CacheUnavailable):
            await reply
    assert [record for record in caplog.records if record.name == "asyncio"] == []
    await store.aclose()
