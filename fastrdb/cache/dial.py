"""How a connection is opened: redis-py's settings with a few of them set on purpose, then the handshake."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeVar

from redis import exceptions as redis_errors
from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.sentinel import SentinelConnectionPool

from fastrdb.errors import CacheClosed, CacheError, CacheUnavailable, ServerRefused

from .scripts import SCRIPTS
from .wire import Wire, unavailable

T = TypeVar("T")

_OLDEST: Final = 7
_NAME: Final = "fastrdb"

# Settings of a pool's connections that are the pool's or ours to decide: retries and health checks (SQL
# answers sooner than a late Redis), parsers, and maintenance notifications, which need RESP3.
_LEFT_OUT: Final = frozenset(
    {
        "health_check_interval",
        "himport_registry",
        "legacy_responses",
        "maint_notifications_config",
        "maint_notifications_pool_handler",
        "maintenance_notification_hash",
        "maintenance_state",
        "oss_cluster_maint_notifications_handler",
        "orig_host_address",
        "orig_socket_connect_timeout",
        "orig_socket_timeout",
        "parser_class",
        "retry",
        "retry_on_error",
        "retry_on_timeout",
    }
)


class Server(NamedTuple):
    """What the handshake learned."""

    wire: Wire
    epoch: bytes


class Dialer:
    """Opens connections like those of a redis-py pool; it uses the pool's settings, never its connections.

    Args:
        pool: Whose server, credentials, TLS and database are used.
        timeout_s: Seconds for the whole of connecting and the handshake.
        epoch: What stands for the server's run id where INFO is not permitted.
        follows: Another dial finds the primary: a replica counts as out of reach. So it is with a Sentinel's pool.
        before_use: What is done after each handshake, before the connection is used; raising closes it.

    Attributes:
        follows: As given.
    """

    def __init__(
        self,
        pool: ConnectionPool,
        timeout_s: float,
        epoch: str | None,
        *,
        follows: bool | None = None,
        before_use: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        if follows is None:
            follows = isinstance(pool, SentinelConnectionPool) and pool.is_master
        self.follows = follows
        self._pool = pool  # Sentinel's connections refer to it weakly
        self._timeout_s, self._epoch, self._before_use = timeout_s, epoch, before_use
        self._settings: Mapping[str, Any] = MappingProxyType(_settings(pool.connection_kwargs, timeout_s))

    @property
    def where(self) -> str:
        """The server's address and database; no credentials."""
        kept = self._settings
        address = kept.get("path") or f"{kept.get('host', 'localhost')}:{kept.get('port', 6379)}"
        service = getattr(self._pool, "service_name", None)
        return f"{f'Sentinel service {service}' if service else address}/{kept.get('db') or 0}"

    async def dial(self) -> Server:
        """Open a connection and shake hands.

        Raises:
            CacheUnavailable: Nobody answered in time, or the server does not take the credentials.
            ServerRefused: The protocol cannot work on this server.
        """
        server = await self._in_time(self._greet())
        if self._before_use is None:
            return server
        try:
            await self._before_use()
            if server.wire.gone:
                raise unavailable(redis_errors.ConnectionError("the connection was lost"))
        except BaseException:
            server.wire.drop(partial(CacheClosed, "the connection was not used"))
            raise
        return server

    async def _greet(self) -> Server:
        wire = await self._open()
        try:
            return Server(wire, await self._handshake(wire))
        except BaseException:
            wire.drop(partial(CacheClosed, "the handshake failed"))
            raise

    async def ask(self, commands: Iterable[tuple[bytes | int, ...]]) -> list[Any]:
        """Ask over a connection of its own, whatever the server is; the replies may be errors of redis-py.

        Raises:
            CacheUnavailable: Nobody answered in time, or the server does not take the credentials.
        """

        async def asked() -> list[Any]:
            wire = await self._open()
            try:
                return await wire.ask(commands)
            finally:
                wire.drop(partial(CacheClosed, "it was asked"))

        return await self._in_time(asked())

    async def _in_time(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await work
        except CacheError:
            raise
        except TimeoutError:
            cause = redis_errors.TimeoutError(f"{self.where} did not answer within {self._timeout_s} s")
            raise unavailable(cause) from cause
        except Exception as error:  # whatever a connection class, a credential provider or TLS may raise
            raise unavailable(error) from error

    async def _open(self) -> Wire:
        connection: AbstractConnection = self._pool.connection_class(**self._settings)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            return Wire.take_over(connection)
        except BaseException:
            with suppress(Exception):
                await connection.disconnect(nowait=True)
            raise

    async def same(self, server: Server) -> bool:
        """Tell whether a server is still the primary that its handshake found, with the same history.

        Raises:
            CacheUnavailable: It did not answer in time.
        """

        async def asked() -> bool:
            (answer,) = await server.wire.ask([(b"INFO", b"replication")])
            if isinstance(answer, Exception):
                return True  # it may not be asked
            info = _parse_info(answer)
            history = info.get("master_replid", "").encode()
            return info.get("role", "master") == "master" and server.epoch.endswith(history)

        return await self._in_time(asked())

    async def _handshake(self, wire: Wire) -> bytes:
        """Look at the server, name ourselves, load the scripts: one round trip."""
        loads = [(b"SCRIPT", b"LOAD", script.text) for script in SCRIPTS]
        name = str(self._pool.connection_kwargs.get("client_name") or _NAME).encode()
        replies = await wire.ask(
            [
                (b"INFO", b"server"),
                (b"INFO", b"replication"),
                (b"INFO", b"memory"),
                (b"CLIENT", b"SETNAME", name),  # an ACL may forbid it
                *loads,
            ]
        )
        epoch = self._look(replies[:3])
        _check_scripts(replies[4:])
        if wire.gone:
            raise unavailable(redis_errors.ConnectionError("the connection was lost"))
        return epoch

    def _look(self, answers: list[Any]) -> bytes:
        info: dict[str, str] = {}
        for answer in answers:
            if isinstance(answer, redis_errors.NoPermissionError):
                continue
            if isinstance(answer, Exception):
                raise unavailable(answer)
            info |= _parse_info(answer)
        _check_settings(info, self.follows)
        if run := info.get("run_id"):
            # A primary that was a replica meanwhile may lack writes, in the same run: its history has another name.
            return f"{run} {info.get('master_replid', '')}".encode()
        if self._epoch:
            return self._epoch.encode()
        raise ServerRefused(
            "this user may not read the server's run id: grant it INFO (ACL: +info), or pass epoch=, a text "
            "that you change whenever Redis comes back with older data"
        )


def _settings(settings: Mapping[str, Any], timeout_s: float) -> dict[str, Any]:
    kept = {name: value for name, value in settings.items() if name not in _LEFT_OUT}
    kept.pop("client_name", None)
    return {
        **kept,
        "protocol": 2,  # no pushes: each reply belongs to the oldest request
        "decode_responses": False,
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
    }


def _parse_info(answer: bytes) -> dict[str, str]:
    lines = answer.decode("utf-8", "replace").splitlines()
    return {name: value for name, colon, value in (line.partition(":") for line in lines) if colon}


def _check_settings(info: Mapping[str, str], follows: bool) -> None:
    version = info.get("redis_version", "")
    major = version.partition(".")[0]
    if major.isdecimal() and int(major) < _OLDEST:
        raise ServerRefused(f"Redis {version} is too old: use Redis {_OLDEST} or newer, or Valkey")
    if info.get("role", "master") != "master":
        if follows:
            raise unavailable(redis_errors.ConnectionError("this server is a replica, and a primary was expected"))
        raise ServerRefused("this Redis is a replica: give the cache a client of the primary")
    if info.get("maxmemory_policy") == "volatile-ttl":
        raise ServerRefused(
            "the eviction policy volatile-ttl drops first what ends soonest, and those are the marks of open "
            "writes: set maxmemory-policy to noeviction, allkeys-lru or volatile-lru"
        )


def _check_scripts(answers: list[Any]) -> None:
    for script, answer in zip(SCRIPTS, answers, strict=True):
        if isinstance(answer, redis_errors.NoPermissionError):
            raise ServerRefused(
                "this user may not load scripts: grant it +@scripting +@read +@write on the cache's keys"
            ) from answer
        if isinstance(answer, Exception):
            raise unavailable(answer)
        if answer != script.sha:
            raise CacheUnavailable("the server's replies are out of step with the handshake")
