"""What a reviewer found: answers that were older than a COMMIT, or another row's, each by a way of its own."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, SecretStr, field_validator
from sqlalchemy import Dialect, ForeignKey, String, exists, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column
from sqlalchemy.types import TypeDecorator

from fastrdb import Cache, CacheClosed, Crud, MultipleFound, SessionRefused, UniqueViolation, ValueRefused


class Base(DeclarativeBase):
    """The tables of these tests."""


class Sealed(TypeDecorator[SecretStr]):
    """Text that is a secret in Python."""

    impl = String
    cache_ok = True

    def process_bind_param(self, value: SecretStr | None, dialect: Dialect) -> str | None:
        """Open the secret for the database."""
        return None if value is None else value.get_secret_value()

    def process_result_value(self, value: str | None, dialect: Dialect) -> SecretStr | None:
        """Seal what the database has."""
        return None if value is None else SecretStr(value)


class Item(Base):
    """Has two numbers, a secret, a version that counts its updates, and a reference out of these tables."""

    __tablename__ = "items"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column("no", default=0)
    name: Mapped[str] = mapped_column(String(50), default="item")
    secret: Mapped[SecretStr | None] = mapped_column(Sealed)
    version: Mapped[int] = mapped_column(default=0, onupdate=text("version + 1"))


class Box(Base):
    """Has a column with a name, a key in its table and an attribute that all differ."""

    __tablename__ = "boxes"
    id: Mapped[int] = mapped_column(primary_key=True)
    number: Mapped[int] = mapped_column("no", key="its_number")


class Loan(Base):
    """Refers to a table that this program does not map."""

    __tablename__ = "loans"
    id: Mapped[int] = mapped_column(primary_key=True)
    reader_id: Mapped[int] = mapped_column(ForeignKey("readers.id", ondelete="CASCADE"))


class Loose(BaseModel):
    """Takes whatever is given."""

    model_config = ConfigDict(extra="allow")

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)


class ItemOut(BaseModel):
    """What reads and writes of items give."""

    id: int
    number: int
    name: str
    version: int


class PoliteOut(ItemOut):
    """Refuses a name, so that a response fails after its row was written."""

    @field_validator("name")
    @classmethod
    def _polite(cls, name: str) -> str:
        if name == "rude":
            raise ValueError("rude")
        return name


class BoxOut(BaseModel):
    """What reads and writes of boxes give."""

    id: int
    number: int


class LoanOut(BaseModel):
    """What reads and writes of loans give."""

    id: int
    reader_id: int


Items = Crud[Item, Loose, Loose, ItemOut]


class Shelf:
    """Three items in a SQLite file, and a cache."""

    def __init__(self, engine: AsyncEngine, cache: Cache) -> None:
        self.engine, self.cache = engine, cache
        self.sessions = async_sessionmaker(engine, expire_on_commit=False)

    def items(self, schema: type[BaseModel] = ItemOut, **options: Any) -> Crud[Item, Loose, Loose, Any]:
        """A crud over items."""
        options = {"pattern": "item:id:{id}", **options}
        given: dict[str, Any] = {"create_schema": Loose, "update_schema": Loose, "db": self.sessions}
        return Crud(Item, schema, redis=self.cache, **given, **options)


@pytest.fixture
async def shelf(sqlite_url: str) -> AsyncIterator[Shelf]:
    """Items 1 and 2, each of which has the other's id for a number."""
    engine = create_async_engine(sqlite_url)
    async with engine.begin() as connection:
        for name in ("items", "boxes"):
            await connection.run_sync(Base.metadata.tables[name].create)
        await connection.exec_driver_sql("CREATE TABLE loans (id INTEGER PRIMARY KEY, reader_id INTEGER NOT NULL)")
    cache = Cache.from_url("memory://")
    shelf = Shelf(engine, cache)
    for id in (1, 2):
        await shelf.items().create(obj_in=Loose(id=id, number=3 - id, name=f"item {id}"))
    yield shelf
    await cache.aclose()
    await engine.dispose()


# Keys.


async def test_templates_of_two_cruds_may_give_one_key(shelf: Shelf) -> None:
    """Where two cruds of one table format the same key for different rows, each gets its own row."""
    by_id, by_number = shelf.items(pattern="item:{id}"), shelf.items(pattern="item:{number}")
    assert (await by_id.get(id=1)).id == 1
    assert (await by_number.get(number=1)).id == 2


async def test_list_templates_of_two_cruds_may_give_one_key(shelf: Shelf) -> None:
    """So does each get its own list, and count."""
    by_id = shelf.items(list_pattern="items:{id}:{page}:{limit}")
    by_number = shelf.items(list_pattern="items:{number}:{page}:{limit}")
    assert [item.id for item in await by_id.get_multi(id=1)] == [1]
    assert [item.id for item in await by_number.get_multi(number=1)] == [2]
    await shelf.items().create(obj_in=Loose(id=3, number=1))
    assert await by_id.count(id=1) == 1
    assert await by_number.count(number=1) == 2


