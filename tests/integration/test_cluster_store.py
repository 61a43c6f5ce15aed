"""ClusterStore: clients and URLs, slots that move, nodes that are lost and replaced."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from redis import exceptions as redis_errors
from redis.asyncio.cluster import ClusterNode, LoadBalancingStrategy, RedisCluster

from fastrdb import Cache
from fastrdb.cache.cluster import ClusterStore
from fastrdb.cache.store import Claim, Fill, Get, HoldTable, Mint, Release
from fastrdb.cache.topology import slot_of
from fastrdb.errors import CacheUnavailable, ConfigurationError, RedisRefused, ServerRefused
from tests.servers.cluster import Cluster, address, name_of, say
from tests.servers.redis import RedisServer, client, commandstats
from tests.world import until

LIFE_MS = 60_000
KEYS = tuple(b"key:%d" % number for number in range(30))  # of all nodes
MARK = b'"?r"'


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[ClusterStore]:
    """Give a store until the end of the block."""
    store = ClusterStore.factory_from_url(url, **options)()
    try:
        yield store
    finally:
        await store.aclose()


async def put(store: ClusterStore, *keys: bytes) -> None:
    """Put its own name under each key."""
    await store.run([command for key in keys for command in (Claim(key, MARK, LIFE_MS), Fill(key, MARK, key, LIFE_MS))])


async def recovered(attempt: Callable[[], Awaitable[Any]]) -> Any:
    """Repeat a call until the store has found its nodes again."""
    found: list[Any] = []

    async def tried() -> bool:
        try:
            found.append(await attempt())
        except CacheUnavailable:
            return False
        return True

    await until(tried)
    return found[-1]


def another(cluster: Cluster, server: RedisServer) -> RedisServer:
    """Give a master that is not this one."""
    return next(each for each in cluster.masters if each is not server)


# What is sent where.


async def test_one_read_asks_each_node_once(cluster: Cluster, cluster_url: str) -> None:
    """Reads of one turn are one write to each node, whatever they ask for: each key is asked for once."""
    async with opened(cluster_url) as store:
        await put(store, *KEYS)
        before = [commandstats(server.url) for server in cluster.servers]
        scopes = [KEYS[:6], KEYS[3:9]]
        asked = range(24)  # fewer than are sent before the turn is over
        found = await asyncio.gather(*[store.read(KEYS[at], scopes[at % 2]) for at in asked])
        assert found == [(KEYS[at], scopes[at % 2]) for at in asked]
        after = [commandstats(server.url) for server in cluster.servers]
        counts = [now.get("mget", 0) - then.get("mget", 0) for now, then in zip(after, before, strict=True)]
        assert sum(counts) == len(asked)


async def test_replies_come_in_the_order_asked(cluster_url: str) -> None:
    """Commands for all nodes are answered in their own order."""
    async with opened(cluster_url) as store:
        await put(store, *KEYS)
        assert await store.run([Get(key) for key in KEYS]) == list(KEYS)
        assert await store.run([Get(key) for key in reversed(KEYS)], bulk=True) == list(reversed(KEYS))


async def test_first_use_is_in_order(cluster_url: str) -> None:
    """What is enqueued before the map is known runs in the order it came."""
    async with opened(cluster_url) as store:
        posted = store.post([Claim(KEYS[0], MARK, LIFE_MS), Fill(KEYS[0], MARK, b"value", LIFE_MS)])
        assert await store.read(KEYS[0], ()) == (b"value", ())
        assert await posted == [MARK, b"value"]


async def test_scripts_may_be_forgotten(cluster: Cluster, cluster_url: str) -> None:
    """After SCRIPT FLUSH on one node, its commands run all the same, once."""
    async with opened(cluster_url) as store:
        await put(store, *KEYS)
        with client(cluster.owner(KEYS[0]).url) as other:
            other.script_flush()
        tokens = [Mint(b"token" + key, key, LIFE_MS) for key in KEYS]
        assert await store.run(tokens) == list(KEYS)


async def test_foreign_kinds_of_keys_read_as_nothing(cluster: Cluster, cluster_url: str) -> None:
    """A list in the place of an entry is no error."""
    with client(cluster.owner(b"entry").url) as other:
        other.lpush("entry", "x")
    async with opened(cluster_url) as store:
        assert await store.read(b"entry", KEYS[:3]) == (None, (None, None, None))


# Who is accepted.


async def test_clients_of_every_kind(cluster: Cluster, cluster_url: str) -> None:
    """Decoding or not, by any RESP version, used before or not: the settings are used, and closing closes nothing."""
    host, port = address(cluster.masters[0]).split(":")
    kinds: list[dict[str, Any]] = [{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 2}]
    for settings in kinds:
        owner = RedisCluster(startup_nodes=[ClusterNode(host, int(port))], **settings)
        cache = Cache.from_client(owner)
        await put(cache.store, *KEYS)  # type: ignore[arg-type]
        await owner.initialize()
        await owner.aclose()
        assert await cache.store.read(KEYS[0], KEYS[1:4]) == (KEYS[0], KEYS[1:4])
        await cache.aclose()


def test_clients_that_read_from_replicas_are_refused() -> None:
    """A replica may lag: a client that reads there cannot be meant for the cache."""
    with pytest.raises(RedisRefused, match="replicas"):
        Cache.from_client(RedisCluster("127.0.0.1", 1, load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN))


@pytest.mark.parametrize("url", ["redis+cluster://h:1/3", "redis+cluster://h:x", "rediscluster://h"])
def test_wrong_urls_are_refused(url: str) -> None:
    """A cluster has no databases, and its nodes have ports that are numbers."""
    with pytest.raises(ConfigurationError, match=r"redis\+cluster://"):
        Cache.from_url(url)


async def test_who_is_no_cluster_says_so(valkey_url: str) -> None:
    """A single server under a cluster's URL is refused, with the URL it needs."""
    async with opened(valkey_url.replace("redis://", "redis+cluster://")) as store:
        with pytest.raises(ServerRefused, match="redis://"):
            await store.read(b"x", ())


