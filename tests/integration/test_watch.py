"""Plain sessions under ``watch``: what they write is dropped from the cache as if a crud had written it."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import DDL, delete, insert, select, text, update
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastrdb import (
    Cache,
    ConfigurationError,
    Crud,
    RedisRefused,
    SessionRefused,
    UnknownField,
    UsageError,
    invalidate,
    watch,
)
from tests.market import LABELLED, Base, Label, Loose, Market, Shop, Ware, WareOut, market_in
from tests.shop import Base as People
from tests.shop import shop_in
from tests.world import until


async def test_what_is_added_is_listed(market: Market) -> None:
    """A row that a session adds is found where nothing was, in lists and in counts, once it is committed."""
    async with market.factory() as session:
        session.add(Ware(id=3, shop_id=1, name="plum"))
        await session.flush()
        assert await market.ware(3) is None
        await session.commit()
    assert await market.ware(3) == "plum"
    assert await market.listed(1) == ["apple", "pear", "plum"]


async def test_a_change_names_its_row(market: Market) -> None:
    """A changed attribute is seen by the row's readers; what is cached of another row stays."""
    async with market.factory.begin() as session:
        ware = await session.get_one(Ware, 1)
        ware.name = "quince"
    assert await market.ware(1) == "quince"
    assert await market.listed(1) == ["quince", "pear"]
    assert await market.is_hit(market.ware(2))
    assert await market.is_hit(market.shop("red"))


async def test_a_row_that_moves_leaves_its_list(market: Market) -> None:
    """A change of a column in a template is seen where the row was and where it is."""
    async with market.factory.begin() as session:
        (await session.get_one(Ware, 1)).shop_id = 2
        (await session.get_one(Shop, 1)).code = "green"
    assert (await market.listed(1), await market.listed(2)) == (["pear"], ["apple"])
    assert (await market.shop("red"), await market.shop("green")) == (None, "Red")


async def test_what_the_session_remembers_may_be_old(market: Market) -> None:
    """A row that somebody else has moved meanwhile is dropped where it lies now, not where the session saw it."""
    async with market.factory() as session:
        ware = await session.get_one(Ware, 1)
        await session.commit()
        await market.wares.update(market.plain, market.cache, Loose(shop_id=2), id=1)
        await market.warm()
        ware.name = "quince"
        await session.commit()
    assert await market.listed(2) == ["quince"]


async def test_a_deleted_row_takes_others_along(market: Market) -> None:
    """A deleted object, and what the session or the database deletes with it, is gone for readers."""
    async with market.factory.begin() as session:
        await session.delete(await session.get_one(Shop, 1))
    assert await market.shop("red") is None
    assert (await market.ware(1), await market.listed(1)) == (None, [])


async def test_an_orphan_is_gone(market: Market) -> None:
    """A row that its parent lets go of, and that the flush deletes, is gone for readers."""
    async with market.factory.begin() as session:
        shop = await session.get_one(Shop, 1)
        await session.run_sync(lambda _: shop.wares.pop(0))
    assert (await market.ware(1), await market.listed(1)) == (None, ["pear"])


async def test_an_association_is_a_write_of_its_table(market: Market) -> None:
    """A row of an association table, which no object stands for, drops what depends on that table."""
    labelled = Crud[Ware, Loose, Loose, WareOut](
        Ware, WareOut, list_pattern="labelled:{page}:{limit}", depends_on=(Label,)
    )
    condition = Ware.id.in_(select(LABELLED.c.ware_id))

    async def found() -> list[int]:
        return [each.id for each in await labelled.get_multi(market.plain, market.cache, where=condition)]

    assert [await found(), await found()] == [[], []]
    async with market.factory.begin() as session:
        ware = await session.get_one(Ware, 2)
        await session.run_sync(lambda _: ware.labels.append(Label(text="fresh")))
    assert await found() == [2]


@pytest.mark.parametrize("way", ["orm update", "orm delete", "orm insert", "core", "core insert", "textual", "bulk"])
async def test_statements_drop_their_table(market: Market, way: str) -> None:
    """A statement that says no rows drops all of its table."""
    async with market.factory.begin() as session:
        if way == "orm update":
            await session.execute(update(Ware).where(Ware.name == "apple").values(name="quince"))
        elif way == "orm delete":
            await session.execute(delete(Ware).where(Ware.name == "apple"))
        elif way == "orm insert":
            await session.execute(insert(Ware), [{"id": 3, "shop_id": 1, "name": "plum"}])
        elif way == "core":
            await session.execute(Ware.__table__.update().values(name="quince"))  # type: ignore[attr-defined]
        elif way == "core insert":
            await (await session.connection()).execute(insert(Ware.__table__), {"id": 3, "shop_id": 1, "name": "plum"})  # type: ignore[arg-type]
        elif way == "textual":
            await session.execute(text("UPDATE wares SET name = 'quince' WHERE id = 1"))
        else:
            await session.run_sync(lambda sync: sync.bulk_update_mappings(Ware, [{"id": 1, "name": "quince"}]))  # type: ignore[arg-type]
    async with market.plain() as session:
        there = list((await session.execute(select(Ware.name).where(Ware.shop_id == 1).order_by(Ware.id))).scalars())
    assert there != ["apple", "pear"]
    assert await market.listed(1) == there
    assert await market.ware(1) == (there[0] if way != "orm delete" else None)


