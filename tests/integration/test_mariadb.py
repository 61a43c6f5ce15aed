"""What only MariaDB does: its snapshots, its implicit commits, its collations, what it cuts."""

import asyncio
import datetime as dt
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import CheckConstraint, DateTime, String, event, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.util import await_only

from fastrdb import Cache, Crud, KeyMismatch, NotFound, SessionRefused
from fastrdb.errors import CheckViolation, NotNullViolation, UniqueViolation
from tests.models import UserChange, UserIn, UserOut, named, user_crud
from tests.servers.mariadb import MariaDBServer
from tests.world import ANN, Read, World, opened, until


class WithId(UserIn):
    """A user that is upserted by its id."""

    id: int


ABSENT, HELD = "miss: absent", "bypass: the entry is held"


@pytest.fixture
async def world(mariadb_url: str, valkey_url: str) -> AsyncIterator[World]:
    """Two users in MariaDB, and a cache."""
    async with opened(mariadb_url, valkey_url) as world:
        yield world


# Snapshots.


async def test_transaction_never_fills(world: World) -> None:
    """A transaction's snapshot is as old as its first SELECT: what a later one finds is not cached."""
    async with AsyncSession(world.engine) as session:
        assert (await world.read(session, id=2)).name == "Bob"
        await world.execute("UPDATE users SET name = 'new' WHERE id = 1")
        assert await world.read(session) == Read("Ann", from_cache=False)
    assert await world.state() == ABSENT
    assert (await world.read()).name == "new"


async def test_update_that_changes_nothing_gives_the_row_as_it_is(world: World) -> None:
    """An UPDATE that leaves the row as it was gives what is committed, not what its older snapshot has."""
    async with AsyncSession(world.engine) as session, session.begin():
        await session.execute(text("SELECT * FROM users"))
        await world.execute("UPDATE users SET name = 'new', group_id = 7 WHERE id = 1")
        given = await world.crud.update(session, world.cache, named("new"), id=ANN)
    assert given == UserOut(id=ANN, email="ann@x", name="new", group_id=7)
    assert await world.crud.get(world.factory, world.cache, id=ANN) == given


async def test_dirty_reads_set_behind_sqlalchemy_never_fill(world: World) -> None:
    """READ UNCOMMITTED that a listener sets is found out by asking the server."""
    dirty = world.another_engine()

    def set_level(connection: Any, record: Any) -> None:
        connection.cursor().execute("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED")

    event.listen(dirty.sync_engine, "connect", set_level)
    factory = async_sessionmaker(dirty)
    async with world.outside.connect() as writer:
        await writer.exec_driver_sql("UPDATE users SET name = 'dirty' WHERE id = 1")
        assert await world.read(factory) == Read("dirty", from_cache=False)
        await writer.rollback()
    assert await world.state() == ABSENT


async def test_level_that_is_set_later_is_noticed(world: World) -> None:
    """A statement that sets the level on a connection of the pool makes fastrdb ask again."""
    engine = world.another_engine(pool_size=1)
    factory = async_sessionmaker(engine)
    await world.warm()
    await world.crud.invalidate(world.cache, id=ANN)
    assert await world.read(factory) == Read("Ann", from_cache=False)
    await world.crud.invalidate(world.cache, id=ANN)
    async with factory() as session:
        await session.execute(text("SET SESSION TRANSACTION ISOLATION LEVEL READ UNCOMMITTED"))
    await world.read(factory)
    assert await world.state() == ABSENT


async def test_server_is_asked_once(world: World) -> None:
    """Each database connection is asked once what its SELECTs see."""
    for _ in range(3):
        await world.read()
        await world.crud.invalidate(world.cache, id=ANN)
    assert sum("information_schema" in statement for statement in world.sent) == 1


# Commits that SQLAlchemy does not send.


