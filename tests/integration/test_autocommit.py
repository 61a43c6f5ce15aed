"""Statements that commit by themselves: held before they are sent, released after them."""

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import await_only

from fastrdb import NotFound
from tests.models import named
from tests.world import ANN, Read, World

STALE = Read("Ann", from_cache=True)
HELD = "bypass: the entry is held"
ABSENT = "miss: absent"


async def test_autocommit_engine(world: World) -> None:
    """On an AUTOCOMMIT engine a write is there at once, and readers get the new row when it has returned."""
    engine = world.another_engine(isolation_level="AUTOCOMMIT")
    await world.warm()
    async with AsyncSession(engine) as session:
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert await world.state() != HELD
    assert await world.read() == Read("new", from_cache=False)


async def test_autocommit_holds_before_the_statement(world: World) -> None:
    """When an AUTOCOMMIT statement is sent, the table is held already, and readers pass the cache by."""
    engine = world.another_engine(isolation_level="AUTOCOMMIT")
    await world.warm()
    seen: list[str] = []

    def look(*args: Any) -> None:
        if args[2].startswith("UPDATE"):
            seen.append(await_only(world.state()))

    event.listen(engine.sync_engine, "before_cursor_execute", look)
    async with AsyncSession(engine) as session:
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert set(seen) == {"bypass: a token is held"}  # SQLite locks by an UPDATE, too, where a template needs old values


async def test_autocommit_option_of_an_engine(world: World) -> None:
    """``execution_options(isolation_level="AUTOCOMMIT")`` on the engine is seen."""
    engine = world.engine.execution_options(isolation_level="AUTOCOMMIT")
    await world.warm()
    async with AsyncSession(engine) as session, session.begin():
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        assert await world.stored() == "new"
        assert (await world.read()).name == "new"


async def test_autocommit_option_of_a_connection(world: World) -> None:
    """So is the same option on a session's connection."""
    await world.warm()
    async with world.factory() as session:
        await session.connection(execution_options={"isolation_level": "AUTOCOMMIT"})
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN, commit=False)
        assert await world.stored() == "new"
        assert (await world.read()).name == "new"


async def test_autocommit_reads_are_cached(world: World) -> None:
    """Each SELECT of an AUTOCOMMIT session sees what is committed, so it may fill the cache."""
    engine = world.another_engine(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        assert (await world.read(session)).name == "Ann"
        assert (await world.read(session)).name == "Ann"
    assert await world.read() == STALE


async def test_failed_autocommit_write_lets_go(world: World) -> None:
    """An AUTOCOMMIT write that finds no row leaves no hold behind."""
    engine = world.another_engine(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        with pytest.raises(NotFound):
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=77)
    assert await world.state() == ABSENT
