"""A Redis that is out of memory: SQL answers what it does not take, and writes keep what it has right all the same."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any

import pytest
from sqlalchemy import event, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from fastrdb import Cache, CacheFull, Outbox, outbox_table, watch
from fastrdb.cache.protocol import Hold, is_hold, parse_hold
from fastrdb.cache.store import (
    Claim,
    Command,
    Fill,
    Get,
    HoldCell,
    HoldTable,
    ListTemplates,
    Mint,
    Put,
    Release,
    ReleaseTable,
    RenewTable,
    Unclaim,
)
from fastrdb.caching import SmartCache
from tests.commits import AT_COMMIT, TRIGGER, committing
from tests.models import Base, User, UserIn, named
from tests.servers.cluster import Cluster, say
from tests.servers.fleet import FLAVOURS, Fleet
from tests.servers.redis import RedisServer, client
from tests.world import ANN, BOB, Read, World, opened, until

LIFE_MS = 60_000
LACKING = "not stored: out of memory"
ENTRY, ALL = "user:id:1", b"fastrdb:{users}:all"
MARK = b'"?r1"'
TOLD = "Redis is out of memory: what it does not take is answered from SQL, and not stored"


@pytest.fixture(params=FLAVOURS, scope="module")
def spare(request: pytest.FixtureRequest, fleet: Fleet) -> Iterator[RedisServer]:
    """A server that is only for these tests."""
    server = fleet.private_redis(request.param)
    yield server
    assert not server.forbidden_calls()
    fleet.discard(server)


@pytest.fixture
def server(spare: RedisServer) -> Iterator[RedisServer]:
    """An empty server that the test may fill up."""
    spare.clean()
    yield spare
    free(spare)


@pytest.fixture
async def world(sqlite_url: str, server: RedisServer) -> AsyncIterator[World]:
    """Two users in SQLite, and a cache."""
    async with opened(sqlite_url, server.url) as world:
        yield world


@pytest.fixture
async def pg_world(postgres_url: str, server: RedisServer) -> AsyncIterator[World]:
    """Two users in PostgreSQL, and a cache."""
    async with opened(postgres_url, server.url) as world:
        yield world


def fill_up(server: RedisServer) -> None:
    """Leave no memory."""
    with client(server.url) as admin:
        admin.config_set("maxmemory", "1")


def free(server: RedisServer) -> None:
    """Give as much memory as it wants."""
    with client(server.url) as admin:
        admin.config_set("maxmemory", "0")


def cell(server: RedisServer, key: str = ENTRY) -> bytes | None:
    """What lies under a key."""
    with client(server.url) as admin:
        found: Any = admin.get(key)
        return found


def is_well(world: World) -> bool:
    """Whether nothing was taken for a Redis that is out of reach."""
    unreachable = [reason for reason in world.cache.stats.reasons if "unreachable" in reason]
    return not unreachable and not world.cache.undelivered


# What the store answers.


async def test_what_a_full_server_refuses_is_told_one_by_one(server: RedisServer) -> None:
    """Of commands sent together only those fail that would store more, and they leave no mark and no older value."""
    async with Cache.from_url(server.url) as cache:
        before: list[Command] = [Claim(b"claimed", MARK, LIFE_MS), HoldCell(b"held", b"w1", LIFE_MS)]
        before += [Mint(b"token", b"a", LIFE_MS), Put(b"put", b"old", LIFE_MS), Put(b"aged", b"old", LIFE_MS)]
        await cache.run(before)
        fill_up(server)
        asked: list[Command] = [
            Mint(b"new", b"b", LIFE_MS),
            Mint(b"token", b"b", LIFE_MS),
            Claim(b"aged", MARK, LIFE_MS),
            Fill(b"claimed", MARK, b"value", LIFE_MS),
            Put(b"put", b"value", LIFE_MS),
            ListTemplates(b"{t}:any", b"{t}:all", (b"x",), b"t", LIFE_MS),
            Release(b"held", b"w1", b"value", LIFE_MS),
            Unclaim(b"claimed", MARK),
        ]
        with pytest.raises(CacheFull, match="6 of 8") as caught:
            await cache.run(asked)
        assert caught.value.refused == {0, 2, 3, 4, 5, 6}
        assert caught.value.replies == [None, b"a", *[None] * 6]
        keys = b"new", b"aged", b"claimed", b"put", b"{t}:all", b"held", b"token"
        assert await cache.run([Get(key) for key in keys]) == [*[None] * 6, b"a"]


async def test_a_full_server_holds_renews_and_releases(server: RedisServer) -> None:
    """What keeps old values out works without memory as it does with it."""
    async with Cache.from_url(server.url) as cache:
        await cache.store.read(b"entry", ())  # connects
        fill_up(server)
        table = b"{t}:any", b"{t}:all"
        held = await cache.run(
            [
                HoldTable(*table, b"w1", LIFE_MS, (b"x",), b"t", LIFE_MS),
                HoldCell(b"entry", b"w1", LIFE_MS),
                HoldCell(b"entry", b"w2", LIFE_MS),
                RenewTable(*table, b"w1", LIFE_MS),
                HoldCell(b"entry", b"w1", LIFE_MS, again=True),
                Release(b"entry", b"w1"),
            ]
        )
        assert isinstance(held[0], tuple)
        assert all(isinstance(each, bytes) and is_hold(each) for each in (held[0][0], *held[1:]))
        assert await cache.run([Release(b"entry", b"w2"), ReleaseTable(*table, b"w1")]) == [None, None]


async def test_a_value_that_finds_no_memory_leaves_the_hold_of_a_second_writer(server: RedisServer) -> None:
    """A writer that would write through lets go, and who holds the entry with it goes on to do so, alone."""
    async with Cache.from_url(server.url) as cache:
        await cache.run([HoldCell(b"entry", b"w1", LIFE_MS), HoldCell(b"entry", b"w2", LIFE_MS)])
        fill_up(server)
        (left,) = await cache.run([Release(b"entry", b"w1", b"value", LIFE_MS)])
        assert isinstance(left, bytes)
        assert parse_hold(left) == Hold(True, {b"w2": parse_hold(left).writers[b"w2"]})


# Reads.


async def test_reads_are_served_and_not_stored(world: World, server: RedisServer) -> None:
    """Rows, lists and counts come from SQL, each is counted under its reason, and cached when there is memory again."""
    fill_up(server)
    given: dict[str, Any] = {"db": world.factory, "redis": world.cache, "group_id": 1}
    for _ in range(2):
        assert await world.read() == Read("Ann", from_cache=False)
        assert len(await world.crud.get_multi(**given)) == 2
        assert await world.crud.count(**given) == 2
    assert world.cache.stats.snapshot() == {"hits": 0, "miss: absent": 6, LACKING: 6}
    free(server)
    await world.warm()
    assert await world.read() == Read("Ann", from_cache=True)


async def test_many_rows_are_served_and_not_stored(world: World, server: RedisServer) -> None:
    """So it is with many rows at once, and with rows that are warmed."""
    fill_up(server)
    found = await world.crud.get_by_keys(db=world.factory, redis=world.cache, keys=[ANN, BOB])
    assert [user and user.name for user in found] == ["Ann", "Bob"]
    assert world.cache.stats.snapshot() == {"hits": 0, "miss: absent": 2, LACKING: 2}
    assert (await world.crud.warm(db=world.factory, redis=world.cache)).stored == 0
    assert world.cache.stats.reasons[LACKING] == 6  # by each of their two keys
    assert is_well(world)


@pytest.mark.parametrize("many", [False, True], ids=["one", "many"])
async def test_a_fill_that_finds_no_memory_leaves_no_claim(world: World, server: RedisServer, many: bool) -> None:
    """Memory that ends during a load costs that value only; nobody waits for the one who had claimed it."""
    event.listen(world.engine.sync_engine, "before_cursor_execute", lambda *args: fill_up(server), once=True)
    if many:
        await world.crud.get_by_keys(db=world.factory, redis=world.cache, keys=[ANN, BOB])
    else:
        await world.read()
    await until(lambda: _is_counted(world, 1 + many))
    assert cell(server) is None
    await world.read(cache=world.another_cache())
    await world.read()
    assert not any("waited" in reason for reason in world.cache.stats.reasons)
    assert world.cache.stats.reasons["stored"] == 0


async def _is_counted(world: World, values: int) -> bool:
    return world.cache.stats.reasons[LACKING] == values


async def test_aged_values_give_their_memory_back(world: World, server: RedisServer) -> None:
    """A value that is found aged, and cannot be claimed, is deleted: it would lie there until its life ends."""
    await world.warm()
    await world.crud.invalidate(world.cache)
    assert cell(server) is not None
    fill_up(server)
    assert await world.read() == Read("Ann", from_cache=False)
    assert cell(server) is None


async def test_many_readers_wait_for_nothing(world: World, server: RedisServer) -> None:
    """Of a hundred at the same time each is answered, in less than anybody waits for another's load or for Redis."""
    fill_up(server)
    started = time.monotonic()
    for _ in range(5):
        assert {(await each).name for each in [asyncio.ensure_future(world.read()) for _ in range(20)]} == {"Ann"}
    assert time.monotonic() - started < 5 * 0.5
    assert is_well(world)


