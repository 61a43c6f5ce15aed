"""warm: rows are in the cache before anybody asks, under the protocol."""

from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.util import await_only

from fastrdb import InputError, OutOfRange, UnknownField, UsageError, Warmed
from tests.models import UserIn, named, user_crud
from tests.world import ANN, BOB, World


async def fill(world: World, count: int = 10) -> None:
    """Have more users."""
    rows = [UserIn(email=f"{number}@x", name=str(number)) for number in range(count)]
    await world.crud.create_multi(world.factory, None, rows)


async def test_rows_are_warm_under_every_template(world: World) -> None:
    """After it, rows are hits by each of their keys, and doing it again stores nothing."""
    assert await world.crud.warm(world.factory, world.cache) == Warmed(2, 4)
    for key in ({"id": ANN}, {"id": BOB}, {"email": "ann@x"}, {"email": "bob@x"}):
        assert (await world.read(**key)).from_cache
    assert await world.crud.warm(world.factory, world.cache) == Warmed(2, 0)


async def test_limit_offset_and_batches(world: World) -> None:
    """Rows come in the order of the primary key, in batches, each of which is reported."""
    await fill(world)
    steps: list[Warmed] = []
    done = await world.crud.warm(world.factory, world.cache, limit=7, offset=1, batch=3, progress=steps.append)
    assert done == Warmed(7, 14)
    assert steps == [Warmed(3, 6), Warmed(6, 12), Warmed(7, 14)]
    warm = [(await world.read(id=id)).from_cache for id in range(1, 13)]
    assert warm == [False, *[True] * 7, *[False] * 4]


async def test_progress_may_be_awaited(world: World) -> None:
    """A progress function may be async; past the last row there is nothing to report."""
    steps: list[Warmed] = []

    async def progress(done: Warmed) -> None:
        steps.append(done)

    assert (await world.crud.warm(world.factory, world.cache, batch=2, progress=progress)).rows == 2
    assert [step.rows for step in steps] == [2]
    assert await world.crud.warm(world.factory, world.cache, offset=5, progress=progress) == Warmed(0, 0)
    assert len(steps) == 1


async def test_filters_say_which(world: World) -> None:
    """Only the rows that match are warmed, as plain rows."""
    assert await world.crud.warm(world.factory, world.cache, name="Bob") == Warmed(1, 2)
    assert (await world.read(id=BOB)).from_cache
    assert not (await world.read(id=ANN)).from_cache


async def test_rows_without_a_single_row_for_a_key_are_left(world: World) -> None:
    """Under a template that several rows share nothing is stored, and reads go on to say so."""
    crud = user_crud(pattern=("user:id:{id}", "user:group:{group_id}"), list_pattern=None)
    assert await crud.warm(world.factory, world.cache) == Warmed(2, 2)
    await world.execute("UPDATE users SET group_id = 2 WHERE id = 2")
    await crud.clear(world.cache)
    assert await crud.warm(world.factory, world.cache) == Warmed(2, 4)


async def test_a_write_meanwhile_wins(pg_world: World) -> None:
    """A row that is written after it was loaded, and before it was stored, is never served old."""
    world = pg_world
    await world.crud.warm(world.factory, world.cache)
    await world.crud.clear(world.cache)
    writer, done = async_sessionmaker(world.another_engine()), []

    async def write() -> None:
        await world.crud.update(writer, world.another_cache(), named("new"), id=ANN)

    def after(connection: object, cursor: object, statement: str, *_: object) -> None:
        if "ANY" in statement and not done:
            done.append(statement)
            await_only(write())

    event.listen(world.engine.sync_engine, "after_cursor_execute", after)
    assert (await world.crud.warm(world.factory, world.cache)).stored < 4
    assert (await world.read()).name == "new"
    assert (await world.read(email="ann@x")).name == "new"


async def test_writes_after_it_are_seen(world: World) -> None:
    """What was warmed is dropped by writes as any value is."""
    await world.crud.warm(world.factory, world.cache)
    await world.crud.update(world.factory, world.cache, named("new"), id=ANN)
    await world.crud.delete(world.factory, world.cache, id=BOB)
    assert (await world.read(email="ann@x")).name == "new"
    assert (await world.read(email="bob@x")).name is None


async def test_sessions_with_writes_store_nothing(world: World) -> None:
    """In a transaction that has written, rows are read and none is stored."""
    async with world.factory() as session, session.begin():
        await world.crud.update(session, world.cache, named("gone"), id=ANN)
        assert await world.crud.warm(session, world.cache) == Warmed(2, 0)
        await session.rollback()
    assert (await world.read()).name == "Ann"


@pytest.mark.parametrize(
    ("told", "error"),
    [
        ({"limit": 0}, OutOfRange),
        ({"offset": -1}, OutOfRange),
        ({"batch": 0}, OutOfRange),
        ({"batch": 10_001}, OutOfRange),
        ({"limit": "7"}, OutOfRange),
        ({"progress": 3}, UsageError),
        ({"redis": None}, InputError),
        ({"nam": "Ann"}, UnknownField),
    ],
)
async def test_refusals(pg_world: World, told: dict[str, Any], error: type[Exception]) -> None:
    """Limits, a missing cache and unknown fields raise before anything is sent."""
    with pytest.raises(error):
        await pg_world.crud.warm(**{"db": pg_world.factory, "redis": pg_world.cache, **told})
    assert pg_world.sent == []


async def test_a_crud_without_templates_has_nothing_to_warm(pg_world: World) -> None:
    """Without a row template there is nothing to warm, and the error says so."""
    with pytest.raises(InputError, match="template"):
        await user_crud(pattern=None).warm(pg_world.factory, pg_world.cache)
