"""The writes that are measured: a row changed, and many created."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from itertools import count as numbers

from .contest import Contestant, Work, same
from .reading import SESSION
from .users import UserCreate, UserResponse, UserUpdate, some_users
from .world import World

Update = Callable[[int, UserUpdate], Awaitable[object]]
Create = Callable[[list[UserCreate]], Awaitable[list[UserResponse]]]

FEW = 10  # foreign keys


def writes(world: World) -> list[Work]:
    """Give the works that write, in the order of the table."""
    return [update(world, "update", FEW), update(world, "update_many_keys", world.scale.foreign_keys), create(world)]


def update(world: World, name: str, foreign_keys: int) -> Work:
    """Give the work of renaming one user after the other, beside so many keys of others in Redis."""
    serial = numbers(1)

    async def by_factory(user_id: int, obj_in: UserUpdate) -> object:
        return await world.crud.update(db=world.sessions, redis=world.cache, obj_in=obj_in, id=user_id)

    async def by_session(user_id: int, obj_in: UserUpdate) -> object:
        async with world.sessions() as session:
            return await world.crud.update(db=session, redis=world.cache, obj_in=obj_in, id=user_id)

    def renaming(change: Update) -> Contestant:
        async def run(count: int) -> None:
            for user_id in random.choices(world.user_ids, k=count):
                await change(user_id, UserUpdate(name=f"Name {next(serial)}"))

        return Contestant(run)

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        async with world.foreign_keys(foreign_keys):
            new = UserUpdate(name="New Name")
            same([await change(1, new) for change in (world.by_hand.update, by_factory, by_session)])
            yield

    return Work(
        name=name,
        title=f"update of one row, {foreign_keys:,} foreign keys in Redis",
        target=1.35,
        by_hand=renaming(world.by_hand.update),
        fastrdb=renaming(by_factory),
        around=around,
        beside={SESSION: renaming(by_session)},
    )


def create(world: World) -> Work:
    """Give the work of creating many users at once, in a table that is emptied before."""
    rows = world.scale.created

    async def fastrdb(instances: list[UserCreate]) -> list[UserResponse]:
        return await world.bulk_crud.create_multi(db=world.sessions, redis=world.cache, instances=instances)

    def creating(make: Create) -> Contestant:
        instances: list[UserCreate] = []

        async def prepare(_: int) -> None:
            await world.empty_bulk()
            instances[:] = some_users(1, rows)

        async def run(_: int) -> None:
            await make(instances)

        return Contestant(run, prepare)

    @asynccontextmanager
    async def around() -> AsyncIterator[None]:
        answers = []
        for make in (world.by_hand.create_multi, world.by_hand.create_multi_in_order, fastrdb):
            await world.empty_bulk()
            answers.append([(user.email, user.name, user.bio) for user in await make(some_users(1, rows))])
        same(answers)
        yield

    return Work(
        name="create_multi",
        title=f"create_multi of {rows:,} rows",
        target=0.9,
        by_hand=creating(world.by_hand.create_multi),
        fastrdb=creating(fastrdb),
        around=around,
        beside={"by hand with sort_by_parameter_order": creating(world.by_hand.create_multi_in_order)},
        most=1,
    )