async def test_log_says_once_that_memory_is_lacking(
    world: World, server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Many reads and writes leave one line; Redis is not said to be away."""
    fill_up(server)
    with caplog.at_level(logging.DEBUG, "fastrdb"):
        for name in ("a", "b", "c"):
            await world.crud.update(db=world.factory, redis=world.cache, obj_in=named(name), id=ANN)
            await world.read()
    assert caplog.messages == [TOLD]


# Writes.


async def own(world: World) -> None:
    """A write that commits by itself."""
    await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)


async def joined(world: World) -> None:
    """A write in a transaction of the caller's."""
    async with world.factory() as session, session.begin():
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)


async def nested(world: World) -> None:
    """A write in a savepoint, after one that was taken back."""
    async with world.factory() as session, session.begin():
        async with session.begin_nested() as savepoint:
            await world.crud.update(db=session, redis=world.cache, obj_in=named("back"), id=BOB)
            await savepoint.rollback()
        async with session.begin_nested():
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)


async def autocommit(world: World) -> None:
    """A write that is there with its statement."""
    engine = world.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)


async def bulk(world: World) -> None:
    """A write of more rows than are held one by one."""
    users = [UserIn(email=f"{number}@x") for number in range(300)]
    async with world.factory() as session, session.begin():
        await world.crud.create_multi(db=session, redis=world.cache, instances=users)
        await world.crud.update_where(db=session, redis=world.cache, obj_in=named("new"), where=User.id == ANN)


