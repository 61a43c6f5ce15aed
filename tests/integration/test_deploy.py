"""Two versions of a program at work on one table: whatever one caches, the other's writes age."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import String, event
from sqlalchemy.ext.asyncio import async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.util import await_only

from fastrdb import Crud
from tests.models import UserChange, UserIn, named
from tests.world import ANN, BOB, World, until


class NewBase(DeclarativeBase):
    """The tables as the next version knows them."""


class Person(NewBase):
    """A user, in the next version; its column ``nick`` is new, and has a default in the database."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(100), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    group_id: Mapped[int] = mapped_column(default=1)
    nick: Mapped[str] = mapped_column(String(20), server_default="none")


class PersonOut(BaseModel):
    """What the next version shows."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str
    nick: str


class PersonChange(BaseModel):
    """What the next version changes."""

    name: str | None = None
    nick: str | None = None


class Next:
    """A process of the next version: its own tables, templates, engine and cache."""

    def __init__(self, world: World) -> None:
        self.cache = world.another_cache()
        self.factory = async_sessionmaker(world.another_engine())
        self.given: dict[str, Any] = {"db": self.factory, "redis": self.cache}
        self._world = world

    def crud(self, pattern: str | None, list_pattern: str | None = None) -> Crud[Person, Any, PersonChange, PersonOut]:
        """A crud of the next version."""
        crud = Crud[Person, Any, PersonChange, PersonOut]
        return crud(Person, PersonOut, pattern=pattern, list_pattern=list_pattern, exp=600)

    async def cached(self, read: Any) -> Any:
        """Read until it is a hit; what was read."""

        async def is_hit() -> bool:
            before = len(self._world.sent)
            await read()
            return len(self._world.sent) == before

        await until(is_hit)
        return await read()


@pytest.fixture
async def following(world: World) -> Next:
    """The world's own process runs the last version, this one the next."""
    await world.execute("ALTER TABLE users ADD COLUMN nick VARCHAR(20) NOT NULL DEFAULT 'none'")
    return Next(world)


async def rename(world: World, name: str = "new") -> None:
    """The last version changes Ann's name."""
    await world.crud.update(db=world.factory, redis=world.cache, obj_in=named(name), id=ANN)


# What one has cached, the other ages.


async def test_row_under_an_unknown_template_is_aged(world: World, following: Next) -> None:
    """A row that the next version caches by another key is aged by the last version's first write, and its second."""
    people = following.crud("person:{email}")
    read = lambda: people.get(**following.given, email="ann@x")  # noqa: E731
    for name in ("new", "newer"):
        await following.cached(read)
        await rename(world, name)
        assert (await read()).name == name


async def test_row_under_a_template_with_an_unknown_column_is_aged(world: World, following: Next) -> None:
    """So is one whose key has a column that the last version does not know."""
    people = following.crud("person:{nick}:{id}")
    read = lambda: people.get(**following.given, nick="none", id=ANN)  # noqa: E731
    for name in ("new", "newer"):
        await following.cached(read)
        await rename(world, name)
        assert (await read()).name == name


async def test_both_keys_are_aged_when_an_unknown_key_changes(world: World, following: Next) -> None:
    """The last version changes what is a key of the next one's: the row is gone there and found here."""
    people = following.crud("person:{email}")
    old = lambda: people.get_or_none(**following.given, email="ann@x")  # noqa: E731
    new = lambda: people.get_or_none(**following.given, email="ann@y")  # noqa: E731
    for _ in range(2):
        assert (await following.cached(old)) is not None
        assert (await following.cached(new)) is None
        there = await world.crud.update(db=world.factory, redis=world.cache, obj_in=UserChange(email="ann@y"), id=ANN)
        assert there.email == "ann@y"
        assert await old() is None
        assert (await new()).id == ANN
        await world.crud.update(db=world.factory, redis=world.cache, obj_in=UserChange(email="ann@x"), id=ANN)
        assert (await old()).id == ANN
        assert await new() is None


