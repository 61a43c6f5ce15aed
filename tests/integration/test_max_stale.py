"""``max_stale``: an answer that was right at most N seconds ago, for who accepts it, and for nobody else."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from pydantic import BaseModel, ConfigDict
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fastrdb import Cache, Crud, ReadOptions, invalidate
from fastrdb.cache.aged import Spare
from fastrdb.cache.protocol import claim_mark
from fastrdb.cache.reads import Ask, Loaded, Stamps, miss
from fastrdb.cache.store import Claim, Command, HoldCell
from fastrdb.errors import ConfigurationError, InputError, NotFound, UsageError
from fastrdb.testing.faults import Proxy
from tests.models import User, UserOut, named, user_crud
from tests.servers.redis import RedisServer
from tests.world import ANN, BOB, World, opened, until

ENTRY, LIST = b"user:id:1", b"user:group:1:page:1:limit:10"
ALL = b"fastrdb:{users}:all"
MINUTE = ReadOptions(max_stale=60)
REFRESHES, HELD, FAILED = "another one refreshes", "a writer holds it", "the database failed"


class Told:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Aging:
    """Two users, a crud that allows a minute, a clock that is told, and a way to the database that can be cut.

    Attributes:
        world: The users; its cache is this process's.
        other: What another process has: a cache of its own.
        clock: What the age of values is counted by.
        proxy: Stands between ``db`` and PostgreSQL.
        db: A factory whose sessions go through the proxy.
    """

    def __init__(self, world: World, proxy: Proxy) -> None:
        self.world, self.proxy, self.clock = world, proxy, Told()
        self.crud = user_crud(max_stale=60)
        self.cache, self.other = world.cache, world.another_cache()
        self.cache.aged.clock = self.clock
        engine = create_async_engine(proxy.through(world.url))
        world._engines.append(engine)
        self.db = async_sessionmaker(engine, expire_on_commit=False)

    async def name(self, options: ReadOptions | None = MINUTE, db: Any = None, id: int = ANN) -> str:
        """A user's name, as this process reads it: through the proxy, accepting a minute."""
        return (await self.crud.get(db or self.db, self.cache, options=options, id=id)).name

    async def names(self, options: ReadOptions | None = MINUTE) -> list[str]:
        """The names in the list of the group."""
        found = await self.crud.get_multi(self.db, self.cache, group_id=1, options=options)
        return sorted(each.name for each in found)

    async def warm(self) -> None:
        """Read until the row, the list and the number of rows are in the cache, and so kept here."""
        hits = self.cache.stats.hits

        async def all_hit() -> bool:
            nonlocal hits
            hits = self.cache.stats.hits
            await self.name(None)
            await self.names(None)
            await self.crud.count(self.db, self.cache, group_id=1)
            return self.cache.stats.hits == hits + 3

        await until(all_hit)

    async def write_elsewhere(self, name: str = "new", id: int = ANN) -> None:
        """Change a user in another process."""
        await user_crud().update(db=self.world.factory, redis=self.other, obj_in=named(name), id=id)

    async def claim(self, *entries: bytes) -> None:
        """Let readers in another process claim entries, and never fill them."""
        commands: list[Command] = [Claim(entry, claim_mark(b"elsewhere"), 60_000) for entry in entries]
        await self.other.run(commands)

    async def hold(self, *cells: bytes) -> None:
        """Let a writer in another process hold cells, and never let go."""
        await self.other.run([HoldCell(cell, b"elsewhere", 60_000) for cell in cells])

    def cut_off(self) -> None:
        """Take the database away."""
        self.proxy.refuses = True
        self.proxy.cut()

    def give_back(self) -> None:
        """Let the database be reached again."""
        self.proxy.refuses = False

    def aged(self, reason: str) -> int:
        """How many aged values were given for a reason."""
        return self.cache.stats.reasons[f"aged: {reason}"]


@asynccontextmanager
async def aging_in(url: str, redis_url: str) -> AsyncIterator[Aging]:
    """Two users, their list and their number, all of them kept at second 0."""
    parts = urlsplit(url)
    async with opened(url, redis_url) as world, Proxy.to(str(parts.hostname), parts.port or 5432) as proxy:
        aging = Aging(world, proxy)
        await aging.warm()
        yield aging