async def test_nobody_there_is_unavailable() -> None:
    """A cluster of which no node answers raises CacheUnavailable, also to who asks again at once."""
    async with opened("redis+cluster://app:s3cret@127.0.0.1:1,127.0.0.1:2", timeout_s=0.5) as store:
        for attempt in (store.read(b"x", KEYS), store.run([Get(b"x")]), store.read(b"x", ())):
            with pytest.raises(CacheUnavailable) as caught:
                await attempt
            assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r} {store!r}"


# Slots that move.


async def test_a_slot_that_moved_is_followed(cluster: Cluster, cluster_url: str) -> None:
    """After a slot was moved, reads and commands find its keys at the new node; the epoch is the same."""
    async with opened(cluster_url) as store:
        await put(store, *KEYS)
        epoch = store.epoch
        for key in KEYS[:2]:
            move(cluster, key, finish=True)
        assert await store.read(KEYS[0], KEYS[1:5]) == (KEYS[0], KEYS[1:5])
        move(cluster, KEYS[3], finish=True)
        assert await store.run([Get(key) for key in KEYS]) == list(KEYS)
        assert store.epoch == epoch


async def test_a_slot_on_the_move_is_asked_for(cluster: Cluster, cluster_url: str) -> None:
    """While a slot is being moved, what has gone is read and written at the new node, what has not at the old one."""
    left, gone = b"{tag}:left", b"{tag}:gone"
    async with opened(cluster_url) as store:
        await put(store, left, gone, *KEYS)
        finish = move(cluster, gone)
        assert await store.read(gone, (left, *KEYS[:3])) == (gone, (left, *KEYS[:3]))
        replies = await store.run([Get(left), Release(gone, b"w"), Get(gone), Mint(b"{tag}:new", b"new", LIFE_MS)])
        assert replies == [left, None, None, b"new"]
        finish()
        assert await store.run([Get(left), Get(gone), Get(b"{tag}:new")]) == [left, None, b"new"]


async def test_a_table_on_the_move_is_tried_again(cluster: Cluster, cluster_url: str) -> None:
    """A command whose two keys are at different nodes just then waits for the move, but not for ever."""
    any_key, all_key = b"fastrdb:{t}:any", b"fastrdb:{t}:all"
    async with opened(cluster_url, timeout_s=0.4) as store:
        held = HoldTable(any_key, all_key, b"w", LIFE_MS, (), b"fresh", LIFE_MS)
        await store.run([Mint(all_key, b"token", LIFE_MS)])
        finish = move(cluster, any_key)
        with pytest.raises(CacheUnavailable) as caught:
            await store.run([held])
        assert isinstance(caught.value.__cause__, redis_errors.TryAgainError)
        waiting = store.post([held])
        finish()
        ((_, all_cell),) = await waiting  # type: ignore[misc]
        assert all_cell == b"token"


