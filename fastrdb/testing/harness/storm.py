"""The weather between a process and its servers: messages that are late, torn, or its last."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Coroutine, Sequence
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from random import Random
from typing import Any, TypeVar, cast

from redis.asyncio import Redis, RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import RedisClusterException, RedisError
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import await_only

from fastrdb.cache.cluster import SCHEMES, parse_cluster_url
from fastrdb.cache.dial import Dialer, Server
from fastrdb.cache.done import forget
from fastrdb.cache.near import Trackable
from fastrdb.cache.store import Command, Fill, Found, Get, HoldTable, Read, Release, ReleaseTable, Reply, Store
from fastrdb.cache.tracking import PushWire
from fastrdb.cache.wire import Wire
from fastrdb.errors import CacheFull

from .deeds import Ledger
from .scenario import Scenario

T = TypeVar("T")

PACES = (0.0, 1.0, 2.0)  # of a process in a storm: a slow one among quick ones is overtaken
MOST_SEEN = 2_000  # keys that a process remembers, to delete them

# A hold that is lost is a window that the docs describe; claims, values and tokens may go at any time.
_EVICT = """
if redis.call('GETRANGE', KEYS[1], 0, 1) == '"!' then return 0 end
return redis.call('DEL', KEYS[1])
"""


_CUT = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE application_name = :name AND state <> 'idle' ORDER BY random() LIMIT 1
""")


DEAF_S = 2.0


class Gate:
    """Stops one write between its COMMIT and its release, for others to overtake it.

    Attributes:
        reached: It has been stopped.
        opened: It may go on.
    """

    def __init__(self) -> None:
        self.reached, self.opened = asyncio.Event(), asyncio.Event()

    async def stop(self) -> None:
        """Wait here."""
        self.reached.set()
        await self.opened.wait()


GATE: ContextVar[Gate | None] = ContextVar("GATE", default=None)


class Sky:
    """Decides what happens to the next message, and remembers the keys that went by.

    Args:
        scenario: Says what goes wrong.
        random: Source of all choices but those that all processes make alike, storm by storm.
        began: When the first storm began, by ``time.monotonic``, which is the same in all processes of a machine.
        mortal: It is a writer's, whose messages are late more often, and sometimes its last.
    """

    def __init__(self, scenario: Scenario, random: Random, began: float, *, mortal: bool) -> None:
        self.weather, self.random, self.mortal = scenario.weather, random, mortal
        self.slowest_hold_s = 0.0
        self.link: PushWire | None = None
        self.entries: dict[bytes, None] = {}
        self.tokens: dict[bytes, None] = {}
        self._share = self.weather.late_writes if mortal else self.weather.late
        self._seed, self._began = scenario.seed, began
        self._storm, self._chosen, self._pace = -1, dict[str, Any](), 1.0

    async def storm(self) -> None:
        """Wait for a storm, if there is a calm."""
        at_s = (time.monotonic() - self._began) % self._cycle_s
        if at_s > self.weather.storm_s:
            await asyncio.sleep(self._cycle_s - at_s)

    @property
    def _cycle_s(self) -> float:
        return self.weather.storm_s + self.weather.calm_s

    def some(self, topic: str, things: Sequence[T], *sizes: int) -> list[T]:
        """Choose of *things* those that this storm is about, as many as one of *sizes* says."""
        storm = int((time.monotonic() - self._began) / self._cycle_s)
        if storm != self._storm:
            self._storm, self._chosen, self._pace = storm, {}, self.random.choice(PACES)
        if topic not in self._chosen:
            random = Random(f"{self._seed} {storm} {topic}")
            self._chosen[topic] = random.sample(range(len(things)), min(len(things), random.choice(sizes)))
        return [things[at] for at in self._chosen[topic]]

    def strikes(self, point: str) -> bool:
        """Tell whether a message is late now, at one of the weather's points; each storm is about a few of them."""
        return (
            point in self.some("points", self.weather.points, 2, 3, 4)
            and self.random.random() < self._share * self._pace
        )

    async def delay(self) -> None:
        """Let some time go by, or the process die."""
        if self.mortal and self.random.random() < self.weather.deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        mean_s = self.weather.late_s
        await asyncio.sleep(min(self.random.expovariate(1 / mean_s), 5 * mean_s))

    def see(self, entry: bytes, tokens: tuple[bytes, ...]) -> None:
        """Remember keys."""
        if entry not in self.entries and len(self.entries) < MOST_SEEN:
            self.entries[entry] = None
        for token in tokens:
            if token not in self.tokens and len(self.tokens) < MOST_SEEN:
                self.tokens[token] = None

    def victim(self) -> bytes | None:
        """Give the key of a cell to delete."""
        keys = list(self.entries)
        if self.random.random() < self.weather.evict_tokens:
            keys = list(self.tokens)
            if self.random.random() < self.weather.evict_lists:
                keys = [key for key in keys if key.endswith(b":all")]
        return self.random.choice(keys) if keys else None


