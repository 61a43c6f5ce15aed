"""ReadOptions(for_update=…): rows that are read stay locked until the caller's transaction ends."""

import asyncio
from typing import Any

import pytest
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import async_sessionmaker

from fastrdb import ReadOptions, SessionRefused, UsageError
from tests.models import named, user_crud
from tests.world import ANN, BOB, World, until

LOCK = ReadOptions(for_update=True)


async def update(world: World, id: int = ANN) -> None:
    """Change a user, from elsewhere."""
    await world.crud.update(world.factory, world.cache, named("new"), id=id)


@pytest.mark.parametrize("many", [False, True])
async def test_locked_rows_wait_for_the_caller(world: World, many: bool) -> None:
    """A row that was read for update, alone or in a list, is written by others only after the caller's COMMIT."""
    await world.warm()
    async with world.factory() as session:
        if many:
            (found, *_) = await world.crud.get_multi(session, world.cache, group_id=1, options=LOCK)
        else:
            found = await world.crud.get(session, world.cache, id=ANN, options=LOCK)
        assert found.name == "Ann"
        other = asyncio.ensure_future(update(world))
        await world.crud.update(session, world.cache, named("first"), id=ANN, commit=False)
        assert not other.done()
        await session.commit()
    await other
    assert (await world.read()).name == "new"


async def test_locks_read_the_database(world: World) -> None:
    """A read for update passes the cache by, stores nothing, drops nothing and tells a row that is not there."""
    await world.warm()
    await world.execute("UPDATE users SET name = 'elsewhere' WHERE id = 1")
    async with world.factory() as session, session.begin():
        assert (await world.crud.get(session, world.cache, id=ANN, options=LOCK)).name == "elsewhere"
        assert await world.crud.get_or_none(session, world.cache, id=77, options=LOCK) is None
        (found,) = await world.crud.get_by_keys(session, world.cache, [ANN], options=LOCK)
        assert found.name == "elsewhere"
    assert (await world.read()).name == "Ann", "which the cache has, as nobody told it"


async def test_others_do_not_wait_when_told_so(world: World) -> None:
    """``nowait`` raises at a locked row, ``skip_locked`` leaves it out; SQLite, which locks no rows, refuses both."""
    nowait, skip = ReadOptions(for_update="nowait"), ReadOptions(for_update="skip_locked")
    async with world.factory() as session, world.factory() as other:
        if world.dialect == "sqlite":
            for options in (nowait, skip):
                with pytest.raises(UsageError, match="SQLite"):
                    await world.crud.get(session, world.cache, id=ANN, options=options)
            return
        await world.crud.get(session, world.cache, id=ANN, options=LOCK)
        listed = await world.crud.get_multi(other, world.cache, group_id=1, options=skip)
        assert [user.id for user in listed] == [BOB]
        assert await world.crud.get_or_none(other, world.cache, id=ANN, options=skip) is None
        with pytest.raises(DBAPIError):
            await world.crud.get(other, world.cache, id=ANN, options=nowait)


async def test_locks_that_would_be_gone_are_refused(world: World) -> None:
    """A factory, AUTOCOMMIT, and methods that read no rows raise and say what to do."""
    given: dict[str, Any] = {"redis": world.cache, "options": LOCK}
    with pytest.raises(SessionRefused, match="session"):
        await world.crud.get(db=world.factory, id=ANN, **given)
    with pytest.raises(SessionRefused, match="session"):
        await world.crud.get_multi(db=world.factory, group_id=1, **given)
    async with world.factory() as session:
        with pytest.raises(UsageError, match="for_update"):
            await world.crud.count(db=session, group_id=1, **given)
        with pytest.raises(UsageError, match="for_update"):
            await world.crud.exists(db=session, name="Ann", **given)
    committing = async_sessionmaker(world.another_engine(isolation_level="AUTOCOMMIT"))
    async with committing() as session:
        with pytest.raises(SessionRefused, match="AUTOCOMMIT"):
            await world.crud.get(db=session, id=ANN, **given)
    with pytest.raises(UsageError, match="skip_locked"):
        ReadOptions(for_update="wait")  # type: ignore[arg-type]  # what is tried


async def test_locks_end_with_the_transaction(world: World) -> None:
    """After a rollback the row is free, and the session can be used."""
    crud = user_crud()
    async with world.factory() as session:
        await crud.get(session, None, id=ANN, options=LOCK)
        await session.rollback()
        await update(world)
        await session.rollback()
        assert (await crud.get(session, None, id=ANN)).name == "new"

    async def is_new() -> bool:
        return (await world.read()).name == "new"

    await until(is_new)
