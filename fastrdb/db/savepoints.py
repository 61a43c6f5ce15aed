"""Savepoints by name, and work that is done whole or not at all."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, TypeAlias

from sqlalchemy import Executable
from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction

from ..errors import TransactionError

Parameters: TypeAlias = Mapping[str, Any] | Sequence[Mapping[str, Any]]
Operation: TypeAlias = Executable | tuple[Executable, Parameters] | Callable[[AsyncSession], Awaitable[Any]]


class TransactionManager:
    """Savepoints in the transaction of a session, which stays the caller's to commit.

    Args:
        session: Its transaction is begun by the first savepoint, if it has none.
    """

    def __init__(self, session: AsyncSession) -> None:
        self.session = session
        self._open: dict[str, AsyncSessionTransaction] = {}  # oldest first
        self._made = 0

    def savepoint(self, name: str | None = None) -> Savepoint:
        """Make a savepoint: ``name = await manager.savepoint()``, or ``async with manager.savepoint() as name``.

        The block releases it at its end, and after an exception rolls back to it first.

        Args:
            name: Any text; one is made up if it is left out.

        Raises:
            TransactionError: An open savepoint has this name.
        """
        self._made += 1
        return Savepoint(self, name or f"savepoint_{self._made}")

    async def rollback_to_savepoint(self, name: str) -> None:
        """Undo what was done since the savepoint was made. It stays open; later ones are gone.

        Raises:
            TransactionError: There is no open savepoint of this name.
        """
        await self._find(name).rollback()
        self._forget_from(name)
        self._open[name] = await self.session.begin_nested()

    async def release_savepoint(self, name: str) -> None:
        """Keep what was done since the savepoint was made; it and later ones are gone.

        Raises:
            TransactionError: There is no open savepoint of this name.
        """
        _ = self._find(name)
        for later in reversed(self._from(name)):
            await self._open.pop(later).commit()

    async def batch_execute(self, operations: Iterable[Operation]) -> list[Any]:
        """Do all of the operations, or, where one raises, none of them, and raise that.

        Args:
            operations: Statements, pairs of a statement and its parameters (or a list of them), or async functions
                of the session.

        Returns:
            What each gave: a SQLAlchemy ``Result``, or what the function returned.
        """
        async with self.savepoint():
            return [await self._run(operation) for operation in operations]

    async def _run(self, operation: Operation) -> Any:
        if isinstance(operation, tuple):
            statement, parameters = operation
            return await self.session.execute(statement, parameters)
        if isinstance(operation, Executable):
            return await self.session.execute(operation)
        return await operation(self.session)

    async def open(self, name: str) -> None:
        """Make a savepoint; what ``savepoint`` gives does it."""
        self._forget_ended()
        if name in self._open:
            raise TransactionError(f"savepoint {name!r} is open already; release it, or take another name")
        self._open[name] = await self.session.begin_nested()

    async def close(self, name: str, *, failed: bool) -> None:
        """End a savepoint that may have ended already."""
        self._forget_ended()
        if name not in self._open:
            return
        if failed:
            await self._open[name].rollback()
            self._forget_from(name)
        else:
            await self.release_savepoint(name)

    def _find(self, name: str) -> AsyncSessionTransaction:
        self._forget_ended()
        if name not in self._open:
            names = ", ".join(map(repr, self._open)) or "none"
            raise TransactionError(f"no open savepoint {name!r}; open: {names}")
        return self._open[name]

    def _from(self, name: str) -> list[str]:
        names = list(self._open)
        return names[names.index(name) :]

    def _forget_from(self, name: str) -> None:
        for later in self._from(name):
            del self._open[later]

    def _forget_ended(self) -> None:
        # The transaction may have been committed or rolled back as a whole.
        self._open = {name: point for name, point in self._open.items() if point.is_active}


class Savepoint:
    """One savepoint: awaited it is made and gives its name; as a block it is released, or rolled back, at the end."""

    def __init__(self, manager: TransactionManager, name: str) -> None:
        self._manager, self.name = manager, name

    def __await__(self) -> Generator[Any, None, str]:
        return self.__aenter__().__await__()

    async def __aenter__(self) -> str:
        await self._manager.open(self.name)
        return self.name

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._manager.close(self.name, failed=error is not None)