async def test_count_minds_fields_behind_the_page(shelf: Shelf) -> None:
    """Counts differ by the fields that the list template has after its page."""
    items = shelf.items(list_pattern="items:page:{page}:limit:{limit}:number:{number}")
    assert await items.count(redis=shelf.cache, number=1) == 1
    assert await items.count(redis=shelf.cache, number=99) == 0


async def test_secrets_cannot_be_keys(shelf: Shelf) -> None:
    """Two secrets look alike, so that one would find the other's row: they are refused as keys."""
    items = shelf.items(pattern="item:secret:{secret}")
    await items.create(obj_in=Loose(id=3, secret=SecretStr("three")))
    with pytest.raises(ValueRefused):
        await items.get(secret=SecretStr("three"))


async def test_in_memory_databases_are_told_apart() -> None:
    """Each engine on SQLite's memory has a database of its own, though all have one name."""
    cache, names = Cache.from_url("memory://"), []
    items: Crud[Item, Loose, Loose, ItemOut] = Crud(Item, ItemOut, pattern="item:id:{id}", redis=cache)
    for name in ("one", "two"):
        engine = create_async_engine("sqlite+aiosqlite://")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.tables["items"].create)
            await connection.exec_driver_sql(f"INSERT INTO items (id, no, name, version) VALUES (1, 1, '{name}', 0)")
        names += [(await items.get(async_sessionmaker(engine), id=1)).name for _ in range(2)]
        await engine.dispose()
    assert names == ["one", "one", "two", "two"]


# What a value depends on.


async def test_condition_on_an_alias_depends_on_other_rows(shelf: Shelf) -> None:
    """A condition that asks for other rows of the same table is aged by them."""
    items, other = shelf.items(), aliased(Item)
    where = exists().where(other.id == Item.id + 10)
    assert [await items.get_or_none(id=1, where=where) for _ in range(2)] == [None, None]
    await items.create(obj_in=Loose(id=11))
    assert (await items.get(id=1, where=where)).id == 1


# Writes that fail in a caller's transaction.


async def test_write_whose_response_fails_is_dropped_with_the_callers_commit(shelf: Shelf) -> None:
    """A row whose response could not be built is written, in the caller's transaction: its COMMIT ages the old one."""
    items, polite = shelf.items(), shelf.items(PoliteOut, pattern="polite:{id}")
    assert [(await items.get(id=1)).name for _ in range(2)] == ["item 1", "item 1"]
    async with shelf.sessions() as session, session.begin():
        with pytest.raises(ValueError, match="rude"):
            await polite.update(session, obj_in=Loose(name="rude"), id=1)
    assert (await items.get(id=1)).name == "rude"


async def test_rows_before_the_one_refused_are_dropped_with_the_callers_commit(shelf: Shelf) -> None:
    """Rows that ``create_multi`` inserted before one was refused age their list, if the caller commits them."""
    items = shelf.items(list_pattern="items:{number}:{page}:{limit}")
    assert [await items.get_multi(number=7) for _ in range(2)] == [[], []]
    async with shelf.sessions() as session, session.begin():
        with pytest.raises(UniqueViolation):
            await items.create_multi(session, instances=[Loose(id=7, number=7), Loose(id=1, number=7, name="twice")])
    async with shelf.sessions() as session:
        written = (await session.execute(select(Item.id).where(Item.number == 7))).scalars().all()
    assert [item.id for item in await items.get_multi(number=7)] == written


async def test_refused_update_of_several_rows_leaves_their_versions(shelf: Shelf) -> None:
    """What locks the rows on SQLite does not count as an update of them."""
    items = shelf.items()
    async with shelf.sessions() as session, session.begin():
        with pytest.raises(MultipleFound):
            await items.update(session, obj_in=Loose(name="all"), where=Item.id < 3)
    async with shelf.sessions() as session:
        assert (await session.execute(select(Item.version))).scalars().all() == [0, 0]


async def test_locked_update_counts_once(shelf: Shelf) -> None:
    """An update that had to lock its row first runs ``onupdate`` once."""
    assert (await shelf.items().update(obj_in=Loose(name="new"), where=Item.id == 1)).version == 1


# The caller's instances.


async def test_update_keeps_what_is_pending_on_the_instance(shelf: Shelf) -> None:
    """An attribute that the caller has changed, and not flushed, is committed with the write of another one."""
    async with shelf.sessions(autoflush=False) as session:
        item = await session.get_one(Item, 1)
        item.number = 50
        await shelf.items().update(session, obj_in=Loose(name="new"), id=1)
        assert (item.number, item.name) == (50, "new")
    async with shelf.sessions() as session:
        stored = await session.get_one(Item, 1)
        assert (stored.number, stored.name) == (50, "new")