@pytest.fixture
async def aging(postgres_url: str, valkey_url: str) -> AsyncIterator[Aging]:
    """Two users in PostgreSQL, read by this process at second 0."""
    async with aging_in(postgres_url, valkey_url) as aging:
        yield aging


# Somebody else is at it.


async def test_a_value_that_is_loaded_elsewhere_is_given_at_once(aging: Aging) -> None:
    """While a reader in another process has claimed row and list, who accepts it gets the aged value, without SQL."""
    await aging.write_elsewhere()
    await invalidate(aging.other, User)
    await aging.claim(ENTRY, LIST)
    aging.clock.now = 60
    aging.cut_off()  # to see that nobody asks SQL
    assert (await aging.name(), await aging.names()) == ("Ann", ["Ann", "Bob"])
    assert aging.aged(REFRESHES) == 2


async def test_a_value_that_is_loaded_here_is_given_at_once(aging: Aging) -> None:
    """While one caller loads the row, 50 others get the aged value, and the one gets and stores what is there now."""
    await aging.write_elsewhere()
    await aging.other.run([HoldCell(ENTRY, b"w", 1)])
    await invalidate(aging.other, User)
    async with aging.world.outside.begin() as connection:
        await connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        leader = asyncio.create_task(aging.name())
        await until(lambda: _is(lambda: ENTRY in aging.cache.flights))
        assert {*await asyncio.gather(*[aging.name() for _ in range(50)])} == {"Ann"}
        assert not leader.done()
    assert await leader == "new"
    assert aging.aged(REFRESHES) == 50
    await until(lambda: _is(lambda: aging.cache.stats.reasons["stored"] > 0))
    assert await aging.name() == "new"


async def _is(holds: Callable[[], bool]) -> bool:
    return holds()


async def test_a_value_that_a_writer_holds_is_given_at_once(aging: Aging) -> None:
    """While a writer elsewhere holds the row's entry, or a token of the list, aged values are given without SQL."""
    await aging.hold(ENTRY, ALL)
    aging.cut_off()
    assert (await aging.name(), await aging.names()) == ("Ann", ["Ann", "Bob"])
    assert aging.aged(HELD) == 2


async def test_who_does_not_accept_it_is_answered_as_ever(aging: Aging) -> None:
    """Without the option a claim is waited for, a hold is bypassed, and SQL gives what is there now."""
    await aging.write_elsewhere()
    await aging.claim(ENTRY)
    assert await aging.name(None) == "new"
    await aging.hold(ENTRY)
    assert await aging.name(None) == "new"
    assert await aging.name(ReadOptions()) == "new"
    assert not [reason for reason in aging.cache.stats.reasons if reason.startswith("aged")]


async def test_who_is_first_loads(aging: Aging) -> None:
    """A dropped entry that nobody claims is loaded, not answered by the aged value, and stored for all."""
    await aging.write_elsewhere()
    await invalidate(aging.other, User)
    assert (await aging.name(), await aging.names()) == ("new", ["Bob", "new"])


@pytest.mark.parametrize(("held", "reason"), [(False, REFRESHES), (True, HELD)])
async def test_who_loses_the_race_for_the_claim_is_answered_at_once(valkey_url: str, held: bool, reason: str) -> None:
    """A reader that found an empty entry, and then another's claim or a held token there, takes the aged value."""
    async with Cache.from_url(valkey_url) as cache:
        stamps = Stamps(b"context", 1)
        spare = Spare(cache.aged, b"entry", stamps.context, (b"all",), (b"all",), 60, None)
        spare.note(b"aged", spare.aged.begin(), null=False)
        rival: Command = HoldCell(b"all", b"w", 5_000) if held else Claim(b"entry", claim_mark(b"rival"), 5_000)
        await cache.run([rival])
        ask = Ask(b"entry", (b"all",), b"any", None, stamps, 60_000, 60_000, spare=spare)

        async def load(may_store: bool) -> Loaded[bytes]:
            raise AssertionError("nobody is to load")

        assert await miss(cache, ask, (None, (None,)), load, bytes) == b"aged"
        assert cache.stats.snapshot() == {"hits": 0, f"aged: {reason}": 1}
        assert not cache.flights