async def test_autocommit_of_the_driver_is_noticed(world: World) -> None:
    """Where the driver commits each statement, the table is held before it, as under AUTOCOMMIT."""
    engine = world.another_engine(connect_args={"autocommit": True})
    await world.warm()
    seen: list[str] = []

    def look(*args: Any) -> None:
        if args[2].startswith("UPDATE"):
            seen.append(await_only(world.state()))

    event.listen(engine.sync_engine, "before_cursor_execute", look)
    async with AsyncSession(engine) as session:
        await world.crud.update(session, world.cache, named("new"), id=ANN)
        assert await world.stored() == "new"
    assert seen == ["bypass: a token is held"]
    assert await world.read() == Read("new", from_cache=False)


async def test_autocommit_update_says_its_criterion_again(world: World) -> None:
    """Without a transaction, a row that changes between its lock and its UPDATE is not overwritten."""
    engine = world.another_engine(isolation_level="AUTOCOMMIT")
    sent: list[str] = []

    def interfere(*args: Any) -> None:
        sent.append(args[2])
        if args[2].startswith("UPDATE"):
            await_only(world.execute("UPDATE users SET name = 'theirs' WHERE id = 1"))

    event.listen(engine.sync_engine, "before_cursor_execute", interfere)
    async with AsyncSession(engine) as session:
        with pytest.raises(NotFound):
            await world.crud.update(session, world.cache, named("ours"), id=ANN, name="Ann")
    assert await world.stored() == "theirs"
    assert any("FOR UPDATE" in statement for statement in sent)


@pytest.mark.parametrize("statement", ["CREATE TABLE more (id INT)", "TRUNCATE TABLE users", "COMMIT"])
async def test_implicit_commit_is_refused(world: World, statement: str) -> None:
    """A statement that would commit a write unseen is refused, and the write can still be committed."""
    await world.warm()
    async with AsyncSession(world.engine) as session, session.begin():
        await world.crud.update(session, world.cache, named("new"), id=ANN)
        with pytest.raises(SessionRefused, match="commit"):
            await session.execute(text(statement))
        assert await world.stored() == "Ann"
    assert await world.read() == Read("new", from_cache=False)


async def test_implicit_commit_without_a_write_is_the_callers(world: World) -> None:
    """A session that fastrdb has not written in may send what it likes."""
    async with AsyncSession(world.engine) as session, session.begin():
        await world.read(session)
        await session.execute(text("CREATE TABLE more (id INT)"))


# Outcomes.


async def test_killed_connection_is_an_unknown_outcome(world: World, mariadb: MariaDBServer) -> None:
    """A COMMIT on a connection that was killed may have happened: the row stays held until the hold runs out."""
    await world.warm()

    def kill(connection: Any) -> None:
        number = connection.connection.driver_connection.thread_id()
        await_only(asyncio.to_thread(mariadb.ask, f"KILL {number}"))

    async with AsyncSession(world.engine) as session:
        await session.begin()
        await world.crud.update(session, world.cache, named("new"), id=ANN)
        event.listen(world.engine.sync_engine, "commit", kill)
        with pytest.raises(OperationalError):
            await session.commit()
        event.remove(world.engine.sync_engine, "commit", kill)
    assert await world.state() == HELD
    assert await world.read() == Read("Ann", from_cache=False)

    async def is_free() -> bool:
        return await world.state() != HELD

    await until(is_free)
    await world.warm()


async def test_deadlock_lets_go(world: World) -> None:
    """Of two writes that wait for each other one is rolled back and raises; the other is there, and readers see it."""
    await world.warm()
    both = asyncio.Barrier(2)

    async def swap(first: int, second: int) -> None:
        async with AsyncSession(world.engine) as session, session.begin():
            await world.crud.update(session, world.cache, named(f"by {first}"), id=first)
            await both.wait()
            await world.crud.update(session, world.cache, named(f"by {first}"), id=second)

    results = await asyncio.gather(swap(1, 2), swap(2, 1), return_exceptions=True)
    (error,) = (result for result in results if result is not None)
    assert isinstance(error, OperationalError)
    assert "1213" in str(error)
    winner = f"by {results.index(None) + 1}"
    assert (await world.read(id=1)).name == (await world.read(id=2)).name == winner
    await world.warm()


