"""A write that commits by itself asks the cache to hold before its COMMIT is due: what if that never comes, or late."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from pydantic import ValidationError, field_validator
from sqlalchemy import Connection, event
from sqlalchemy.util import await_only

from fastrdb import Crud
from fastrdb.cache.protocol import random_name
from fastrdb.cache.store import Release
from tests.models import User, UserChange, UserIn, UserOut, named
from tests.world import ANN, Read, World, opened, until

ABSENT = "miss: absent"
HELD = "bypass: the entry is held"
LONG_MS = 3_600_000  # a hold that nobody lets go of would be seen for the rest of the test


class Aborted(Exception):
    """Raised by a hook of the session."""


class Strict(UserOut):
    """A response that does not take every name."""

    @field_validator("name")
    @classmethod
    def no_shouting(cls, name: str) -> str:
        """Refuse capitals."""
        if name.isupper():
            raise ValueError("no shouting")
        return name


@pytest.fixture(params=["valkey", "memory"])
async def world(request: pytest.FixtureRequest, database_url: str) -> AsyncIterator[World]:
    """Two users, and a cache that has read Ann."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("valkey_url")
    async with opened(database_url, url) as world:
        await world.warm()
        yield world


async def test_a_commit_that_a_hook_aborts_leaves_nothing_held(world: World) -> None:
    """Where a hook of the session raises before COMMIT, nothing is written, and readers are served again at once."""
    world.cache.hold_ms = LONG_MS

    def abort(_: object) -> None:
        raise Aborted

    async with world.factory() as session:
        event.listen(session.sync_session, "before_commit", abort)
        with pytest.raises(Aborted):
            await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    await until(lambda: _is(world, ABSENT))
    await world.warm()
    assert await world.read() == Read("Ann", from_cache=True)


async def test_a_response_that_is_refused_leaves_nothing_held(world: World) -> None:
    """Where the response schema refuses the new row, nothing is written, and readers are served again at once."""
    world.cache.hold_ms = LONG_MS
    crud = Crud[User, UserIn, UserChange, Strict](User, Strict, pattern="user:id:{id}", exp=600)
    with pytest.raises(ValidationError, match="no shouting"):
        await crud.update(db=world.factory, redis=world.cache, obj_in=named("NEW"), id=ANN)
    assert await world.stored() == "Ann"
    await until(lambda: _is(world, ABSENT))


async def test_a_late_commit_finds_its_hold(world: World) -> None:
    """Where a hook of the session takes longer than a hold lives, COMMIT is sent under a new one."""
    states: list[str] = []

    def dawdle(_: object) -> None:
        await_only(asyncio.sleep(0.5))

    def look(_: Connection) -> None:
        states.append(await_only(world.state()))

    world.cache.hold_ms = 300
    event.listen(world.engine.sync_engine, "commit", look)
    async with world.factory() as session:
        event.listen(session.sync_session, "before_commit", dawdle)
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
    assert states == [HELD]
    assert (await world.read()).name == "new"


async def test_a_token_that_was_dropped_is_minted_again(world: World) -> None:
    """When a directory's token is gone, the second write from then on is written through again."""

    async def write(name: str) -> None:
        await world.crud.update(db=world.factory, redis=world.cache, obj_in=named(name), id=ANN)

    await write("one")
    assert await world.read() == Read("one", from_cache=True)
    tokens = (await world.crud.explain(world.cache, id=ANN)).tokens
    gone = [key.encode() for key in tokens if key.startswith("fastrdb:t:")]
    assert gone
    await world.cache.run([Release(key, random_name()) for key in gone])
    await write("two")
    await write("three")
    assert await world.read() == Read("three", from_cache=True)


async def _is(world: World, state: str) -> bool:
    return await world.state() == state
