"""What a hit, a write and a key look like from outside: statements, connections, commands, JSON."""

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Cache, Crud
from tests.servers.redis import RedisServer, commandstats


class Base(DeclarativeBase):
    """The table of these tests."""


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    team: Mapped[int] = mapped_column(default=1)


class UserIn(BaseModel):
    email: str
    team: int = 1


class UserChange(BaseModel):
    email: str | None = None
    team: int | None = None


class UserOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str
    team: int


users = Crud[User, UserIn, UserChange, UserOut](
    User, UserOut, ("user:email:{email}", "user:id:{id}"), "user:page:{page}:limit:{limit}"
)
dropping = Crud[User, UserIn, UserChange, UserOut](
    User, UserOut, "user:email:{email}", "user:page:{page}:limit:{limit}", invalidate_pattern_prefix="user:*"
)


class Watched:
    """An engine whose statements and checkouts are counted."""

    def __init__(self, engine: AsyncEngine) -> None:
        self.db = async_sessionmaker(engine, expire_on_commit=False)
        self.statements = self.checkouts = 0
        event.listen(engine.sync_engine, "before_cursor_execute", self._statement)
        event.listen(engine.sync_engine, "checkout", self._checkout)

    def _statement(self, *args: object) -> None:
        self.statements += 1

    def _checkout(self, *args: object) -> None:
        self.checkouts += 1

    @property
    def counts(self) -> tuple[int, int]:
        """Statements and checkouts so far."""
        return self.statements, self.checkouts


