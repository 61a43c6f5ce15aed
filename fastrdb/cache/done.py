"""An answer that is there already, for callers who await one; and a failure that nobody awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Generic, TypeVar, cast

T = TypeVar("T")


class Done(Generic[T]):
    """An awaitable that was finished before anyone awaited it; nothing is lost when nobody does.

    Attributes:
        value: The answer, for who is in a hurry, and knows that there was no error.
    """

    __slots__ = ("_error", "value")

    def __init__(self, value: T | None = None, error: Exception | None = None) -> None:
        self.value, self._error = value, error

    def __await__(self) -> Generator[None, None, T]:
        if self._error is not None:
            raise self._error
        return cast("T", self.value)
        yield  # type: ignore[unreachable]  # makes it a generator, as ``await`` asks for


def forget(future: asyncio.Future[Any]) -> None:
    """Let a future's failure go, as its callback: asyncio would log one that nobody awaits."""
    if not future.cancelled():
        future.exception()
