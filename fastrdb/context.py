"""Who acts, and for which tenant: context variables, which every asyncio task inherits from the one that starts it."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, TypeAlias, TypeVar
from uuid import UUID

from .errors import InputError

T = TypeVar("T")
Identifier: TypeAlias = str | int | UUID


@dataclass(frozen=True, slots=True)
class Actor:
    """Who writes.

    Attributes:
        user_id: As text.
        request_id: What the writes of one request have in common, or ``None``.
    """

    user_id: str
    request_id: str | None = None


class Scoped(Generic[T]):
    """A value for the length of a block, with ``with`` or ``async with``; blocks nest, and may be entered again.

    It is taken out by whom it was put in, not by a token, because an async generator (a dependency of FastAPI, a
    fixture) may leave its block in another context than the one it entered it in.
    """

    __slots__ = ("_stack", "_value")

    def __init__(self, stack: ContextVar[tuple[Scoped[T], ...]], value: T) -> None:
        self._stack, self._value = stack, value

    @property
    def value(self) -> T:
        """What holds in the block."""
        return self._value

    def __enter__(self) -> T:
        self._stack.set((*self._stack.get(), self))
        return self._value

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entered = list(self._stack.get())
        for at in range(len(entered) - 1, -1, -1):
            if entered[at] is self:
                del entered[at]
                break
        self._stack.set(tuple(entered))

    async def __aenter__(self) -> T:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback)


_ACTORS: ContextVar[tuple[Scoped[Actor], ...]] = ContextVar("fastrdb_actors", default=())
_TENANTS: ContextVar[tuple[Scoped[str], ...]] = ContextVar("fastrdb_tenants", default=())


def actor(user_id: Identifier, request_id: Identifier | None = None) -> Scoped[Actor]:
    """Give a block, ``with`` or ``async with``, in which this user acts.

    Args:
        user_id: Whose writes they are; text, a whole number or a UUID.
        request_id: What the writes of this request have in common.

    Raises:
        InputError: Either is empty, or of another type.
    """
    return Scoped(
        _ACTORS, Actor(_text("user_id", user_id), None if request_id is None else _text("request_id", request_id))
    )


def current_actor() -> Actor | None:
    """Give who acts here, or ``None`` outside of any ``actor`` block."""
    entered = _ACTORS.get()
    return entered[-1].value if entered else None


def tenant(tenant_id: Identifier) -> Scoped[str]:
    """Give a block, ``with`` or ``async with``, that works for this tenant.

    Raises:
        InputError: *tenant_id* is empty, or no text, whole number or UUID: a missing one must not mean "all tenants".
    """
    return Scoped(_TENANTS, _text("tenant_id", tenant_id))


def current_tenant() -> str | None:
    """Give the tenant's id, as text, or ``None`` outside of any ``tenant`` block."""
    entered = _TENANTS.get()
    return entered[-1].value if entered else None


def _text(name: str, given: object) -> str:
    if not isinstance(given, Identifier) or isinstance(given, bool):
        raise InputError(f"{name}: {type(given).__name__}; pass text, a whole number or a UUID")
    text = str(given)
    if not text.strip():
        raise InputError(f"{name} is empty: pass the id, or leave the block out")
    return text
