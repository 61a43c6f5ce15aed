"""RedisStore on real servers: clients of every kind, shared round trips, server settings, error replies."""

import asyncio
import gc
import socket
import weakref
from collections.abc import Awaitable, Callable
from contextlib import closing
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
import redis.asyncio
from redis import exceptions as redis_errors

from fastrdb.cache.redis import RedisStore
from fastrdb.cache.store import Claim, Fill, Get, HoldCell, HoldTable, Life, ListTemplates, Mint, Release
from fastrdb.errors import CacheFull, CacheUnavailable, RedisRefused, ServerRefused
from tests.servers.redis import RedisServer, client, commandstats

LIFE_MS = 60_000
PASSWORD = "s3cret/with:odd@letters"

python_parser = redis.asyncio.connection._AsyncRESP2Parser  # what redis-py takes where hiredis is missing

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "decoding": {"decode_responses": True},
    "RESP2": {"protocol": 2},
    "RESP3": {"protocol": 3},
    "RESP3 decoding": {"protocol": 3, "decode_responses": True},
    "without hiredis": {"parser_class": python_parser},
    "RESP3 without hiredis": {"protocol": 3, "parser_class": redis.asyncio.connection._AsyncRESP3Parser},
    "retrying": {"retry_on_timeout": True, "retry_on_error": [ConnectionError], "health_check_interval": 1},
    "another database": {"db": 3},
    "named": {"client_name": "orders"},
    "no timeouts": {"socket_timeout": None, "socket_connect_timeout": None},
}


def our_connections(url: str, name: str = "fastrdb") -> list[dict[str, Any]]:
    """Give the connections with a name, as the server lists them."""
    with client(url) as connection:
        return [dict(line) for line in connection.client_list() if line["name"] == name]


async def settled(condition: Callable[[], object]) -> None:
    """Wait until something has come true; fail after five seconds."""
    async with asyncio.timeout(5):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.01)


async def filled(store: RedisStore, entry: bytes = b"entry", value: bytes = b"\xff\x00value") -> bytes:
    """Put a value that is no UTF-8, and give it."""
    await store.run([Claim(entry, b'"?r"', LIFE_MS), Fill(entry, b'"?r"', value, LIFE_MS)])
    return value


@pytest.mark.parametrize("kind", KINDS)
async def test_any_client_will_do(redis_url: str, kind: str) -> None:
    """Whatever a client's settings are, its cache reads and writes bytes, and the client still works."""
    owner = redis.asyncio.Redis.from_url(redis_url.removesuffix("/0"), **KINDS[kind])
    store = RedisStore.factory_from_client(owner)()
    value = await filled(store)
    assert await store.read(b"entry", (b"token",)) == (value, (None,))
    assert await store.read(b"entry", (), bulk=True) == (value, ())
    assert await owner.exists("entry") == 1
    name = KINDS[kind].get("client_name", "fastrdb")
    assert {line["db"] for line in our_connections(redis_url, name)} == {str(KINDS[kind].get("db", 0))}
    await store.aclose()
    await owner.aclose()


async def test_connections_have_the_name_that_they_are_given(valkey_url: str) -> None:
    """What a URL says of ``client_name`` is what CLIENT LIST says of both connections."""
    store = RedisStore.factory_from_url(f"{valkey_url}?client_name=shipping")()
    await store.read(b"entry", ())
    await store.read(b"entry", (), bulk=True)
    assert len(our_connections(valkey_url, "shipping")) == 2
    await store.aclose()


async def test_closing_the_client_closes_nothing_here(valkey_url: str) -> None:
    """A store outlives the client, and the pool, that it got its settings from."""
    owner = redis.asyncio.Redis.from_url(valkey_url)
    store = RedisStore.factory_from_client(owner)()
    value = await filled(store)
    await owner.aclose()
    await owner.connection_pool.disconnect()
    del owner
    assert await store.read(b"entry", ()) == (value, ())
    assert await store.read(b"entry", (), bulk=True) == (value, ())
    await store.aclose()


async def test_the_client_is_not_kept_alive() -> None:
    """A factory holds the settings of a client, not the client: caches are forgotten with their clients."""
    owner = redis.asyncio.Redis.from_url("redis://127.0.0.1:1")
    factory = RedisStore.factory_from_client(owner)
    gone = weakref.ref(owner)
    del owner
    gc.collect()
    assert gone() is None
    assert "127.0.0.1:1/0" in repr(factory())