# The database is away.


async def test_aged_values_are_given_while_the_database_is_away(aging: Aging, caplog: pytest.LogCaptureFixture) -> None:
    """Rows, JSON, lists, pages and numbers stand in where SQL cannot be reached; one line says so, and one its end."""
    await aging.write_elsewhere()
    await invalidate(aging.other, User)
    aging.cut_off()
    given = {"redis": aging.cache, "options": MINUTE}
    with caplog.at_level(logging.WARNING, "fastrdb"):
        assert await aging.name() == "Ann"
        assert b"Ann" in await aging.crud.get_json(aging.db, id=ANN, **given)
        assert await aging.crud.exists(aging.db, id=ANN, **given)
        assert b"Ann" in await aging.crud.get_multi_json(aging.db, group_id=1, **given)
        page = await aging.crud.page(aging.db, group_id=1, **given)
        assert (len(page.data), page.total) == (2, 2)
        assert await aging.crud.count(aging.db, group_id=1, **given) == 2
        aging.give_back()
        await until(lambda: _reads(aging, "new"))
    assert aging.aged(FAILED) >= 6
    assert [message.partition(" (")[0] for message in caplog.messages] == [
        "the database cannot be read",
        "the database can be read again",
    ]


async def _reads(aging: Aging, name: str) -> bool:
    return await aging.name() == name


async def test_nobody_else_is_spared_the_error(aging: Aging) -> None:
    """Without the option, with too small an age, or for a row that was never read, the database's error is raised."""
    await invalidate(aging.other, User)
    aging.cut_off()
    aging.clock.now = 30
    for options in (None, ReadOptions(max_stale=29)):
        with pytest.raises((DBAPIError, OSError)):
            await aging.name(options)
    with pytest.raises((DBAPIError, OSError)):
        await aging.name(id=BOB)
    assert await aging.name(ReadOptions(max_stale=timedelta(seconds=30))) == "Ann"


async def test_an_age_counts_from_when_the_read_was_sent(aging: Aging) -> None:
    """A SELECT that was sent at second 0, and came back at second 50, is too old at 61 for who accepts a minute."""
    await invalidate(aging.cache, User)
    aging.clock.now = 1  # after what was dropped
    async with aging.world.outside.begin() as connection:
        await connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        reading = asyncio.create_task(aging.name())
        await until(lambda: _is(lambda: ENTRY in aging.cache.flights))
        await until(lambda: _waits(aging))
        aging.clock.now = 50
    assert await reading == "Ann"
    await aging.claim(ENTRY)
    await invalidate(aging.other, User)
    aging.cut_off()
    aging.clock.now = 61
    assert await aging.name() == "Ann"
    aging.clock.now = 61.5
    with pytest.raises((DBAPIError, OSError)):
        await aging.name()


async def _waits(aging: Aging) -> bool:
    """Whether a SELECT waits for the lock."""
    async with aging.world.outside.connect() as connection:
        found = await connection.execute(text("SELECT count(*) FROM pg_locks WHERE NOT granted"))
        return bool(found.scalar_one())


async def test_errors_that_are_no_outage_are_raised(aging: Aging) -> None:
    """A table that is not there, and a row that is not there, are told, however young the aged value is."""
    await aging.world.execute("DELETE FROM users WHERE id = 1")
    await invalidate(aging.other, User)
    with pytest.raises(NotFound):
        await aging.name()
    await aging.world.execute("ALTER TABLE users RENAME TO people")
    await invalidate(aging.other, User)
    with pytest.raises(DBAPIError, match="users"):
        await aging.names()