async def watched(world: World) -> None:
    """A plain ORM write of a watched factory."""
    plain = async_sessionmaker(world.engine)
    watch(plain, world.cache, Base.metadata)
    async with plain.begin() as session:
        (await session.get_one(User, ANN)).name = "new"


Write = Callable[[World], Coroutine[Any, Any, None]]
writes = pytest.mark.parametrize("write", [own, joined, nested, autocommit, bulk, watched])


@writes
async def test_writes_hold_without_memory(pg_world: World, server: RedisServer, write: Write) -> None:
    """A full Redis holds what a write touches while it commits, nothing old is served after it, and nothing is kept."""
    other = pg_world.another_cache()
    await pg_world.warm()
    await pg_world.warm(email="ann@x")
    assert await pg_world.read(cache=other) == Read("Ann", from_cache=True)
    pg_world.cache.stats.reset()
    fill_up(server)
    during: list[bytes | None] = []

    def look(*_: object) -> None:
        during.extend(cell(server, key) for key in (ENTRY, ALL.decode()))

    name = "before_cursor_execute" if write is autocommit else "commit"
    event.listen(pg_world.engine.sync_engine, name, look)
    await write(pg_world)
    event.remove(pg_world.engine.sync_engine, name, look)
    assert any(is_hold(found) for found in during)
    for cache in (pg_world.cache, other):
        assert (await pg_world.read(cache=cache)).name == "new"
        assert (await pg_world.read(cache=cache, email="ann@x")).name == "new"
    assert is_well(pg_world)
    assert "held" not in await pg_world.state()


async def test_refusing_writes_go_on_without_memory(world: World, server: RedisServer) -> None:
    """With ``on_unreachable="refuse"`` a full Redis is no reason to refuse: it can hold."""
    refusing = world.another_cache(on_unreachable="refuse")
    await world.warm()
    fill_up(server)
    await world.crud.update(db=world.factory, redis=refusing, obj_in=named("new"), id=ANN)
    assert (await world.read()).name == "new"
    await world.crud.delete(db=world.factory, redis=refusing, id=ANN)
    assert (await world.read()).name is None


async def test_nothing_is_left_in_an_outbox_for_want_of_memory(world: World, server: RedisServer) -> None:
    """An outbox is for what Redis could not be told."""
    table = outbox_table(Base.metadata.__class__())
    async with world.outside.begin() as connection:
        await connection.run_sync(table.metadata.create_all)
    cache = world.another_cache(outbox=Outbox(table, world.factory, look_every_s=60))
    await world.warm()
    fill_up(server)
    event.listen(world.engine.sync_engine, "commit", lambda _: fill_up(server))
    await world.crud.update(db=world.factory, redis=cache, obj_in=named("new"), id=ANN)
    async with world.outside.connect() as connection:
        assert (await connection.execute(select(text("count(*)")).select_from(table))).scalar() == 0
    assert (await world.read()).name == "new"


