"""The ten defects of FastRDB 0.1, by number: each happened there, and must not happen here."""

import asyncio
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel
from redis.asyncio import Redis
from sqlalchemy import Engine, Numeric, String, event, func, select
from sqlalchemy.exc import MultipleResultsFound, NoResultFound
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.util import await_only

from fastrdb import Cache, Crud, EmptyInput, UnknownField
from fastrdb.db import async_get_db, get_redis
from tests.servers.redis import RedisServer
from tests.tutorial.cruds import user_crud
from tests.tutorial.models import Base, User
from tests.tutorial.schemas import UserCreate, UserResponse, UserUpdate

JOHN, JANE, JACK = (
    UserCreate(email=f"{name.lower()}@example.com", name=name, is_active=name != "Jack")
    for name in ("John", "Jane", "Jack")
)
FOREIGN = 100_000  # keys of others beside ours

Factory = async_sessionmaker[AsyncSession]


class Statements(list[str]):
    """The first word of each SQL statement sent."""

    def listen(self, engine: AsyncEngine) -> None:
        """Note what this engine sends from now on."""
        sync: Engine = engine.sync_engine
        event.listen(sync, "before_cursor_execute", lambda *args: self.append(args[2].split()[0]))


@pytest.fixture
async def engine(sqlite_url: str) -> AsyncIterator[AsyncEngine]:
    """The users' table on SQLite."""
    engine = create_async_engine(sqlite_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
def db(engine: AsyncEngine) -> Factory:
    """Sessions on it."""
    return async_sessionmaker(engine, expire_on_commit=False)


@pytest.fixture
def sent(engine: AsyncEngine) -> Statements:
    """What is sent to it."""
    sent = Statements()
    sent.listen(engine)
    return sent


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """A client of a real server."""
    client: Redis = Redis.from_url(valkey_url)
    yield client
    await client.aclose()


async def in_database(db: Factory, column: Any, **criteria: Any) -> list[Any]:
    """A column of the users, by plain SQLAlchemy."""
    async with db() as session:
        return list((await session.execute(select(column).filter_by(**criteria).order_by(User.id))).scalars())


async def test_fr_01_create_leaves_the_row_cached(db: Factory, redis: Redis, sent: Statements) -> None:
    """A created row is cached, though each write drops the directory that it lies in."""
    crud = Crud[User, UserCreate, UserUpdate, UserResponse](
        User, UserResponse, pattern="user:email:{email}", invalidate_pattern_prefix="user:*"
    )
    created = await crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    sent.clear()
    assert await redis.exists("user:email:john@example.com") == 1
    assert await crud.get(db=db, redis=redis, email=JOHN.email) == created
    assert sent == []


async def test_fr_02_lists_differ_by_order_and_filters(db: Factory, redis: Redis) -> None:
    """Two lists of one page and limit share nothing when their order or their filters differ."""
    await user_crud.create_multi(db=db, redis=redis, instances=[JOHN, JANE, JACK])

    async def names(**asked: Any) -> list[str]:
        return [user.name for user in await user_crud.get_multi(db=db, redis=redis, limit=10, page=1, **asked)]

    for _ in range(2):
        assert await names(order_by="name") == ["Jack", "Jane", "John"]
        assert await names(order_by="name", ascending=False) == ["John", "Jane", "Jack"]
        assert await names() == ["John", "Jane", "Jack"]
        assert await names(is_active=False) == ["Jack"]
        assert await names(is_active=True) == ["John", "Jane"]


async def test_fr_03_hit_minds_further_filters(db: Factory, redis: Redis, sent: Statements) -> None:
    """A cached row is not given to a ``get`` whose further filters it does not satisfy."""
    await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    assert (await user_crud.get(db=db, redis=redis, email=JOHN.email)).is_active
    with pytest.raises(NoResultFound):
        await user_crud.get(db=db, redis=redis, email=JOHN.email, is_active=False)


async def test_fr_03_missing_rows_are_cached(db: Factory, redis: Redis, sent: Statements) -> None:
    """Three ``get`` of a row that does not exist send one SELECT, and the row is found once it does."""
    for _ in range(3):
        with pytest.raises(NoResultFound):
            await user_crud.get(db=db, redis=redis, email=JOHN.email)
    assert sent == ["SELECT"]
    await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    assert (await user_crud.get(db=db, redis=redis, email=JOHN.email)).name == "John"


async def test_fr_04_slow_reader_cannot_bring_the_old_row_back(postgres_url: str, redis: Redis) -> None:
    """A reader that has read the old row, and stores it only after a write has returned, does not store it."""
    engine, slow = create_async_engine(postgres_url), create_async_engine(postgres_url)
    has_read, may_store = asyncio.Event(), asyncio.Event()

    def pause(*args: Any) -> None:
        if "FROM users" in args[2]:
            has_read.set()
            await_only(may_store.wait())

    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    db, slow_db = async_sessionmaker(engine), async_sessionmaker(slow)
    await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    await user_crud.invalidate(redis)
    event.listen(slow.sync_engine, "after_cursor_execute", pause)
    reader = asyncio.create_task(user_crud.get(db=slow_db, redis=redis, email=JOHN.email))
    await has_read.wait()
    await user_crud.update(db=db, redis=redis, obj_in=UserUpdate(name="NEW"), email=JOHN.email)
    may_store.set()
    assert (await reader).name == "John"  # it began before the write, and may say so
    assert (await user_crud.get(db=db, redis=redis, email=JOHN.email)).name == "NEW"
    await engine.dispose()
    await slow.dispose()


async def test_fr_05_changed_key_is_dropped(db: Factory, redis: Redis) -> None:
    """A row whose key field has changed is found under its new key only."""
    await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    await user_crud.get(db=db, redis=redis, email=JOHN.email)
    moved = await user_crud.update(db=db, redis=redis, obj_in=UserUpdate(email="new@example.com"), email=JOHN.email)
    assert await user_crud.get(db=db, redis=redis, email="new@example.com") == moved
    with pytest.raises(NoResultFound):
        await user_crud.get(db=db, redis=redis, email=JOHN.email)


async def test_fr_05_foreign_prefix_leaves_no_list_stale(db: Factory, redis: Redis) -> None:
    """Lists follow every write, though the invalidation pattern of the crud names another directory."""
    assert await user_crud.get_multi(db=db, redis=redis) == []
    created = await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    assert await user_crud.get_multi(db=db, redis=redis) == [created]


async def test_fr_06_invalidation_ignores_foreign_keys(db: Factory, redis: Redis, valkey_server: RedisServer) -> None:
    """A write that drops a directory sends the same commands beside 100 000 keys of others as beside none."""
    crud = Crud[User, UserCreate, UserUpdate, UserResponse](
        User, UserResponse, pattern="user:email:{email}", invalidate_pattern_prefix="user:*"
    )
    await crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)

    async def commands() -> dict[str, int]:
        before = await calls(redis)
        await crud.update(db=db, redis=redis, obj_in=UserUpdate(name="New"), email=JOHN.email)
        after = await calls(redis)
        return {name: after[name] - before.get(name, 0) for name in after if name != "cmdstat_info"}

    await commands()
    alone = await commands()
    await redis.mset({f"other:{number}": "x" for number in range(FOREIGN)})
    crowded = await commands()
    assert {**crowded, "cmdstat_mset": 0} == {**alone, "cmdstat_mset": 0}
    assert sum(alone.values()) > 0
    assert "cmdstat_scan" not in alone