async def test_a_statement_that_takes_too_long_is_an_outage(aging: Aging) -> None:
    """Where the server cancels the SELECT after its statement_timeout, the aged value is given."""
    await invalidate(aging.other, User)
    options = {"server_settings": {"statement_timeout": "100"}}
    engine = aging.world.another_engine(connect_args=options)
    async with aging.world.outside.begin() as connection:
        await connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        assert await aging.name(db=async_sessionmaker(engine)) == "Ann"
    assert aging.aged(FAILED) == 1


async def test_a_full_pool_is_an_outage(aging: Aging) -> None:
    """Where no connection becomes free in time, the aged value is given."""
    engine = aging.world.another_engine(pool_size=1, max_overflow=0, pool_timeout=0.05)
    await aging.name(db=async_sessionmaker(engine))
    await invalidate(aging.other, User)
    async with engine.connect():
        assert await aging.name(db=async_sessionmaker(engine)) == "Ann"
    assert aging.aged(FAILED) == 1


async def test_a_cancelled_read_is_cancelled(aging: Aging) -> None:
    """A caller that gives up while the database hangs gets no aged value instead of its cancellation."""
    await invalidate(aging.other, User)
    aging.proxy.stall()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(aging.name(), 0.1)
    assert aging.aged(FAILED) == 0


async def test_the_callers_session_stays_usable(aging: Aging) -> None:
    """One session reads twice while the database is away, and what is there now once it is back, with no rollback."""
    async with aging.db() as session:
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1
        await session.commit()
        await invalidate(aging.other, User)
        aging.cut_off()
        assert (await aging.name(db=session), await aging.name(db=session)) == ("Ann", "Ann")
        assert not session.in_transaction()
        aging.give_back()
        assert (await session.execute(text("SELECT 1"))).scalar_one() == 1


async def test_a_transaction_that_is_lost_stays_lost(aging: Aging) -> None:
    """Reads in a transaction that broke get aged values, too, and the caller's own statements its error."""
    async with aging.db() as session:
        assert await session.scalar(select(User.name).where(User.id == ANN)) == "Ann"
        await invalidate(aging.other, User)
        aging.cut_off()
        assert (await aging.name(db=session), await aging.name(db=session)) == ("Ann", "Ann")
        with pytest.raises(Exception, match=r"rolled back|rollback"):
            await session.scalar(select(User.name))
        await session.rollback()


# Redis is away.


async def test_sql_answers_before_aged_values_do_where_redis_is_away(
    postgres_url: str, private_redis: Callable[..., RedisServer]
) -> None:
    """Without Redis a read is SQL's, and kept; without both it is the aged value, that of the outage, too."""
    server = private_redis()
    async with aging_in(postgres_url, server.url) as aging:
        server.stop()
        await aging.world.execute("UPDATE users SET name = 'new' WHERE id = 1")
        assert await aging.name() == "new"
        aging.cut_off()
        assert (await aging.name(), await aging.names()) == ("new", ["Ann", "Bob"])


async def test_writes_without_redis_are_never_read_past(
    postgres_url: str, private_redis: Callable[..., RedisServer]
) -> None:
    """A write that could not tell Redis has told this process: its row is not given in the state from before."""
    server = private_redis()
    async with aging_in(postgres_url, server.url) as aging:
        server.stop()
        aging.clock.now = 1
        await aging.crud.update(db=aging.db, redis=aging.cache, obj_in=named("new"), id=ANN)
        aging.clock.now = 2
        assert aging.cache.undelivered
        aging.cut_off()
        with pytest.raises((DBAPIError, OSError)):
            await aging.name()
        aging.give_back()
        await until(lambda: _reads(aging, "new"))
        aging.cut_off()
        assert await aging.name() == "new"


# This process's own writes.


async def _update(aging: Aging) -> None:
    await aging.crud.update(db=aging.db, redis=aging.cache, obj_in=named("new"), id=ANN)


async def _update_by_condition(aging: Aging) -> None:
    await aging.crud.update_where(db=aging.db, redis=aging.cache, obj_in=named("new"), where=User.name == "Ann")


async def _join(aging: Aging) -> None:
    async with aging.db() as session, session.begin():
        await aging.crud.update(db=session, redis=aging.cache, obj_in=named("new"), id=ANN)