async def test_schema_map_of_a_session_is_refused(shelf: Shelf) -> None:
    """SQLAlchemy would not apply it to our statements, which would go to another schema."""
    sessions = async_sessionmaker(shelf.engine, execution_options={"schema_translate_map": {None: "other"}})
    with pytest.raises(SessionRefused, match="engine"):
        await shelf.items().get(sessions, id=1)


# Models.


async def test_column_whose_key_is_not_its_name(shelf: Shelf) -> None:
    """A template may name a column whose key in the table differs from its name, and follows its changes."""
    given: dict[str, Any] = {"create_schema": Loose, "update_schema": Loose, "db": shelf.sessions}
    boxes: Crud[Box, Loose, Loose, BoxOut] = Crud(Box, BoxOut, pattern="box:{number}", redis=shelf.cache, **given)
    assert (await boxes.create(obj_in=Loose(id=3, number=30))).number == 30
    assert (await boxes.get(number=30)).id == 3
    await boxes.update(obj_in=Loose(number=31), id=3)
    assert await boxes.get_or_none(number=30) is None


async def test_reference_to_a_table_that_is_not_mapped(shelf: Shelf) -> None:
    """A foreign key into a table that the program does not know hinders no write."""
    given: dict[str, Any] = {"create_schema": Loose, "update_schema": Loose, "db": shelf.sessions}
    loans: Crud[Loan, Loose, Loose, LoanOut] = Crud(Loan, LoanOut, pattern="loan:{id}", redis=shelf.cache, **given)
    await loans.create(obj_in=Loose(id=1, reader_id=1))
    await loans.update(obj_in=Loose(reader_id=2), id=1)
    await loans.delete(id=1)
    assert await loans.get_or_none(id=1) is None


# Threads, and closing.


def test_threads_may_open_one_memory_cache_at_once(sqlite_url: str) -> None:
    """Threads that come first to a ``memory://`` cache at the same moment all may use it."""
    refused: list[BaseException] = []

    def use(crud: Items, gate: threading.Barrier) -> None:
        async def read() -> None:
            engine = create_async_engine(sqlite_url)
            async with engine.begin() as connection:
                await connection.exec_driver_sql("CREATE TABLE IF NOT EXISTS items (id, no, name, secret, version)")
            gate.wait()
            try:
                await crud.get_or_none(async_sessionmaker(engine), id=1)
            finally:
                await engine.dispose()

        try:
            asyncio.run(read())
        except BaseException as error:
            refused.append(error)

    for _ in range(10):
        cache, gate = Cache.from_url("memory://"), threading.Barrier(4)
        crud: Items = Crud(Item, ItemOut, pattern="item:id:{id}", redis=cache)
        threads = [threading.Thread(target=use, args=(crud, gate)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        asyncio.run(cache.aclose())
    assert refused == []


async def test_load_outlives_the_cache(shelf: Shelf) -> None:
    """A read whose SQL is under way when the cache is closed gets its answer."""
    loading, go_on = asyncio.Event(), asyncio.Event()

    class Slow(AsyncSession):
        async def run_sync(self, *arguments: Any, **options: Any) -> Any:
            loading.set()
            await go_on.wait()
            return await super().run_sync(*arguments, **options)

    await shelf.items().invalidate()
    reading = asyncio.create_task(shelf.items().get(async_sessionmaker(shelf.engine, class_=Slow), id=1))
    await loading.wait()
    await shelf.cache.aclose()
    go_on.set()
    assert (await reading).id == 1
    with pytest.raises(CacheClosed):
        await shelf.items().get(id=1)


async def test_factories_that_choose_by_context_are_asked_each_time(tmp_path: Path) -> None:
    """A factory, or a session class, that routes by context never gets one database's row for another's."""
    engines = {name: create_async_engine(f"sqlite+aiosqlite:///{tmp_path / name}.db") for name in ("a", "b")}
    current: ContextVar[str] = ContextVar("current")

    class Routed(Session):
        def get_bind(self, *args: Any, **kwargs: Any) -> Any:
            return engines[current.get()].sync_engine

    routes: list[Any] = [
        lambda: AsyncSession(engines[current.get()]),
        async_sessionmaker(sync_session_class=Routed),
    ]
    crud = Crud[Box, Loose, Loose, BoxOut](Box, BoxOut, "routed:{id}")
    for name, engine in engines.items():
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.tables["boxes"].create)
        await crud.create(db=async_sessionmaker(engine), redis=None, obj_in=Loose(number=ord(name)))
    for factory in routes:
        async with Cache.from_url("memory://") as cache:
            for _ in range(3):
                for name in engines:
                    current.set(name)
                    assert (await crud.get(db=factory, redis=cache, id=1)).number == ord(name)
    for engine in engines.values():
        await engine.dispose()