async def calls(redis: Redis) -> dict[str, int]:
    """How often each command was called."""
    return {name: stats["calls"] for name, stats in (await redis.info("commandstats")).items()}


async def test_fr_07_several_rows_are_not_changed(db: Factory, redis: Redis) -> None:
    """``update`` and ``delete`` whose criterion matches several rows raise, and change none of them."""
    await user_crud.create_multi(db=db, redis=redis, instances=[JOHN, JANE, JACK])
    with pytest.raises(MultipleResultsFound):
        await user_crud.update(db=db, redis=redis, obj_in=UserUpdate(name="All"), is_active=True)
    with pytest.raises(MultipleResultsFound):
        await user_crud.delete(db=db, redis=redis, is_active=True)
    assert await in_database(db, User.name) == ["John", "Jane", "Jack"]


async def test_fr_07_write_does_not_need_redis(
    db: Factory, private_redis: Callable[..., RedisServer], tmp_path: Any
) -> None:
    """With Redis gone, a write that is saved says so, and reads tell the truth: then, and when Redis is back."""
    server = private_redis("valkey")
    async with Cache.from_url(server.url, timeout_s=0.3) as cache:
        await user_crud.create(db=db, redis=cache, obj_in=JOHN, email=JOHN.email)
        server.pause()
        changed = await user_crud.update(db=db, redis=cache, obj_in=UserUpdate(name="New"), email=JOHN.email)
        assert await in_database(db, User.name) == ["New"]
        assert await user_crud.get(db=db, redis=cache, email=JOHN.email) == changed
        server.resume()
        assert await user_crud.get(db=db, redis=cache, email=JOHN.email) == changed
        while cache.undelivered:
            await asyncio.sleep(0.05)
        assert await user_crud.get(db=db, redis=cache, email=JOHN.email) == changed


