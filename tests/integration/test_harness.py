"""The harness is tested first: with each part of the protocol switched off, it finds stale reads."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import pytest
import redis
from pydantic import BaseModel
from sqlalchemy import NullPool
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.schema import CreateTable

from fastrdb import NearTier
from fastrdb.cache.protocol import ALL_PARTS, Parts
from fastrdb.crud.crud import Crud
from fastrdb.testing.harness import Count, Page, Row, Scenario, Subject, Weather, WorkerFailed, run
from fastrdb.testing.harness.__main__ import main
from fastrdb.testing.harness.builtin import Builtin

ROOT = Path(__file__).parents[2]
LIMIT_S = 300.0  # a part that is off is found in seconds; here a busy machine gives up

FAIR = Weather(kill_every_s=0, deadly=0, cut_every_s=0)


@dataclass(frozen=True)
class Focus:
    """What a part that is off needs to show soon. The promise itself is tested with all of it, mixed."""

    subjects: tuple[Builtin, ...]
    weather: Weather
    off: tuple[str, ...] = ()
    ways: tuple[str, ...] = ("alone",)
    readers: int = 3
    writers: int = 3
    batch: int = 8

    def scenario(self, postgres: str, redis_url: str, *off: str) -> Scenario:
        """The scenario without those parts."""
        return Scenario(
            postgres,
            redis_url,
            subjects=self.subjects,
            reads=10**9,
            limit_s=LIMIT_S,
            stop_at_first=True,
            seed=random.randrange(2**32),
            readers=self.readers,
            writers=self.writers,
            batch=self.batch,
            ways=dict.fromkeys(self.ways, 1.0),
            parts=replace(ALL_PARTS, **dict.fromkeys(off, False)),
            weather=self.weather,
        )


def both(rows: int, by_name: float = 0.45) -> tuple[Builtin, ...]:
    """The old and the new code of few rows: what processes do to each other happens more often."""
    return Builtin("old", rows, by_name), Builtin("new", rows, by_name)


BOTH = both(rows=4)
# The list of templates is gone again and again, and every write lingers between its hold and COMMIT.
UNLISTED = replace(
    FAIR, points=("reply",), late=0, late_writes=1, late_s=0.03, evict_per_s=15, evict_tokens=0.5, evict_lists=0.7
)
OVERTAKEN = Focus((Builtin("old", rows=4),), FAIR, ("through_listed",), ("overtaken",), readers=2, writers=2)

BREAKS = {
    # Writers die between COMMIT and release.
    "holds": Focus(both(rows=8), replace(FAIR, points=("release",), deadly=0.1)),
    "claims": Focus(BOTH, replace(FAIR, points=("statement", "fill"), late=0.2, late_writes=0)),
    "tokens_minted": Focus(BOTH, FAIR),
    # With all templates known to all, so that nothing needs to be listed: the rule that values are written through only
    # under templates that are listed when their tokens are noted would hide that the tokens are noted too late.
    "stamp_before_commit": OVERTAKEN,
    "sole_holder_installs": replace(OVERTAKEN, off=()),
    "fresh_snapshot": Focus(BOTH, replace(FAIR, points=("statement", "fill"), late=0.2, late_writes=0)),
    "lists": Focus(BOTH, FAIR),
    "hold_first": Focus(both(rows=2), UNLISTED, writers=1),
    "waits": Focus(BOTH, UNLISTED),
    "pending_counts": Focus(BOTH, UNLISTED),
    "through_listed": Focus(
        both(rows=4, by_name=0.1),
        replace(FAIR, points=(), evict_per_s=10, evict_tokens=1, evict_lists=1),
        readers=2,
        writers=2,
    ),
}


@pytest.mark.parametrize("part", [part.name for part in fields(Parts)])
def test_a_part_that_is_off_is_found(part: str, postgres_url: str, valkey_url: str) -> None:
    """Without any one part of the protocol there are stale reads, and the harness finds one."""
    focus = BREAKS[part]
    report = run(focus.scenario(postgres_url, valkey_url, part, *focus.off))
    assert report.stale > 0, report
    assert report.examples


def test_a_part_that_is_not_needed_is_not_found(postgres_url: str, valkey_url: str) -> None:
    """Where all processes have the same templates, values may be written through under templates that nobody listed."""
    scenario = OVERTAKEN.scenario(postgres_url, valkey_url, "through_listed")
    report = run(replace(scenario, reads=5_000))
    assert report.stale == 0, report


def test_near_tier_is_outdated_within_its_bound(postgres_url: str, valkey_url: str) -> None:
    """With a near tier, whose connection is cut again and again, no answer is older than ``max_age_s`` allows."""
    near = NearTier(max_age_s=1.0)
    calm = Weather(
        storm_s=0.2, calm_s=0.8, deadly=0, kill_every_s=0, cut_every_s=0, evict_per_s=2, deaf_every_s=2, late=0
    )
    report = run(
        Scenario(postgres_url, valkey_url, reads=3_000, readers=2, writers=1, near=near, weather=calm, pause_s=0.1)
    )
    assert report.stale == 0, report
    assert report.cache["near hits"] > 100, report
    assert report.longest_lag_s <= near.max_age_s


# Other people's cruds.


class Base(DeclarativeBase):
    """The tables of a service."""


class User(Base):
    """A table that knows nothing of the harness."""

    __tablename__ = "users"
    key: Mapped[int] = mapped_column("user_id", primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    nickname: Mapped[str]


class UserCreate(BaseModel):
    """What is created."""

    key: int
    email: str
    nickname: str


class UserUpdate(BaseModel):
    """What is changed."""

    nickname: str


class UserResponse(BaseModel):
    """What is read."""

    key: int
    email: str
    nickname: str


def subject() -> Subject:
    """How the harness uses the crud of a service."""
    return Subject(
        crud=Crud[User, UserCreate, UserUpdate, UserResponse](
            User, UserResponse, pattern="user:{email}", list_pattern="user:page:{page}:limit:{limit}"
        ),
        ids=range(1, 5),
        mark="nickname",
        create=lambda random, key, mark: UserCreate(key=key, email=f"u{key}@x.org", nickname=str(mark)),
        change=lambda random, mark: UserUpdate(nickname=str(mark)),
        read=lambda random: random.choice(
            [Row({"email": f"u{random.randint(1, 4)}@x.org"}), Page(3, order_by="key"), Count()]
        ),
    )


def broken() -> Subject:
    """A subject whose reads fail."""
    return replace(subject(), read=lambda random: Row({"email": "a@x.org", "age": 1}))


@pytest.fixture
def users(postgres_url: str) -> str:
    """A database with the table of users, of whom one is there already."""
    execute(postgres_url, str(CreateTable(Base.metadata.tables["users"])))
    execute(postgres_url, "INSERT INTO users VALUES (1, 'u1@x.org', 'one')")
    return postgres_url


def test_somebodys_own_crud_runs(users: str, valkey_url: str) -> None:
    """A crud over a table of one's own is read and written, and its reads are judged."""
    scenario = Scenario(users, valkey_url, subjects=(subject,), reads=3_000, readers=2, writers=2)
    report = run(scenario)
    assert (report.reads >= 3_000, report.stale, report.writes.total() > 0) == (True, 0, True), report