class StormyDialer(Dialer):
    """Opens connections, of which the weather may cut one."""

    def __init__(self, dialer: Dialer, sky: Sky) -> None:
        self._dialer, self._sky = dialer, sky

    def speaking(self, kind: type[Wire]) -> Dialer:
        """Give a dialer for connections of another kind."""
        return StormyDialer(self._dialer.speaking(kind), self._sky)

    async def dial(self) -> Server:
        """Open a connection, and show it to the weather."""
        server = await self._dialer.dial()
        if isinstance(server.wire, PushWire):
            self._sky.link = server.wire
        return server


class StormyStore:
    """A store whose messages meet the weather.

    Pipelines are cut in two, and others get in between: Redis promises no more than that each command is atomic.

    Args:
        store: The store.
        sky: The weather.
        ledger: Follows what a writer holds and releases.
    """

    def __init__(self, store: Store, sky: Sky, ledger: Ledger | None = None) -> None:
        self._store, self._sky, self._ledger = store, sky, ledger
        self._held_at: dict[bytes, float] = {}

    @property
    def epoch(self) -> bytes:
        """That of the store."""
        return self._store.epoch

    @property
    def dialer(self) -> StormyDialer:
        """What opens a connection that Redis tells changes over, and remembers it for the weather."""
        return StormyDialer(cast("Trackable", self._store).dialer, self._sky)

    def reader(self, *, bulk: bool = False) -> Read:
        """Give what reads through the weather."""
        return partial(self.read, bulk=bulk)

    def read(self, entry: bytes, tokens: tuple[bytes, ...], *, bulk: bool = False) -> Awaitable[Found]:
        """Read as the store does."""
        self._sky.see(entry, tokens)
        return self._store.read(entry, tokens, bulk=bulk)

    async def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Reply]:
        """Run commands: late, in two parts, or with a late reply."""
        if self._ledger is None:
            return await self._run(commands, bulk)
        return await self._ledger.follow(self._store, commands, lambda: self._run(commands, bulk))

    async def _run(self, commands: Sequence[Command], bulk: bool) -> list[Reply]:
        sky = self._sky
        # Commands that only read are sent before a hold, or after COMMIT, where a part of the protocol is off.
        kinds = {type(command) for command in commands}
        if kinds & {Release, ReleaseTable, Get}:
            if (gate := GATE.get()) is not None:
                await gate.stop()
            if sky.strikes("release"):
                await sky.delay()
        cut = sky.random.randrange(len(commands)) if commands and sky.strikes("torn") else 0
        replies = await self._part(commands[:cut], bulk) if cut else []
        if cut:
            await sky.delay()
        replies += await self._part(commands[cut:], bulk)
        if any(isinstance(reply, Exception) for reply in replies):
            raise CacheFull(replies)
        self._watch(commands)
        if not kinds & {Release, ReleaseTable} and sky.strikes("reply"):
            await sky.delay()
        return replies

    async def _part(self, commands: Sequence[Command], bulk: bool) -> list[Any]:
        """Run commands; in place of the reply of each for which there was no memory stands an error."""
        try:
            return [*await self._store.run(commands, bulk=bulk)]
        except CacheFull as full:
            return [full if at in full.refused else reply for at, reply in enumerate(full.replies)]

    def post(self, commands: Sequence[Command], *, bulk: bool = False) -> Awaitable[list[Reply]]:
        """Send commands: those of a write as ``run`` does; a fill may be late."""
        sky = self._sky
        kinds = {type(command) for command in commands}
        if kinds & {HoldTable, Release, ReleaseTable}:
            return _dropping(self.run(commands, bulk=bulk))
        if self._ledger is not None:
            self._ledger.renewing(commands)
        if Fill in kinds and sky.strikes("fill"):
            return _dropping(self._late(commands, bulk))
        return self._store.post(commands, bulk=bulk)

    async def _late(self, commands: Sequence[Command], bulk: bool) -> list[Reply]:
        await self._sky.delay()
        return await self._store.run(commands, bulk=bulk)

    def _watch(self, commands: Sequence[Command]) -> None:
        """Measure how long holds last, from the reply to the first to that of their release."""
        now = asyncio.get_running_loop().time()
        for command in commands:
            if isinstance(command, HoldTable):
                self._held_at.setdefault(command.writer, now)
            elif isinstance(command, (Release, ReleaseTable)) and command.writer in self._held_at:
                lasted = now - self._held_at.pop(command.writer)
                self._sky.slowest_hold_s = max(self._sky.slowest_hold_s, lasted)

    async def aclose(self) -> None:
        """Close the store."""
        await self._store.aclose()