def test_fr_08_paginate_slices() -> None:
    """``paginate`` gives the page asked for, and the length of the whole list as total."""
    page = user_crud.paginate([1, 2, 3], limit=2, page=1)
    assert (page.data, page.total) == ([1, 2], 3)
    assert user_crud.paginate([1, 2, 3], limit=2, page=2).data == [3]


class PriceBase(DeclarativeBase):
    """A model without ``id``."""


class Price(PriceBase):
    """A row with a Decimal, named by its article."""

    __tablename__ = "prices"
    article: Mapped[str] = mapped_column(String(20), primary_key=True)
    amount: Mapped[Decimal] = mapped_column(Numeric(10, 2))


class PriceRow(BaseModel):
    """A price, in and out."""

    article: str
    amount: Decimal


price_crud = Crud[Price, PriceRow, PriceRow, PriceRow](
    Price, PriceRow, pattern="price:{article}", list_pattern="prices:page:{page}:limit:{limit}"
)


async def test_fr_09_decimals_and_other_keys(
    engine: AsyncEngine, db: Factory, redis: Redis, sent: Statements, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows with Decimals are cached exactly and silently, and a table without a column ``id`` can be counted."""
    async with engine.begin() as connection:
        await connection.run_sync(PriceBase.metadata.create_all)
    created = await price_crud.create(db=db, redis=redis, obj_in=PriceRow(article="pen", amount=Decimal("1.10")))
    assert await price_crud.get_multi(db=db, redis=redis) == [created]
    sent.clear()
    assert await price_crud.get_multi(db=db, redis=redis) == [created]
    assert (created.amount, sent) == (Decimal("1.10"), [])
    assert await price_crud.count(db=db, article="pen") == 1
    assert capsys.readouterr() == ("", "")


async def test_fr_09_bad_input_is_refused(db: Factory, redis: Redis, sent: Statements) -> None:
    """An unknown ``order_by``, an empty ``create_multi`` and an empty update raise before anything is sent."""
    with pytest.raises(UnknownField, match="'nmae'; did you mean 'name'"):
        await user_crud.get_multi(db=db, redis=redis, order_by="nmae")
    with pytest.raises(EmptyInput):
        await user_crud.create_multi(db=db, redis=redis, instances=[])
    with pytest.raises(EmptyInput):
        await user_crud.update(db=db, redis=redis, obj_in=UserUpdate(), email=JOHN.email)
    assert sent == []


async def test_fr_10_session_is_committed_after_use(db: Factory) -> None:
    """A row added to the session of ``async_get_db`` is in the database afterwards."""
    async with async_get_db(db)() as session:
        session.add(Nickname(user="john", name="Johnny"))
    async with db() as session:
        assert (await session.execute(select(func.count()).select_from(Nickname))).scalar_one() == 1


class Nickname(Base):
    """A dataclass that can be constructed without a key."""

    __tablename__ = "nicknames"
    id: Mapped[int] = mapped_column(primary_key=True, init=False)
    user: Mapped[str]
    name: Mapped[str]


async def test_fr_10_dependencies_are_context_managers(db: Factory, redis: Redis) -> None:
    """``async with`` works on both dependencies at once, without a decorator."""
    get_db, get_client = async_get_db(db), get_redis(redis)
    async with get_client() as client, get_db() as session:
        assert (await user_crud.create(db=session, redis=client, obj_in=JOHN, email=JOHN.email)).id == 1


async def test_fr_10_dataclass_needs_no_constructor(db: Factory, redis: Redis) -> None:
    """``create`` works on a dataclass whose constructor demands the columns that the database fills."""
    with pytest.raises(TypeError, match="id"):
        User(email="a@example.com", name="A", bio=None)  # type: ignore[call-arg]  # the point
    assert (await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)).id == 1
