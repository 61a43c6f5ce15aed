"""What hooks are told after a COMMIT, and the hooks of one crud."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

logger = logging.getLogger("fastrdb.hooks")

Kind: TypeAlias = Literal["create", "update", "delete"]


@dataclass(frozen=True, slots=True)
class RowChange:
    """One row before and after a write, by attribute names.

    Both hold the primary key and the columns that templates name, and no others.

    Attributes:
        before: ``None`` where the row was created.
        after: ``None`` where it was deleted.
    """

    before: Mapping[str, Any] | None
    after: Mapping[str, Any] | None

    @property
    def kind(self) -> Kind:
        """Whether the row was created, updated or deleted."""
        return "create" if self.before is None else "delete" if self.after is None else "update"


@dataclass(frozen=True, slots=True)
class Committed:
    """What one transaction wrote through one crud.

    Attributes:
        model: The crud's model.
        kinds: What was done, over all writes, as far as they say.
        rows: The rows that were written, in the order of the writes; ``None``: not all can be named, so that any row
            of the table may have changed.
    """

    model: type[Any]
    kinds: frozenset[Kind]
    rows: tuple[RowChange, ...] | None


Hook: TypeAlias = Callable[[Committed], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Change:
    """What one write says of itself.

    Attributes:
        kind: What it did; ``None``: several things.
        rows: The rows, or ``None`` where they cannot be named.
    """

    kind: Kind | None
    rows: Sequence[RowChange] | None


@dataclass(slots=True, eq=False)
class Hooks:
    """The hooks of one crud, in the order in which they were registered."""

    model: type[Any]
    hooks: list[Hook] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.hooks)

    async def announce(self, changes: Sequence[Change]) -> None:
        """Call the hooks, one after the other. What one raises is logged: the write is done."""
        event = self._event(changes)
        for hook in list(self.hooks):
            try:
                await hook(event)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                logger.exception("a hook after commit was cancelled: %r", hook)
            except Exception:
                logger.exception("a hook after commit failed: %r", hook)

    def _event(self, changes: Sequence[Change]) -> Committed:
        kinds = frozenset([each.kind for each in changes if each.kind is not None])
        rows: list[RowChange] | None = []
        for each in changes:
            rows = None if rows is None or each.rows is None else [*rows, *each.rows]
        return Committed(self.model, kinds, tuple(rows) if rows is not None else None)
