"""What the contestants work on: tables with rows in PostgreSQL, keys in Redis, and the two ways to get at them."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from redis.asyncio import BlockingConnectionPool, Redis
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.schema import CreateTable, DropTable

from fastrdb import Cache, Crud

from .byhand import ByHand
from .users import UserCreate, UserResponse, Users, UserUpdate, some_users

_EXP_S = 600
_BATCH = 1_000  # keys of one command that prepares or cleans up

UserCrud = Crud[object, UserCreate, UserUpdate, UserResponse]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured.

    Attributes:
        rounds: Turns of each contestant.
        turn_s: About how long a turn takes, in seconds.
        users: Rows in the table.
        callers: Concurrent callers.
        crowd: Concurrent callers, where they are very many.
        listed: Rows of a list.
        created: Rows of one ``create_multi``.
        upserted: Rows of one ``upsert_multi``.
        many: Rows of one ``create_multi`` of very many.
        changed: Rows of one ``update_multi``.
        foreign_keys: Keys of others in Redis, where there are many.
        walked: Rows of a list that is walked by cursors, a multiple of 100.
    """

    rounds: int = 150
    turn_s: float = 0.01
    users: int = 2_000
    callers: int = 64
    crowd: int = 512
    listed: int = 100
    created: int = 5_000
    upserted: int = 10_000
    many: int = 100_000
    changed: int = 10_000
    foreign_keys: int = 200_000
    walked: int = 1_000_000


QUICK = Scale(
    rounds=2,
    turn_s=0.001,
    users=200,
    created=50,
    upserted=50,
    many=300,
    changed=300,
    foreign_keys=1_000,
    walked=2_000,
)


@dataclass(frozen=True, slots=True)
class World:
    """Both sides, each with an engine of its own: fastrdb's listens to every statement, which must not slow the other.

    Attributes:
        sessions: For fastrdb.
        admin: An engine that prepares and cleans up.
        redis: The client of the hand-written code; prepares and cleans up, too.
        users: The table of single users and lists.
        bulk: The table that many rows are created in.
    """

    scale: Scale
    by_hand: ByHand
    crud: UserCrud
    bulk_crud: UserCrud
    sessions: async_sessionmaker[AsyncSession]
    cache: Cache
    redis: Redis
    admin: AsyncEngine
    users: Users
    bulk: Users

    @property
    def user_ids(self) -> range:
        """The ids of the users."""
        return range(1, self.scale.users + 1)

    async def forget(self, user_ids: range) -> None:
        """Delete what both sides keep of these users."""
        for prefix in (self.by_hand.prefix, self.cache.prefix):
            await self._unlink([f"{prefix}user:id:{user_id}" for user_id in user_ids])

    async def empty_bulk(self) -> None:
        """Delete all rows of the table that many are created in."""
        async with self.admin.begin() as connection:
            await connection.exec_driver_sql(f"TRUNCATE {self.bulk.table.name}")

    @asynccontextmanager
    async def foreign_keys(self, count: int) -> AsyncIterator[None]:
        """Have keys of others in Redis, in the directory of both sides' users."""
        keys = [f"{self.cache.prefix}user:other:{number}" for number in range(count)]
        for start in range(0, count, _BATCH):
            await self.redis.mset(dict.fromkeys(keys[start : start + _BATCH], "x" * 100))
        try:
            yield
        finally:
            await self._unlink(keys)

    async def clean_up(self) -> None:
        """Delete what both sides left in Redis, as far as it has names; the rest runs out by itself."""
        await self.forget(self.user_ids)
        page = f"user:page:1:limit:{self.scale.listed}"
        await self._unlink([self.by_hand.prefix + page, self.cache.prefix + page])

    async def _unlink(self, keys: list[str]) -> None:
        for start in range(0, len(keys), _BATCH):
            await self.redis.unlink(*keys[start : start + _BATCH])


@asynccontextmanager
async def world(postgres_url: str, redis_url: str, scale: Scale) -> AsyncIterator[World]:
    """Give tables, rows, engines and clients; all of it goes at the end."""
    name = f"benchmark_{secrets.token_hex(4)}"
    users, bulk = Users.named(f"{name}_users"), Users.named(f"{name}_bulk")
    async with AsyncExitStack() as stack:
        engines = [create_async_engine(postgres_url) for _ in range(3)]
        for engine in engines:
            stack.push_async_callback(engine.dispose)
        admin = engines[0]
        await stack.enter_async_context(_tables(admin, [users, bulk], scale.users))
        client = Redis(connection_pool=BlockingConnectionPool.from_url(redis_url))
        stack.push_async_callback(client.aclose, close_connection_pool=True)
        cache = await stack.enter_async_context(Cache.from_url(redis_url, prefix=f"{name}:fastrdb:"))
        hand_sessions, sessions = (async_sessionmaker(engine, expire_on_commit=False) for engine in engines[1:])
        built = World(
            scale=scale,
            by_hand=ByHand(users, bulk, hand_sessions, client, f"{name}:hand:"),
            crud=_crud(users),
            bulk_crud=_crud(bulk),
            sessions=sessions,
            cache=cache,
            redis=client,
            admin=admin,
            users=users,
            bulk=bulk,
        )
        stack.push_async_callback(built.clean_up)
        yield built


def _crud(users: Users) -> UserCrud:
    return UserCrud(
        users.model,
        UserResponse,
        pattern="user:id:{id}",
        list_pattern="user:page:{page}:limit:{limit}",
        exp=_EXP_S,
        create_schema=UserCreate,
        update_schema=UserUpdate,
    )


@asynccontextmanager
async def _tables(engine: AsyncEngine, tables: list[Users], rows: int) -> AsyncIterator[None]:
    async with engine.begin() as connection:
        for users in tables:
            await connection.execute(CreateTable(users.table))
        await connection.execute(insert(tables[0].table), [user.model_dump() for user in some_users(1, rows)])
    async with engine.connect() as connection:
        autocommit = await connection.execution_options(isolation_level="AUTOCOMMIT")
        await autocommit.exec_driver_sql(f"VACUUM ANALYZE {tables[0].table.name}")
    try:
        yield
    finally:
        async with engine.begin() as connection:
            for users in tables:
                await connection.execute(DropTable(users.table, if_exists=True))
