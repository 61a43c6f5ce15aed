"""The upsert that is measured: many rows, half of which are there."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from sqlalchemy import func, literal_column
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from .contest import Contestant, Work, same
from .users import UserCreate, UserResponse, some_users
from .world import World

Answer = list[tuple[UserResponse, bool]]
_ROUNDS = 30  # a turn takes long enough to be steady


def upserts(world: World) -> list[Work]:
    """Give the work of upserting many users, of whom every second one is there."""
    rows, table = world.scale.upserted, world.bulk.table
    engine = create_async_engine(world.admin.url)
    sessions = async_sessionmaker(engine, expire_on_commit=False)
    names = tuple(UserResponse.model_fields)
    shown = [table.c[name] for name in names]
    new = insert(table)
    sets = {name: new.excluded[name] for name in ("name", "bio", "group_id")}
    statement = new.on_conflict_do_update(index_elements=[table.c.email], set_=sets)

    plain = statement.returning(*shown)

    async def by_hand(instances: list[UserCreate]) -> object:
        async with sessions() as session:
            found = (await session.execute(plain, [instance.model_dump() for instance in instances])).all()
            await session.commit()
        return [UserResponse.model_validate(dict(zip(names, row, strict=True))) for row in found]

    created = func.coalesce(literal_column("xmax") == literal_column("0"), False)
    telling = statement.returning(*shown, created)

    async def by_hand_telling(instances: list[UserCreate]) -> Answer:
        async with sessions() as session:
            found = (await session.execute(telling, [instance.model_dump() for instance in instances])).all()
            await session.commit()
        return [(UserResponse.model_validate(dict(zip(names, row, strict=False))), row[-1]) for row in found]

    async def fastrdb(instances: list[UserCreate]) -> Answer:
        found = await world.bulk_crud.upsert_multi(
            db=world.sessions, redis=world.cache, instances=instances, conflict_fields=["email"]
        )
        return [(each.row, each.created) for each in found]

    async def prepare(_: int = 0) -> None:
        await world.empty_bulk()
        async with world.admin.begin() as connection:
            await connection.execute(insert(table), [user.model_dump() for user in some_users(1, rows)[::2]])

    def upserting(make: Callable[[list[UserCreate]], Awaitable[object]]) -> Contestant:
        async def run(_: int) -> None:
            await make(some_users(1, rows))

        return Contestant(run, prepare)

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        answers = []
        for make in (by_hand_telling, fastrdb):
            await prepare()
            answers.append(
                sorted((user.email, user.name, user.bio, new) for user, new in await make(some_users(1, rows)))
            )
        same(answers)
        yield
        await engine.dispose()

    return [
        Work(
            name="upsert_multi",
            title=f"upsert_multi of {rows:,} rows, half of them there",
            target=1.2,
            by_hand=upserting(by_hand),
            fastrdb=upserting(fastrdb),
            around=around,
            beside={"by hand with xmax, to tell what was created": upserting(by_hand_telling)},
            most=1,
            rounds=_ROUNDS,
        )
    ]
