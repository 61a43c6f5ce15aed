"""One advisory lock of PostgreSQL, and the connection that has it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from hashlib import md5
from typing import Any, Final, Literal, TypeAlias

from sqlalchemy import Select, func, literal, select
from sqlalchemy.dialects.postgresql import BIGINT
from sqlalchemy.ext.asyncio import AsyncConnection

from ..errors import EmptyInput, ValueRefused

Scope: TypeAlias = Literal["session", "transaction"]

_PATIENCE_S: Final = 5.0  # for one answer, and between two looks at the connection
_LEAST, _GREATEST = -(2**63), 2**63 - 1


def advisory_number(key: int | str) -> int:
    """Give the number that PostgreSQL knows a key by: an int is itself, a text the first 8 bytes of its MD5, signed.

    In SQL: ``('x' || left(md5('the text'), 16))::bit(64)::bigint``.

    Raises:
        EmptyInput: The text is empty.
        ValueRefused: It is neither text nor an int of 64 bits.
    """
    if isinstance(key, str):
        if not key:
            raise EmptyInput("key", "say what the lock is for, such as 'import:users', or give a number")
        return int.from_bytes(md5(key.encode(), usedforsecurity=False).digest()[:8], "big", signed=True)
    if isinstance(key, bool) or not isinstance(key, int) or not _LEAST <= key <= _GREATEST:
        raise ValueRefused("key", "text, or an int from -2**63 to 2**63 - 1", key)
    return key


def attempt(number: int, scope: Scope, shared: bool) -> Select[Any]:
    """Give the statement that tries to take a lock: whether it was got, and by which server process."""
    name = f"pg_try_advisory_{'xact_' if scope == 'transaction' else ''}lock{'_shared' if shared else ''}"
    return select(getattr(func, name)(literal(number, BIGINT)), func.pg_backend_pid())


class Holding:
    """A connection of our own that has a lock. It goes back to its pool only when the server said that it let go.

    Args:
        connection: Open; nobody else uses it.
        number: Of the lock.
        scope: ``"transaction"``: the lock lasts as long as the open transaction.
        shared: It is a shared lock.
        process: The server process that has it.
    """

    def __init__(self, connection: AsyncConnection, number: int, scope: Scope, shared: bool, process: int) -> None:
        self._connection, self._number, self._scope, self._shared = connection, number, scope, shared
        self._process = process
        self._stopped = asyncio.Event()
        self._driver: Any = None
        self._listener: Callable[[object], None] | None = None

    async def watch(self, declare_lost: Callable[[str], None]) -> None:
        """Look at the connection now and then, until ``release``; say so when the lock is lost."""
        with suppress(Exception):
            self._driver = (await self._connection.get_raw_connection()).driver_connection
        if hasattr(self._driver, "add_termination_listener"):  # asyncpg: at once, when the server closes it
            self._listener = lambda _: declare_lost("the connection that had it was closed")
            self._driver.add_termination_listener(self._listener)
        while not self._stopped.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_PATIENCE_S):
                    await self._stopped.wait()
            if not self._stopped.is_set() and (reason := await self._trouble()):
                declare_lost(reason)
                return

    async def _trouble(self) -> str | None:
        try:
            async with asyncio.timeout(_PATIENCE_S):
                process = (await self._connection.execute(select(func.pg_backend_pid()))).scalar_one()
        except Exception as error:
            return f"the connection that had it is broken: {type(error).__name__}"
        if process != self._process:
            return "a pooler has given the connection another server process; use scope='transaction' through it"
        return None

    def stop(self) -> None:
        """Let ``watch`` return: await its task before ``release``, for a connection serves one at a time."""
        self._stopped.set()

    async def release(self) -> bool:
        """Let go, and give the connection back; tell whether the lock was still held. A broken one is closed."""
        if self._listener is not None:
            with suppress(Exception):
                self._driver.remove_termination_listener(self._listener)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                held = await self._let_go()
        except Exception:
            held = False
        if held:
            await self._connection.close()
        else:
            await discard(self._connection)
        return held

    async def _let_go(self) -> bool:
        if self._scope == "transaction":
            held: bool = await self._connection.scalar(select(func.pg_backend_pid())) == self._process
            await self._connection.rollback()
            return held
        name = f"pg_advisory_unlock{'_shared' if self._shared else ''}"
        return bool(await self._connection.scalar(select(getattr(func, name)(literal(self._number, BIGINT)))))


async def discard(connection: AsyncConnection) -> None:
    """Close a connection for good, so that the server lets go of whatever it had."""
    with suppress(Exception):
        await connection.invalidate()
    with suppress(Exception):
        await connection.close()
