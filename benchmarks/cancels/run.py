"""The callers, and what is looked at after each request."""

from __future__ import annotations

import asyncio
import random
import secrets
import sys
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from sqlalchemy import event, insert
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine

from fastrdb import Cache, CacheUnavailable
from fastrdb.cache.cache import store_factory
from fastrdb.cache.memory import MemoryStore
from fastrdb.cache.store import Store

from .accounts import Account, AccountCrud, Base, Noting, Owner, account_crud, stored
from .aftermath import look_at_all
from .complaints import REQUEST, complaints
from .deeds import Deed, Deeds
from .report import Plan, Report
from .ways import WAYS, Ending, by_task

_LEARNED = 15  # requests of a kind whose length is remembered


@dataclass(slots=True)
class Scene:
    """What the callers share.

    Attributes:
        engine: Fastrdb's.
        outside: Another one, which fastrdb never sees.
        marked: Keys of the cells that were claimed or held.
        name: Of the cache's connections.
        cache_url: Where it is.
    """

    plan: Plan
    report: Report
    engine: AsyncEngine
    outside: AsyncEngine
    sessions: async_sessionmaker[Any]
    cache: Cache
    crud: AccountCrud
    owners: list[Owner]
    marked: set[bytes]
    name: str
    cache_url: str
    lengths: dict[str, deque[int]] = field(default_factory=lambda: defaultdict(lambda: deque(maxlen=_LEARNED)))

    def fault(self, text: str) -> None:
        """Note what was wrong."""
        self.report.faults[text] += 1


async def cancel_requests(database_url: str, cache_url: str, plan: Plan = Plan()) -> Report:  # noqa: B008  # frozen
    """Cancel requests at random points, and give a report of what they left behind.

    Args:
        database_url: An empty database; a table is made in it, and dropped.
        cache_url: A Redis server, or ``memory://``.
        plan: How much is done.
    """
    report, start = Report(f"{database_url.partition(':')[0]} and {cache_url.partition(':')[0]}"), time.monotonic()
    async with complaints() as heard, _scene(database_url, cache_url, plan, report) as scene:
        deeds = Deeds(scene.crud, scene.cache, scene.owners, random.Random(plan.seed))
        await _learn(scene, deeds)
        await asyncio.gather(*(_caller(scene, deeds, owner) for owner in scene.owners))
        await look_at_all(scene)
    by_drivers = heard.of_drivers()
    report.by_drivers += by_drivers
    report.faults += heard.found - by_drivers
    report.seconds = time.monotonic() - start
    return report


@asynccontextmanager
async def _scene(database_url: str, cache_url: str, plan: Plan, report: Report) -> AsyncIterator[Scene]:
    marked: set[bytes] = set()
    name = f"cancels-{secrets.token_hex(4)}"
    outside = create_async_engine(database_url, pool_size=plan.pool, max_overflow=0, pool_timeout=60)
    pooled = {"pool_size": plan.pool, "max_overflow": 0, "pool_timeout": 60}
    engine = create_async_engine(database_url, **pooled)
    if engine.dialect.name == "sqlite":
        for each in (engine, outside):
            event.listen(each.sync_engine, "connect", lambda driver, _: driver.execute("PRAGMA journal_mode=WAL"))
            event.listen(each.sync_engine, "connect", lambda driver, _: driver.execute("PRAGMA busy_timeout=60000"))
    cache = Cache(lambda: Noting(_store(cache_url, name), marked), prefix=f"{name}:", hold_ms=round(plan.hold_s * 1000))
    owners = [Owner.with_rows(number) for number in range(plan.callers)]
    try:
        async with outside.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            rows = [{"email": e, "owner": o.number, "value": f"{o.number}:0"} for o in owners for e in o.fixed]
            await connection.execute(insert(Account), rows)
        for email, row in (await stored(outside)).items():
            owners[row.owner].ids[email] = row.id
        sessions = async_sessionmaker(engine, expire_on_commit=False)
        yield Scene(plan, report, engine, outside, sessions, cache, account_crud(), owners, marked, name, cache_url)
    finally:
        await cache.aclose()
        await engine.dispose()
        async with outside.begin() as connection:
            await connection.run_sync(Base.metadata.drop_all)
        await outside.dispose()


