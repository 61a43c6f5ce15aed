"""get_by_keys: one round trip for what is cached, one SELECT for the rest, and never an old row."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Numeric, String, event, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.util import await_only

from fastrdb import (
    Cache,
    Crud,
    InputError,
    MissingKeyField,
    MultipleFound,
    NotFound,
    RowsNotFound,
    UnknownField,
    UsageError,
    ValueRefused,
)
from tests.models import User, UserIn, named, user_crud
from tests.world import ANN, BOB, World, opened, until

NOBODY = 77


async def names(world: World, keys: list[Any], **told: Any) -> list[str | None]:
    """The names of the users with these keys."""
    given: dict[str, Any] = {"db": world.factory, "redis": world.cache, **told}
    return [found and found.name for found in await world.crud.get_by_keys(keys=keys, **given)]


async def cached(world: World, keys: list[Any], **told: Any) -> list[str | None]:
    """The same, once no SQL is needed for it any more."""

    async def is_hit() -> bool:
        before = len(world.sent)
        await names(world, keys, **told)
        return len(world.sent) == before

    await until(is_hit)
    return await names(world, keys, **told)


def loads(world: World) -> list[str]:
    """The SELECTs of users that were sent; a new connection is asked other things, too."""
    return [statement for statement in world.sent if "FROM users" in statement]


@pytest.fixture
async def by_memory(database_url: str) -> AsyncIterator[World]:
    """A world whose cache is in this process."""
    async with opened(database_url, "memory://") as world:
        yield world


# What comes back.


async def test_rows_come_in_the_order_of_the_keys(world: World) -> None:
    """Order and duplicates of the keys are those of the rows, loaded and cached; missing ones are left out."""
    keys = [BOB, NOBODY, ANN, BOB]
    assert await names(world, keys) == ["Bob", "Ann", "Bob"]
    assert await cached(world, keys) == ["Bob", "Ann", "Bob"]
    assert await names(world, keys, redis=None) == ["Bob", "Ann", "Bob"]


async def test_missing_rows_are_none_or_named(world: World) -> None:
    """Missing rows are ``None`` in their places, or named all together by one error, each key once."""
    keys = [78, ANN, NOBODY, 78]
    for _ in range(2):
        assert await names(world, keys, missing="none") == [None, "Ann", None, None]
        with pytest.raises(
            RowsNotFound, match=r"no User for \[0\] 78; \[2\] 77; pass missing='skip' or 'none'"
        ) as error:
            await names(world, keys, missing="raise")
        assert error.value.rows == {0: 78, 2: 77}
        assert isinstance(error.value, NotFound)
    assert await names(world, [BOB, ANN], missing="raise") == ["Bob", "Ann"]


async def test_no_keys_give_no_rows(world: World) -> None:
    """An empty list gives an empty list, and no statement is sent."""
    assert await names(world, []) == []
    assert world.sent == []


async def test_keys_of_another_template(world: World) -> None:
    """Mappings name the fields of any row template; values are read as in a query string."""
    keys = [{"email": "bob@x"}, {"email": "nobody@x"}, {"email": "ann@x"}]
    assert await names(world, keys) == ["Bob", "Ann"]
    assert await cached(world, keys) == ["Bob", "Ann"]
    assert await names(world, [{"id": "2"}, {"id": 1}]) == ["Bob", "Ann"]


async def test_iterators_are_keys_too(world: World) -> None:
    """Keys may come from a generator, and are read once."""
    found = await world.crud.get_by_keys(world.factory, world.cache, (number for number in (BOB, ANN)))
    assert [user.name for user in found] == ["Bob", "Ann"]


@pytest.mark.parametrize(
    ("keys", "error"),
    [
        ([1, {"id": 2}], UsageError),
        ([{"id": 1}, {"email": "ann@x"}], UsageError),
        ([{"name": "Ann"}], UsageError),
        ([{"nam": "Ann"}], UnknownField),
        (["one"], ValueRefused),
        ([None], ValueRefused),
        ([[1, 2]], ValueRefused),
        ([(1, 2)], UsageError),
        ([(1,), 1], UsageError),
        ("12", UsageError),
        (12, UsageError),
        ({"id": 1}, UsageError),
    ],
)
async def test_wrong_keys_are_refused(pg_world: World, keys: Any, error: type[Exception]) -> None:
    """Keys of several kinds, of no key, or of a wrong type raise before anything is sent."""
    with pytest.raises(error):
        await names(pg_world, keys)
    assert pg_world.sent == []


@pytest.mark.parametrize("method", ["get_by_keys", "update_multi", "delete_multi"])
async def test_missing_that_means_nothing_is_refused_in_one_way(pg_world: World, method: str) -> None:
    """Every method that takes ``missing=`` refuses another word as a wrong value, and names those that there are."""
    with pytest.raises(InputError, match=r"missing: 'drop'; pass one of .*'skip'"):
        await getattr(pg_world.crud, method)(pg_world.factory, pg_world.cache, [1], missing="drop")
    assert pg_world.sent == []


# How many round trips and statements.


async def test_one_select_for_all_that_is_missing(world: World) -> None:
    """However many keys are not cached, one SELECT loads them, and what is cached is not loaded again."""
    rows = [UserIn(email=f"{number}@x", name=str(number)) for number in range(300)]
    made = await world.crud.create_multi(db=world.factory, redis=world.cache, instances=rows)
    keys = [user.id for user in made]
    world.sent.clear()
    expected = [user.name for user in made]
    assert await names(world, keys) == expected
    assert len(loads(world)) == 1
    assert await cached(world, keys) == expected
    world.sent.clear()
    assert await names(world, [*keys, ANN]) == [*expected, "Ann"]
    assert len(loads(world)) == 1


async def test_what_was_loaded_is_a_hit_for_get(world: World) -> None:
    """A row that get_by_keys has cached is a hit for ``get``, and one that ``get`` has cached is one for it."""
    await cached(world, [ANN, NOBODY])
    assert (await world.read(id=ANN)).from_cache
    assert (await world.read(id=NOBODY)).from_cache
    await world.warm(id=BOB)
    world.sent.clear()
    assert await names(world, [BOB, ANN]) == ["Bob", "Ann"]
    assert world.sent == []


async def test_memory_store(by_memory: World) -> None:
    """The embedded cache answers as a server does."""
    assert await names(by_memory, [BOB, NOBODY, ANN], missing="none") == ["Bob", None, "Ann"]
    assert await cached(by_memory, [BOB, NOBODY, ANN], missing="none") == ["Bob", None, "Ann"]
    await by_memory.crud.update(by_memory.factory, by_memory.cache, named("new"), id=ANN)
    assert await names(by_memory, [BOB, ANN]) == ["Bob", "new"]


# Filters.


async def test_filters_narrow(world: World) -> None:
    """A row that does not satisfy the filters, or the condition, is missing, and the plain row is not disturbed."""
    await world.execute("UPDATE users SET group_id = 2 WHERE id = 2")
    for _ in range(3):
        assert await names(world, [ANN, BOB], filters={"group_id": 2}) == ["Bob"]
        assert await names(world, [ANN, BOB], where=User.group_id < 2) == ["Ann"]
        assert await names(world, [ANN, BOB]) == ["Ann", "Bob"]
    assert await cached(world, [ANN, BOB], filters={"group_id": 2}) == ["Bob"]
    await world.crud.update(world.factory, world.cache, named("new"), id=BOB)
    assert await names(world, [ANN, BOB], filters={"group_id": 2}) == ["new"]


async def test_a_filter_on_the_key_itself_stays_apart(world: World) -> None:
    """A filter that excludes a key makes no entry under which ``get`` would then find nothing."""
    for _ in range(3):
        assert await names(world, [ANN, BOB], filters={"id": ANN}, missing="none") == ["Ann", None]
    found = await world.crud.get_or_none(world.factory, world.cache, id=BOB, filters={"id": BOB})
    assert found is not None
    assert (await world.read(id=BOB)).name == "Bob"


# Never old.


@pytest.mark.parametrize("key", ["id", "email"])
async def test_writes_are_seen(world: World, key: str) -> None:
    """After an update, a delete, a create and a changed key, no key gives what was cached before."""
    keys: list[Any] = (
        [{"id": ANN}, {"id": BOB}, {"id": 3}]
        if key == "id"
        else [{"email": "ann@x"}, {"email": "bob@x"}, {"email": "cid@x"}]
    )
    told: dict[str, Any] = {"missing": "none"}
    assert await cached(world, keys, **told) == ["Ann", "Bob", None]
    given = {"db": world.factory, "redis": world.cache}
    await world.crud.update(**given, obj_in=named("new"), id=ANN)
    assert await names(world, keys, **told) == ["new", "Bob", None]
    await cached(world, keys, **told)
    await world.crud.create(**given, obj_in=UserIn(email="cid@x", name="Cid"))
    assert await names(world, keys, **told) == ["new", "Bob", "Cid"]
    await cached(world, keys, **told)
    await world.crud.delete(**given, id=BOB)
    assert await names(world, keys, **told) == ["new", None, "Cid"]


async def test_joined_writes_are_seen_after_commit(world: World) -> None:
    """A transaction's own reads see its writes, others see them after COMMIT, and after a rollback never."""
    await cached(world, [ANN, BOB])
    async with world.factory() as session:
        async with session.begin():
            await world.crud.update(session, world.cache, named("new"), id=ANN)
            assert await names(world, [ANN, BOB], db=session) == ["new", "Bob"]
            if world.dialect != "sqlite":
                assert await names(world, [ANN, BOB]) == ["Ann", "Bob"]
        assert await names(world, [ANN, BOB]) == ["new", "Bob"]
        async with session.begin():
            await world.crud.update(session, world.cache, named("gone"), id=BOB)
            await session.rollback()
    assert await names(world, [ANN, BOB]) == ["new", "Bob"]