@pytest.mark.parametrize("wrong", [None, "redis://127.0.0.1", redis.Redis()])
def test_only_async_clients_are_taken(wrong: Any) -> None:
    """Something that is no redis.asyncio.Redis is refused, by its kind."""
    with pytest.raises(RedisRefused, match=type(wrong).__qualname__):
        RedisStore.factory_from_client(wrong)


async def test_a_unix_socket_will_do(private_redis: Callable[..., RedisServer], tmp_path: Path) -> None:
    """A server is reached through a unix socket."""
    path = tmp_path / "redis.sock"
    private_redis("valkey", "--unixsocket", str(path))
    store = RedisStore.factory_from_url(f"unix://{path}?db=2")()
    value = await filled(store)
    assert await store.read(b"entry", ()) == (value, ())
    assert repr(store) == f"<RedisStore on {path}/2>"
    await store.aclose()


# Round trips


async def test_concurrent_reads_share_round_trips(valkey_url: str) -> None:
    """2 000 reads at once need one connection, two early MGETs and one for each 256 keys; each gets its own cell."""
    store = RedisStore.factory_from_url(valkey_url)()
    count, scope = 2_000, (b"fastrdb:{t}:all", b"fastrdb:t:x:")
    await store.run([Mint(b"x:%d" % n, b"v%d" % n, LIFE_MS) for n in range(count)])
    before = commandstats(valkey_url).get("mget", 0)
    found = await asyncio.gather(*[store.read(b"x:%d" % n, scope) for n in range(count)])
    assert [cell for cell, _ in found] == [b"v%d" % n for n in range(count)]
    assert commandstats(valkey_url)["mget"] - before == 10
    assert len(our_connections(valkey_url)) == 1
    await store.aclose()


async def test_reads_under_way_share_the_next_round_trip(valkey_url: str) -> None:
    """What arrives while two MGETs are under way waits for a reply, and then shares the third."""
    store = RedisStore.factory_from_url(valkey_url)()
    await store.read(b"x", ())
    before = commandstats(valkey_url)["mget"]

    async def late(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await store.read(b"x", ())

    with client(valkey_url) as other:
        other.client_pause(50)
    await asyncio.gather(*[late(turns) for turns in range(20)])
    assert commandstats(valkey_url)["mget"] - before == 3
    await store.aclose()


async def test_equal_scopes_share_one_tuple(valkey_url: str) -> None:
    """Readers with the same scope get the same tuple of tokens: its stamp is looked up by identity."""
    store = RedisStore.factory_from_url(valkey_url)()
    scope = (b"fastrdb:{t}:all",)
    await store.run([Mint(scope[0], b"token", LIFE_MS)])
    (_, first), (_, second) = await asyncio.gather(store.read(b"a", scope), store.read(b"b", scope))
    assert first is second
    assert first == (b"token",)
    await store.aclose()


async def test_one_of_many_waiters_is_cancelled(valkey_url: str) -> None:
    """Cancelling some of the readers of a round trip that is under way harms no other, nor the next one."""
    store = RedisStore.factory_from_url(valkey_url)()
    value = await filled(store)
    with client(valkey_url) as other:
        other.client_pause(50)
    waiters = [asyncio.ensure_future(store.read(b"entry", ())) for _ in range(10)]
    call = asyncio.ensure_future(store.run([Get(b"entry")]))
    await asyncio.sleep(0.01)
    for waiter in [*waiters[::2], call]:
        waiter.cancel()
    assert await asyncio.gather(*waiters[1::2]) == [(value, ())] * 5
    assert await store.run([Life(b"nothing")]) == [b"-2"]
    assert len(our_connections(valkey_url)) == 1
    await store.aclose()


# The server's settings


async def test_another_user_than_the_default(private_redis: Callable[..., RedisServer]) -> None:
    """The client's user name and password are used, from the client or from the URL."""
    server = private_redis()
    with client(server.url) as admin:
        admin.acl_setuser("app", enabled=True, passwords=[f"+{PASSWORD}"], keys=["*"], commands=["+@all"])
    owner = redis.asyncio.Redis.from_url(server.url, username="app", password=PASSWORD)
    store = RedisStore.factory_from_client(owner)()
    await filled(store)
    assert {line["user"] for line in our_connections(server.url)} == {"app"}
    await store.aclose()


async def test_a_wrong_password_is_told_but_not_shown(
    private_redis: Callable[..., RedisServer], caplog: pytest.LogCaptureFixture
) -> None:
    """A server that refuses the credentials counts as unavailable; no message shows the password, the log says why."""
    server = private_redis()
    store = RedisStore.factory_from_url(server.url.replace("//", "//app:wr0ng@"))()
    with pytest.raises(CacheUnavailable) as caught:
        await store.read(b"entry", ())
    assert isinstance(caught.value.__cause__, redis_errors.AuthenticationError)
    assert "wr0ng" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r} {store!r}"
    assert "invalid username-password pair" in caplog.text
    assert "wr0ng" not in caplog.text
    await store.aclose()


