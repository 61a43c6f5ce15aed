"""A thousand readers of one key that is not in the cache: how many statements the database gets."""

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple

import pytest
from sqlalchemy import text

from fastrdb import Cache, invalidate
from fastrdb.cache.protocol import claim_mark
from fastrdb.cache.reads import WAIT_S, Ask, Loaded, Stamps
from fastrdb.cache.relief import Answer, relieve
from fastrdb.cache.store import Claim, Unclaim
from tests.models import User, named, user_crud
from tests.world import ANN, Read, World, until

PROCESSES, TASKS = 4, 250
ENTRY = b"user:id:1"


class Told(NamedTuple):
    """What came of one rush: the names that were read, each process's statements, and what its cache counted."""

    names: set[str]
    sent: list[int]
    counts: list[dict[str, int]]

    def counted(self, reason: str) -> int:
        """How often a reason was counted, in all processes."""
        return sum(counts.get(reason, 0) for counts in self.counts)


class Crowd:
    """Processes with many tasks each."""

    def __init__(self, world: World, processes: list[Process]) -> None:
        self.world, self.processes = world, processes

    async def rush(self, what: str) -> Told:
        """Let all tasks of all processes read at once."""
        self.start(what)
        return await self.told()

    def start(self, what: str) -> None:
        """Tell all processes to read now."""
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(what.encode() + b"\n")

    async def told(self) -> Told:
        """Wait until all have read."""
        told = [json.loads(await line(process)) for process in self.processes]
        names = {name for each in told for name in each["names"]}
        return Told(names, [each["sent"] for each in told], [each["counts"] for each in told])


async def line(process: Process) -> bytes:
    """What a process prints next."""
    assert process.stdout is not None
    found = await asyncio.wait_for(process.stdout.readline(), 60)
    assert found, "the process has ended"
    return found


@pytest.fixture
async def crowd(pg_world: World) -> AsyncIterator[Crowd]:
    """Four processes with 250 tasks each, connected and idle."""
    arguments = ["-m", "tests.crowd", pg_world.url, pg_world.redis_url, str(TASKS)]
    processes = [
        await asyncio.create_subprocess_exec(sys.executable, *arguments, stdin=PIPE, stdout=PIPE)
        for _ in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert await line(process) == b"ready\n"
        yield Crowd(pg_world, processes)
    finally:
        for process in processes:
            assert process.stdin is not None
            process.stdin.close()
        for process in processes:
            await asyncio.wait_for(process.wait(), 60)


async def test_a_thousand_readers_of_a_cold_key_send_one_statement_per_process_at_most(crowd: Crowd) -> None:
    """1 000 tasks in 4 processes read a row, then a list: no process sends two statements, and one may be all."""
    for what, name in (("row", "Ann"), ("list", "['Ann', 'Bob']")):
        await crowd.rush(what)
        totals: list[int] = []
        while 1 not in totals:
            assert len(totals) < 10, totals
            await invalidate(crowd.world.cache, User)
            told = await crowd.rush(what)
            assert told.names == {name}
            assert max(told.sent) == 1, told
            totals.append(sum(told.sent))


async def test_readers_who_accept_it_do_not_wait(crowd: Crowd) -> None:
    """While one of 1 000 readers loads, which takes as long as we like, 999 have the aged value."""
    for what in ("row", "row"):
        await crowd.rush(what)  # which every process then keeps
    await user_crud().update(db=crowd.world.factory, redis=crowd.world.cache, obj_in=named("new"), id=ANN)
    await invalidate(crowd.world.cache, User)
    async with crowd.world.outside.begin() as connection:
        await connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        crowd.start("aged")
        answers = [asyncio.create_task(line(process)) for process in crowd.processes]
        await until(lambda: _are_done(answers, PROCESSES - 1))
    told = [json.loads(answer) for answer in await asyncio.gather(*answers)]
    assert sorted(each["names"] for each in told) == [["Ann"], ["Ann"], ["Ann"], ["Ann", "new"]]
    assert sum(each["sent"] for each in told) == 1
    assert sum(each["counts"]["aged: another one refreshes"] for each in told) == PROCESSES * TASKS - 1


async def _are_done(tasks: Sequence[asyncio.Task[bytes]], count: int) -> bool:
    return sum(task.done() for task in tasks) >= count


# One process with 250 tasks.


@pytest.fixture
async def cold(pg_world: World) -> World:
    """Ann, who is not in the cache, and a process that is connected."""
    await pg_world.warm()
    await invalidate(pg_world.cache, User)
    pg_world.sent.clear()
    return pg_world


def rush(world: World) -> list[asyncio.Task[Read]]:
    """Let 250 tasks read Ann."""
    return [asyncio.create_task(world.read()) for _ in range(TASKS)]


def loads_of(world: World) -> int:
    """How many SELECTs of users were sent; what each new connection is asked once does not count."""
    return sum("FROM users" in statement for statement in world.sent)


async def _is_loading(world: World, statements: int) -> bool:
    return loads_of(world) == statements


async def test_a_cancelled_leader_is_followed_by_one(cold: World) -> None:
    """The reader that loads for 250 is cancelled, and the next one, too: the third loads for all who are left."""
    async with cold.outside.begin() as connection:
        await connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        tasks = rush(cold)
        for number in (0, 1):
            await until(lambda number=number: _is_loading(cold, number + 1))
            tasks[number].cancel()
        await until(lambda: _is_loading(cold, 3))
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in found] == [True, True] + [False] * (TASKS - 2)
    assert {each.name for each in found if isinstance(each, Read)} == {"Ann"}
    assert loads_of(cold) == 3