async def _commit_each(aging: Aging) -> None:
    engine = aging.world.engine.execution_options(isolation_level="AUTOCOMMIT")
    async with AsyncSession(engine) as session:
        await aging.crud.update(db=session, redis=aging.cache, obj_in=named("new"), id=ANN)


async def _write_in_a_connection(aging: Aging) -> None:
    async with aging.world.engine.connect() as connection, AsyncSession(connection) as session:
        await connection.begin()
        await aging.crud.update(db=session, redis=aging.cache, obj_in=named("new"), id=ANN)
        await connection.commit()


async def _invalidate_the_row(aging: Aging) -> None:
    await aging.crud.invalidate(aging.cache, id=ANN)


async def _invalidate_a_path(aging: Aging) -> None:
    await invalidate(aging.cache, "user:*")


async def _clear(aging: Aging) -> None:
    await aging.crud.clear(aging.cache)


@pytest.mark.parametrize(
    "write",
    [
        _update,
        _update_by_condition,
        _join,
        _commit_each,
        _write_in_a_connection,
        _invalidate_the_row,
        _invalidate_a_path,
        _clear,
    ],
    ids=lambda write: write.__name__.strip("_"),
)
async def test_own_writes_are_never_read_past(aging: Aging, write: Any) -> None:
    """Once a write of this process has returned, or a drop by hand, its row and its list are not given from before."""
    aging.clock.now = 1
    await write(aging)
    aging.clock.now = 2
    await aging.hold(ENTRY, ALL)
    aging.cut_off()
    for read in (aging.name, aging.names):
        with pytest.raises((DBAPIError, OSError)):
            await read()
    assert aging.aged(HELD) == aging.aged(REFRESHES) == aging.aged(FAILED) == 0


async def test_what_is_read_before_an_unseen_commit_is_not_given(aging: Aging) -> None:
    """Nobody tells when a Connection has committed: what was read until its hold ends is not given afterwards."""
    aging.clock.now = 1
    await _write_in_a_connection(aging)
    aging.clock.now = 2
    assert await aging.name() == "new"  # which might have been read between hold and COMMIT
    aging.cut_off()
    with pytest.raises((DBAPIError, OSError)):
        await aging.name()
    aging.give_back()
    aging.clock.now = 5
    assert await aging.name() == "new"
    aging.cut_off()
    await aging.hold(ENTRY)
    assert await aging.name() == "new"


async def test_own_writes_leave_other_rows(aging: Aging) -> None:
    """A write of one row leaves what is kept of another."""
    await until(lambda: _is_hit(aging, BOB))
    aging.clock.now = 1
    await _update(aging)
    await aging.hold(b"user:id:2")
    aging.cut_off()
    assert await aging.name(id=BOB) == "Bob"


async def _is_hit(aging: Aging, id: int) -> bool:
    hits = aging.cache.stats.hits
    await aging.name(None, id=id)
    return aging.cache.stats.hits > hits


async def test_a_write_that_was_rolled_back_leaves_everything(aging: Aging) -> None:
    """What did not happen drops nothing."""
    aging.clock.now = 1
    async with aging.db() as session:
        await session.begin()
        await aging.crud.update(db=session, redis=aging.cache, obj_in=named("new"), id=ANN)
        await session.rollback()
    await aging.hold(ENTRY)
    assert await aging.name() == "Ann"


async def test_a_transaction_sees_its_own_writes(aging: Aging) -> None:
    """A session that has written reads SQL, whatever it accepts, and whoever holds the entry; so do pending objects."""
    async with aging.db() as session:
        await session.begin()
        await aging.crud.update(db=session, redis=aging.cache, obj_in=named("new"), id=ANN)
        await aging.claim(ENTRY)
        assert await aging.name(db=session) == "new"
        aging.cut_off()
        with pytest.raises((DBAPIError, OSError)):
            await aging.name(db=session)
        await session.rollback()
    assert aging.aged(REFRESHES) == aging.aged(FAILED) == 0


# What is kept apart, and what is refused.


