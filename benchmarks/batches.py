"""The writes of very many rows: created, with and without rows that come back, and changed, each in its own way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count as numbers
from typing import Any

from sqlalchemy import bindparam, func, insert, select, text, update
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from .contest import Contestant, Work, WrongTurn
from .users import UserCreate, UserUpdate, some_users
from .world import World

ROUNDS = 7  # each turn is long, and so tells more than a short one
_COLUMNS = ("email", "name", "bio", "is_active", "group_id")

Create = Callable[[Sequence[UserCreate]], Awaitable[object]]


def batches(world: World) -> list[Work]:
    """Give the works of very many rows, in the order of the table."""
    return [_copy(world), _returning(world), _update(world)]


def _copy(world: World) -> Work:
    """Give the work of creating rows that nobody wants back, beside COPY of records that are there already."""
    records: list[tuple[Any, ...]] = []

    async def by_hand(_: object) -> None:
        async with world.admin.begin() as connection:
            await connection.execute(text("SELECT"))  # SQLAlchemy begins with the first statement
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.copy_records_to_table(world.bulk.table.name, records=records, columns=_COLUMNS)

    async def fastrdb(instances: Sequence[UserCreate]) -> None:
        await world.bulk_crud.create_multi(db=world.sessions, redis=world.cache, instances=instances, returning=False)

    def prepare(instances: Sequence[UserCreate]) -> None:
        records[:] = [tuple(getattr(each, name) for name in _COLUMNS) for each in instances]

    title = f"create_multi of {world.scale.many:,} rows, `returning=False`, beside COPY"
    return _creating(world, "create_many", title, 1.5, by_hand, fastrdb, prepare)


def _returning(world: World) -> Work:
    """Give the work of creating rows that are wanted back, beside SQLAlchemy's ORM."""
    model = world.bulk.model
    statement = insert(model).returning(model)

    async def by_hand(instances: Sequence[UserCreate]) -> None:
        async with async_sessionmaker(world.admin, expire_on_commit=False)() as session:
            # Without render_nulls each run of rows with the same NULLs is a statement of its own.
            rows = [each.model_dump() for each in instances]
            found = await session.execute(statement, rows, execution_options={"render_nulls": True})
            found.scalars().all()
            await session.commit()

    async def fastrdb(instances: Sequence[UserCreate]) -> None:
        await world.bulk_crud.create_multi(db=world.sessions, redis=world.cache, instances=instances)

    title = f"create_multi of {world.scale.many:,} rows, beside the ORM's insert().returning()"
    return _creating(world, "create_many_returning", title, 0.6, by_hand, fastrdb)


def _creating(
    world: World,
    name: str,
    title: str,
    target: float,
    by_hand: Create,
    fastrdb: Create,
    prepared: Callable[[Sequence[UserCreate]], object] = len,
) -> Work:
    rows, instances = world.scale.many, list[UserCreate]()

    def creating(make: Create) -> Contestant:
        async def prepare(_: int) -> None:
            await world.empty_bulk()

        async def run(_: int) -> None:
            await make(instances)

        return Contestant(run, prepare)

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        instances[:] = some_users(1, rows)
        prepared(instances)
        for make in (by_hand, fastrdb):
            await world.empty_bulk()
            await make(instances)
            await _check(world, rows)
        yield
        await world.empty_bulk()

    return Work(name, title, target, creating(by_hand), creating(fastrdb), around, most=1, rounds=ROUNDS)


def _update(world: World) -> Work:
    """Give the work of changing rows, each in its own way, beside one UPDATE after the other."""
    table, serial = world.bulk.table, numbers(1)
    statement = update(table).where(table.c.id == bindparam("row_id")).values(name=bindparam("new_name"))
    engine = create_async_engine(world.admin.url)
    ids: list[int] = []

    async def by_hand(name: str) -> None:
        async with engine.begin() as connection:
            for row_id in ids:
                await connection.execute(statement, {"row_id": row_id, "new_name": f"{name} {row_id}"})

    async def fastrdb(name: str, *, returning: bool = False) -> None:
        items = [(row_id, UserUpdate(name=f"{name} {row_id}")) for row_id in ids]
        await world.bulk_crud.update_multi(db=world.sessions, redis=world.cache, items=items, returning=returning)

    async def with_rows(name: str) -> None:
        await fastrdb(name, returning=True)

    def changing(change: Callable[[str], Awaitable[None]]) -> Contestant:
        async def run(_: int) -> None:
            await change(f"Name {next(serial)}")

        return Contestant(run)

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        await world.empty_bulk()
        async with engine.begin() as connection:
            rows = [each.model_dump() for each in some_users(1, world.scale.changed)]
            ids[:] = (await connection.scalars(insert(table).returning(table.c.id), rows)).all()
        for number, change in enumerate((by_hand, fastrdb, with_rows)):
            await change(f"Way {number}")
            await _check(world, world.scale.changed, f"Way {number} ")
        yield
        await engine.dispose()
        await world.empty_bulk()

    title = f"update_multi of {world.scale.changed:,} rows, `returning=False`, beside one UPDATE per row"
    beside = {"with the rows, as responses": changing(with_rows)}
    ours = changing(fastrdb)
    return Work("update_many", title, 0.2, changing(by_hand), ours, around, beside=beside, most=1, rounds=ROUNDS)


async def _check(world: World, rows: int, name: str = "") -> None:
    """Raise unless there are so many rows whose names begin so."""
    table = world.bulk.table
    counted = select(func.count()).select_from(table).where(table.c.name.startswith(name))
    async with world.admin.connect() as connection:
        found = (await connection.execute(counted)).scalar()
    if found != rows:
        raise WrongTurn(f"{found} rows, not {rows}")