async def test_what_is_rolled_back_was_never_written(market: Market) -> None:
    """A rollback drops nothing, and a savepoint that was rolled back leaves what was cached right."""
    async with market.factory() as session:
        session.add(Ware(id=3, shop_id=1, name="plum"))
        await session.flush()
        await session.rollback()
        assert await market.is_hit(market.listed(1))
        ware = await session.get_one(Ware, 1)
        async with session.begin_nested() as nested:
            ware.name = "quince"
            await session.flush()
            await nested.rollback()
        (await session.get_one(Ware, 2)).name = "melon"
        await session.commit()
    assert await market.listed(1) == ["apple", "melon"]


async def test_a_flush_that_failed_says_nothing(market: Market) -> None:
    """After a flush that the database refused, a statement in the same session still drops its table."""
    async with market.factory() as session:
        session.add(Shop(id=3, code="red"))
        with pytest.raises(Exception, match=r"(?i)unique|duplicate"):
            await session.flush()
        await session.rollback()
        await session.execute(update(Ware).values(name="quince"))
        await session.commit()
    assert await market.listed(1) == ["quince", "quince"]


async def test_a_crud_in_a_watched_session_names_its_rows(market: Market) -> None:
    """A crud's own write in such a session drops its row only, and puts the new one in its place."""
    async with market.factory() as session:
        await market.wares.update(session, market.cache, Loose(name="quince"), id=1)
    assert await market.is_hit(market.ware(1))
    assert await market.ware(1) == "quince"
    assert await market.is_hit(market.ware(2))


async def test_a_crud_and_a_flush_in_one_transaction(market: Market) -> None:
    """What is pending when a crud commits goes along, and is dropped with the crud's own row."""
    async with market.factory() as session:
        (await session.get_one(Ware, 2)).name = "melon"
        await market.wares.update(session, market.cache, Loose(name="quince"), id=1)
    assert await market.listed(1) == ["quince", "melon"]
    assert (await market.ware(1), await market.ware(2)) == ("quince", "melon")


async def test_a_session_on_a_connection_lets_its_hold_run_out(market: Market) -> None:
    """A session bound to a Connection: once that has committed, nobody reads the old row."""
    async with market.engine.connect() as connection:
        async with market.factory(bind=connection) as session:
            (await session.get_one(Ware, 1)).name = "quince"
            await session.commit()
        await connection.commit()
    assert await market.ware(1) == "quince"


async def test_a_model_bound_to_a_connection_lets_its_hold_run_out(sqlite_url: str, valkey_url: str) -> None:
    """A session that is bound to a Connection for one model: its hold ends by itself, and is not renewed."""
    async with market_in(sqlite_url, valkey_url) as market, Cache.from_url(valkey_url, hold_s=1) as cache:
        factory = async_sessionmaker(market.engine)
        watch(factory, cache, Base.metadata)
        async with market.engine.connect() as connection:
            await connection.begin()
            async with factory(binds={Ware: connection}) as session:
                (await session.get_one(Ware, 1)).name = "quince"
                await session.commit()
            await connection.commit()

        async def is_cached() -> bool:
            assert await market.ware(1) == "quince"
            return await market.is_hit(market.ware(1))

        assert not await is_cached()
        async with asyncio.timeout(5):  # a renewed one would last for 11 s
            await until(is_cached)


async def test_textual_sql_needs_the_metadata(database_url: str, valkey_url: str) -> None:
    """Without metadata, textual SQL that may write is refused before it is sent; one that reads is not."""
    engine = create_async_engine(database_url)
    async with Cache.from_url(valkey_url) as cache:
        factory = async_sessionmaker(engine)
        watch(factory, cache)
        watch(factory, cache)
        async with factory() as session:
            assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
            with pytest.raises(SessionRefused, match="metadata"):
                await session.execute(text("CREATE TABLE never (id INTEGER)"))
        async with Cache.from_url(valkey_url) as another:
            with pytest.raises(ConfigurationError, match="another cache"):
                watch(factory, another)
    await engine.dispose()


@pytest.mark.parametrize("way", ["DDL", "from_statement", "columns", "CTE"])
async def test_text_in_other_clothes(market: Market, way: str) -> None:
    """A text that is run as DDL, selected from, or part of a SELECT as its CTE, drops the tables that it mentions."""
    dialect = market.engine.dialect.name
    if dialect != "postgresql" and (way == "CTE" or dialect != "sqlite"):
        way = "DDL"  # where the others cannot write
    returning = text("UPDATE wares SET name = 'quince' RETURNING id, shop_id, name")
    columns = returning.columns(Ware.id, Ware.shop_id, Ware.name)
    ways: dict[str, Any] = {
        "DDL": DDL("UPDATE wares SET name = 'quince'"),
        "from_statement": select(Ware).from_statement(returning),
        "columns": columns,
        "CTE": select(columns.cte("changed")),
    }
    async with market.factory.begin() as session:
        await session.execute(ways[way])
    assert await market.ware(1) == "quince"


