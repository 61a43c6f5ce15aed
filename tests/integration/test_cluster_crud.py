"""A Crud over a cluster, whose keys lie on different nodes: transactions, foreign keys, and the promise."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.asyncio.cluster import ClusterNode, RedisCluster

from fastrdb import Cache
from fastrdb.testing.harness import Report, Scenario, run
from fastrdb.testing.harness.__main__ import main
from fastrdb.writes.templates import table_keys
from tests.integration.test_reach import (  # noqa: F401  # the same claims, on a cluster
    test_cascades_are_followed_through_tables,
    test_cascading_delete_ages_rows_lists_and_counts,
    test_cascading_update_ages_the_rows_that_follow,
    test_other_changes_reach_nobody,
    test_set_null_ages_the_row,
)
from tests.integration.test_transactions import (  # noqa: F401
    commits,
    test_autobegun_transaction_is_not_written_through,
    test_failed_own_write_leaves_all_as_it_was,
    test_own_delete_is_seen,
    test_own_write_holds_during_commit,
    test_own_write_is_written_through,
)
from tests.models import User, UserIn, named
from tests.servers.cluster import Cluster, address, glance, role, say, wait_until
from tests.servers.redis import RedisServer
from tests.world import ANN, Read, World, opened, until


@pytest.fixture
def database_url(sqlite_url: str) -> str:
    """One kind of database will do."""
    return sqlite_url


@pytest.fixture
def valkey_url(cluster_url: str) -> str:
    """The tests above get a cluster instead of a server."""
    return cluster_url


async def test_lists_and_counts_follow_writes(world: World) -> None:
    """A second process sees each write in rows, lists and counts that it has cached."""
    crud, other = world.crud, world.another_cache()
    given: dict[str, Any] = {"db": world.factory, "redis": other, "group_id": 1}
    for _ in range(2):
        assert [user.name for user in await crud.get_multi(**given)] == ["Ann", "Bob"]
        assert await crud.count(**given) == 2
    await crud.create(db=world.factory, redis=world.cache, obj_in=UserIn(email="cat@x", name="Cat"))
    await crud.update(db=world.factory, redis=world.cache, obj_in=named("Anna"), id=ANN)
    assert [user.name for user in await crud.get_multi(**given)] == ["Anna", "Bob", "Cat"]
    assert await crud.count(**given) == 3
    assert await world.read(cache=other) == Read("Anna", from_cache=True)


async def test_a_bare_client_is_taken(world: World, cluster: Cluster) -> None:
    """A RedisCluster as ``redis`` is as good as a cache: its readers see what the writers of another one change."""
    host, port = address(cluster.masters[0]).split(":")
    async with RedisCluster(startup_nodes=[ClusterNode(host, int(port))]) as client:
        given: dict[str, Any] = {"db": world.factory, "redis": client, "id": ANN}
        assert (await world.crud.get(**given)).name == "Ann"
        await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)
        assert (await world.crud.get(**given)).name == "new"
        assert (await world.crud.explain(client, world.factory, id=ANN)).state == "hit"


@pytest.mark.parametrize("lost", ["entry", "token"])
async def test_what_a_failover_lost_is_not_served(
    sqlite_url: str, cluster: Cluster, cluster_url: str, lost: str
) -> None:
    """A replica takes over that never heard of the last write: what that write dropped is a miss, for everybody."""
    first, second = cluster.backed, cluster.replica
    async with opened(sqlite_url, cluster_url) as world:
        prefix = prefix_at(cluster, first, b"user:id:1" if lost == "entry" else None)
        writers, readers = world.another_cache(prefix=prefix), world.another_cache(prefix=prefix)
        await until(lambda: hits(world, readers))
        with replication_cut(first):
            if lost == "entry":
                await world.crud.update(db=world.factory, redis=writers, obj_in=named("new"), id=ANN)
            else:
                await world.execute("UPDATE users SET name = 'new' WHERE id = 1")
                await world.crud.invalidate(writers)
            epoch = readers.store.epoch
            say(second, "CLUSTER", "FAILOVER", "TAKEOVER")
        while readers.store.epoch == epoch:
            assert (await world.read(cache=readers)).name == "new"
        await until(lambda: hits(world, readers))
        assert await world.read(cache=readers) == Read("new", from_cache=True)


async def hits(world: World, cache: Cache) -> bool:
    """Whether Ann comes from a cache."""
    return (await world.read(cache=cache)).from_cache


def prefix_at(cluster: Cluster, server: RedisServer, entry: bytes | None) -> str:
    """Give a prefix that puts an entry, or else the users' table token, on a server, and the other one elsewhere."""
    for number in range(1_000):
        prefix = f"p{number}:"
        all_key, at_entry = table_keys(User.__table__, prefix)[1], prefix.encode() + b"user:id:1"  # type: ignore[arg-type]
        owners = [cluster.owner(key) is server for key in (at_entry, all_key)]
        if owners == [entry is not None, entry is None]:
            return prefix
    raise AssertionError("no prefix will do")


@contextmanager
def replication_cut(server: RedisServer) -> Iterator[None]:
    """Let no replica follow a server: what is written meanwhile is lost when one takes over."""
    say(server, "ACL", "SETUSER", "default", "-psync", "-sync")
    say(server, "CLIENT", "KILL", "TYPE", "replica")
    try:
        yield
    finally:
        say(server, "ACL", "SETUSER", "default", "+psync", "+sync")


# The promise.


def test_no_read_is_stale_through_failovers(postgres_url: str, cluster: Cluster, cluster_url: str) -> None:
    """A master hands over to its replica, which is killed later on: reads and writes go on, and none is stale."""
    first, second = cluster.backed, cluster.replica

    def hand_over() -> None:
        say(second, "CLUSTER", "FAILOVER")
        wait_until(lambda: role(second) == b"master" and is_fed(first))

    def kill() -> None:
        second.kill()
        wait_until(lambda: role(first) == b"master")

    steps, seen = {100: hand_over, 200: kill}, list[Report]()

    def watch(report: Report) -> None:
        for reads in [reads for reads in steps if reads <= report.reads]:
            steps.pop(reads)()
            seen.append(replace(report, writes=report.writes.copy(), cache=report.cache.copy()))

    report = run(Scenario(postgres_url, cluster_url, reads=4_500, limit_s=40, readers=2, writers=2), watch)
    assert report.stale == 0, report
    assert len(seen) == 2
    assert report.reads > seen[1].reads, report
    assert report.cache["hits"] > seen[1].cache["hits"], report
    assert report.writes.total() > seen[1].writes.total(), report


def is_fed(server: RedisServer) -> bool:
    """Whether a server is a replica that has all of its master."""
    return b"master_link_status:up" in glance(server)[-1]


def test_the_harness_takes_a_cluster(postgres_url: str, cluster_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As a command, with a cluster's URL: writers are killed, cells are evicted, and no read is stale."""
    assert main(["--postgres", postgres_url, "--redis", cluster_url, "--reads", "300", "--seconds", "120"]) == 0
    assert "0 stale" in capsys.readouterr().out