def move(cluster: Cluster, key: bytes, *, finish: bool = False) -> Callable[[], None]:
    """Begin to move a key's slot to another master: this key is there already. The rest follows when told."""
    source = cluster.owner(key)
    target, slot = another(cluster, source), slot_of(key)
    say(target, "CLUSTER", "SETSLOT", slot, "IMPORTING", name_of(source))
    say(source, "CLUSTER", "SETSLOT", slot, "MIGRATING", name_of(target))
    migrate(source, target, key)

    def rest() -> None:
        for each in say(source, "CLUSTER", "GETKEYSINSLOT", slot, 100):
            migrate(source, target, each)
        for server in (target, source, *cluster.masters):
            say(server, "CLUSTER", "SETSLOT", slot, "NODE", name_of(target))

    if finish:
        rest()
    return rest


def migrate(source: RedisServer, target: RedisServer, key: bytes) -> None:
    """Move one key."""
    host, port = address(target).split(":")
    say(source, "MIGRATE", host, port, key, 0, 5_000)


# Nodes that are lost.


async def test_lost_connections_are_opened_again(cluster: Cluster, cluster_url: str) -> None:
    """When each node closes all connections, reads and commands go on; nobody was replaced."""
    async with opened(cluster_url) as store:
        await put(store, *KEYS)
        epoch = store.epoch
        for server in cluster.masters:
            with client(server.url) as other:
                other.client_kill_filter(_type="normal", skipme=True)
        assert await recovered(lambda: store.read(KEYS[0], KEYS[1:])) == (KEYS[0], KEYS[1:])
        assert await recovered(lambda: store.run([Get(key) for key in KEYS])) == list(KEYS)
        assert store.epoch == epoch


async def test_a_restarted_node_is_another_epoch(cluster: Cluster, cluster_url: str) -> None:
    """A master that comes back empty on its port changes the epoch, for values of all nodes."""
    lost = cluster.owner(KEYS[0])
    async with opened(cluster_url) as store:
        await put(store, *KEYS)
        epoch = store.epoch
        await asyncio.to_thread(lost.restart)
        assert await recovered(lambda: store.read(KEYS[0], ())) == (None, ())
        assert store.epoch != epoch


async def test_all_processes_name_the_same_epoch(cluster: Cluster, cluster_url: str) -> None:
    """The epoch is the same for every store, whichever node it asked first."""
    async with opened(cluster_url) as first, opened(f"redis+cluster://{address(cluster.masters[2])}") as second:
        await asyncio.gather(first.read(b"x", ()), second.read(b"x", (), bulk=True))
        assert first.epoch == second.epoch != b""


@pytest.mark.parametrize("end", ["kill", "pause"])
async def test_a_replica_that_took_over_is_found(cluster: Cluster, cluster_url: str, end: str) -> None:
    """A master is killed, or hangs: reads and writes go on at its replica, in another epoch."""
    lost, replica = cluster.backed, cluster.replica
    ours = owned(cluster, lost)
    async with opened(cluster_url, timeout_s=0.5) as store:
        await put(store, *KEYS)
        epoch = store.epoch
        await asyncio.to_thread(getattr(lost, end))
        assert await recovered(lambda: store.run([Mint(b"after" + key, key, LIFE_MS) for key in KEYS])) == list(KEYS)
        await recovered(lambda: store.read(ours[0], KEYS))
        assert store.epoch not in (epoch, b"")
        assert cluster.owner(ours[0], asked=replica) is replica


async def test_there_and_back_is_another_epoch(cluster: Cluster, cluster_url: str) -> None:
    """A master that steps down and takes over again is the same process, and yet another run: it may lack writes."""
    first, second = cluster.backed, cluster.replica
    ours = owned(cluster, first)
    epochs = []
    async with opened(cluster_url) as store:
        for successor in (second, first):
            await put(store, *KEYS)
            epochs.append(store.epoch)
            say(successor, "CLUSTER", "FAILOVER", "TAKEOVER")
            assert await recovered(lambda: store.run([Mint(b"after" + ours[0], b"x", LIFE_MS)])) == [b"x"]
            assert cluster.owner(ours[0], asked=successor) is successor
            await until(lambda: steady(store, epochs[-1]))
            await asyncio.to_thread(cluster.settle)
        assert len({*epochs, store.epoch}) == 3