async def test_a_slow_load_is_waited_for(cold: World) -> None:
    """A load that takes longer than others are waited for stays the only one of its process."""
    async with cold.outside.begin() as connection:
        await connection.execute(text("LOCK TABLE users IN ACCESS EXCLUSIVE MODE"))
        tasks = rush(cold)
        _, waiting = await asyncio.wait(tasks, timeout=2 * WAIT_S)
        assert len(waiting) == TASKS
    assert {each.name for each in await asyncio.gather(*tasks)} == {"Ann"}
    assert loads_of(cold) == 1


async def test_a_claim_that_is_taken_away_elsewhere_leaves_one_load(cold: World) -> None:
    """250 tasks wait for a reader of another process, which gives up: one of them loads for all."""
    other = cold.another_cache()
    mark = claim_mark(b"elsewhere")
    await other.run([Claim(ENTRY, mark, 60_000)])
    tasks = rush(cold)
    await until(lambda: _waits(cold))
    await other.run([Unclaim(ENTRY, mark)])
    assert {each.name for each in await asyncio.gather(*tasks)} == {"Ann"}
    assert loads_of(cold) in (1, 2)  # on a machine so busy that some had waited long enough, these share one more


async def _waits(world: World) -> bool:
    return ENTRY in world.cache.flights


async def test_a_claim_of_a_dead_reader_leaves_one_load(cold: World) -> None:
    """A reader elsewhere has died and left its claim: 250 tasks wait for it in vain, and share one load."""
    await cold.another_cache().run([Claim(ENTRY, claim_mark(b"dead"), 60_000)])
    found = await asyncio.gather(*rush(cold))
    assert {each.name for each in found} == {"Ann"}
    assert loads_of(cold) == 1
    assert cold.cache.flights == {}
    await until(lambda: _is_forgotten(cold.cache))


async def test_no_such_row_is_shared_too(cold: World) -> None:
    """Those who have waited in vain for "there is no such row" get just that."""
    await cold.another_cache().run([Claim(b"user:id:77", claim_mark(b"dead"), 60_000)])
    found = await asyncio.gather(*[cold.read(id=77) for _ in range(TASKS)])
    assert {each.name for each in found} == {None}
    assert loads_of(cold) == 1


# What is shared after a wait in vain.


@pytest.fixture
async def cache() -> AsyncIterator[Cache]:
    """A cache in this process."""
    async with Cache.from_url("memory://") as cache:
        yield cache


class Loads:
    """Loads that wait until they are told what to give."""

    def __init__(self, cache: Cache) -> None:
        self.cache = cache
        self.ask = Ask(b"entry", (b"all",), b"any", None, Stamps(b"context", 1), 60_000, 60_000)
        self.began: list[asyncio.Future[bytes | None]] = []

    async def load(self, may_store: bool) -> Loaded[str]:
        """Give "own", and as JSON what the test says."""
        told: asyncio.Future[bytes | None] = asyncio.get_running_loop().create_future()
        self.began.append(told)
        return Loaded("own", await told)

    def reader(self, began: float) -> asyncio.Task[Answer | bytes]:
        """A reader that began to read at a time, and has waited in vain."""
        return asyncio.create_task(relieve(self.cache, self.ask, began, self.load))

    async def begun(self, count: int) -> None:
        """Wait until so many loads have begun."""
        await until(lambda: _are(self.began, count))


async def _is_forgotten(cache: Cache) -> bool:
    return not cache.reliefs


async def _are(found: Sequence[object], count: int) -> bool:
    return len(found) == count


async def test_nobody_gets_what_was_loaded_before_its_read_began(cache: Cache) -> None:
    """A reader shares a load that began after its own read, and may have ended; never one that began before."""
    loads = Loads(cache)
    now = asyncio.get_running_loop().time()
    first, second = loads.reader(now), loads.reader(now)
    await loads.begun(1)
    late = loads.reader(asyncio.get_running_loop().time() + 1)
    await loads.begun(2)
    loads.began[0].set_result(b"first")
    loads.began[1].set_result(b"late")
    assert (await first, await second, await late) == (Answer("own"), b"first", Answer("own"))
    assert await loads.reader(now) == b"late"
    await until(lambda: _is_forgotten(cache))


@pytest.mark.parametrize("how", ["not to be shared", "failed", "cancelled"])
async def test_a_shared_load_that_gives_nothing_costs_the_others_theirs(cache: Cache, how: str) -> None:
    """Where the one load gives no JSON, fails or is cancelled, those who waited for it get answers of their own."""
    loads = Loads(cache)
    now = asyncio.get_running_loop().time()
    first, second = loads.reader(now), loads.reader(now)
    await loads.begun(1)
    if how == "cancelled":
        first.cancel()
    elif how == "failed":
        loads.began[0].set_exception(OSError("away"))
    else:
        loads.began[0].set_result(None)
    await loads.begun(2)
    loads.began[1].set_result(b"second")
    assert await second == Answer("own")
    await asyncio.gather(first, return_exceptions=True)
    await until(lambda: _is_forgotten(cache))
