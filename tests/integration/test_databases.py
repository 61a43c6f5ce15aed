"""Databases, schemas and caches that are not one and the same are kept apart."""

from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import Cache
from fastrdb.db.transactions import transaction_of, watch
from tests.models import Base, named
from tests.world import ANN, BOB, Read, World

COLD, WARM = Read("Ann", from_cache=False), Read("Ann", from_cache=True)


async def test_schema_maps_are_kept_apart(pg_world: World) -> None:
    """Tenants with a schema each never see each other's rows, whether engine or connection has the map."""
    await pg_world.execute(
        "CREATE SCHEMA other",
        "CREATE TABLE other.users (LIKE users INCLUDING ALL)",
        "INSERT INTO other.users (id, email, name, group_id) VALUES (1, 'zoe@x', 'Zoe', 1)",
    )
    mapped: dict[str, Any] = {"schema_translate_map": {None: "other"}}
    engine = pg_world.engine.execution_options(**mapped)
    await pg_world.warm()
    async with AsyncSession(engine) as session:
        assert await pg_world.read(session) == Read("Zoe", from_cache=False)
    async with AsyncSession(engine) as session:
        assert (await pg_world.read(session)).name == "Zoe"
    await pg_world.warm()
    async with pg_world.factory() as session:
        await session.connection(execution_options=mapped)
        assert await pg_world.read(session) == Read("Zoe", from_cache=False)
    assert (await pg_world.read()).name == "Ann"


async def test_write_through_a_connections_schema_map_is_kept_apart(pg_world: World) -> None:
    """What is written under a connection's schema map is not written through to those without it."""
    await pg_world.execute(
        "CREATE SCHEMA other",
        "CREATE TABLE other.users (LIKE users INCLUDING ALL)",
        "INSERT INTO other.users (id, email, name, group_id) VALUES (1, 'zoe@x', 'Zoe', 1)",
    )
    await pg_world.warm()
    async with pg_world.factory() as session:
        await session.connection(execution_options={"schema_translate_map": {None: "other"}})
        await pg_world.crud.update(db=session, redis=pg_world.cache, obj_in=named("new"), id=ANN)
    assert (await pg_world.read()).name == "Ann"
    assert (await pg_world.read()).name == "Ann"


async def test_two_databases_on_one_redis_are_kept_apart(world: World, tmp_path: Any) -> None:
    """The same key of two databases with one Redis and no prefix gives each its own row."""
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    async with other.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO users (email, name, group_id) VALUES ('x', 'Other', 1)"))
    await world.warm()
    factory = async_sessionmaker(other)
    assert (await world.read(factory)).name == "Other"
    assert (await world.read(factory)).name == "Other"
    assert (await world.read()).name == "Ann"
    await other.dispose()


async def test_function_that_changes_databases_fills_nothing_for_the_first(world: World, tmp_path: Any) -> None:
    """A factory that was remembered for one database, and gives sessions of another, does not cache what they read."""
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    async with other.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(text("INSERT INTO users (email, name, group_id) VALUES ('x', 'Other', 1)"))
    engines = [world.engine]

    def make() -> AsyncSession:
        return AsyncSession(engines[-1])

    assert (await world.read(make, id=BOB)).name == "Bob"
    engines.append(other)
    assert (await world.read(make)).name == "Other"
    assert (await world.read()).name == "Ann"
    await other.dispose()


async def test_prefixes_are_kept_apart(world: World) -> None:
    """A cache with a prefix has keys of its own."""
    other = world.another_cache(prefix="other:")
    await world.warm()
    assert await world.read(cache=other) == COLD
    assert await world.read(cache=other) == WARM


async def test_cache_can_be_left_out(world: World) -> None:
    """``redis=None`` reads SQL each time."""
    await world.warm()
    no_cache: Cache | None = None
    sent = len(world.sent)
    assert (await world.crud.get(db=world.factory, redis=no_cache, id=ANN)).name == "Ann"
    assert len(world.sent) > sent


async def test_commit_on_an_engine_with_options_is_counted_once(world: World) -> None:
    """A COMMIT on an engine with execution options calls its effects once, though that beneath is watched, too."""
    derived = world.engine.execution_options(anything=1)
    for engine in (derived, world.engine):
        watch(engine.sync_engine)
    effects = _Counted()
    async with derived.connect() as connection:
        await connection.execute(text("SELECT 1"))
        transaction = transaction_of(connection.sync_connection)  # type: ignore[arg-type]  # it is connected
        assert transaction is not None
        transaction.effects = effects
        await connection.commit()
    assert effects.commits == 1


class _Counted:
    """Effects that count."""

    commits = 0

    async def before_commit(self) -> None:
        self.commits += 1

    def write_down(self, connection: Connection) -> None:
        pass

    def forget(self) -> None:
        self.commits = -1