async def test_new_value_that_finds_no_memory_leaves_nothing_old(world: World, server: RedisServer) -> None:
    """Memory that ends during COMMIT costs the value that would be written through: its place is empty, and free."""
    await world.warm()
    await world.warm(email="ann@x")
    world.cache.stats.reset()
    event.listen(world.engine.sync_engine, "commit", lambda _: fill_up(server), once=True)
    await own(world)
    assert (cell(server), cell(server, "user:email:ann@x")) == (None, None)
    assert world.cache.stats.snapshot() == {"hits": 0, LACKING: 2}
    assert await world.read() == Read("new", from_cache=False)
    assert is_well(world)
    free(server)
    await world.warm()


async def test_own_writes_are_counted_that_find_no_memory(world: World, server: RedisServer) -> None:
    """A write of a Redis that was full before it counts each value that it could not put."""
    fill_up(server)
    await world.crud.create(db=world.factory, redis=world.cache, obj_in=UserIn(email="cat@x"))
    assert world.cache.stats.snapshot() == {"hits": 0, LACKING: 2}


async def test_holds_are_renewed_without_memory(pg_world: World, server: RedisServer) -> None:
    """Memory that ends while a COMMIT hangs takes no hold away: readers pass the cache by until it has returned."""
    await pg_world.execute(AT_COMMIT, TRIGGER)
    pg_world.cache = pg_world.another_cache(hold_s=0.2)
    await pg_world.warm()
    write = asyncio.create_task(
        pg_world.crud.update(db=pg_world.factory, redis=pg_world.cache, obj_in=named("slow 1"), id=ANN)
    )
    await committing(pg_world)
    fill_up(server)
    cells = []
    while not write.done():
        cells.append(cell(server))
        await asyncio.sleep(0.02)
    held = [is_hold(each) for each in cells]
    assert all(held[: len(held) * 3 // 4])  # the last may be from after the release
    assert len(held) > 20
    await write
    assert (await pg_world.read()).name == "slow 1"


# Beyond one server, and beside cruds.


async def test_a_full_cluster(sqlite_url: str, cluster: Cluster, cluster_url: str) -> None:
    """It holds and releases as one server does, its map is not drawn anew, and what it does not take is counted."""
    async with opened(sqlite_url, cluster_url) as world:
        other = world.another_cache()
        await world.warm()
        assert (await world.read(cache=other)).from_cache
        world.cache.stats.reset()
        for node in cluster.servers:
            say(node, "CONFIG", "SET", "maxmemory", "1")
        asked = [say(node, "INFO", "commandstats") for node in cluster.servers]
        try:
            await own(world)
            for cache in (world.cache, other):
                assert (await world.read(cache=cache)).name == "new"
            assert await world.read(id=BOB) == Read("Bob", from_cache=False)
            assert is_well(world)
            assert world.cache.stats.reasons[LACKING] == 4  # two put through, two read
        finally:
            for node in cluster.servers:
                say(node, "CONFIG", "SET", "maxmemory", "0")
        told = [say(node, "INFO", "commandstats") for node in cluster.servers]
        assert [_maps(before) for before in asked] == [_maps(after) for after in told]
        await world.warm()


def _maps(info: bytes) -> list[bytes]:
    return [line.split(b",")[0] for line in info.splitlines() if line.startswith(b"cmdstat_cluster|slots")]


async def test_smart_cache_stores_nothing_and_keeps_nothing_old(
    server: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A set that is refused gives False, and the value before it is gone; loads are answered; nobody is said away."""
    async with Cache.from_url(server.url) as cache:
        smart = SmartCache("s", redis=cache)
        assert await smart.set("user", 1, "old")
        assert await smart.set("user", 2, "kept")
        fill_up(server)
        with caplog.at_level(logging.DEBUG, "fastrdb"):
            assert not await smart.set("user", 1, "new")
            assert await smart.get("user", 1) is None
            assert not await smart.set("user", 3, "new", nx=True)
            assert not await smart.set("user", 2, "new", xx=True)
            assert not await smart.multi_set("user", {4: "new", 5: "new"})
            assert await smart.get_or_load("user", 6, lambda: "loaded") == "loaded"
        assert await smart.multi_get("user", range(1, 7)) == {}
        assert caplog.messages == [TOLD]
        assert cache.stats.reasons[LACKING] == 6
        assert (await smart.get_stats()).errors == 0
        free(server)
        assert await smart.set("user", 1, "new")
