"""Sessions and clients for request handlers, and for scripts: what FastAPI's ``Depends`` takes, and ``async with``."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from types import TracebackType
from typing import Any, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from ..errors import SessionRefused
from .blocks import one_session
from .sessions import SessionFactory

T = TypeVar("T")


class Opened(AsyncGenerator[T, None], AbstractAsyncContextManager[T]):
    """One use of a dependency: an async context manager, and the async generator that FastAPI drives instead."""

    def __init__(self, context: Any) -> None:
        self._context, self._generator = context, context.gen

    async def __aenter__(self) -> T:
        entered: T = await self._context.__aenter__()
        return entered

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool | None:
        swallowed: bool | None = await self._context.__aexit__(kind, error, traceback)
        return swallowed

    async def asend(self, value: None) -> T:
        """Go on; what FastAPI's own context manager calls."""
        given: T = await self._generator.asend(value)
        return given

    async def athrow(self, *error: Any) -> T:
        """Raise in the generator; what FastAPI's own context manager calls when a handler failed."""
        given: T = await self._generator.athrow(*error)
        return given

    async def aclose(self) -> None:
        """End the generator."""
        await self._generator.aclose()


class Dependency(Generic[T]):
    """Gives something for one request or one block: ``Depends(dependency)``, or ``async with dependency() as it``.

    Build it once and use it everywhere: FastAPI shares what one dependency gave among the handlers of a request.
    """

    def __init__(self, generate: Callable[[], AsyncGenerator[T, None]]) -> None:
        self._context = asynccontextmanager(generate)
        # FastAPI asks this attribute whether it is an async generator function; a call goes to the class's method.
        vars(self)["__call__"] = generate

    def __call__(self) -> Opened[T]:
        """Give one use."""
        return Opened(self._context())


def async_get_db(factory: SessionFactory) -> Dependency[AsyncSession]:
    """Give a dependency on sessions of *factory*: one for each request, or for each ``async with`` block.

    What is pending when the request or the block ends without an exception is committed, after an exception it is
    rolled back; the session is closed in any case. FastAPI ends a request's dependencies after the response was sent:
    with ``Depends(…, scope="function")`` a COMMIT that fails can still change the response.

    Args:
        factory: An ``async_sessionmaker``, or any other callable that gives a new AsyncSession.

    Raises:
        SessionRefused: *factory* is no factory; or, at first use, it gives no AsyncSession.
    """
    if not callable(factory):
        raise SessionRefused(f"factory: {type(factory).__name__}; pass an async_sessionmaker")

    return Dependency(partial(one_session, lambda: factory))


def get_redis(client: T) -> Dependency[T]:
    """Give a dependency on a client, or a Cache, that all requests share: nobody's request closes it.

    Args:
        client: A ``redis.asyncio.Redis``, a ``fastrdb.Cache``, or ``None`` to go without a cache.
    """

    async def generate() -> AsyncGenerator[T, None]:
        yield client

    return Dependency(generate)
