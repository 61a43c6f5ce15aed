"""COMMITs that hang or are refused, and ways to see what becomes of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from sqlalchemy import text

from tests.models import named
from tests.world import ANN, Read, World, until

HELD, ABSENT = "bypass: the entry is held", "miss: absent"
STALE = Read("Ann", from_cache=True)

# Names that make COMMIT do something: a deferred trigger runs when COMMIT is sent, and before it is done.
AT_COMMIT = """
CREATE FUNCTION at_commit() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.name = 'refused' THEN RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation'; END IF;
    IF NEW.name LIKE 'slow %' THEN PERFORM pg_sleep(split_part(NEW.name, ' ', 2)::float); END IF;
    RETURN NULL;
END $$
"""
TRIGGER = """
CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT OR UPDATE ON users
DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION at_commit()
"""
COMMITTING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'COMMIT%' AND state = 'active'"
)


async def ask(world: World, statement: str) -> Any:
    """One value, from outside."""
    async with world.outside.connect() as connection:
        return (await connection.execute(text(statement))).scalar()


async def committing(world: World) -> int:
    """Wait until a COMMIT is under way; the process of PostgreSQL that does it."""

    async def is_under_way() -> bool:
        return await ask(world, COMMITTING) is not None

    await until(is_under_way)
    return int(await ask(world, COMMITTING))


async def settled(world: World) -> None:
    """Wait until no connection is out and no COMMIT under way."""

    async def is_settled() -> bool:
        return world.leaked == 0 and await ask(world, COMMITTING) is None

    await until(is_settled)


def is_state(world: World, state: str) -> Callable[[], Awaitable[bool]]:
    """Whether the cache says so of Ann."""

    async def compare() -> bool:
        return await world.state() == state

    return compare


def is_free(world: World) -> Callable[[], Awaitable[bool]]:
    """Whether nobody holds Ann."""

    async def check() -> bool:
        return "held" not in await world.state()

    return check


def write(world: World, name: str, db: Any = None) -> asyncio.Task[Any]:
    """Start to change Ann's name."""
    change = world.crud.update(db=db or world.factory, redis=world.cache, obj_in=named(name), id=ANN)
    return asyncio.create_task(change)


def gives_back(world: World) -> Callable[[], Awaitable[bool]]:
    """Whether every connection is back in the pool."""

    async def check() -> bool:
        return world.leaked == 0

    return check
