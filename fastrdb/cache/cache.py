"""Cache: what users construct, and what Crud talks to."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable, Collection, Sequence
from weakref import WeakKeyDictionary

from redis.asyncio import Redis, RedisCluster

from ..errors import CacheClosed, CacheFull, ConfigurationError, RedisRefused
from .aged import AGED_BYTES, Aged
from .cluster import SCHEMES, ClusterStore
from .courier import Courier
from .done import forget
from .in_loop import InLoop
from .memory import MemoryStore
from .near import Near, NearTier
from .outbox import Outbox, Replay, abandon
from .protocol import ALL_PARTS, Parts
from .redis import RedisStore
from .relief import Relief
from .settings import OnUnreachable, check_count, check_near, check_settings, check_times
from .shortage import Shortage
from .stats import Stats
from .store import Command, Reply, Store
from .tokens import SeenTokens

logger = logging.getLogger("fastrdb.cache")

HOLD_MS = 3_000
OUT_OF_MEMORY = "not stored: out of memory"
_CLUSTERED = tuple(f"{scheme}://" for scheme in SCHEMES)

# The only module state: all cruds that are given one client share one Cache.
_caches: WeakKeyDictionary[Redis | RedisCluster, Cache] = WeakKeyDictionary()


class Cache:
    """A coherent cache on Redis, or in this process: one for each Redis client or URL.

    Build it with ``Cache.from_url`` or ``Cache.from_client``. It may be used from several event loops; each gets
    its own few connections, which close when that loop ends.

    Attributes:
        prefix: Leads every key, so that two databases on one Redis stay apart.
        on_unreachable: What a write does where Redis cannot be reached.
        outbox: Where writes that commit without Redis leave what they could not tell it.
        stats: What the cache did, and why it did not do the rest.
        seen: The tokens that this process has seen.
        aged: The last values that were right, of cruds that allow ``max_stale``.
        near: The near tier; ``None`` where it is off.
        kept: Invalidations that are not delivered yet; see ``undelivered``.
        serves: Set it to ``False`` in an incident: this process then answers every read from SQL and stores nothing,
            while its writes go on to drop what they touch, so that it can be switched on again at any time.
    """

    def __init__(
        self,
        make_store: Callable[..., Store],
        *,
        prefix: str = "",
        hold_ms: int = HOLD_MS,
        on_unreachable: OnUnreachable = "proceed",
        outbox: Outbox | None = None,
        aged_bytes: int = AGED_BYTES,
        near: NearTier | None = None,
        parts: Parts = ALL_PARTS,
    ) -> None:
        check_settings(prefix=prefix, on_unreachable=on_unreachable, outbox=outbox, aged_bytes=aged_bytes, near=near)
        self.prefix, self.hold_ms, self.parts = prefix, hold_ms, parts
        self.on_unreachable, self.outbox = on_unreachable, outbox
        self.stats = Stats()
        self.serves = True
        self.seen = SeenTokens()
        self._shortage = Shortage(changed=_tell_shortage)
        self.aged = Aged(aged_bytes)
        self.near = Near(near, prefix, self.stats) if near is not None else None
        self._courier = Courier()
        self.kept = self._courier.kept
        self._make_store = make_store
        self._memory: MemoryStore | None = None
        self._bound: dict[asyncio.AbstractEventLoop, InLoop] = {}
        self._last: InLoop | None = None
        self._excluded: set[bytes] = set()
        self._closed = False

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        prefix: str = "",
        timeout_s: float = 1.0,
        hold_s: float = HOLD_MS / 1000,
        max_cells: int = 100_000,
        epoch: str | None = None,
        on_unreachable: OnUnreachable = "proceed",
        outbox: Outbox | None = None,
        aged_bytes: int = AGED_BYTES,
        near: NearTier | None = None,
        parts: Parts = ALL_PARTS,
    ) -> Cache:
        """Give a cache on the server at *url*, or in this process for ``memory://``.

        Args:
            url: ``redis://``, ``rediss://`` or ``unix://`` as redis-py takes them; ``redis+cluster://`` or
                ``rediss+cluster://`` with the addresses of some nodes, separated by commas; or ``memory://``.
            prefix: Leads every key; use one for each database that shares the server.
            timeout_s: How long a read or a write waits for the server, in seconds.
            hold_s: How long a write's hold lasts when its writer dies, in seconds; renewed while a COMMIT hangs.
            max_cells: Size of the memory store, in keys.
            epoch: Stands for the server's run id where INFO is not permitted. Change it after a failover.
            on_unreachable: What a write does that cannot reach Redis: ``"proceed"`` commits, and keeps its invalidation
                until it can be delivered; ``"refuse"`` rolls back, and raises CacheUnavailable.
            outbox: A ``fastrdb.Outbox``, in which such an invalidation is written down, too, in the transaction of its
                write: then it is delivered by any process, also if this one is killed before.
            aged_bytes: How much this process keeps of the last values of cruds that allow ``max_stale``, 32 MiB.
            near: A ``fastrdb.NearTier``, which keeps hits in this process, too, on one server. Another process's write
                is then seen when Redis has told of it, ``max_age_s`` later at most.
            parts: The parts of the protocol, for tests.

        Raises:
            ConfigurationError: The URL's scheme is unknown, a setting has no meaning, the prefix cannot be part of a
                key, there is an outbox for ``memory://``, or a near tier for it or for a cluster.
        """
        if not isinstance(url, str):
            raise ConfigurationError(f"url: {url!r}; it is text, such as redis://127.0.0.1:6379")
        check_times(timeout_s, hold_s)
        check_count("max_cells", max_cells)
        hold_ms = round(hold_s * 1000)
        if url.startswith("memory://"):
            if outbox is not None:
                raise ConfigurationError("outbox: memory:// ends with its process, and is never away; leave it out")
            if near is not None:
                raise ConfigurationError("near: memory:// lies in this process already; leave it out")
            memory = MemoryStore(max_cells)
            cache = cls(
                lambda: memory,
                prefix=prefix,
                hold_ms=hold_ms,
                on_unreachable=on_unreachable,
                aged_bytes=aged_bytes,
                parts=parts,
            )
            cache._memory = memory
            return cache
        try:
            make = store_factory(url, timeout_s=timeout_s, epoch=epoch)
            check_near(near, clustered=url.startswith(_CLUSTERED))
        except ValueError:  # whose text may hold a part of the password
            raise ConfigurationError(
                "url: use redis://, rediss://, unix://, redis+cluster://, rediss+cluster:// or memory://, "
                "and write / # ? @ and : of a password as %2F %23 %3F %40 and %3A"
            ) from None
        return cls(
            make,
            prefix=prefix,
            hold_ms=hold_ms,
            on_unreachable=on_unreachable,
            outbox=outbox,
            aged_bytes=aged_bytes,
            near=near,
            parts=parts,
        )

    @classmethod
    def from_client(
        cls,
        client: Redis | RedisCluster,
        *,
        prefix: str = "",
        timeout_s: float = 1.0,
        hold_s: float = HOLD_MS / 1000,
        epoch: str | None = None,
        on_unreachable: OnUnreachable = "proceed",
        outbox: Outbox | None = None,
        aged_bytes: int = AGED_BYTES,
        near: NearTier | None = None,
        parts: Parts = ALL_PARTS,
    ) -> Cache:
        """Give a cache with its own connections, made with the settings of a client.

        Closing the client closes nothing here. Arguments and errors as in ``from_url``.

        Args:
            client: A ``redis.asyncio.Redis``, that of ``Sentinel.master_for`` too, or a ``redis.asyncio.RedisCluster``.

        Raises:
            RedisRefused: It is something else, or reads from replicas.
        """
        check_times(timeout_s, hold_s)
        make: Callable[..., Store]
        check_near(near, clustered=isinstance(client, RedisCluster))
        if isinstance(client, RedisCluster):
            make = ClusterStore.factory_from_client(client, timeout_s=timeout_s, epoch=epoch)
        else:
            make = RedisStore.factory_from_client(client, timeout_s=timeout_s, epoch=epoch)
        hold_ms = round(hold_s * 1000)
        return cls(
            make,
            prefix=prefix,
            hold_ms=hold_ms,
            on_unreachable=on_unreachable,
            outbox=outbox,
            aged_bytes=aged_bytes,
            near=near,
            parts=parts,
        )

    @property
    def store(self) -> Store:
        """The store of the running event loop."""
        return self.here().store

    @property
    def flights(self) -> dict[bytes, asyncio.Future[None]]:
        """The loads under way in the running event loop, by entry."""
        return self.here().flights

    @property
    def reliefs(self) -> dict[tuple[bytes, bytes], Relief]:
        """The loads of those who have waited in vain, in the running event loop, by entry and kind of value."""
        return self.here().reliefs

    def here(self) -> InLoop:
        """Give what belongs to the running event loop.

        Raises:
            CacheClosed: After ``aclose``.
        """
        loop = asyncio.get_running_loop()
        last = self._last
        if last is not None and last.loop is loop:  # a fork is the stores' business
            return last
        if self._closed:
            raise CacheClosed("this Cache was closed: build a new one")
        bound = self._bound.get(loop)
        if bound is None:
            self._bound = {other: kept for other, kept in self._bound.items() if not other.is_closed()}
            bound = self._bound[loop] = self._bind(loop)
        self._last = bound
        return bound

    def _bind(self, loop: asyncio.AbstractEventLoop) -> InLoop:
        if self.outbox is None:
            return InLoop(loop, self._watched(self._make_store()))
        replay = Replay(self.outbox, self.prefix, self._make_store)
        weakref.finalize(self, abandon, weakref.ref(replay)).atexit = False
        return InLoop(loop, self._watched(self._make_store(before_use=replay.look)), replay)

    def _watched(self, store: Store) -> Store:
        return store if self.near is None else self.near.watched(store)

    def exclude_others(self, database: bytes) -> None:
        """Take the lock that keeps a second process off a ``memory://`` cache of the same database.

        Raises:
            CacheShared: Another process, or another Cache in this one, has it.
        """
        if self._memory is not None and database not in self._excluded:
            self._memory.exclusive(f"{self.prefix}\n{database.decode()}")
            self._excluded.add(database)

    def drop(self, reply: Awaitable[list[Reply]]) -> None:
        """Let a posted command go: nobody needs its reply, and a failure harms nobody."""
        future = asyncio.ensure_future(reply)
        future.add_done_callback(forget)

    def count_refused(self, reply: Awaitable[list[Reply]], *values: bytes) -> None:
        """Count posted fills, and those that the entries' owners refused."""

        def done(future: asyncio.Future[list[Reply]]) -> None:
            error = None if future.cancelled() else future.exception()
            if isinstance(error, CacheFull):
                self._count_stored(error.replies, error.refused, values)
            elif error is not None or future.cancelled():
                self.stats.count("not stored: unreachable")
            else:
                self._count_stored(future.result(), (), values)

        asyncio.ensure_future(reply).add_done_callback(done)

    def _count_stored(self, replies: Sequence[Reply], lacking: Collection[int], values: Sequence[bytes]) -> None:
        self.lack(len(lacking))
        for at, value in enumerate(values):
            if replies[at] == value:
                self.stats.count("stored")
                self._shortage.stored()
            elif at not in lacking:
                self.stats.count("not stored: the claim was lost")

    async def answers(self, reply: Awaitable[list[Reply]]) -> tuple[Sequence[Reply], Collection[int]]:
        """Wait for posted commands: give their replies, and the places of those that Redis had no memory for.

        Raises:
            CacheError: Any other failure.
        """
        try:
            return await reply, ()
        except CacheFull as error:
            return error.replies, error.refused

    def lack(self, values: int = 1) -> None:
        """Count values for which Redis had no memory."""
        if values:
            self.stats.reasons[OUT_OF_MEMORY] += values
            self._shortage.refused()

    def keep(self, keys: set[bytes]) -> None:
        """Keep an invalidation that could not be delivered; nothing is served from the cache before it is."""
        self._courier.keep(keys, self.here())

    @property
    def undelivered(self) -> bool:
        """Whether an invalidation is kept; then the running loop sees to it that it is delivered."""
        if self.kept:
            self._courier.send(self.here())
        return bool(self.kept)

    async def run(self, commands: list[Command]) -> list[Reply]:
        """Run commands on the running loop's store."""
        return await self.store.run(commands)

    async def aclose(self) -> None:
        """Close the connections of the running loop; the cache cannot be used any more."""
        self._closed, self._last = True, None
        bound = self._bound.pop(asyncio.get_running_loop(), None)
        if bound is not None:
            if bound.courier is not None:
                bound.courier.cancel()
            if bound.replay is not None:
                await bound.replay.aclose()
            await bound.store.aclose()
        if self.near is not None:
            await self.near.aclose()
        if self._memory is not None:  # which may have a database for itself without having been asked for anything
            await self._memory.aclose()

    async def __aenter__(self) -> Cache:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        kind = "memory" if self._memory is not None else "redis"
        return f"<Cache {kind} prefix={self.prefix!r} hit_rate={self.stats.hit_rate:.2f}>"