def test_nothing_is_left_behind(users: str, valkey_url: str) -> None:
    """After a run, the table has no trigger, the database no other schema, and Redis no key."""
    run(Scenario(users, valkey_url, subjects=(subject,), reads=500, readers=2, writers=2))
    triggers = execute(users, "SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal")
    schemas = execute(users, "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'fastrdb%'")
    with redis.Redis.from_url(valkey_url) as client:
        assert (triggers, schemas, eventually(lambda: client.dbsize() == 0)) == (0, 0, True)


def test_an_exception_in_a_process_ends_the_run(users: str, valkey_url: str) -> None:
    """A process that fails makes the run fail, with its traceback."""
    with pytest.raises(WorkerFailed, match=r"(?s)reader .*Traceback.*UnknownField"):
        run(Scenario(users, valkey_url, subjects=(broken,), readers=1, writers=1))


def test_the_command_tells_by_its_status(
    postgres_url: str, valkey_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command prints the report, and its exit status says whether a read was stale."""
    servers = ["--postgres", postgres_url, "--redis", valkey_url, "--seed", "7", "--readers", "2", "--writers", "2"]
    assert main([*servers, "--reads", "300"]) == 0
    assert main([*servers, "--without", "tokens_minted", "--without", "lists", "--stop"]) == 1
    out = capsys.readouterr().out
    assert "seed 7: " in out
    assert "was committed before the read began" in out or "all the time" in out or "rows matched" in out


def test_processes_do_not_outlive_their_parent(postgres_url: str, valkey_url: str) -> None:
    """When the process that runs the harness is killed, its readers and writers end, too."""
    command = [sys.executable, "-m", "fastrdb.testing.harness", "--postgres", postgres_url, "--redis", valkey_url]
    clients = "SELECT count(DISTINCT application_name) FROM pg_stat_activity WHERE application_name LIKE 'fastrdb_h%'"
    with subprocess.Popen(command, cwd=ROOT) as parent:
        started = eventually(lambda: execute(postgres_url, clients) == 6, 60)
        os.kill(parent.pid, signal.SIGKILL)
    assert started
    assert eventually(lambda: execute(postgres_url, clients) == 0, 60)


def execute(url: str, statement: str) -> object:
    """Run a statement; give the value that it returns, if any."""

    async def executed() -> object:
        engine = create_async_engine(url, poolclass=NullPool)
        async with engine.begin() as connection:
            result = await connection.exec_driver_sql(statement)
            return result.scalar() if result.returns_rows else None

    return asyncio.run(executed())


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether the condition becomes true in time, if only for a moment."""
    deadline = time.monotonic() + seconds
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return met
