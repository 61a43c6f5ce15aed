"""A template of another process is first listed, and its row cached, while a writer's hold on ``any`` is lost."""

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import redis
from sqlalchemy import Connection, String, Table, event
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.util import await_only

from fastrdb import Cache, Crud
from fastrdb.cache.protocol import Cell, is_hold
from fastrdb.cache.store import Command, Get, Unclaim
from fastrdb.writes.templates import table_keys
from tests.models import UserChange, UserIn, UserOut, named
from tests.servers.redis import RedisServer
from tests.world import ANN, BOB, Read, World, opened, until


class OtherBase(DeclarativeBase):
    """The tables as the code of another process knows them."""


class OtherUser(OtherBase):
    """The same rows."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(100), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    group_id: Mapped[int] = mapped_column(default=1)


class Other:
    """Another process, which caches users under a template that the world's own code lacks."""

    def __init__(self, world: World, cache: Cache) -> None:
        self.cache, self._world = cache, world
        self._factory = async_sessionmaker(world.another_engine())
        self._crud = Crud[OtherUser, UserIn, UserChange, UserOut](OtherUser, UserOut, pattern="account:{id}", exp=600)
        assert isinstance(OtherUser.__table__, Table)
        self._any_key, _ = table_keys(OtherUser.__table__, cache.prefix)

    async def read(self, id: int = ANN) -> Read:
        """Read a user, Ann by default."""
        before = len(self._world.sent)
        found = await self._crud.get_or_none(db=self._factory, redis=self.cache, id=id)
        return Read(found.name if found is not None else None, len(self._world.sent) == before)

    async def lose(self) -> None:
        """Delete a hold in ``any``, as an eviction does, and read Ann twice: she is cached then."""
        held = await self.any_cell()
        assert is_hold(held)
        assert held is not None
        await self._do(Unclaim(self._any_key, held))
        assert await self.read() == Read("Ann", from_cache=False)
        assert await self.read() == Read("Ann", from_cache=True)

    async def any_cell(self) -> Cell:
        """What is in ``any``."""
        return await self._do(Get(self._any_key))

    async def _do(self, command: Command) -> Cell:
        (reply,) = await self.cache.run([command])
        assert not isinstance(reply, tuple)
        return reply


def at_commit(world: World, happens: Callable[[], Awaitable[None]]) -> None:
    """Let something happen after a write of the world has held, just before its COMMIT is sent."""

    def committing(connection: Connection) -> None:
        await_only(happens())

    event.listen(world.engine.sync_engine, "commit", committing)


@pytest.fixture(params=["valkey", "memory"])
async def world(request: pytest.FixtureRequest, postgres_url: str) -> AsyncIterator[World]:
    """Two users in PostgreSQL, and a cache that has read Ann."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("valkey_url")
    async with opened(postgres_url, url) as world:
        await world.warm()  # also makes fastrdb listen to the engine, before the tests do
        yield world


@pytest.fixture
def other(world: World) -> Other:
    """Another process; it shares the memory of the first where that is the store."""
    return Other(world, world.cache if world.redis_url == "memory://" else world.another_cache())


async def test_release_reaches_what_was_listed_meanwhile(world: World, other: Other) -> None:
    """When a write has returned, no other process has the old row, though it cached it after the hold was lost."""
    at_commit(world, other.lose)
    await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)
    assert await other.read() == Read("new", from_cache=False)
    assert (await world.read()).name == "new"


async def test_nothing_is_written_through_after_a_loss(world: World, other: Other) -> None:
    """A write whose hold on ``any`` was lost leaves no value in the cache, not under its own templates either."""
    at_commit(world, other.lose)
    await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)
    assert await world.read() == Read("new", from_cache=False)


async def test_release_of_a_joined_write_does_the_same(world: World, other: Other) -> None:
    """When the caller's own COMMIT has returned, no other process has the old row."""
    at_commit(world, other.lose)
    async with world.factory() as session, session.begin():
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new, too"), id=BOB)
    assert await other.read() == Read("new", from_cache=False)


async def test_renewal_reaches_what_was_listed_meanwhile(world: World, other: Other) -> None:
    """A hold that was lost and is renewed while COMMIT hangs protects the row again, before and after COMMIT."""
    renewed: list[Read] = []

    async def hang() -> None:
        await other.lose()
        await until(lambda: _is_held(other))
        renewed.append(await other.read())

    world.cache.hold_ms = 400
    at_commit(world, hang)
    await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)
    assert renewed == [Read("Ann", from_cache=False)]
    assert await other.read() == Read("new", from_cache=False)


async def test_what_could_not_be_released_reaches_it_too(
    postgres_url: str, private_redis: Callable[..., RedisServer]
) -> None:
    """A write that cannot let go keeps an invalidation; once it is delivered, no other process has the old row."""
    server = private_redis()
    admin = redis.Redis.from_url(server.url)
    admin.acl_setuser("app", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all"])
    url = server.url.replace("redis://", "redis://app:secret@")
    async with opened(postgres_url, url) as world, Cache.from_url(server.url) as theirs:
        other = Other(world, theirs)
        await world.warm()

        async def cut_off() -> None:
            await other.lose()
            admin.acl_setuser("app", commands=["-evalsha", "-eval"])

        at_commit(world, cut_off)
        await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)
        assert world.cache.undelivered
        assert await other.read() == Read("Ann", from_cache=True)  # nobody has told it yet
        admin.acl_setuser("app", commands=["+@all"])
        await until(lambda: _is_delivered(world.cache))
        assert await other.read() == Read("new", from_cache=False)
    admin.close()


async def test_an_unbroken_hold_ages_nothing(world: World, other: Other) -> None:
    """A write that held ``any`` all the time leaves other rows in the cache, and writes its own through."""
    await until(lambda: _is_cached(other, BOB))
    await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)
    assert await other.read(BOB) == Read("Bob", from_cache=True)
    assert await world.read() == Read("new", from_cache=True)


async def _is_cached(other: Other, id: int) -> bool:
    return (await other.read(id)).from_cache


async def _is_held(other: Other) -> bool:
    return is_hold(await other.any_cell())


async def _is_delivered(cache: Cache) -> bool:
    return not cache.undelivered