@pytest.fixture
async def watched(postgres_url: str) -> AsyncIterator[Watched]:
    """A PostgreSQL database with the table in it."""
    engine = create_async_engine(postgres_url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        yield Watched(engine)
    finally:
        await engine.dispose()


async def test_a_hit_runs_no_sql_and_takes_no_connection(watched: Watched, redis_url: str) -> None:
    """Rows, lists, counts, nulls and JSON that are hits neither send a statement nor check a connection out."""
    async with Cache.from_url(redis_url) as cache:
        made = await users.create(db=watched.db, redis=cache, obj_in=UserIn(email="ann@x"))

        async def everything(db: Any) -> None:
            assert await users.get(db=db, redis=cache, email="ann@x") == made
            assert await users.get(db=db, redis=cache, email="ann@x", team=1) == made
            assert await users.get_or_none(db=db, redis=cache, id=77) is None
            assert json.loads(await users.get_json(db=db, redis=cache, id=made.id)) == made.model_dump()
            assert await users.get_multi(db=db, redis=cache, order_by="email", ascending=False) == [made]
            assert json.loads(await users.get_multi_json(db=db, redis=cache)) == [made.model_dump()]
            assert (await users.page(db=db, redis=cache, limit=3)).total == 1
            assert await users.count(db=db, redis=cache, team=1) == 1
            assert await users.exists(db=db, redis=cache, id=made.id)

        await everything(watched.db)
        before = watched.counts
        await everything(watched.db)
        async with watched.db() as session:
            await everything(session)
            assert not session.in_transaction()
        assert watched.counts == before


async def test_a_row_is_plain_json(watched: Watched, redis_url: str) -> None:
    """Any service can GET a row's or a list's key, which is the template as written, and parse it."""
    client = Redis.from_url(redis_url)
    made = await users.create(db=watched.db, redis=client, obj_in=UserIn(email="john@example.com"))
    raw = await client.get("user:email:john@example.com")
    assert raw is not None
    assert json.loads(raw) == {"id": made.id, "email": "john@example.com", "team": 1}
    await users.get_multi(db=watched.db, redis=client)
    await users.get_multi(db=watched.db, redis=client)
    listed = await client.get("user:page:1:limit:10")
    assert listed is not None
    assert json.loads(listed) == [made.model_dump()]
    assert 0 < await client.pttl("user:email:john@example.com") <= 3_600_000
    await client.aclose()


@pytest.mark.parametrize(
    "options", [{}, {"decode_responses": True}, {"protocol": 3}, {"protocol": 3, "decode_responses": True}]
)
async def test_any_client_will_do(watched: Watched, redis_url: str, options: dict[str, Any]) -> None:
    """A bare client works whatever its RESP version and decoding, and cruds that are given it share one cache."""
    client = Redis.from_url(redis_url, **options)
    made = await users.create(db=watched.db, redis=client, obj_in=UserIn(email="ann@x"))
    before = watched.counts
    assert await users.get(db=watched.db, redis=client, email="ann@x") == made
    assert watched.counts == before
    await dropping.update(db=watched.db, redis=client, obj_in=UserChange(team=2), email="ann@x")
    assert (await users.get(db=watched.db, redis=client, id=made.id)).team == 2
    await client.aclose()


@pytest.mark.may_block("DEBUG POPULATE is one long command, and the client waits for it")
async def test_a_write_sends_the_same_commands_whatever_redis_holds(watched: Watched, private_redis: Any) -> None:
    """Creating, updating and deleting with a declared directory costs the same beside 10 and beside 1 000 000 keys."""
    server: RedisServer = private_redis("valkey", "--enable-debug-command", "yes")
    client = Redis.from_url(server.url, socket_timeout=60)
    sent = []
    async with Cache.from_url(server.url) as cache:
        for keys in (1, 10, 1_000_000):
            await client.execute_command("DEBUG", "POPULATE", keys, f"user:foreign{keys}", 8)
            before = commandstats(server.url)
            made = await dropping.create(db=watched.db, redis=cache, obj_in=UserIn(email="ann@x"))
            await dropping.update(db=watched.db, redis=cache, obj_in=UserChange(team=3), email="ann@x")
            await dropping.update(db=watched.db, redis=cache, obj_in=UserChange(email="bob@x"), id=made.id)
            await dropping.delete(db=watched.db, redis=cache, id=made.id)
            after = commandstats(server.url)
            assert await client.dbsize() > keys
            sent.append({name: after[name] - before.get(name, 0) for name in after if name not in ("info", "dbsize")})
    await client.aclose()
    _, few, many = sent  # the first round also connects, loads the scripts and mints the tokens
    assert few == many
    assert few["evalsha"] > 0


async def test_prefixes_keep_databases_apart(watched: Watched, sqlite_url: str, valkey_url: str) -> None:
    """Two databases on one Redis never see each other's rows: not with prefixes, and not even without."""
    engine = create_async_engine(sqlite_url)
    other = Watched(engine)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    for one, two in (("a:", "b:"), ("", "")):
        async with Cache.from_url(valkey_url, prefix=one) as first, Cache.from_url(valkey_url, prefix=two) as second:
            here = await users.create(db=watched.db, redis=first, obj_in=UserIn(email="ann@x", team=1))
            there = await users.create(db=other.db, redis=second, obj_in=UserIn(email="ann@x", team=2))
            for _ in range(3):
                assert await users.get(db=watched.db, redis=first, email="ann@x") == here
                assert await users.get(db=other.db, redis=second, email="ann@x") == there
                assert await users.get_multi(db=watched.db, redis=first) == [here]
                assert await users.get_multi(db=other.db, redis=second) == [there]
            await users.delete(db=watched.db, redis=first, email="ann@x")
            assert await users.get_or_none(db=other.db, redis=second, email="ann@x") == there
            await users.delete(db=other.db, redis=second, email="ann@x")
    await engine.dispose()


async def test_one_key_for_one_value(watched: Watched, valkey_url: str) -> None:
    """An integer key given as a number and as text is one entry; odd texts are entries of their own."""
    async with Cache.from_url(valkey_url) as cache:
        odd = ["", "a:b", "*", "{x}", "%N", "~" + "0" * 32, "☃ é", "x" * 10_000, "user", "count"]
        made = {text: await users.create(db=watched.db, redis=cache, obj_in=UserIn(email=text)) for text in odd}
        before = watched.counts
        for text, row in made.items():
            assert await users.get(db=watched.db, redis=cache, email=text) == row
            assert await users.get(db=watched.db, redis=cache, id=str(row.id)) == row
        assert watched.counts == before


async def test_explain(watched: Watched, valkey_url: str) -> None:
    """explain names the entry, its tokens and templates, and says hit, miss or bypass and why."""
    async with Cache.from_url(valkey_url) as cache:
        made = await users.create(db=watched.db, redis=cache, obj_in=UserIn(email="ann@x"))
        told = await users.explain(cache, email="ann@x")
        assert (told.entry, told.state) == ("user:email:ann@x", "hit")
        assert told.templates["user:email:{email}"] is True
        assert told.life_ms is not None
        assert told.age_ms is not None
        assert 0 <= told.age_ms < 60_000
        assert "fastrdb:{users}:all" in told.tokens
        assert (await users.explain(cache, limit=10)).state == "miss: absent"
        await users.get_multi(db=watched.db, redis=cache)
        assert (await users.explain(cache, limit=10)).state == "hit"
        await users.update(db=watched.db, redis=cache, obj_in=UserChange(team=2), id=made.id)
        assert (await users.explain(cache, limit=10)).state.startswith("miss: ")
        await users.invalidate(cache)
        assert (await users.explain(cache, email="ann@x")).state.startswith("miss: ")


async def test_invalidate(watched: Watched, valkey_url: str) -> None:
    """A change that fastrdb did not see is seen after invalidate: of one row, of a directory, of the table."""
    async with Cache.from_url(valkey_url) as cache:
        made = await users.create(db=watched.db, redis=cache, obj_in=UserIn(email="ann@x", team=0))
        for team, named in enumerate(({"email": "ann@x"}, {"id": made.id}, {"pattern": "user:*"}, {}), start=1):
            for _ in range(2):
                await users.get(db=watched.db, redis=cache, id=made.id)
                await users.get_multi(db=watched.db, redis=cache)
            async with watched.db() as session, session.begin():
                (await session.get_one(User, made.id)).team = team
            await users.invalidate(cache, **named)
            assert (await users.get(db=watched.db, redis=cache, id=made.id)).team == team
            assert (await users.get(db=watched.db, redis=cache, email="ann@x")).team == team
            assert [row.team for row in await users.get_multi(db=watched.db, redis=cache)] == [team]


async def test_switched_off(watched: Watched, valkey_url: str) -> None:
    """A cache that does not serve answers from SQL, and its writes still drop what other processes would serve."""
    async with Cache.from_url(valkey_url) as cache, Cache.from_url(valkey_url) as elsewhere:
        made = await users.create(db=watched.db, redis=cache, obj_in=UserIn(email="ann@x"))
        cache.serves = False
        assert await users.get(db=watched.db, redis=cache, id=made.id) == made  # and asks if this is a replica, once
        before = watched.statements
        assert await users.get(db=watched.db, redis=cache, id=made.id) == made
        assert watched.statements == before + 1
        changed = await users.update(db=watched.db, redis=cache, obj_in=UserChange(team=9), id=made.id)
        assert await users.get(db=watched.db, redis=elsewhere, id=made.id) == changed
        cache.serves = True
        assert await users.get(db=watched.db, redis=cache, id=made.id) == changed


async def test_foreign_values_under_our_keys(watched: Watched, redis_url: str) -> None:
    """What another program left under an entry, of whatever type, is never served, and no write stumbles over it."""
    client = Redis.from_url(redis_url)
    async with Cache.from_url(redis_url) as cache:
        made = await users.create(db=watched.db, redis=cache, obj_in=UserIn(email="ann@x"))
        for leave in (
            lambda key: client.rpush(key, "x"),
            lambda key: client.hset(key, "a", "b"),
            lambda key: client.set(key, "null"),
            lambda key: client.set(key, b"\xff\x00"),
            lambda key, made=made: client.set(key, made.model_copy(update={"team": 77}).model_dump_json()),
        ):
            for key in ("user:email:ann@x", "user:page:1:limit:10"):
                await client.delete(key)
                await leave(key)
            for _ in range(2):
                assert await users.get(db=watched.db, redis=cache, email="ann@x") == made
                assert await users.get_multi(db=watched.db, redis=cache) == [made]
            await client.delete("user:email:ann@x")
            await leave("user:email:ann@x")
            made = await users.update(db=watched.db, redis=cache, obj_in=UserChange(team=made.team + 1), id=made.id)
            assert await users.get(db=watched.db, redis=cache, email="ann@x") == made
            assert not cache.undelivered
    await client.aclose()