async def test_info_may_be_forbidden(private_redis: Callable[..., RedisServer]) -> None:
    """Where INFO is not permitted, epoch= stands for the run id; without it the server is refused."""
    server = private_redis()
    with client(server.url) as admin:
        rules = ["+@all", "-info", "-client"]
        admin.acl_setuser("app", enabled=True, nopass=True, keys=["*"], commands=rules)
    url = server.url.replace("//", "//app:any@")
    refused = RedisStore.factory_from_url(url)()
    with pytest.raises(ServerRefused, match="epoch="):
        await refused.read(b"entry", ())
    await refused.aclose()
    store = RedisStore.factory_from_url(url, epoch="blue")()
    value = await filled(store)
    assert await store.read(b"entry", ()) == (value, ())
    assert store.epoch == b"blue"
    await store.aclose()


async def test_scripts_may_be_forbidden(private_redis: Callable[..., RedisServer]) -> None:
    """A user that may not load scripts is refused, with the permissions it needs."""
    server = private_redis()
    with client(server.url) as admin:
        rules = ["+@all", "-@scripting"]
        admin.acl_setuser("app", enabled=True, nopass=True, keys=["*"], commands=rules)
    store = RedisStore.factory_from_url(server.url.replace("//", "//app:any@"))()
    with pytest.raises(ServerRefused, match=r"\+@scripting"):
        await store.run([Get(b"entry")])
    await store.aclose()