def _dropping(replies: Coroutine[Any, Any, list[Reply]]) -> asyncio.Future[list[Reply]]:
    """Post: a failure that nobody awaits is dropped silently, as stores do."""
    posted = asyncio.ensure_future(replies)
    posted.add_done_callback(forget)
    return posted


def make_statements_late(engine: AsyncEngine, sky: Sky) -> None:
    """Let some statements of an engine return late, with rows that others may have changed meanwhile."""

    def returned(*_: Any) -> None:
        if sky.strikes("statement"):
            await_only(sky.delay())

    event.listen(engine.sync_engine, "after_cursor_execute", returned)


async def cut(sky: Sky, connection: AsyncConnection, name: str) -> None:
    """Make PostgreSQL end a connection of this application name at random, again and again.

    Whoever was at its COMMIT never learns how that ended.
    """
    mean_s = sky.weather.cut_every_s
    while mean_s:
        await asyncio.sleep(sky.random.expovariate(1 / mean_s))
        await sky.storm()
        await connection.execute(_CUT, {"name": name})
    await asyncio.Event().wait()


async def deafen(sky: Sky) -> None:
    """Cut the connection that Redis tells changes over, again and again: with a word, or without one."""
    mean_s = sky.weather.deaf_every_s
    while mean_s:
        await asyncio.sleep(sky.random.expovariate(1 / mean_s))
        if (link := sky.link) is None:
            continue
        if sky.random.random() < 0.5:
            link.lose(ConnectionError("cut by the weather"))
        else:
            link.listen(False)
            await asyncio.sleep(sky.random.random() * DEAF_S)
            link.listen(True)
    await asyncio.Event().wait()


async def evict(sky: Sky, redis: Redis | RedisCluster) -> None:
    """Delete cells at random for ever, as a plain client that knows nothing of the cache; holds are left."""
    if not sky.weather.evict_per_s:
        await asyncio.Event().wait()
    while True:
        await asyncio.sleep(sky.random.expovariate(sky.weather.evict_per_s))
        await sky.storm()
        if (key := sky.victim()) is not None:
            with suppress(RedisError, RedisClusterException, OSError):  # a server that is away
                await redis.eval(_EVICT, 1, key)


def plain_client(url: str) -> Redis | RedisCluster:
    """Give a client of redis-py for a URL that ``Cache.from_url`` takes."""
    if not url.startswith(SCHEMES):
        return Redis.from_url(url)
    seeds, settings = parse_cluster_url(url)
    if settings.pop("connection_class", None) is not None:
        settings["ssl"] = True
    return RedisCluster(startup_nodes=[ClusterNode(*seed) for seed in seeds], **settings)


async def sweep(redis: Redis | RedisCluster, keys: Sequence[bytes]) -> None:
    """Delete what a run has left behind."""
    for start in range(0, len(keys), 500):
        await redis.unlink(*keys[start : start + 500])
