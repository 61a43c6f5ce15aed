"""RedisLock: one holder at a time, for as long as Redis remembers, and a number for when it does not."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from contextvars import Context
from types import TracebackType

from redis import exceptions as redis_errors
from redis.asyncio import Redis, RedisCluster

from ..db import defaults
from ..errors import EmptyInput, LockUnavailable, RedisRefused, ValueRefused
from ..writes.outcome import finish
from .fencing import FencedLock, lock_key
from .holder import Holder
from .loss import Loss, logger
from .waiting import Seconds, Wait, positive

_PATIENCE_S = 5.0  # for one answer of Redis


class RedisLock(Holder):
    """A lock that one holder at a time has, among all processes that share a Redis server.

    ``async with RedisLock(name) as lock`` tries once, or for *wait* seconds, and raises nothing when somebody else has
    the lock: ask ``lock.acquired``. It is renewed while the block runs. Not reentrant; one object is one holder.

    A Redis lock alone does not exclude that two holders act at the same time (a pause longer than the ttl, a restart
    or a failover of Redis): what must be safe from that compares ``lock.fence``.

    Args:
        name: Any text but the empty one; names are one space per Redis database.
        ttl: Seconds, or a timedelta, after which a holder that died or hangs loses the lock.
        redis: A ``redis.asyncio.Redis`` or ``RedisCluster``; by default the one of ``fastrdb.db.defaults``.
        wait: Seconds to wait for the lock, a timedelta, or ``None`` for as long as it takes.
        auto_renewal: Renew the lock every third of its ttl; else it ends after its ttl, and ``lost`` says so.

    Attributes:
        acquired: ``acquire`` succeeded, and ``release`` was not called since.
        fence: The number of this acquisition, greater than that of every earlier one of the name; ``None`` before.
        lost: True, and awaitable (``await lock.lost.wait()``), once the lock is held no longer though nobody
            released it.

    Raises:
        EmptyInput: The name is empty.
        ValueRefused: The name is no text, or a time is none.
        RedisRefused: *redis* is no asyncio client.
    """

    def __init__(
        self,
        name: str,
        ttl: Seconds = 60,
        *,
        redis: Redis | RedisCluster | None = None,
        wait: Wait = 0,
        auto_renewal: bool = True,
    ) -> None:
        _check_name(name)
        if redis is not None and not isinstance(redis, (Redis, RedisCluster)):
            raise RedisRefused(
                f"redis: {type(redis).__module__}.{type(redis).__qualname__}; pass a redis.asyncio.Redis"
            )
        super().__init__(name, wait)
        self.name, self.ttl_s = name, positive("ttl", ttl)
        self.auto_renewal = auto_renewal
        self.fence: int | None = None
        self._given = redis
        self._fenced: FencedLock | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def release(self) -> bool:
        """Let go; tell whether the lock was still held. What somebody else has taken meanwhile is left alone.

        Raises:
            LockNotAcquired: This object does not hold the lock.
            LockUnavailable: Redis did not answer: the lock ends after its ttl at the latest.
        """
        self._must_hold("release")
        return await finish(self._let_go())

    async def renew(self) -> bool:
        """Let the lock live for another ttl from now; tell whether it was still held. Else it counts as lost.

        Raises:
            LockNotAcquired: This object does not hold the lock.
            LockUnavailable: Redis did not answer: the lock may be renewed, and is counted as not.
        """
        self._must_hold("renew")
        return await self._renew(self.lost, _PATIENCE_S)

    async def is_locked(self) -> bool:
        """Tell whether anybody has the lock. Raises LockUnavailable."""
        return await self.get_lock_holder() is not None

    async def get_lock_holder(self) -> str | None:
        """Give who has the lock, as ``host:process:random``; ``None`` for nobody. Raises LockUnavailable."""
        async with self._answering():
            holder = await self._client().get(lock_key(self.name))
        return holder.decode() if isinstance(holder, bytes) else holder

    async def get_ttl(self) -> float | None:
        """Give the seconds until the lock ends by itself; ``None`` if nobody has it. Raises LockUnavailable."""
        async with self._answering():
            left_ms: int = await self._client().pttl(lock_key(self.name))
        return left_ms / 1000 if left_ms >= 0 else None

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self.acquired:
            return
        try:
            await self.release()
        except LockUnavailable as failure:  # the block is done, and the lock ends by itself
            logger.warning("%s; it ends by itself after its ttl of %s s", failure, self.ttl_s)

    def __repr__(self) -> str:
        state = "lost" if self.lost else f"held, fence {self.fence}" if self.acquired else "not held"
        return f"<RedisLock {self.name!r} {state}>"

    def _client(self) -> Redis | RedisCluster:
        return self._given if self._given is not None else defaults.redis_client()

    async def _try(self) -> bool:
        return await finish(self._try_with(FencedLock(self._client(), self.name, self.ttl_s)))

    async def _try_with(self, fenced: FencedLock) -> bool:
        since = time.monotonic()
        token = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(8)}"
        try:
            async with self._answering():
                if not await fenced.acquire(blocking=False, token=token):
                    return False
        except LockUnavailable:
            await self._withdraw(fenced, token)
            raise
        if time.monotonic() - since >= self.ttl_s:
            await self._withdraw(fenced, token)
            raise LockUnavailable(self.name, f"Redis took longer to answer than the lock lives, {self.ttl_s:.3g} s")
        self.acquired, self.fence, self._fenced = True, fenced.fence, fenced
        self.lost = Loss(self.name, since + self.ttl_s)
        self._watcher = asyncio.create_task(self._watch(self.lost), context=Context())
        return True

    async def _withdraw(self, fenced: FencedLock, token: str) -> None:
        """Take back what may have been acquired without an answer; if that fails, too, it ends by itself."""
        with suppress(LockUnavailable, redis_errors.LockNotOwnedError):
            async with self._answering():
                await fenced.do_release(token.encode())

    async def _undo(self) -> None:
        if self._fenced is not None:
            with suppress(LockUnavailable):
                await finish(self._let_go())

    async def _let_go(self) -> bool:
        fenced, watcher = self._fenced, self._watcher
        assert fenced is not None
        self.acquired, self._fenced, self._watcher = False, None, None
        if watcher is not None:
            watcher.cancel()
        try:
            async with self._answering():
                await fenced.release()
        except redis_errors.LockNotOwnedError:
            self.lost.declare("it was gone when it was released")
            return False
        finally:
            self.lost.settle()
        return not self.lost

    async def _renew(self, lost: Loss, patience_s: float) -> bool:
        fenced, since = self._fenced, time.monotonic()
        if lost or fenced is None:
            return False
        try:
            async with self._answering(patience_s):
                await fenced.reacquire()
        except redis_errors.LockNotOwnedError:
            lost.declare("when it was to be renewed, it had ended, or somebody else had it")
            return False
        lost.put_off(since + self.ttl_s)
        return True

    async def _watch(self, lost: Loss) -> None:
        """Renew the lock until it is released or lost, or see it end."""
        pause = self.ttl_s / 3
        while not lost:
            await asyncio.sleep(max(0.0, min(lost.left_s, pause if self.auto_renewal else lost.left_s)))
            if self.auto_renewal:
                try:
                    await self._renew(lost, min(_PATIENCE_S, max(0.0, lost.left_s)))
                    pause = self.ttl_s / 3
                except LockUnavailable:
                    pause = self.ttl_s / 20

    @asynccontextmanager
    async def _answering(self, patience_s: float = _PATIENCE_S) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(patience_s):
                yield
        except redis_errors.LockNotOwnedError:
            raise
        except TimeoutError as error:
            raise LockUnavailable(self.name, f"Redis did not answer within {patience_s:.3g} s") from error
        except (redis_errors.RedisError, OSError) as error:
            raise LockUnavailable(self.name, f"{type(error).__name__}: {error}") from error


@asynccontextmanager
async def redis_lock(
    name: str,
    ttl: Seconds = 60,
    *,
    redis: Redis | RedisCluster | None = None,
    wait: Wait = 0,
    auto_renewal: bool = True,
) -> AsyncIterator[RedisLock]:
    """Run a block only with the lock: where a ``RedisLock`` would not be ``acquired``, this raises.

    The arguments are those of ``RedisLock``.

    Raises:
        LockNotAcquired: Somebody else has the lock, and *wait* is 0.
        LockTimeout: Somebody else had it for all of *wait*.
        LockUnavailable: Redis did not answer.
    """
    lock = RedisLock(name, ttl, redis=redis, wait=wait, auto_renewal=auto_renewal)
    async with lock:
        lock.must_have_acquired()
        yield lock


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise ValueRefused("name", "text", name)
    if not name:
        raise EmptyInput("name", "say what the lock is for, such as 'import:users'")