async def steady(store: ClusterStore, epoch: bytes) -> bool:
    """Whether the store answers in another epoch."""
    await recovered(lambda: store.read(KEYS[0], KEYS))
    return store.epoch != epoch


async def test_the_other_nodes_serve_meanwhile(cluster: Cluster, cluster_url: str) -> None:
    """While one master is away, values on the others are served, where the cluster is told to go on without it."""
    lost = next(server for server in cluster.masters if server is not cluster.backed)
    ours = set(owned(cluster, lost))
    try:
        for server in cluster.servers:
            say(server, "CONFIG", "SET", "cluster-require-full-coverage", "no")
        async with opened(cluster_url, timeout_s=0.5) as store:
            await put(store, *KEYS)
            epoch = store.epoch
            await asyncio.to_thread(lost.kill)
            for key in KEYS:
                if key not in ours:
                    assert await store.read(key, ()) == (key, ())
            with pytest.raises(CacheUnavailable):
                await store.read(min(ours), ())
            assert store.epoch == epoch
    finally:
        for server in cluster.servers:
            if server is not lost:
                say(server, "CONFIG", "SET", "cluster-require-full-coverage", "yes")


async def test_reads_find_a_node_that_comes_back(cluster: Cluster, cluster_url: str) -> None:
    """Reads whose tokens lie on a master that was away go on when it is back, however many failed meanwhile."""
    lost = next(server for server in cluster.masters if server is not cluster.backed)
    theirs = set(owned(cluster, lost))
    here, scope = next(key for key in KEYS if key not in theirs), (min(theirs),)
    try:
        for server in cluster.servers:
            say(server, "CONFIG", "SET", "cluster-require-full-coverage", "no")
        async with opened(cluster_url, timeout_s=0.5) as store:
            await put(store, here, *scope)
            await asyncio.to_thread(lost.kill)
            with pytest.raises(CacheUnavailable):
                await store.read(here, scope)

            async def go_on_reading() -> None:
                while True:
                    with suppress(CacheUnavailable):
                        await store.read(here, scope)
                    await asyncio.sleep(0.001)

            reading = asyncio.create_task(go_on_reading())
            await asyncio.to_thread(lost.restart)
            await recovered(lambda: store.run([Get(scope[0])]))
            reading.cancel()
            assert await store.read(here, scope) == (here, (None,))
    finally:
        for server in cluster.servers:
            say(server, "CONFIG", "SET", "cluster-require-full-coverage", "yes")


async def test_tokens_that_were_read_are_read_again(cluster: Cluster, cluster_url: str) -> None:
    """A token that was read as the last of many, and so at once, is not given to a read that begins later."""
    entry = KEYS[0]
    home = cluster.owner(entry)
    token = next(key for key in KEYS if cluster.owner(key) is not home)
    beside = [b"{%s}:%d" % (token, number) for number in range(31)]  # in the token's own slot
    async with opened(cluster_url) as store:
        await put(store, entry)
        await store.run([Mint(token, b"first", LIFE_MS), *map(Get, beside)])
        *_, found = await asyncio.gather(*[store.read(key, ()) for key in beside], store.read(entry, (token,)))
        assert found == (entry, (b"first",))
        await store.run([Release(token, b"w", b"second", LIFE_MS)])
        assert await store.read(entry, (token,)) == (entry, (None,))


async def test_a_map_that_cannot_be_read_is_an_error(cluster: Cluster) -> None:
    """Whatever goes wrong while the map is drawn, those who wait for it are told, each time."""

    def remap(address: tuple[str, int]) -> tuple[str, int]:
        raise KeyError(address)

    host, port = address(cluster.masters[0]).split(":")
    store = ClusterStore([(host, int(port))], {}, timeout_s=0.5, remap=remap)
    for _ in range(2):
        for attempt in (store.read(b"a", ()), store.run([Get(b"a")])):
            with pytest.raises(CacheUnavailable):
                await asyncio.wait_for(attempt, 20)
    await store.aclose()


def owned(cluster: Cluster, server: RedisServer) -> list[bytes]:
    """Give those of KEYS that a server has."""
    return [key for key in KEYS if cluster.owner(key) is server]