async def taken(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a call until the server, which was refused, is tried again and taken; fail after ten seconds."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await attempt()
            except ServerRefused:
                await asyncio.sleep(0.02)


@pytest.mark.parametrize("flavour", ["valkey", "redis7"])
async def test_the_wrong_eviction_policy_is_refused(private_redis: Callable[..., RedisServer], flavour: str) -> None:
    """volatile-ttl evicts holds first, so it is refused; after it was changed the server is taken."""
    server = private_redis(flavour, "--maxmemory-policy", "volatile-ttl")
    store = RedisStore.factory_from_url(server.url)()
    with pytest.raises(ServerRefused, match="volatile-ttl"):
        await store.read(b"entry", ())
    with client(server.url) as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
    assert await taken(lambda: store.read(b"entry", ())) == (None, ())
    await store.aclose()


async def test_replicas_are_refused(private_redis: Callable[..., RedisServer]) -> None:
    """A replica is refused when connecting, and when a server turns into one under the connection."""
    primary, server = private_redis(), private_redis()
    store = RedisStore.factory_from_url(server.url)()
    await filled(store)
    host, port = primary.url.removeprefix("redis://").removesuffix("/0").split(":")
    with client(server.url) as admin:
        admin.replicaof(host, port)
    with pytest.raises(ServerRefused, match="replica"):
        await store.run([Mint(b"token", b"a", LIFE_MS)])
    with pytest.raises(ServerRefused, match="replica"):
        await store.read(b"entry", ())
    with client(server.url) as admin:
        admin.replicaof("NO", "ONE")
    assert await taken(lambda: store.run([Mint(b"token", b"a", LIFE_MS)])) == [b"a"]
    await store.aclose()


async def test_a_cluster_node_answers_with_errors(private_redis: Callable[..., RedisServer]) -> None:
    """An error reply fails the read or the call that got it, with its cause, and the connection stays."""
    server = private_redis("valkey", "--cluster-enabled", "yes")
    store = RedisStore.factory_from_url(server.url)()
    for attempt in (store.read(b"entry", ()), store.post([Mint(b"token", b"a", LIFE_MS)])):
        with pytest.raises(CacheUnavailable, match="Hash slot not served") as caught:
            await attempt
        assert isinstance(caught.value.__cause__, redis_errors.ResponseError)
    assert len(our_connections(server.url)) == 1
    await store.aclose()


async def test_out_of_memory_can_be_told(private_redis: Callable[..., RedisServer]) -> None:
    """A full server refuses a claim with an error that says so; reads and releases go on."""
    server = private_redis("redis7")
    store = RedisStore.factory_from_url(server.url)()
    await store.run([HoldCell(b"held", b"w1", LIFE_MS), Mint(b"token", b"a", LIFE_MS)])
    with client(server.url) as admin:
        admin.set("ballast", b"x" * 1_000_000)
        admin.config_set("maxmemory", "1mb")
    with pytest.raises(CacheFull, match="out of memory"):
        await filled(store)
    assert await store.run([Release(b"held", b"w1"), Mint(b"token", b"b", 2 * LIFE_MS)]) == [None, b"a"]
    assert await store.read(b"held", (b"token",)) == (None, (b"a",))
    assert len(our_connections(server.url)) == 1
    await store.aclose()


async def test_another_kind_of_key_is_an_error(valkey_url: str) -> None:
    """A list in the place of an entry fails the claim with its cause; reading it gives nothing."""
    store = RedisStore.factory_from_url(valkey_url)()
    with client(valkey_url) as other:
        other.rpush("entry", "item")
    assert await store.read(b"entry", ()) == (None, ())
    with pytest.raises(CacheUnavailable, match="WRONGTYPE"):
        await store.run([Get(b"entry")])
    await store.aclose()


async def test_forgotten_scripts_are_loaded_again(redis_url: str) -> None:
    """After SCRIPT FLUSH every command of a call is done, once, in its order, and the next ones are short again."""
    store = RedisStore.factory_from_url(redis_url)()
    await filled(store)
    with client(redis_url) as other:
        other.script_flush()
    table, listing = (b"{t}:any", b"{t}:all"), (b"t", LIFE_MS)
    commands = [
        Mint(b"token", b"a", LIFE_MS),
        Get(b"token"),
        HoldTable(*table, b"w1", LIFE_MS, (b"x",), *listing),
        ListTemplates(*table, (b"y",), *listing),
        HoldCell(b"entry", b"w1", LIFE_MS),
        Release(b"entry", b"w1", b"new", LIFE_MS),
        Get(b"entry"),
    ]
    first = commandstats(redis_url).get("eval", 0)
    replies = await store.run(commands)
    assert replies[:2] == [b"a", b"a"]
    assert replies[3] == b"t\nx\t\ny\tw1"
    assert replies[5:] == [b"new", b"new"]
    before = commandstats(redis_url).get("eval", 0)
    assert before - first == 5
    assert await store.run([Mint(b"token", b"b", LIFE_MS)]) == [b"a"]
    assert commandstats(redis_url)["eval"] == before
    await store.aclose()


# Nobody there, and whose context


async def test_no_server_at_all() -> None:
    """Where nobody listens, reads and calls fail at once, and do not even try for a moment after that."""
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
    store = RedisStore.factory_from_url(f"redis://127.0.0.1:{port}")()
    started = asyncio.get_running_loop().time()
    results = await asyncio.gather(*[store.read(b"x", ()) for _ in range(50)], return_exceptions=True)
    results += await asyncio.gather(store.run([Get(b"x")]), store.read(b"x", ()), return_exceptions=True)
    assert {type(result) for result in results} == {CacheUnavailable}
    assert len({id(result) for result in results}) == 52, "each waiter has an error of its own"
    assert all(isinstance(result.__cause__, redis_errors.ConnectionError) for result in results)
    assert asyncio.get_running_loop().time() - started < 0.5
    await store.aclose()


async def test_a_failure_that_nobody_awaits_is_silent() -> None:
    """A posted command that fails, and whose reply nobody wants, logs nothing and warns of nothing."""
    complaints: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    store = RedisStore.factory_from_url("redis://127.0.0.1:1")()
    store.post([Get(b"x")])
    await asyncio.sleep(0.05)
    store.post([Get(b"x")])
    await store.aclose()
    gc.collect()
    assert complaints == []


async def test_no_callers_context_is_kept(valkey_url: str) -> None:
    """The connections keep no context variable of the request that happened to open them."""

    class Tenant:
        """Something to refer to."""

    current: ContextVar[Tenant | None] = ContextVar("current")
    store = RedisStore.factory_from_url(valkey_url)()

    async def request() -> weakref.ref[Tenant]:
        current.set(tenant := Tenant())
        await store.read(b"x", ())
        await store.run([Get(b"x")])
        return weakref.ref(tenant)

    gone = await asyncio.create_task(request())
    current.set(None)  # a ContextVar remembers the value it had last
    await asyncio.sleep(0)
    gc.collect()
    assert gone() is None
    await store.aclose()