def store_factory(url: str, *, timeout_s: float, epoch: str | None = None) -> Callable[[], Store]:
    """Give what builds stores on the server, or the cluster, at a URL.

    Raises:
        ValueError: Another scheme, or a wrong value in the URL.
    """
    if url.startswith(_CLUSTERED):
        return ClusterStore.factory_from_url(url, timeout_s=timeout_s, epoch=epoch)
    return RedisStore.factory_from_url(url, timeout_s=timeout_s, epoch=epoch)


def resolve(redis: object) -> Cache | None:
    """Give the cache that a ``redis`` argument means; ``None`` for an explicit ``None``.

    Raises:
        RedisRefused: It is no client and no Cache.
    """
    if redis is None or isinstance(redis, Cache):
        return redis
    if isinstance(redis, Redis | RedisCluster):
        found = _caches.get(redis)
        if found is None:
            found = _caches[redis] = Cache.from_client(redis)
        return found
    raise RedisRefused(
        f"redis: {type(redis).__module__}.{type(redis).__qualname__}; "
        "pass a redis.asyncio.Redis or RedisCluster, a fastrdb.Cache, or None"
    )


def _tell_shortage(begins: bool) -> None:
    if begins:
        logger.warning("Redis is out of memory: what it does not take is answered from SQL, and not stored")
    else:
        logger.warning("Redis has memory again")