async def test_lists_under_an_unknown_template_are_aged(world: World, following: Next) -> None:
    """Lists and counts in a directory that only the next version knows are aged by what comes, changes and goes."""
    people = following.crud(None, "people:of:{group_id}:page:{page}:limit:{limit}")
    page = lambda: people.get_multi(**following.given, group_id=1)  # noqa: E731
    count = lambda: people.count(**following.given, group_id=1)  # noqa: E731
    await following.cached(page)
    await following.cached(count)
    await rename(world)
    assert [person.name for person in await page()] == ["new", "Bob"]
    await following.cached(page)
    await following.cached(count)
    await world.crud.create(db=world.factory, redis=world.cache, obj_in=UserIn(email="carl@x", name="Carl"))
    assert [person.name for person in await following.cached(page)] == ["new", "Bob", "Carl"]
    assert await following.cached(count) == 3
    await world.crud.delete(db=world.factory, redis=world.cache, id=BOB)
    assert [person.name for person in await page()] == ["new", "Carl"]
    assert await count() == 2


async def test_row_moves_between_unknown_lists(world: World, following: Next) -> None:
    """A row that the last version moves leaves one of the next version's lists and appears in another."""
    people = following.crud(None, "people:of:{group_id}:page:{page}:limit:{limit}")
    lists = [lambda group=group: people.get_multi(**following.given, group_id=group) for group in (1, 2)]
    for target in (2, 1):
        for each in lists:
            await following.cached(each)
        await world.crud.update(db=world.factory, redis=world.cache, obj_in=UserChange(group_id=target), id=ANN)
        assert [ANN in [person.id for person in await each()] for each in lists] == [target == 1, target == 2]


async def test_row_with_further_filters_is_aged(world: World, following: Next) -> None:
    """A row that the next version asked for with further filters is aged, too."""
    people = following.crud("person:{id}")
    read = lambda: people.get_or_none(**following.given, id=ANN, name="Ann")  # noqa: E731
    assert (await following.cached(read)) is not None
    await rename(world)
    assert await read() is None


async def test_unknown_row_that_was_missing_is_found(world: World, following: Next) -> None:
    """That there was no such person is forgotten when the last version creates it."""
    people = following.crud("person:{email}")
    read = lambda: people.get_or_none(**following.given, email="carl@x")  # noqa: E731
    assert (await following.cached(read)) is None
    await world.crud.create(db=world.factory, redis=world.cache, obj_in=UserIn(email="carl@x", name="Carl"))
    assert (await read()).name == "Carl"


async def test_the_next_versions_writes_age_the_last_ones_rows(world: World, following: Next) -> None:
    """It holds the other way round: the next version lacks the last one's templates."""
    people = following.crud("person:{id}")
    for name in ("new", "newer"):
        await world.warm()
        await world.warm(email="ann@x")
        await people.update(**following.given, obj_in=PersonChange(name=name), id=ANN)
        assert (await world.read()).name == name
        assert (await world.read(email="ann@x")).name == name


async def test_another_schema_of_one_key_is_a_miss(world: World, following: Next) -> None:
    """Two versions that show the same key differently never read each other's values."""
    people = following.crud("user:id:{id}")
    await world.warm()
    assert (await people.get(**following.given, id=ANN)).nick == "none"
    assert (await world.read()).name == "Ann"
    await people.update(**following.given, obj_in=PersonChange(nick="annie"), id=ANN)
    assert (await people.get(**following.given, id=ANN)).nick == "annie"
    assert (await world.crud.get(db=world.factory, redis=world.cache, id=ANN)).email == "ann@x"


async def test_joined_write_learns_of_templates_at_its_commit(world: World, following: Next) -> None:
    """A template that appears after the last version's statement, but before its COMMIT, is followed."""
    people = following.crud("person:{email}")
    read = lambda: people.get(**following.given, email="ann@x")  # noqa: E731
    async with world.factory() as session, session.begin():
        await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
        assert (await following.cached(read)).name == "Ann"
    assert (await read()).name == "new"


# What is listed, and what is waited for.