async def test_truncate_cascade(postgres_url: str, valkey_url: str) -> None:
    """TRUNCATE … CASCADE drops whatever refers to its table, also where a DELETE would have left that alone."""
    async with shop_in(postgres_url, valkey_url) as found:
        factory = async_sessionmaker(found.engine)
        watch(factory, found.cache, People.metadata)
        for _ in range(2):
            assert len(await found.orders.get_multi(factory, found.cache)) == 4
        async with factory.begin() as session:
            await session.execute(text("TRUNCATE countries CASCADE"))
        assert await found.orders.get_multi(factory, found.cache) == []


async def test_what_cannot_be_watched_is_refused(market: Market) -> None:
    """Something else than a factory or a cache, and AUTOCOMMIT, get an error that says what to pass."""
    with pytest.raises(SessionRefused, match="async_sessionmaker"):
        watch(market.engine, market.cache)  # type: ignore[arg-type]
    with pytest.raises(RedisRefused, match="redis"):
        watch(market.plain, None)
    factory = async_sessionmaker(market.engine.execution_options(isolation_level="AUTOCOMMIT"))
    watch(factory, market.cache)
    async with factory() as session:
        with pytest.raises(SessionRefused, match="AUTOCOMMIT"):
            await session.execute(update(Ware).values(name="quince"))
    assert await market.ware(1) == "apple"


async def test_two_phase_sessions_are_refused(mariadb_url: str, valkey_url: str) -> None:
    """A factory of two-phase sessions, and a session that is made so, get an error that says what to leave out."""
    async with market_in(mariadb_url, valkey_url) as market:
        with pytest.raises(SessionRefused, match="twophase"):
            watch(async_sessionmaker(market.engine, twophase=True), market.cache)
        async with market.factory(twophase=True) as session:
            with pytest.raises(SessionRefused, match="twophase"):
                await session.execute(update(Ware).values(name="quince"))
        assert await market.ware(1) == "apple"


@pytest.mark.parametrize("what", ["model", "row", "path"])
async def test_invalidating_by_hand(market: Market, what: str) -> None:
    """After a change that nobody saw, a model, one of its rows, or a path is dropped, and readers see the change."""
    async with market.engine.begin() as connection:
        await connection.execute(text("UPDATE wares SET name = 'quince' WHERE id = 1"))
    assert await market.ware(1) == "apple"
    if what == "model":
        await invalidate(market.cache, Ware)
    elif what == "row":
        await invalidate(market.cache, Ware, id=1, shop_id=1)
    else:
        await invalidate(market.cache, "ware:1*")
    assert await market.ware(1) == "quince"
    assert await market.is_hit(market.ware(2)) is (what == "row")
    assert await market.is_hit(market.shop("red"))


async def test_what_cannot_be_invalidated_is_refused(market: Market) -> None:
    """A path with fields, an unknown field, and what is neither model nor path, get an error that says why."""
    with pytest.raises(UsageError, match="pass the model"):
        await invalidate(market.cache, "ware:*", id=1)
    with pytest.raises(UnknownField, match="colour"):
        await invalidate(market.cache, Ware, colour="red")
    with pytest.raises(UsageError, match="mapped class"):
        await invalidate(market.cache, Loose)
    await invalidate(None, Ware)


@pytest.mark.parametrize("hooked", [True, False])
async def test_a_crud_without_a_cache_in_a_watched_session(market: Market, hooked: bool) -> None:
    """``redis=None`` in a watched session: the crud tells no cache, and the session does."""
    told: list[object] = []
    if hooked:

        @market.wares.after_commit
        async def tell(event: object) -> None:
            told.append(event)

    async with market.factory() as session:
        await market.wares.update(session, None, Loose(name="quince"), id=1)
    assert await market.ware(1) == "quince"
    assert len(told) == hooked


async def test_a_crud_with_another_cache_in_a_watched_session(market: Market, valkey_url: str) -> None:
    """A crud that names its rows to another cache than the watched one leaves these to the session to tell."""
    async with Cache.from_url(valkey_url, prefix="other:") as other, market.factory() as session:
        await market.wares.update(session, other, Loose(name="quince"), id=1)
    assert await market.ware(1) == "quince"


async def test_rows_that_a_crud_without_a_cache_copies(postgres_url: str, valkey_url: str) -> None:
    """Rows that a crud sends by COPY, with ``redis=None`` in a watched session, are counted once it has committed."""
    async with market_in(postgres_url, valkey_url) as market:
        rows = [Loose(shop_id=2, name="plum")] * 300
        async with market.factory() as session:
            assert await market.wares.create_multi(session, None, rows, returning=False) == 300
        assert not any("INSERT" in statement for statement in market.sent)
        assert await market.wares.count(market.plain, market.cache, shop_id=2) == 300