@pytest.mark.parametrize("method", ["upsert_multi", "update_multi"])
async def test_deadlock_of_batches_is_told_as_one(world: World, method: str) -> None:
    """A deadlock undoes the savepoint of a batch, too: what is raised is still the deadlock, and the other is there."""
    both = asyncio.Barrier(2)

    async def write(session: AsyncSession, id: int, by: int) -> None:
        keys = [id, 10 + by]  # two rows, so that it is a batch
        if method == "update_multi":
            items = [(key, named(f"by {by}")) for key in keys]
            await world.crud.update_multi(session, world.cache, items, missing="skip")
        else:
            rows = [WithId(id=key, email=f"{key}@x", name=f"by {by}") for key in keys]
            await world.crud.upsert_multi(session, world.cache, rows, update_fields=["name"])

    async def swap(first: int, second: int) -> None:
        async with AsyncSession(world.engine) as session, session.begin():
            await write(session, first, first)
            await both.wait()
            await write(session, second, first)

    results = await asyncio.gather(swap(1, 2), swap(2, 1), return_exceptions=True)
    (error,) = (result for result in results if result is not None)
    assert isinstance(error, OperationalError)
    assert "1213" in str(error)
    winner = f"by {results.index(None) + 1}"
    assert (await world.read(id=1)).name == (await world.read(id=2)).name == winner


async def test_update_waits_for_a_lock_and_sees_what_it_waited_for(world: World) -> None:
    """A write that waited for another one changes, and gives, the row that the other has left."""
    async with world.outside.connect() as other:
        await other.exec_driver_sql("UPDATE users SET group_id = 9 WHERE id = 1")
        waiting = asyncio.create_task(world.crud.update(world.factory, world.cache, named("new"), id=ANN))

        async def waits() -> bool:
            found = await other.exec_driver_sql(
                "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'"
            )
            return bool(found.scalar())

        await until(waits, pause_s=0.2)  # the server renews that table at most every 0.1 s, if nobody reads it
        await other.commit()
    assert (await waiting).group_id == 9
    assert (await world.crud.get(world.factory, world.cache, id=ANN)).group_id == 9


# All of it at once.


async def test_no_reader_is_behind_a_write_that_has_returned(world: World) -> None:
    """Readers of two caches never see a row older than the last write that had returned before they asked."""
    caches, until_s = (world.cache, world.another_cache()), asyncio.get_running_loop().time() + 1.5
    floors, crud, rng = {1: 1, 2: 1}, user_crud(), random.Random(1)

    def going_on() -> bool:
        return asyncio.get_running_loop().time() < until_s

    async def write(id: int) -> None:
        while going_on():
            number, cache = floors[id] + 1, rng.choice(caches)
            change = UserChange(name=str(number), email=f"{number % 3}-{id}@x")
            if rng.random() < 0.5:
                await crud.update(world.factory, cache, change, id=id)
            else:
                async with world.factory() as session, session.begin():
                    await session.execute(text("SELECT * FROM users"))  # an older snapshot
                    await crud.update(session, cache, change, id=id)
            floors[id] = number

    async def fail() -> None:
        while going_on():
            async with world.factory() as session:
                await session.begin()
                await crud.update(session, rng.choice(caches), UserChange(group_id=1), id=rng.choice((1, 2)))
                await session.rollback()
            await asyncio.sleep(0.005)

    async def read() -> None:
        while going_on():
            id, cache = rng.choice((1, 2)), rng.choice(caches)
            floor = floors[id]
            if rng.random() < 0.7:
                name = (await crud.get(world.factory, cache, id=id)).name
            else:
                rows = await crud.get_multi(world.factory, cache, group_id=1)
                name = next(row.name for row in rows if row.id == id)
            assert int(name) >= floor
            await asyncio.sleep(rng.random() * 0.004)

    await world.execute("UPDATE users SET name = '1'")
    await asyncio.gather(write(1), write(2), fail(), *(read() for _ in range(12)))
    assert min(floors.values()) > 5
    assert sum(cache.stats.hits for cache in caches) > 10


