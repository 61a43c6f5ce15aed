"""How the cache gets in: TLS with a private authority, and users who may do no more than it needs."""

import asyncio
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import redis.asyncio
import trustme
from redis.asyncio.cluster import ClusterNode, RedisCluster

from fastrdb import Cache
from fastrdb.cache.cache import store_factory
from fastrdb.cache.store import Claim, Fill, HoldCell, Put, Store
from fastrdb.errors import CacheUnavailable, ServerRefused
from fastrdb.testing.stores import StoreContract
from tests.servers.cluster import Cluster, say, wait_until
from tests.servers.process import free_port
from tests.servers.redis import RedisServer

LIFE_MS = 60_000
MARK = b'"?r"'
PASSWORD = "s3cret"
PAGE = (Path(__file__).parents[2] / "docs" / "redis.md").read_text()


def documented(user: str) -> list[str]:
    """Give the rules of a user, as docs/redis.md grants them."""
    found = re.search(rf"^ACL SETUSER {user} (.*)$", PAGE, re.MULTILINE)
    assert found is not None
    return found[1].replace(">password", f">{PASSWORD}").split()


async def answers(store: Store) -> bool:
    """Put a value and read it, alone and among the large ones."""
    await store.run([Claim(b"entry", MARK, LIFE_MS), Fill(b"entry", MARK, b"value", LIFE_MS)])
    return [await store.read(b"entry", (), bulk=bulk) for bulk in (False, True)] == [(b"value", ())] * 2


# TLS.


class Authority:
    """A private certificate authority, and a server's certificate of it, in files."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        issued = authority.issue_cert("127.0.0.1")
        self.ca, self.certificate, self.key = (str(folder / name) for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(self.ca)
        issued.cert_chain_pems[0].write_to_path(self.certificate)
        issued.private_key_pem.write_to_path(self.key)

    def options(self, port: int) -> list[str]:
        """Give a server's options for TLS on a port."""
        files = ["--tls-cert-file", self.certificate, "--tls-key-file", self.key, "--tls-ca-cert-file", self.ca]
        return ["--tls-port", str(port), *files, "--tls-auth-clients", "no"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """A private certificate authority."""
    return Authority(tmp_path)


async def test_tls_with_a_private_authority(authority: Authority, private_redis: Callable[..., RedisServer]) -> None:
    """By URL and by client, the authority's file is used; without it, the server is not trusted."""
    port = free_port()
    private_redis("redis7", *authority.options(port))
    url = f"rediss://127.0.0.1:{port}"
    async with Cache.from_url(f"{url}?ssl_ca_certs={authority.ca}") as cache:
        assert await answers(cache.store)
    client = redis.asyncio.Redis(host="127.0.0.1", port=port, ssl=True, ssl_ca_certs=authority.ca)
    async with client, Cache.from_client(client) as cache:
        assert await answers(cache.store)
    async with Cache.from_url(url) as cache:
        with pytest.raises(CacheUnavailable, match="certificate"):
            await cache.store.read(b"entry", ())


async def test_tls_on_a_cluster(authority: Authority, private_redis: Callable[..., RedisServer]) -> None:
    """Nodes that a cluster names are reached by TLS, too, with the same settings."""
    port = free_port()
    clustered = ["--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--tls-cluster", "yes"]
    server = private_redis("redis7", *authority.options(port), *clustered)
    say(server, "CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
    await asyncio.to_thread(wait_until, lambda: b"cluster_state:ok" in say(server, "CLUSTER", "INFO"))
    client = RedisCluster(startup_nodes=[ClusterNode("127.0.0.1", port)], ssl=True, ssl_ca_certs=authority.ca)
    async with Cache.from_client(client) as cache:
        assert await answers(cache.store)
    async with Cache.from_url(f"rediss+cluster://127.0.0.1:{port}?ssl_ca_certs={authority.ca}") as cache:
        assert await answers(cache.store)


# Users.


async def test_a_user_with_the_documented_commands(private_redis: Callable[..., RedisServer]) -> None:
    """The commands that the docs name are enough for the whole contract."""
    server = private_redis()
    say(server, "ACL", "SETUSER", "app", *documented("app"))
    make = store_factory(server.url.replace("//", f"//app:{PASSWORD}@"), timeout_s=10)
    for check in StoreContract.checks():
        await StoreContract(make).run(check)


async def test_a_policy_that_may_not_be_seen(private_redis: Callable[..., RedisServer]) -> None:
    """Who may not call INFO is taken with ``epoch=``, whatever the eviction policy is: nobody can tell."""
    server = private_redis("valkey", "--maxmemory-policy", "volatile-ttl")
    say(server, "ACL", "SETUSER", "app", *documented("app"), "-info")
    async with Cache.from_url(server.url.replace("//", f"//app:{PASSWORD}@"), epoch="blue") as cache:
        assert await answers(cache.store)


@pytest.mark.parametrize("command", ["get", "getrange"])
async def test_who_may_not_look_takes_no_hold_for_nothing(
    private_redis: Callable[..., RedisServer], command: str
) -> None:
    """A user who lacks a command that looks at a cell is refused, and a writer's hold stays in its place."""
    server = private_redis()
    say(server, "ACL", "SETUSER", "app", *documented("app"), f"-{command}")
    async with (
        Cache.from_url(server.url) as owner,
        Cache.from_url(server.url.replace("//", f"//app:{PASSWORD}@")) as limited,
    ):
        (held,) = await owner.run([HoldCell(b"entry", b"w", LIFE_MS)])
        with pytest.raises(CacheUnavailable, match="permission"):
            await limited.run([Claim(b"entry", MARK, LIFE_MS), Put(b"entry", b"value", LIFE_MS)])
        assert await owner.store.read(b"entry", ()) == (held, ())


async def test_a_user_of_a_cluster_with_the_documented_commands(cluster: Cluster, cluster_url: str) -> None:
    """On a cluster, three more are enough."""
    for server in cluster.servers:
        say(server, "ACL", "SETUSER", "app", *documented("app"))
        say(server, "ACL", "SETUSER", "app", *documented("app")[-1:], "+cluster|slots", "+cluster|info", "+asking")
    try:
        make = store_factory(cluster_url.replace("//", f"//app:{PASSWORD}@"), timeout_s=10)
        for check in StoreContract.checks():
            await StoreContract(make).run(check)
    finally:
        for server in cluster.servers:
            say(server, "ACL", "DELUSER", "app")


async def test_a_user_who_may_not_see_the_map(cluster: Cluster, cluster_url: str) -> None:
    """A cluster's user who lacks CLUSTER SLOTS is told what to grant."""
    for server in cluster.servers:
        say(server, "ACL", "SETUSER", "narrow", *documented("app"))
    try:
        async with Cache.from_url(cluster_url.replace("//", f"//narrow:{PASSWORD}@")) as cache:
            with pytest.raises(ServerRefused, match=r"\+cluster\|slots"):
                await cache.store.read(b"entry", ())
    finally:
        for server in cluster.servers:
            say(server, "ACL", "DELUSER", "narrow")