@asynccontextmanager
async def during_the_load(world: World, work: Callable[[], Awaitable[Any]]) -> AsyncIterator[list[str]]:
    """Do something between the claim and the fill: when the SELECT has been answered, and has not been cached yet."""
    done: list[str] = []

    def after(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("SELECT") and "FROM users" in statement and not done:
            done.append(statement)
            await_only(work())

    event.listen(world.engine.sync_engine, "after_cursor_execute", after)
    try:
        yield done
    finally:
        event.remove(world.engine.sync_engine, "after_cursor_execute", after)


async def test_a_write_between_claim_and_fill_wins(pg_world: World) -> None:
    """Rows that were loaded before a write that ended while they were loaded are served, and not stored."""
    world = pg_world
    writer = async_sessionmaker(world.another_engine())

    async def write() -> None:
        await world.crud.update(writer, world.another_cache(), named("new"), id=ANN)

    async with during_the_load(world, write) as done:
        assert await names(world, [BOB, ANN]) == ["Bob", "Ann"]
    assert len(done) == 1
    assert await names(world, [ANN, BOB]) == ["new", "Bob"]
    assert await cached(world, [ANN, BOB]) == ["new", "Bob"]


async def test_a_created_row_between_claim_and_fill_wins(pg_world: World) -> None:
    """A null that was loaded before the row was created is not stored."""
    world = pg_world
    writer = async_sessionmaker(world.another_engine())

    async def write() -> None:
        await world.crud.create(writer, world.another_cache(), UserIn(email="cid@x", name="Cid"))

    async with during_the_load(world, write):
        assert await names(world, [3, ANN], missing="none") == [None, "Ann"]
    assert await names(world, [3, ANN], missing="none") == ["Cid", "Ann"]


async def test_held_rows_are_loaded_and_not_stored(pg_world: World) -> None:
    """While a writer's COMMIT is on its way, its row comes from SQL, the others from the cache."""
    world = pg_world
    await cached(world, [ANN, BOB])
    reader, seen = async_sessionmaker(world.another_engine()), []

    def look(connection: object) -> None:
        seen.append(await_only(names(world, [ANN, BOB], db=reader)))

    event.listen(world.engine.sync_engine, "commit", look)
    await world.crud.update(world.factory, world.cache, named("new"), id=ANN)
    event.remove(world.engine.sync_engine, "commit", look)
    assert seen == [["Ann", "Bob"]]
    assert await names(world, [ANN, BOB]) == ["new", "Bob"]


async def test_lost_claims_are_not_filled(pg_world: World) -> None:
    """Entries that were dropped by hand during the load stay empty."""
    world = pg_world

    async def drop() -> None:
        await world.crud.invalidate(world.cache, id=ANN, email="ann@x", group_id=1)

    async with during_the_load(world, drop):
        assert await names(world, [ANN, BOB]) == ["Ann", "Bob"]
    assert await world.state(id=ANN) == "miss: absent"
    assert await world.state(id=BOB) == "hit"


async def test_a_failed_load_leaves_no_claim(pg_world: World) -> None:
    """After a SELECT that failed nothing is claimed, and the next call loads and stores."""
    world = pg_world

    async def fail() -> None:
        raise RuntimeError("no")

    async with during_the_load(world, fail):
        with pytest.raises(RuntimeError):
            await names(world, [ANN, BOB])
    assert await world.state(id=ANN) == "miss: absent"
    assert await names(world, [ANN, BOB]) == ["Ann", "Bob"]
    assert world.cache.flights == {}


async def test_overlapping_keys_in_opposite_orders(world: World) -> None:
    """Readers of the same keys in other orders, alone and together, all get their rows, with few SELECTs."""
    await world.crud.clear(world.cache)
    await names(world, [ANN])  # the template is confirmed
    await world.crud.clear(world.cache)
    world.sent.clear()
    calls = [names(world, keys) for keys in ([ANN, BOB], [BOB, ANN], [BOB, NOBODY, ANN], [ANN])]
    found = await asyncio.wait_for(asyncio.gather(*calls), 20)
    assert found == [["Ann", "Bob"], ["Bob", "Ann"], ["Bob", "Ann"], ["Ann"]]
    assert len(loads(world)) <= 3


async def test_claims_of_others_are_waited_for(pg_world: World) -> None:
    """What another process loads is waited for and taken from the cache; what nobody loads is loaded meanwhile."""
    world = pg_world
    await cached(world, [ANN, BOB])
    await world.crud.clear(world.cache)
    await names(world, [3])
    slow, reached, goes_on = world.another_cache(), asyncio.Event(), asyncio.Event()
    elsewhere = async_sessionmaker(world.another_engine())

    async def wait() -> None:
        reached.set()
        await goes_on.wait()

    engine = elsewhere.kw["bind"].sync_engine
    event.listen(engine, "after_cursor_execute", lambda *_: await_only(wait()))
    other = asyncio.ensure_future(names(world, [ANN], db=elsewhere, redis=slow))
    await reached.wait()
    mine = asyncio.ensure_future(names(world, [BOB, ANN]))
    await until(lambda: is_state(world, BOB, "hit"))
    goes_on.set()
    assert await mine == ["Bob", "Ann"]
    assert await other == ["Ann"]


async def is_state(world: World, id: int, state: str) -> bool:
    """Whether the cache has a user in this state."""
    return await world.state(id=id) == state


async def test_transactions_do_not_wait(pg_world: World) -> None:
    """In a transaction, what another is loading is loaded, too; there is no wait that keeps a connection."""
    world = pg_world
    await cached(world, [ANN])
    await world.crud.clear(world.cache)
    reached, goes_on = asyncio.Event(), asyncio.Event()
    elsewhere = async_sessionmaker(world.another_engine())

    async def wait() -> None:
        reached.set()
        await goes_on.wait()

    event.listen(elsewhere.kw["bind"].sync_engine, "after_cursor_execute", lambda *_: await_only(wait()))
    other = asyncio.ensure_future(names(world, [ANN], db=elsewhere))
    await reached.wait()
    async with world.factory() as session:
        await session.execute(select(User.id))
        assert await names(world, [ANN, BOB], db=session) == ["Ann", "Bob"]
    async with world.factory() as session:  # one that leads for Bob, and then has a connection
        await world.crud.invalidate(world.cache, id=BOB)
        assert await names(world, [ANN, BOB], db=session) == ["Ann", "Bob"]
    goes_on.set()
    assert await other == ["Ann"]


async def test_cache_out_of_reach(database_url: str, private_redis: Any) -> None:
    """When the server does not answer, SQL does."""
    server = private_redis("valkey")
    async with opened(database_url, server.url) as world:
        assert await cached(world, [ANN, BOB]) == ["Ann", "Bob"]
        server.kill()
        assert await names(world, [ANN, NOBODY, BOB], missing="none") == ["Ann", None, "Bob"]


# Kinds of keys.


class Base(DeclarativeBase):
    """Tables with other keys."""


class Verse(Base):
    """A composite primary key, a name without a unique key, a price."""

    __tablename__ = "verses"
    chapter: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    verse: Mapped[str] = mapped_column(String(20), primary_key=True)
    title: Mapped[str] = mapped_column(String(50), default="t")
    price: Mapped[Decimal] = mapped_column(Numeric(8, 2), default=Decimal("1.50"))


class VerseOut(BaseModel):
    """A verse."""

    model_config = ConfigDict(from_attributes=True)
    chapter: int
    verse: str
    title: str
    price: Decimal


class VerseIn(VerseOut):
    """A new verse."""

    title: str = "t"
    price: Decimal = Decimal("1.50")


@pytest.fixture
async def verses(database_url: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Four verses."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    factory = async_sessionmaker(engine)
    crud = verse_crud()
    rows = [
        VerseIn(chapter=1, verse="a", title="one"),
        VerseIn(chapter=1, verse="b", title="two"),
        VerseIn(chapter=2, verse="a", title="two", price=Decimal("9.99")),
        VerseIn(chapter=2, verse="b:c", title="John", price=Decimal("2.00")),
    ]
    await crud.create_multi(factory, None, rows)
    yield factory
    await engine.dispose()


def verse_crud(*pattern: str) -> Crud[Verse, VerseIn, VerseIn, VerseOut]:
    """A crud over verses."""
    return Crud[Verse, VerseIn, VerseIn, VerseOut](Verse, VerseOut, pattern=pattern or None)


async def test_composite_keys(verses: async_sessionmaker[AsyncSession]) -> None:
    """Mappings and tuples of a composite key give its rows, with a template and without, cached and not."""
    keys = [{"verse": "b:c", "chapter": 2}, {"verse": "b", "chapter": 2}, {"chapter": 1, "verse": "a"}]
    for crud in (verse_crud(), verse_crud("verse:{chapter}:{verse}"), verse_crud("verse:{chapter}")):
        async with Cache.from_url("memory://") as cache:
            for _ in range(3):
                found = await crud.get_by_keys(verses, cache, keys, missing="none")
                assert [each and each.title for each in found] == ["John", None, "one"]
            tuples = [(2, "b:c"), ("2", "b"), (1, "a")]
            assert await crud.get_by_keys(verses, cache, tuples, missing="none") == found
            with pytest.raises(MissingKeyField):
                await crud.get_by_keys(verses, cache, [{"verse": "a"}])


async def test_bare_values_need_a_single_field(verses: async_sessionmaker[AsyncSession]) -> None:
    """Bare values are those of a template of one field; without one, a composite key asks for more."""
    with pytest.raises(UsageError, match="tuples of chapter, verse, or mappings"):
        await verse_crud().get_by_keys(verses, None, [1])
    (found,) = await verse_crud("verse:{chapter}:{verse}", "price:{price}").get_by_keys(verses, None, ["9.990"])
    assert (found.chapter, found.verse) == (2, "a")


async def test_several_rows_of_one_key(verses: async_sessionmaker[AsyncSession]) -> None:
    """A key that several rows have raises as in ``get``, again and again, and leaves nothing behind."""
    crud = verse_crud("verse:title:{title}")
    async with Cache.from_url("memory://") as cache:
        for _ in range(3):
            with pytest.raises(MultipleFound, match="two"):
                await crud.get_by_keys(verses, cache, ["one", "two"])
            assert [each.verse for each in await crud.get_by_keys(verses, cache, ["one", "John"])] == ["a", "b:c"]


async def test_what_the_database_takes_for_equal(verses: async_sessionmaker[AsyncSession]) -> None:
    """Keys find the rows that ``get`` finds, also where the database compares texts in its own way."""
    crud = verse_crud("verse:title:{title}")
    async with Cache.from_url("memory://") as cache:
        for _ in range(3):
            for title in ("JOHN", "john", "One"):
                one = await crud.get_or_none(verses, cache, title=title)
                assert await crud.get_by_keys(verses, cache, [title], missing="none") == [one]
            many = await crud.get_by_keys(verses, cache, ["JOHN", "John", "none"], missing="none")
            assert many[1] is not None
            assert many[0] == await crud.get_or_none(verses, None, title="JOHN")
            assert many[2] is None


async def test_more_keys_than_parameters(pg_world: World) -> None:
    """Tens of thousands of keys are split, and each finds its row."""
    keys = [*range(3, 40_000), ANN]
    assert await names(pg_world, keys, redis=None) == ["Ann"]
    assert await names(pg_world, [{"email": f"{key}@x"} for key in keys] + [{"email": "bob@x"}], redis=None) == ["Bob"]


async def test_cruds_without_templates(world: World) -> None:
    """Without a row template the primary key is asked of SQL, and the cache is left alone."""
    crud = user_crud(pattern=None)
    for _ in range(2):
        found = await crud.get_by_keys(world.factory, world.cache, [BOB, ANN])
        assert [user.name for user in found] == ["Bob", "Ann"]
