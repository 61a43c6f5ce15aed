"""What is called after a COMMIT: after_commit."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TypeVar

from ..errors import UsageError
from .committed import Hook
from .core import C, Core, M, R, U

H = TypeVar("H", bound=Hook)


class AfterCommit(Core[M, C, U, R]):
    """Hooks that are called once a write is true."""

    def after_commit(self, hook: H) -> H:
        """Have an async callable called after each COMMIT that made writes of this crud true; usable as a decorator.

        It gets a ``Committed``, once for each transaction, when the COMMIT has returned and the cache was released;
        the write returns when all hooks have. What a hook raises is logged, and harms neither the write nor the other
        hooks. None is called after a rollback, a savepoint's included, where the outcome of the COMMIT is unknown, or
        in a session that is bound to a connection, whose transaction is not the session's.

        Args:
            hook: Called with one ``Committed``; awaited.

        Raises:
            UsageError: It is no async callable.
        """
        if not (iscoroutinefunction(hook) or iscoroutinefunction(getattr(hook, "__call__", None))):  # noqa: B004  # an instance may be one
            raise UsageError(f"hook: {hook!r}; pass an async function of one Committed")
        self._hooks.hooks.append(hook)
        return hook