def _store(url: str, name: str) -> Store:
    if url.startswith("memory:"):
        return MemoryStore()
    separator = "&" if "?" in url else "?"
    return store_factory(f"{url}{separator}client_name={name}", timeout_s=30.0)()


async def _learn(scene: Scene, deeds: Deeds) -> None:
    """Do each kind of request twice in peace: how many turns of the loop does it take?"""
    for make in (*deeds.reads, *deeds.writes) * 2:
        owner = scene.owners[0]
        await _do(scene, owner, make(owner), None, by_task, "peace")


async def _caller(scene: Scene, deeds: Deeds, owner: Owner) -> None:
    """Send one request after the other until enough have been cancelled."""
    chance = random.Random(f"{scene.plan.seed} {owner.number}")
    while scene.report.cancelled.total() < scene.plan.cancellations:
        deed = deeds.draw(owner)
        way = chance.choice(sorted(WAYS))
        usual = median(scene.lengths[deed.kind])
        await _do(scene, owner, deed, chance.randint(0, round(1.3 * usual)), WAYS[way], way)
        if deed.writes:
            await _look_at(scene, owner, chance.choice(sorted(deed.writes)))


async def _do(scene: Scene, owner: Owner, deed: Deed, turns: int | None, way: Any, name: str) -> None:
    """Send a request, cancel it after so many turns of the loop, and note what its rows may hold now."""
    in_session = deed.session or random.random() < 0.5

    async def work() -> Any:
        REQUEST.set(deed.kind)
        if not in_session:
            return await deed.call(scene.sessions)
        async with scene.sessions() as session:
            return await deed.call(session)

    for email, value in deed.writes.items():
        owner.possible.setdefault(email, {None}).add(value)
    ended: Ending | None = None
    try:
        ended = await asyncio.create_task(way(work, turns))
    except (Exception, asyncio.CancelledError) as error:
        scene.fault(f"{deed.kind}, {name}: {type(error).__name__}: {str(error)[:300]}")
    if ended is None:
        return
    if ended.stopped:
        scene.report.cancelled[deed.kind] += 1
        scene.report.by_way[name] += 1
        if not ended.asked:
            scene.fault(f"{deed.kind}, {name}: cancelled, and nobody had asked")
        return
    if ended.asked:
        # asyncmy connects by ``asyncio.wait_for``: on Python 3.11 who is cancelled just then gets the result instead.
        loses = scene.engine.dialect.name == "mysql" and sys.version_info < (3, 12)
        (scene.report.by_drivers if loses else scene.report.faults)[
            f"{deed.kind}, {name}: the cancellation was lost"
        ] += 1
    scene.report.done[deed.kind] += 1
    scene.lengths[deed.kind].append(ended.turns)
    for fault in deed.check(ended.result):
        scene.fault(f"{deed.kind}: {fault}")
    _settle(owner, deed, ended.result)


def _settle(owner: Owner, deed: Deed, answer: Any) -> None:
    """A write that came to its end is done: its rows hold that, and nothing else."""
    for email, value in deed.writes.items():
        if deed.keeps:
            value = answer[0].value
        if answer is not False:  # a row that was not found may yet be created by a request whose COMMIT is under way
            owner.possible[email] = {value}


async def _look_at(scene: Scene, owner: Owner, email: str) -> None:
    """Nobody else writes the row: what the cache says now is what is stored, whatever became of the request."""

    async def value() -> str | None:
        found = (await stored(scene.outside, [email])).get(email)
        return found.value if found is not None else None

    before = await value()
    try:
        found = await scene.crud.get_or_none(db=scene.sessions, redis=scene.cache, email=email)
    except CacheUnavailable as error:
        scene.fault(f"a read after a cancellation: {error}")
        return
    after = await value()
    read = found.value if found is not None else None
    scene.report.looked["a row after each write"] += 1
    if read not in (before, after):
        scene.fault(f"STALE: {email} is {before!r}, and {read!r} was read")
    if after not in owner.possible[email]:
        scene.fault(f"{email} is {after!r}, and may be {owner.possible[email]!r}")
