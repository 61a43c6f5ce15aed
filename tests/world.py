"""A database with two users, a cache, and ways to look at both from outside."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import Cache
from tests.models import Base, UserCrud, user_crud

PATIENCE_S = 30.0  # generous: the machine may be busy

ANN, BOB = 1, 2


class Read(NamedTuple):
    """What a reader got: the user's name, ``None`` for no user, and whether SQL was needed."""

    name: str | None
    from_cache: bool


class World:
    """Two users, Ann and Bob, in one group.

    Attributes:
        engine: What the cruds use; ``sent`` grows by each statement of it.
        factory: Makes sessions on it.
        outside: An engine of its own, which fastrdb never sees.
        crud: Users, by id, by e-mail and as lists of a group.
    """

    def __init__(self, url: str, redis_url: str, **options: Any) -> None:
        self.url, self.redis_url = url, redis_url
        self.engine: AsyncEngine = create_async_engine(url, **options)
        self.outside: AsyncEngine = create_async_engine(url)
        self.factory = async_sessionmaker(self.engine, expire_on_commit=False)
        self.cache = Cache.from_url(redis_url)
        self.crud: UserCrud = user_crud()
        self.sent: list[str] = []
        self._caches, self._engines = [self.cache], [self.engine, self.outside]
        self.count(self.engine)

    @property
    def dialect(self) -> str:
        """``"postgresql"``, ``"sqlite"`` or ``"mysql"``."""
        return self.engine.dialect.name

    def count(self, engine: AsyncEngine) -> None:
        """Note the statements of an engine in ``sent``, but not the one question which tables hide rows."""
        event.listen(
            engine.sync_engine,
            "before_cursor_execute",
            lambda *args: None if "relrowsecurity" in args[2] else self.sent.append(args[2]),
        )

    def another_engine(self, **options: Any) -> AsyncEngine:
        """A further engine on the database."""
        engine = create_async_engine(self.url, **options)
        self._engines.append(engine)
        self.count(engine)
        return engine

    def another_cache(self, **options: Any) -> Cache:
        """A further cache on the server: what another process would have, or one with other options."""
        return self.another_cache_at(self.redis_url, **options)

    def another_cache_at(self, redis_url: str, **options: Any) -> Cache:
        """A further cache on another server, or on another way to it."""
        cache = Cache.from_url(redis_url, **options)
        self._caches.append(cache)
        return cache

    async def execute(self, *statements: str) -> None:
        """Run SQL from outside and commit it."""
        async with self.outside.begin() as connection:
            for statement in statements:
                await connection.exec_driver_sql(statement)

    async def stored(self, id: int = ANN) -> str | None:
        """The name that is committed in the database."""
        async with self.outside.connect() as connection:
            found = await connection.execute(text("SELECT name FROM users WHERE id = :id"), {"id": id})
            return found.scalar_one_or_none()

    async def read(
        self,
        db: AsyncSession | Callable[[], AsyncSession] | None = None,
        *,
        cache: Cache | None = None,
        **key: Any,
    ) -> Read:
        """Read a user, Ann by default, as somebody who has no part in any transaction, or in a given session."""
        before = len(self.sent)
        found = await self.crud.get_or_none(db=db or self.factory, redis=cache or self.cache, **(key or {"id": ANN}))
        return Read(found and found.name, len(self.sent) == before)

    async def warm(self, **key: Any) -> None:
        """Read a user until the cache has it."""
        await until(lambda: self._is_warm(key))

    async def _is_warm(self, key: dict[str, Any]) -> bool:
        return (await self.read(**key)).from_cache

    async def state(self, **key: Any) -> str:
        """What the cache has of a user, Ann by default."""
        return (await self.crud.explain(self.cache, self.factory, **(key or {"id": ANN}))).state

    @property
    def leaked(self) -> int:
        """Connections that nobody gave back."""
        return self.engine.pool.checkedout()  # type: ignore[attr-defined]  # a QueuePool

    async def close(self) -> None:
        """End it all."""
        for cache in self._caches:
            await cache.aclose()
        for engine in self._engines:
            await engine.dispose()


@asynccontextmanager
async def opened(url: str, redis_url: str, **options: Any) -> AsyncIterator[World]:
    """A world with its two users in place."""
    world = World(url, redis_url, **options)
    try:
        async with world.outside.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        await world.execute("INSERT INTO users (email, name, group_id) VALUES ('ann@x', 'Ann', 1), ('bob@x', 'Bob', 1)")
        yield world
    finally:
        await world.close()


async def until(holds: Callable[[], Awaitable[bool]], *, pause_s: float = 0.01) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not await holds():
        assert time.monotonic() < deadline, "it never came about"
        await asyncio.sleep(pause_s)