# Values.


class Base(DeclarativeBase):
    """The tables of these tests."""


class Note(Base):
    """A text that is a key, and a time without a fraction of seconds."""

    __tablename__ = "notes"
    name: Mapped[str] = mapped_column(String(20), primary_key=True)
    at: Mapped[dt.datetime] = mapped_column(DateTime, unique=True)
    stars: Mapped[int]
    __table_args__ = (CheckConstraint("stars < 6", name="few_stars"),)


class NoteIn(BaseModel):
    name: str | None = None
    at: dt.datetime = dt.datetime(2024, 1, 1)
    stars: int = 1


class NoteOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    name: str
    at: dt.datetime
    stars: int


def note_crud() -> Crud[Note, NoteIn, NoteIn, NoteOut]:
    """Notes, cached by name and by time, and lists of those with a name."""
    return Crud[Note, NoteIn, NoteIn, NoteOut](
        Note, NoteOut, ("note:{name}", "note:at:{at}"), "notes:{name}:page:{page}:{limit}"
    )


@pytest.fixture
async def notes(mariadb_url: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """An empty table of notes."""
    engine = create_async_engine(mariadb_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine)
    await engine.dispose()


async def test_text_is_found_by_its_collation(notes: Any) -> None:
    """MariaDB finds 'Ann' for 'ANN ': the row is given, and no entry under another spelling outlives a change of it."""
    crud = note_crud()
    async with Cache.from_url("memory://") as cache:
        assert await crud.get_or_none(notes, cache, name="ANN ") is None
        assert await crud.get_multi(notes, cache, name="ANN ") == []
        made = await crud.create(notes, cache, NoteIn(name="Ann"))
        for _ in range(2):
            assert await crud.get(notes, cache, name="ANN ") == made
            assert await crud.get_multi(notes, cache, name="ANN ") == [made]
        changed = await crud.update(notes, cache, NoteIn(stars=2), name="ann")
        assert (changed.name, changed.stars) == ("Ann", 2)
        assert await crud.get(notes, cache, name="ANN ") == changed
        assert await crud.get_multi(notes, cache, name="ANN ") == [changed]
        await crud.delete(notes, cache, name="aNN")
        assert await crud.get_or_none(notes, cache, name="ANN ") is None
        assert await crud.get_or_none(notes, cache, name="Ann") is None


async def test_spelling_of_a_key_can_be_changed(notes: Any) -> None:
    """A change that MariaDB takes for no other key still moves the row to another entry."""
    crud = note_crud()
    async with Cache.from_url("memory://") as cache:
        await crud.create(notes, cache, NoteIn(name="Ann"))
        assert (await crud.get(notes, cache, name="Ann")).name == "Ann"
        assert (await crud.update(notes, cache, NoteIn(name="ANN"), name="Ann")).name == "ANN"
        assert (await crud.get(notes, cache, name="Ann")).name == "ANN"
        assert (await crud.get(notes, cache, name="ANN")).name == "ANN"


async def test_fractions_that_a_column_cuts(notes: Any) -> None:
    """A DATETIME without fractions cuts them: the answer says what is stored, and the row lies under that."""
    crud, asked, stored = note_crud(), dt.datetime(2024, 1, 1, 12, 0, 0, 900_000), dt.datetime(2024, 1, 1, 12)
    async with Cache.from_url("memory://") as cache:
        assert await crud.get_or_none(notes, cache, at=stored) is None
        made = await crud.create(notes, cache, NoteIn(name="a", at=asked))
        assert made.at == stored
        assert await crud.get(notes, cache, at=stored) == made
        assert await crud.get_or_none(notes, cache, at=asked) is None
        with pytest.raises(KeyMismatch):
            await crud.create(
                notes, cache, NoteIn(name="b", at=asked + dt.timedelta(days=1)), at=asked + dt.timedelta(days=1)
            )
        assert (await crud.update(notes, cache, NoteIn(at=asked + dt.timedelta(hours=1)), name="a")).at.hour == 13
        assert await crud.get_or_none(notes, cache, at=stored) is None


async def test_constraints_are_named(notes: Any) -> None:
    """A refused write raises what was violated, with the name that MariaDB gives."""
    crud, db = note_crud(), notes
    await crud.create(db, None, NoteIn(name="a"))
    later = dt.datetime(2025, 1, 1)
    for given, kind, name in [
        (NoteIn(name="A", at=later), UniqueViolation, "PRIMARY"),
        (NoteIn(name="b"), UniqueViolation, "at"),
        (NoteIn(name="b", at=later, stars=6), CheckViolation, "few_stars"),
        (NoteIn(name=None, at=later), NotNullViolation, "name"),
    ]:
        with pytest.raises(kind) as raised:
            await crud.create(db, None, given)
        assert raised.value.constraint == name
    with pytest.raises(CheckViolation):
        await crud.update(db, None, NoteIn(stars=7), name="a")
    with pytest.raises(NotNullViolation):
        await crud.create_multi(db, None, [NoteIn(name="c", at=later), NoteIn(name=None)])
    assert await crud.count(db, None) == 1


async def test_many_rows_come_back_in_their_order(world: World) -> None:
    """Bulk inserts give their rows in the order that they were given in, generated keys included."""
    given = [UserIn(email=f"{number % 7}-{number}@x", name=str(number)) for number in range(2_500)]
    made = await world.crud.create_multi(world.factory, world.cache, given)
    assert [row.name for row in made] == [row.name for row in given]
    assert [row.id for row in made] == sorted({row.id for row in made})


async def test_the_name_of_the_dialect_makes_no_difference(world: World, mariadb_url: str) -> None:
    """``mariadb+asyncmy`` and ``mysql+asyncmy`` lead to the same database, and share what is cached."""
    await world.warm()
    engine = create_async_engine(mariadb_url.replace("mysql", "mariadb"))
    try:
        factory, crud, before = async_sessionmaker(engine), user_crud(), world.cache.stats.hits
        assert (await crud.get(factory, world.cache, id=ANN)).name == "Ann"
        assert world.cache.stats.hits == before + 1
        assert (await crud.update(factory, world.cache, UserChange(name="new"), id=ANN)).name == "new"
    finally:
        await engine.dispose()
    assert (await world.read()).name == "new"


class Membership(Base):
    """Of a team whose name is equal to no other spelling."""

    __tablename__ = "memberships"
    id: Mapped[int] = mapped_column(primary_key=True)
    team: Mapped[str] = mapped_column(String(20, collation="utf8mb4_nopad_bin"))


class MembershipIn(BaseModel):
    team: str


class MembershipOut(MembershipIn):
    model_config = ConfigDict(from_attributes=True)
    id: int


async def test_text_without_padding_is_exact(notes: Any) -> None:
    """Under a collation that compares characters, and spaces too, a write drops the lists of its own team alone."""
    crud = Crud[Membership, MembershipIn, MembershipIn, MembershipOut](
        Membership, MembershipOut, "membership:{id}", "members:{team}:{page}:{limit}"
    )
    async with Cache.from_url("memory://") as cache:
        for team in ("red", "Red", "red "):
            await crud.create(notes, cache, MembershipIn(team=team))
        for team in ("red", "Red", "red "):
            assert [row.team for row in await crud.get_multi(notes, cache, team=team)] == [team]
        await crud.create(notes, cache, MembershipIn(team="red"))
        hits = cache.stats.hits
        assert len(await crud.get_multi(notes, cache, team="Red")) == 1
        assert len(await crud.get_multi(notes, cache, team="red ")) == 1
        assert cache.stats.hits == hits + 2
        assert len(await crud.get_multi(notes, cache, team="red")) == 2