async def test_listed_templates_are_shown(world: World, following: Next) -> None:
    """``explain`` shows the templates of all versions that have cached something, and that they are confirmed."""
    await world.warm()
    people = following.crud("person:{email}", "people:of:{group_id}:page:{page}:limit:{limit}")
    await following.cached(lambda: people.get(**following.given, email="ann@x"))
    await following.cached(lambda: people.get_multi(**following.given, group_id=1))
    shown = (await world.crud.explain(world.cache, world.factory, id=ANN)).templates
    assert shown == {"user:id:{id}": True, "person:{email}": True, "people:of:{group_id}:page:": True}


async def test_template_waits_for_the_writers_at_work(world: World, following: Next) -> None:
    """A template that is new while a writer is at COMMIT is pending, and nothing is stored before that is done."""
    people = following.crud("person:{email}")
    await world.warm()  # fastrdb listens to this engine from now on, and before us
    seen: list[dict[str, bool]] = []

    async def look() -> None:
        assert (await people.get(**following.given, email="ann@x")).name == "Ann"
        explained = await people.explain(following.cache, following.factory, email="ann@x")
        assert explained.state != "hit"
        seen.append(explained.templates)

    event.listen(world.engine.sync_engine, "commit", lambda _: await_only(look()), once=True)
    await rename(world)
    assert seen == [{"user:id:{id}": True, "user:email:{email}": True, "person:{email}": False}]
    assert following.cache.stats.reasons["bypass: the template is not confirmed yet"] == 1
    assert (await following.cached(lambda: people.get(**following.given, email="ann@x"))).name == "new"
    templates = (await people.explain(following.cache, following.factory, email="ann@x")).templates
    assert templates["person:{email}"] is True


async def test_later_writers_do_not_delay_a_template(world: World, following: Next) -> None:
    """A pending template waits for those who were at work when it was listed, not for all who come after them."""
    people = following.crud("person:{email}")
    read = lambda: people.get(**following.given, email="ann@x")  # noqa: E731
    stop = asyncio.Event()

    async def write_on() -> None:
        count = 0
        while not stop.is_set():
            count += 1
            await world.crud.update(db=world.factory, redis=world.cache, obj_in=named(f"{count}"), id=BOB)

    writing = asyncio.create_task(write_on())
    await following.cached(read)
    stop.set()
    await writing


# Processes.


@asynccontextmanager
async def writer(world: World) -> AsyncIterator[asyncio.StreamReader]:
    """Another process, of the last version, that renames Ann again and again; a line for each write that returned."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        SCRIPT,
        world.url,
        world.redis_url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout
    finally:
        process.stdin.close()  # it ends when nobody is there any more
        await process.wait()


SCRIPT = """
import asyncio, sys, threading
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from fastrdb import Cache
from tests.models import named, user_crud

async def main(url, redis_url):
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    engine, crud = create_async_engine(url), user_crud()
    async with Cache.from_url(redis_url) as cache:
        factory, count = async_sessionmaker(engine), 0
        while not ended.is_set():
            count += 1
            await crud.update(db=factory, redis=cache, obj_in=named(str(count)), id=1)
            print(count, flush=True)
    await engine.dispose()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_of_two_versions(pg_world: World) -> None:
    """What a process of the last version writes is what one of the next reads, by row, list and key of its own."""
    await pg_world.execute("ALTER TABLE users ADD COLUMN nick VARCHAR(20) NOT NULL DEFAULT 'none'")
    following = Next(pg_world)
    people = following.crud("person:{email}", "people:of:{group_id}:page:{page}:limit:{limit}")
    written = reads = 0

    async def follow(lines: asyncio.StreamReader) -> None:
        nonlocal written
        while line := await lines.readline():
            written = int(line)

    async with writer(pg_world) as lines:
        following_it = asyncio.create_task(follow(lines))
        while not written:
            await asyncio.sleep(0.01)
        while reads < 400:
            least = written
            person = await people.get(**following.given, email="ann@x")
            page = await people.get_multi(**following.given, group_id=1)
            assert int(person.name) >= least
            assert int(next(each.name for each in page if each.id == ANN)) >= least
            reads += 2
            await asyncio.sleep(0)
    await following_it
    assert written > 50
    while not following.cache.stats.hits:  # the writer has ended: its template is confirmed, its holds have run out
        await people.get(**following.given, email="ann@x")