class Short(BaseModel):
    """Another response for the same entry."""

    model_config = ConfigDict(from_attributes=True)
    id: int


async def test_cruds_with_other_schemas_do_not_mix(aging: Aging) -> None:
    """What one crud keeps is not given to another one with the same key and another response."""
    short: Crud[Any, Any, Any, Short] = Crud(User, Short, "user:id:{id}", max_stale=60)
    await aging.hold(ENTRY)
    assert await short.get(aging.db, aging.cache, options=MINUTE, id=ANN) == Short(id=ANN)
    aging.cut_off()
    assert await aging.name() == "Ann"
    assert await short.get(aging.db, aging.cache, options=MINUTE, id=ANN) == Short(id=ANN)


async def test_no_such_row_is_an_answer_too(aging: Aging) -> None:
    """ "There is no such row" is kept, and given where the row is created elsewhere, for who accepts it."""
    for _ in range(2):
        assert await aging.crud.get_or_none(aging.db, aging.cache, id=77) is None
    await aging.claim(b"user:id:77")
    aging.cut_off()
    assert await aging.crud.get_or_none(aging.db, aging.cache, options=MINUTE, id=77) is None


async def test_a_cache_that_is_switched_off_gives_none(aging: Aging) -> None:
    """With ``cache.serves = False`` nothing that was kept is given, not even while the database is away."""
    aging.cache.serves = False
    aging.cut_off()
    with pytest.raises((DBAPIError, OSError)):
        await aging.name()


async def test_a_crud_that_does_not_allow_it_keeps_nothing(aging: Aging) -> None:
    """Without ``max_stale`` hits and loads leave nothing in the process, and the option is refused with what to do."""
    plain = user_crud()
    async with Cache.from_url(aging.world.redis_url) as cache:
        for _ in range(2):
            await plain.get(aging.db, cache, id=ANN)
        assert (len(cache.aged), cache.aged.used) == (0, False)
        with pytest.raises(UsageError, match=r"keeps no aged values; build it with Crud\(User, …, max_stale=60\)"):
            await plain.get(aging.db, cache, options=MINUTE, id=ANN)


async def test_an_age_beyond_the_cruds_is_refused(aging: Aging) -> None:
    """Accepting more than the crud allows is a mistake, in rows and in lists."""
    for read in (aging.name, aging.names):
        with pytest.raises(UsageError, match="keeps values for 60 seconds"):
            await read(ReadOptions(max_stale=61))


async def test_methods_that_cannot_use_it_refuse_it(aging: Aging) -> None:
    """Streams, cursor pages and reads by many keys say that the option is not for them."""
    with pytest.raises(UsageError, match="max_stale is for reads through the cache"):
        aging.crud.stream(aging.db, options=MINUTE)
    with pytest.raises(UsageError, match="max_stale is for reads through the cache"):
        await aging.crud.cursor_page(aging.db, options=MINUTE)
    with pytest.raises(UsageError, match="max_stale is for reads through the cache"):
        await aging.crud.get_by_keys(aging.db, aging.cache, [ANN], options=MINUTE)


@pytest.mark.parametrize("age", [0, -1, float("nan"), float("inf"), True, "60", timedelta(0)])
def test_an_age_is_a_time(age: Any) -> None:
    """What is no time above zero is refused, by the option and by the crud."""
    with pytest.raises(InputError, match="max_stale: pass seconds above 0"):
        ReadOptions(max_stale=age)
    with pytest.raises(ConfigurationError, match="max_stale must be seconds or a timedelta"):
        Crud(User, UserOut, "user:id:{id}", max_stale=age)


def test_a_lock_and_an_age_contradict_each_other() -> None:
    """``for_update`` wants what is there now."""
    with pytest.raises(InputError, match="for_update locks what is in the database now"):
        ReadOptions(max_stale=60, for_update=True)


def test_a_cache_that_may_keep_nothing_is_refused() -> None:
    """``aged_bytes`` is 1 or more."""
    with pytest.raises(ConfigurationError, match="aged_bytes must be 1 or more"):
        Cache.from_url("memory://", aged_bytes=0)
