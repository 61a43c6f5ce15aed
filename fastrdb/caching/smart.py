"""SmartCache: what users construct, and call."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, TypeAlias, TypeVar

from redis.asyncio import Redis, RedisCluster

from ..cache.cache import Cache, resolve
from ..cache.reads import Ask, Loaded, miss
from ..db import defaults
from ..errors import CacheFull, CacheUnavailable, InputError, UsageError, ValueRefused
from .counts import SmartStats
from .entries import Entries, value_of
from .names import Id, Names, check_namespace, check_prefix
from .payload import pack, unpack

logger = logging.getLogger("fastrdb.caching")

T = TypeVar("T")

Seconds: TypeAlias = float | timedelta
Load: TypeAlias = Callable[[], Awaitable[Any] | Any]


class SmartCache:
    """A cache of JSON values by namespace, kind and id, on Redis or in this process.

    Values come back as plain data: a model as a dict, a date as text. When Redis cannot be reached, reads give their
    default and writes give False; a delete, a set or an invalidation that did not get through is kept, and nothing is
    served from the cache in this process before it is delivered.

    Args:
        namespace: Any text but the empty one; caches with one namespace share their values.
        ttl: Life of a value, in seconds or as a timedelta, unless ``set`` says another.
        redis: A ``redis.asyncio.Redis``, or a ``fastrdb.Cache`` (of ``memory://``, say); by default the client of
            ``fastrdb.db.defaults``.
        key_prefix: Leads every key.
        enable_compression: Compress values when they are stored. Any SmartCache reads both forms.
        compression_threshold: Bytes of JSON from which on a value is compressed.
        track_stats: Count what ``get_stats`` tells.
        default_ttl: Another name of *ttl*.
        redis_client: Another name of *redis*.

    Raises:
        ValueRefused: The namespace is no text, or the ttl no time above 0.
        EmptyInput: The namespace is empty.
        ConfigurationError: The prefix cannot be part of a key.
        InputError: An argument was given under both of its names.
        RedisRefused: *redis* is no asyncio client and no Cache.
    """

    def __init__(
        self,
        namespace: str,
        ttl: Seconds | None = None,
        *,
        redis: Redis | RedisCluster | Cache | None = None,
        key_prefix: str = "",
        enable_compression: bool = False,
        compression_threshold: int = 1024,
        track_stats: bool = True,
        default_ttl: Seconds | None = None,
        redis_client: Redis | RedisCluster | Cache | None = None,
    ) -> None:
        given_ttl, given_redis = _one("ttl", ttl, default_ttl), _one("redis", redis, redis_client)
        self.namespace, self.key_prefix = check_namespace(namespace), check_prefix(key_prefix)
        self.ttl_s = _life_ms(3600 if given_ttl is None else given_ttl) / 1000
        self._threshold = compression_threshold if enable_compression else None
        self._track = track_stats
        self._cache = resolve(given_redis) if given_redis is not None else None
        self._entries: Entries | None = None
        self._stats = SmartStats()
        self._away = False

    async def get(self, kind: str, id: Id, default: Any = None) -> Any:
        """Give a value; *default* where none is stored, which is how ``None`` is told from nothing."""
        found = await self._read(kind, id)
        if found is None:
            self._count(misses=1)
            return default
        self._count(hits=1)
        return value_of(found)

    async def set(
        self, kind: str, id: Id, value: Any, ttl: Seconds | None = None, nx: bool = False, xx: bool = False
    ) -> bool:
        """Store a value; tell whether that was done.

        Args:
            kind: Such as ``"user"``.
            id: Text, an int or a UUID; an int and its text are one id.
            value: What pydantic writes as JSON.
            ttl: Seconds, or a timedelta, instead of the cache's own.
            nx: Only where none is stored.
            xx: Only where one is stored.

        Raises:
            SerializationFailed: The value has no form in JSON.
            InputError: An argument has no meaning.
        """
        if nx and xx:
            raise InputError("nx and xx: no value can be stored only where one is and where none is; pass one of them")
        entries, ttl_ms = self._here(), self._ttl_ms(ttl)
        entry, payload = entries.names.entry(kind, id), self._packed(kind, id, value)
        try:
            if nx or xx:
                done = await entries.put_if(kind, entry, payload, ttl_ms, absent=nx)
            else:
                done = await entries.put(kind, {entry: payload}, ttl_ms)
        except CacheFull as error:
            return self._lacked(error)
        except CacheUnavailable as error:
            return self._failed(error, entry)
        self._count(sets=int(done))
        return self._reached(done)

    async def delete(self, kind: str, id: Id) -> bool:
        """Drop a value, and keep out one that is being loaded now; tell whether one was there."""
        entries = self._here()
        try:
            found = await entries.take(kind, id)
        except CacheUnavailable as error:
            return self._failed(error, entries.names.entry(kind, id))
        self._count(deletes=int(found))
        return self._reached(found)

    async def exists(self, kind: str, id: Id) -> bool:
        """Tell whether a value is stored."""
        return await self._read(kind, id) is not None

    async def expire(self, kind: str, id: Id, ttl: Seconds) -> bool:
        """Let a stored value live for *ttl* from now on; tell whether there is one."""
        try:
            return self._reached(await self._here().expire(kind, id, self._ttl_ms(ttl)))
        except CacheFull as error:
            return self._lacked(error)
        except CacheUnavailable as error:
            return self._failed(error)

    async def ttl(self, kind: str, id: Id) -> int:
        """Give the seconds, rounded up, that a value will still live; -2 for no value, -1 for one without an end."""
        try:
            left_ms = self._reached(await self._here().life_ms(kind, id))
        except CacheUnavailable as error:
            self._failed(error)
            return -2
        return left_ms if left_ms < 0 else math.ceil(left_ms / 1000)

    async def multi_get(self, kind: str, ids: Iterable[Id]) -> dict[Id, Any]:
        """Give the values of many ids, in one or a few round trips; those that are not stored are left out.

        Raises:
            UsageError: *ids* is one text, or no list.
        """
        if isinstance(ids, (str, bytes)) or not isinstance(ids, Iterable):
            raise UsageError(f"ids: {type(ids).__name__}; pass a list of ids")
        entries, asked = self._here(), list(dict.fromkeys(ids))
        try:
            found = self._reached(await asyncio.gather(*[entries.read(kind, id) for id in asked]))
        except CacheUnavailable as error:
            self._failed(error)
            found = [None] * len(asked)
        values = {id: value_of(raw) for id, raw in zip(asked, found, strict=True) if raw is not None}
        self._count(hits=len(values), misses=len(asked) - len(values))
        return values

    async def multi_set(self, kind: str, values: Mapping[Id, Any], ttl: Seconds | None = None) -> bool:
        """Store many values of one kind; tell whether all of them were stored.

        Raises:
            SerializationFailed: A value has no form in JSON; none was stored.
            InputError: An argument has no meaning.
        """
        entries, ttl_ms = self._here(), self._ttl_ms(ttl)
        packed = {entries.names.entry(kind, id): self._packed(kind, id, value) for id, value in values.items()}
        try:
            done = await entries.put(kind, packed, ttl_ms)
        except CacheFull as error:
            return self._lacked(error)
        except CacheUnavailable as error:
            return self._failed(error, *packed)
        self._count(sets=len(packed) if done else 0)
        return self._reached(done)

    async def get_or_load(self, kind: str, id: Id, load: Load, *, ttl: Seconds | None = None, wait: Seconds = 5) -> Any:
        """Give a value; where none is stored, load it once for all who ask, here and in other processes, and store it.

        What was loaded before the value was deleted, set or invalidated is given to its caller, and not stored.

        Args:
            kind: As in ``set``.
            id: As in ``set``.
            load: Called without arguments; what it gives may be awaitable. What it raises goes to its caller.
            ttl: As in ``set``.
            wait: Seconds, or a timedelta, to wait for another's load, before loading oneself without storing. What
                takes longer than twice that to load is not stored.

        Raises:
            SerializationFailed: What was loaded has no form in JSON.
            InputError: An argument has no meaning.
            UsageError: *load* cannot be called.
        """
        if not callable(load):
            raise _no_function(load)
        entries, ttl_ms, wait_ms = self._here(), self._ttl_ms(ttl), _life_ms(wait, "wait")
        entry, tokens = entries.names.entry(kind, id), entries.names.tokens(kind)
        until = asyncio.get_running_loop().time() + wait_ms / 1000

        async def loaded(may_store: bool) -> Loaded[Any]:
            if not may_store and (raw := await self._asked(entries.of_another(entry, tokens, until))) is not None:
                return Loaded(given(raw), None, "another has stored it")
            self._count(misses=1)
            value = load()
            payload = self._packed(kind, id, await value if inspect.isawaitable(value) else value)
            return Loaded(unpack(payload), payload)

        def given(raw: bytes) -> Any:
            self._count(hits=1)
            return value_of(raw)

        found = await self._asked(entries.found(entry, tokens))
        if found is None:
            return (await loaded(True)).answer
        if (raw := entries.valid(found)) is not None:
            return given(raw)
        ask = Ask(
            entry,
            tokens,
            any_key=b"",  # none: it matters to templates only
            listed=None,
            stamps=entries.stamps,
            ttl_ms=ttl_ms,
            null_ttl_ms=ttl_ms,
            claim_ms=2 * wait_ms,
            wait_s=wait_ms / 1000,
            wait_here_s=wait_ms / 1000,
        )
        return await miss(entries.cache, ask, found, loaded, given)

    async def invalidate_pattern(self, pattern: str) -> int:
        """Age what a pattern names, without looking at any key: one command, however many values there are.

        A pattern with a wildcard ages the smallest directory that covers it: ``"user:*"``, and ``"user:1*"``, too, all
        of the kind ``user``; ``"*"``, and ``"us*"``, the namespace. ``"user:1"`` drops one value.

        Returns:
            How many directories and values were named, 1 nearly always; 0 if Redis could not be reached.

        Raises:
            ValueRefused: It is no pattern.
        """
        named = self._here().names.named_by(pattern)
        return len(named) if await self._drop(named) else 0

    async def clear_namespace(self) -> bool:
        """Age all values of the namespace, in one command; tell whether Redis could be reached."""
        return await self._drop([self._here().names.namespace])

    async def get_stats(self) -> SmartStats:
        """Give the counts of this object since ``last_reset``."""
        return self._stats

    async def reset_stats(self) -> None:
        """Count from zero again."""
        self._stats = SmartStats()

    def __repr__(self) -> str:
        return f"<SmartCache {self.namespace!r} ttl={self.ttl_s:g} s hit_rate={self._stats.hit_rate:.2f}>"

    def _here(self) -> Entries:
        """Give the entries in the cache of now: a default client belongs to its event loop."""
        cache = self._cache if self._cache is not None else resolve(defaults.redis_client())
        assert cache is not None
        if self._entries is None or self._entries.cache is not cache:
            self._entries = Entries(cache, Names(cache.prefix + self.key_prefix, self.namespace))
        return self._entries

    def _ttl_ms(self, ttl: Seconds | None) -> int:
        return round(self.ttl_s * 1000) if ttl is None else _life_ms(ttl)

    def _packed(self, kind: str, id: Id, value: object) -> bytes:
        return pack(f"{kind}:{id}", value, self._threshold)

    async def _read(self, kind: str, id: Id) -> bytes | None:
        return await self._asked(self._here().read(kind, id))

    async def _asked(self, reading: Awaitable[T | None]) -> T | None:
        """Give what was read; ``None`` where Redis did not answer."""
        try:
            return self._reached(await reading)
        except CacheUnavailable as error:
            self._failed(error)
            return None

    async def _drop(self, keys: Iterable[bytes]) -> bool:
        try:
            await self._here().drop(keys)
        except CacheUnavailable as error:
            return self._failed(error, *keys)
        return self._reached(True)

    def _failed(self, error: CacheUnavailable, *undelivered: bytes) -> Literal[False]:
        self._count(errors=1)
        if not self._away:
            logger.warning("the cache of %r cannot be used, its values count as missing: %s", self.namespace, error)
        self._away = True
        if undelivered:
            self._here().cache.keep({*undelivered})
        return False

    def _lacked(self, error: CacheFull) -> Literal[False]:
        self._here().cache.lack(len(error.refused))
        return self._reached(False)

    def _reached(self, answer: T) -> T:
        if self._away and not self._here().cache.undelivered:
            logger.warning("the cache of %r can be used again", self.namespace)
            self._away = False
        return answer

    def _count(self, **more: int) -> None:
        if self._track:
            counts: dict[str, Any] = {name: self._stats[name] + count for name, count in more.items()}
            self._stats = replace(self._stats, **counts)


def _no_function(load: object) -> UsageError:
    """Give the error of a load that cannot be called; a coroutine is closed, since nobody awaits it."""
    if inspect.iscoroutine(load):
        load.close()
        return UsageError("load: a coroutine; pass the function itself, not its coroutine: it is called only on a miss")
    return UsageError(f"load: {type(load).__name__}; pass a function that takes no arguments")


def _one(name: str, value: Any, alias: Any) -> Any:
    if value is not None and alias is not None:
        raise InputError(f"{name} was given twice, the second time under its other name: pass {name}= only")
    return alias if value is None else value


def _life_ms(given: Seconds, field: str = "ttl") -> int:
    seconds = given.total_seconds() if isinstance(given, timedelta) else given
    number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
    if not number or not math.isfinite(seconds) or seconds <= 0:
        raise ValueRefused(field, "seconds above 0, or a timedelta", given)
    return max(1, round(seconds * 1000))
