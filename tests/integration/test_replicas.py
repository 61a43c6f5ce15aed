"""A primary and its streaming replica: what a replica answers, when, and that it is never older than a write."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
from sqlalchemy import event, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import Cache, ReadOptions, ReadWrite, ReplicaRefused, SessionRefused, SettingRefused
from fastrdb.context import tenant
from fastrdb.testing.faults import Proxy
from tests.models import Base, UserChange, UserCrud, UserIn, UserOut, named, user_crud
from tests.servers.replicated import ReplicatedPostgres
from tests.tenants import opened as tenants_opened
from tests.world import until

ANN, BOB = 1, 2
LAGS = "not stored: a replica answered, or a server that may lag behind"


class Pair:
    """Ann and Bob on a primary and its replica, and what each was asked for.

    Attributes:
        write, read: Factories.
        db: The two of them.
        on_primary, on_replica: Statements on users that each was sent.
    """

    def __init__(self, server: ReplicatedPostgres, redis_url: str) -> None:
        self.server, self.url, self.redis_url = server, server.url, redis_url
        self.on_primary: list[str] = []
        self.on_replica: list[str] = []
        self._engines: list[AsyncEngine] = []
        self.write = self.factory(server.url, self.on_primary)
        self.read = self.factory(server.url_of_replica, self.on_replica)
        self.db = ReadWrite(self.write, self.read)
        self.cache = Cache.from_url(redis_url)
        self.caches = [self.cache]
        self.crud: UserCrud = user_crud()

    def factory(self, url: str, sent: list[str], **options: Any) -> async_sessionmaker[AsyncSession]:
        """Sessions on a further engine, whose statements on users are noted."""
        engine = create_async_engine(url, **options)
        self._engines.append(engine)

        def note(*arguments: Any) -> None:
            if " users" in arguments[2]:
                sent.append(arguments[2])

        event.listen(engine.sync_engine, "before_cursor_execute", note)
        return async_sessionmaker(engine, expire_on_commit=False)

    def another_cache(self) -> Cache:
        """What another process would have."""
        self.caches.append(Cache.from_url(self.redis_url))
        return self.caches[-1]

    async def prepare(self) -> None:
        """Make the table, with Ann and Bob in it, on both sides."""
        async with self._engines[0].begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(
                text("INSERT INTO users (email, name, group_id) VALUES ('ann@x', 'Ann', 1), ('bob@x', 'Bob', 1)")
            )
        await asyncio.to_thread(self.server.catch_up)

    async def close(self) -> None:
        """End it all."""
        for cache in self.caches:
            await cache.aclose()
        for engine in self._engines:
            await engine.dispose()

    async def cold(self, db: Any = None, redis: Any = None) -> str:
        """Ann's name, past what is cached."""
        await self.crud.invalidate(self.cache)
        return (await self.crud.get(db or self.db, redis or self.cache, id=ANN)).name

    async def rename(self, name: str) -> None:
        """Give Ann another name."""
        await self.crud.update(db=self.db, redis=self.cache, obj_in=named(name), id=ANN)

    async def by_replica(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """Read until it was the replica that answered: somebody else may have just written on the server."""
        answers: list[Any] = []

        async def answered() -> bool:
            await asyncio.to_thread(self.server.catch_up)
            await self.crud.invalidate(self.cache)
            before = len(self.on_replica)
            answers.append(await read())
            return len(self.on_replica) > before

        await until(answered)
        return answers[-1]


@pytest.fixture
async def pair(replicated: ReplicatedPostgres, valkey_url: str) -> AsyncIterator[Pair]:
    """Ann and Bob on both servers."""
    pair = Pair(replicated, valkey_url)
    try:
        await pair.prepare()
        yield pair
    finally:
        await pair.close()


# A replica alone.


async def test_replica_alone_stores_nothing(pair: Pair) -> None:
    """What a factory of a replica answers is not stored, and counted under its reason."""
    for _ in range(2):
        assert (await pair.crud.get(pair.read, pair.cache, id=ANN)).name == "Ann"
        assert len(await pair.crud.get_multi(pair.read, pair.cache, group_id=1)) == 2
        assert await pair.crud.count(pair.read, pair.cache, group_id=1) == 2
        assert len(await pair.crud.get_by_keys(pair.read, pair.cache, keys=[ANN, BOB])) == 2
    stats = pair.cache.stats
    assert stats.hits == 0
    assert stats.reasons["stored"] == 0
    assert stats.reasons[LAGS] == 10


async def test_replica_is_asked_once_for_each_connection(pair: Pair) -> None:
    """That a connection leads to a replica is found out once."""
    sent: list[str] = []
    engine = create_async_engine(pair.server.url_of_replica, pool_size=1, max_overflow=0)
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    for _ in range(5):
        await pair.crud.get(async_sessionmaker(engine), pair.cache, id=ANN)
    await engine.dispose()
    assert len([each for each in sent if "pg_is_in_recovery" in each]) == 1


async def test_session_on_a_replica_stores_nothing(pair: Pair) -> None:
    """Nor is what a caller's session on a replica reads, in whatever state its transaction is."""
    async with pair.read() as session:
        for _ in range(2):
            assert (await pair.crud.get(session, pair.cache, id=ANN)).name == "Ann"
    assert pair.cache.stats.reasons["stored"] == 0


async def test_write_through_a_replica_is_refused(pair: Pair) -> None:
    """A write, and a lock, through a replica says what to pass instead."""
    crud, cache = pair.crud, pair.cache
    for write in (
        crud.create(pair.read, cache, UserIn(email="new@x")),
        crud.update(pair.read, cache, UserChange(name="B"), id=ANN),
        crud.delete(pair.read, cache, id=ANN),
        crud.upsert(pair.read, cache, UserIn(email="ann@x", name="B")),
        crud.update_where(pair.read, None, named("B"), id=ANN),
    ):
        with pytest.raises(ReplicaRefused, match="ReadWrite"):
            await write
    async with pair.read() as session:
        with pytest.raises(ReplicaRefused, match="of the primary"):
            await crud.get(session, cache, options=ReadOptions(for_update=True), id=ANN)


# A pair: which side does what.

READS: dict[str, Callable[[Pair], Awaitable[Any]]] = {
    "get": lambda pair: pair.crud.get(pair.db, pair.cache, id=ANN),
    "get without a cache": lambda pair: pair.crud.get(pair.db, None, id=ANN),
    "get_or_none": lambda pair: pair.crud.get_or_none(pair.db, pair.cache, id=77),
    "get_json": lambda pair: pair.crud.get_json(pair.db, pair.cache, id=ANN),
    "exists": lambda pair: pair.crud.exists(pair.db, pair.cache, name="Ann"),
    "get_multi": lambda pair: pair.crud.get_multi(pair.db, pair.cache, group_id=1),
    "get_by_keys": lambda pair: pair.crud.get_by_keys(pair.db, pair.cache, keys=[ANN, BOB, 77]),
    "page": lambda pair: pair.crud.page(pair.db, pair.cache, limit=1, group_id=1),
    "count": lambda pair: pair.crud.count(pair.db, pair.cache, group_id=1),
    "cursor_page": lambda pair: pair.crud.cursor_page(pair.db, pair.cache),
    "distinct": lambda pair: pair.crud.distinct(pair.db, pair.cache, "name", group_id=1),
    "warm": lambda pair: pair.crud.warm(pair.db, pair.cache),
    "stream": lambda pair: _streamed(pair.crud, pair.db),
}

WRITES: dict[str, Callable[[UserCrud, Any, Any], Awaitable[Any]]] = {
    "create": lambda crud, db, cache: crud.create(db, cache, UserIn(email="cid@x")),
    "create_multi": lambda crud, db, cache: crud.create_multi(db, cache, [UserIn(email="dan@x")]),
    "update": lambda crud, db, cache: crud.update(db, cache, named("B"), id=ANN),
    "update_multi": lambda crud, db, cache: crud.update_multi(db, cache, [(ANN, named("C"))]),
    "update_where": lambda crud, db, cache: crud.update_where(db, cache, named("D"), id=ANN),
    "upsert": lambda crud, db, cache: crud.upsert(db, cache, UserIn(email="ann@x", name="E")),
    "upsert_multi": lambda crud, db, cache: crud.upsert_multi(db, cache, [UserIn(email="ann@x", name="F")]),
    "get_or_create, there": lambda crud, db, cache: crud.get_or_create(db, cache, UserIn(email="ann@x")),
    "get_or_create": lambda crud, db, cache: crud.get_or_create(db, cache, UserIn(email="eve@x")),
    "delete": lambda crud, db, cache: crud.delete(db, cache, id=ANN),
    "delete_multi": lambda crud, db, cache: crud.delete_multi(db, cache, [BOB]),
    "delete_where": lambda crud, db, cache: crud.delete_where(db, cache, email="eve@x"),
}


async def _streamed(crud: UserCrud, db: Any) -> list[UserOut]:
    return [each async for each in crud.stream(db, order_by="id")]


async def test_reads_go_to_the_replica(pair: Pair) -> None:
    """Every method that reads is answered by the replica, the same as by the primary."""
    by_replica = {name: await pair.by_replica(lambda read=read: read(pair)) for name, read in READS.items()}
    pair.db = pair.write  # type: ignore[assignment]  # the primary alone
    for name, read in READS.items():
        await pair.crud.invalidate(pair.cache)
        assert (name, await read(pair)) == (name, by_replica[name])


async def test_writes_go_to_the_primary(pair: Pair) -> None:
    """No method that writes, or may have to, asks the replica at all; the hooks of the crud are told."""
    told: list[object] = []

    @pair.crud.after_commit
    async def hook(committed: object) -> None:
        told.append(committed)

    for write in WRITES.values():
        await write(pair.crud, pair.db, pair.cache)
    assert pair.on_primary
    assert not pair.on_replica
    assert len(told) == len(WRITES) - 1


async def test_default_of_the_crud(pair: Pair) -> None:
    """A pair may be the crud's own database."""
    crud = user_crud(db=pair.db, redis=pair.cache)
    assert (await crud.update(obj_in=named("B"), id=ANN)).name == "B"
    await crud.invalidate()
    assert (await crud.get(id=ANN)).name == "B"
    assert (await crud.explain(id=ANN)).state in ("hit", "miss: absent")


async def test_caller_s_session_is_no_pair(pair: Pair) -> None:
    """A session reads where it leads to; one that the pair gives is the primary's, and sees its own writes."""
    async with pair.db() as session, session.begin():
        await pair.crud.update(session, pair.cache, named("B"), id=ANN)
        assert (await pair.crud.get(session, pair.cache, id=ANN)).name == "B"
    assert not pair.on_replica


async def test_replica_s_answer_is_stored(pair: Pair) -> None:
    """What the replica has answered for a pair is a hit from then on, a row that is not there included."""
    crud = pair.crud

    async def hits(read: Callable[[], Awaitable[Any]]) -> bool:
        await pair.by_replica(read)
        before = pair.cache.stats.hits
        await read()
        return pair.cache.stats.hits > before

    await until(lambda: hits(lambda: crud.get(pair.db, pair.cache, id=ANN)))
    await until(lambda: hits(lambda: crud.get_or_none(pair.db, pair.cache, id=77)))
    await until(lambda: hits(lambda: crud.get_multi(pair.db, pair.cache, group_id=1)))
    assert pair.cache.stats.reasons["replica: answered"] >= 3


# Never older than a write.


async def test_paused_replica_does_not_answer(pair: Pair) -> None:
    """With replay paused the row that was just written is read, cached or not, and the old one is never stored."""
    await pair.by_replica(lambda: pair.crud.get(pair.db, pair.cache, id=ANN))
    await asyncio.to_thread(pair.server.pause)
    await pair.rename("B")
    assert (await pair.crud.get(pair.read, None, id=ANN)).name == "Ann"  # so it is behind
    other = pair.another_cache()
    for cache in (pair.cache, other, None):
        assert (await pair.crud.get(pair.db, cache, id=ANN)).name == "B"
        assert await pair.cold(redis=cache) == "B"
    for read in (pair.crud.get_multi, pair.crud.get_by_keys):
        options: Any = {"group_id": 1} if read == pair.crud.get_multi else {"keys": [ANN]}
        assert "B" in [each.name for each in await read(pair.db, pair.cache, **options)]
    assert [each.name for each in await _streamed(pair.crud, pair.db)] == ["B", "Bob"]
    assert (await pair.crud.cursor_page(pair.db)).data[0].name == "B"
    assert (await pair.crud.get(pair.read, pair.cache, id=ANN)).name == "B"  # a hit
    assert pair.cache.stats.reasons["replica: behind"] > 0


async def test_asynchronous_commit_counts(pair: Pair) -> None:
    """A COMMIT that returned before it was flushed is seen, too."""
    settings = {"server_settings": {"synchronous_commit": "off"}}
    write = pair.factory(pair.url, pair.on_primary, connect_args=settings)
    db = ReadWrite(write, pair.read)
    for number in range(30):
        await pair.crud.update(db, pair.cache, named(str(number)), id=ANN)
        assert await pair.cold(db) == str(number)


@pytest.mark.parametrize("level", [None, "AUTOCOMMIT"])
async def test_no_stale_read_while_replay_stops_and_goes_on(pair: Pair, level: str | None) -> None:
    """Writers and readers of two processes, with replay paused and resumed at random: no read is older than a write."""
    options = {} if level is None else {"isolation_level": level}
    read = pair.factory(pair.server.url_of_replica, pair.on_replica, **options)
    pairs = [ReadWrite(pair.write, read, lag) for lag in (None, 0.01)]
    written, reads, over = {ANN: 0, BOB: 0}, 0, False
    caches = [pair.cache, pair.another_cache()]
    cruds = [user_crud(), user_crud()]

    async def writer(at: int, id: int) -> None:
        for number in range(1, 41):
            await cruds[at].update(pairs[at], caches[at], named(str(number)), id=id)
            written[id] = number
            await asyncio.sleep(random.random() * 0.01)

    async def reader(at: int) -> None:
        nonlocal reads
        while not over:
            id, least = random.choice([(id, written[id]) for id in (ANN, BOB)])
            if random.random() < 0.3:
                await cruds[at].invalidate(caches[at], id=id)
            cache = None if random.random() < 0.2 else caches[at]
            if random.random() < 0.3:
                rows = {row.id: row for row in await cruds[at].get_multi(pairs[at], cache, group_id=1)}
                name = rows[id].name
            else:
                name = (await cruds[at].get(pairs[at], cache, id=id)).name
            assert name.isdigit() >= (least > 0)
            assert int(name if name.isdigit() else 0) >= least
            reads += 1

    async def pauser() -> None:
        while not over:
            await asyncio.to_thread(pair.server.pause)
            await asyncio.sleep(random.random() * 0.1)
            await asyncio.to_thread(pair.server.resume)
            await asyncio.sleep(random.random() * 0.2)

    async with asyncio.TaskGroup() as group:
        others = [group.create_task(work) for work in (pauser(), *(reader(at % 2) for at in range(6)))]
        await asyncio.gather(writer(0, ANN), writer(1, BOB))
        over = True
        await asyncio.gather(*others)
    assert reads > 50
    assert pair.on_replica
    assert {id: (await user_crud().get(pair.db, caches[0], id=id)).name for id in (ANN, BOB)} == {ANN: "40", BOB: "40"}


# When to wait, and when somebody is away.


async def test_replica_that_is_behind_is_waited_for(pair: Pair) -> None:
    """A read waits for ``replica_lag`` seconds until the replica has the last write, and is then answered by it."""
    patient = ReadWrite(pair.write, pair.read, replica_lag=30)
    await asyncio.to_thread(pair.server.pause)
    await pair.rename("B")
    pair.on_primary.clear()
    reading = asyncio.create_task(pair.crud.get(patient, None, id=ANN))
    _, pending = await asyncio.wait((reading,), timeout=0.2)
    assert pending
    assert not pair.on_replica
    await asyncio.to_thread(pair.server.resume)
    assert (await reading).name == "B"
    assert pair.on_replica
    assert not pair.on_primary


async def test_wait_is_bounded(pair: Pair) -> None:
    """The primary answers where the replica is still behind when the time is over."""
    await asyncio.to_thread(pair.server.pause)
    await pair.rename("B")
    assert (await pair.crud.get(ReadWrite(pair.write, pair.read, replica_lag=0.05), None, id=ANN)).name == "B"
    assert not pair.on_replica


async def test_replica_that_is_down(pair: Pair) -> None:
    """While the replica is down the primary answers; when it is back, it does again."""
    await pair.by_replica(lambda: pair.crud.get(pair.db, pair.cache, id=ANN))
    await asyncio.to_thread(pair.server.stop_replica)
    before = len(pair.on_replica)
    for _ in range(5):
        assert await pair.cold() == "Ann"
    assert len(pair.on_replica) == before
    assert pair.cache.stats.reasons["replica: away"] >= 4
    await asyncio.to_thread(pair.server.restore)
    await pair.by_replica(lambda: pair.crud.get(pair.db, pair.cache, id=ANN))


async def test_replica_that_does_not_answer(pair: Pair) -> None:
    """A replica that takes a connection and says nothing is waited for once, and then passed over for a while."""
    async with Proxy.to("127.0.0.1", pair.server.replica.port) as proxy:
        url = proxy.through(pair.server.url_of_replica)
        db = ReadWrite(pair.write, pair.factory(url, pair.on_replica))
        proxy.stall()
        assert (await pair.crud.get(db, None, id=ANN)).name == "Ann"
        accepted = proxy.accepted
        assert (await pair.crud.get(db, None, id=ANN)).name == "Ann"
        assert proxy.accepted == accepted


async def test_primary_that_is_down(pair: Pair) -> None:
    """Without the primary nobody can say how old the replica is: the read raises, as it does without a pair."""
    async with Proxy.to("127.0.0.1", pair.server.primary.port) as proxy:
        db = ReadWrite(pair.factory(proxy.through(pair.url), pair.on_primary), pair.read)
        await pair.by_replica(lambda: pair.crud.get(db, pair.cache, id=ANN))
        await pair.crud.invalidate(pair.cache)
        proxy.refuses = True
        proxy.cut()
        with pytest.raises((OSError, DBAPIError)):
            await pair.crud.get(db, pair.cache, id=ANN)


async def test_query_that_the_replica_ends(pair: Pair) -> None:
    """A SELECT that stands in the way of replay, or fails for itself, is sent to the primary."""
    strange = text("1 / (group_id - 1) = 0")
    for _ in range(2):
        with pytest.raises(DBAPIError, match="division by zero"):
            await pair.crud.get_multi(pair.db, pair.cache, where=strange, group_id=1)
    assert pair.on_primary
    assert await pair.cold() == "Ann"


# Servers that do not belong together.


async def test_replica_of_a_timeline_that_was_left(pair: Pair) -> None:
    """After a failover a replica of the old primary does not answer, although its log goes further."""
    split = await asyncio.to_thread(pair.server.promoted_copy)
    try:
        # On the old timeline, so that the replica is ahead.
        pair.server.primary.ask("SELECT pg_logical_emit_message(false, 'fastrdb', repeat('x', 1000000))")
        await asyncio.to_thread(pair.server.catch_up)
        db = ReadWrite(pair.factory(split.database_url("shared"), pair.on_primary), pair.read)
        await pair.crud.update(db, pair.cache, named("new"), id=ANN)
        positions = "SELECT pg_wal_lsn_diff({}, '0/0')::int8"
        ahead = pair.server.replica.ask(positions.format("pg_last_wal_replay_lsn()"))
        assert ahead > split.ask(positions.format("pg_current_wal_insert_lsn()"))  # type: ignore[operator]  # numbers
        assert await pair.cold(db) == "new"
        assert pair.cache.stats.reasons["replica: another timeline"] == 1
    finally:
        await asyncio.to_thread(split.stop)


async def test_another_server_does_not_answer(pair: Pair, postgres_url: str) -> None:
    """A server that is no replica of the primary, or a database of another name, does not answer."""
    postgres = pair.server.replica.url
    for url, reason in ((postgres_url, "no replica"), (pair.url, "no replica"), (postgres, "another database")):
        pair.cache.stats.reset()
        assert await pair.cold(ReadWrite(pair.write, pair.factory(url, pair.on_replica))) == "Ann"
        assert pair.cache.stats.reasons[f"replica: {reason}"] == 1
    assert not pair.on_replica


async def test_pair_the_wrong_way_round(pair: Pair) -> None:
    """A pair whose writer leads to a replica is refused when it reads, also while the other side is away."""
    nowhere = async_sessionmaker(create_async_engine("postgresql+asyncpg://postgres@127.0.0.1:9/postgres"))
    for read in (pair.write, pair.read, nowhere):
        with pytest.raises(ReplicaRefused, match="write: "):
            await pair.crud.get(ReadWrite(pair.read, read), None, id=ANN)


async def test_role_that_sees_other_rows_is_refused(pair: Pair) -> None:
    """A replica's role to whom row-level security shows other rows cannot answer for the primary's."""
    role = "reader"
    async with pair.write() as session:
        for statement in (
            "ALTER TABLE users ENABLE ROW LEVEL SECURITY",
            f"CREATE ROLE {role} LOGIN",
            f"GRANT SELECT ON users TO {role}",
        ):
            await session.execute(text(statement))
        await session.commit()
    await asyncio.to_thread(pair.server.catch_up)
    url = pair.server.url_of_replica.replace("postgres@", f"{role}@")
    try:
        with pytest.raises(SessionRefused, match="same role"):
            await pair.crud.get(ReadWrite(pair.write, pair.factory(url, [])), pair.cache, id=ANN)
    finally:
        async with pair.write() as session:
            await session.execute(text(f"DROP OWNED BY {role}"))
            await session.execute(text(f"DROP ROLE {role}"))
            await session.commit()


async def test_old_snapshots_are_refused(pair: Pair) -> None:
    """A replica's engine whose transactions keep their first snapshot is refused, by name of its level."""
    read = pair.factory(pair.server.url_of_replica, [], isolation_level="REPEATABLE READ")
    with pytest.raises(SessionRefused, match="READ COMMITTED"):
        await pair.crud.get(ReadWrite(pair.write, read), None, id=ANN)


async def test_level_that_the_server_was_told_does_not_answer(pair: Pair) -> None:
    """Where only the server knows of such a level, the primary answers."""
    settings = {"server_settings": {"default_transaction_isolation": "repeatable read"}}
    read = pair.factory(pair.server.url_of_replica, pair.on_replica, connect_args=settings)
    assert await pair.cold(ReadWrite(pair.write, read)) == "Ann"
    assert not pair.on_replica
    assert pair.cache.stats.reasons["replica: its snapshot is older"] == 1


async def test_outer_transaction_is_read_on_the_primary(pair: Pair) -> None:
    """Where the writer's sessions are bound to a connection, as in tests, its open transaction is what is read."""
    engine = create_async_engine(pair.url)
    async with engine.connect() as connection:
        await connection.begin()
        bound = async_sessionmaker(connection, join_transaction_mode="create_savepoint")
        db = ReadWrite(bound, pair.read)
        await connection.execute(text("UPDATE users SET name = 'B' WHERE id = 1"))
        assert (await pair.crud.get(db, None, id=ANN)).name == "B"
    await engine.dispose()


async def test_position_is_asked_once_for_many(pair: Pair) -> None:
    """All reads that begin in one turn of the loop share one question to the primary, and one of its connections."""
    sent: list[str] = []
    engine = create_async_engine(pair.url, pool_size=1, max_overflow=0)
    event.listen(engine.sync_engine, "before_cursor_execute", lambda *given: sent.append(given[2]))
    db = ReadWrite(async_sessionmaker(engine), pair.read, replica_lag=30)
    await asyncio.to_thread(pair.server.catch_up)
    await pair.crud.get(db, None, id=ANN)
    sent.clear()
    await asyncio.gather(*(pair.crud.get(db, None, id=ANN) for _ in range(10)))
    await engine.dispose()
    assert len([each for each in sent if "pg_current_wal_insert_lsn" in each]) == 1


async def test_cancelled_reader_leaves_the_others(pair: Pair) -> None:
    """A caller who is cancelled while the primary is asked takes nothing from those who share the question."""
    tasks = [asyncio.create_task(pair.crud.get(pair.db, None, id=ANN)) for _ in range(6)]
    for task in tasks[::2]:
        asyncio.get_running_loop().call_later(random.random() * 0.01, task.cancel)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [each.name for each in found[1::2] if isinstance(each, UserOut)] == ["Ann"] * 3
    assert await pair.cold() == "Ann"


async def test_what_cannot_be_paired(sqlite_url: str) -> None:
    """A pair is of two factories, on PostgreSQL."""
    engine = create_async_engine(sqlite_url)
    factory = async_sessionmaker(engine)
    with pytest.raises(SessionRefused, match="read: AsyncSession"):
        ReadWrite(factory, factory())  # type: ignore[arg-type]  # which is the mistake
    for lag in (-1, True, float("nan")):
        with pytest.raises(SettingRefused, match="replica_lag"):
            ReadWrite(factory, factory, replica_lag=lag)
    with pytest.raises(SessionRefused, match="PostgreSQL"):
        await user_crud().get(ReadWrite(factory, factory), None, id=ANN)
    await engine.dispose()


@pytest.fixture
def url(replicated: ReplicatedPostgres) -> Iterator[str]:
    """An empty database of the primary."""
    with replicated.primary.database() as url:
        yield url


async def test_tenants_are_told_apart_on_the_replica(replicated: ReplicatedPostgres, url: str, valkey_url: str) -> None:
    """Under row-level security the replica is told the tenant, shows its rows only, and they are cached as its own."""
    async with tenants_opened(url, valkey_url) as tenants:
        engine = create_async_engine(make_url(tenants.url).set(port=replicated.replica.port))
        db = ReadWrite(tenants.factory, async_sessionmaker(engine), replica_lag=5)
        reasons = tenants.cache.stats.reasons

        async def answered() -> bool:
            await asyncio.to_thread(replicated.catch_up)
            await tenants.notes.invalidate(tenants.cache)
            for name in ("a", "b"):
                with tenant(name):
                    for _ in range(2):
                        (only,) = await tenants.notes.get_multi(db, tenants.cache, folder=1)
                        assert only.text == f"of {name}"
            return reasons["replica: answered"] >= 2 and reasons["stored"] >= 2

        await until(answered)
        assert await tenants.notes.get_multi(db, tenants.cache, folder=1) == []
        await engine.dispose()
