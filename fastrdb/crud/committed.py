"""What hooks are told after a COMMIT, and the hooks of one crud."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

logger = logging.getLogger("fastrdb.hooks")

Image: TypeAlias = Mapping[str, Any] | None
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


def told_together(changes: Sequence[Change]) -> Change | None:
    """Give as one what parts of a write say, all of which name their rows; ``None`` where none says anything."""
    return Change(None, [row for each in changes for row in each.rows or ()]) if changes else None


@dataclass(slots=True, eq=False)
class Hooks:
    """The hooks of one crud, in the order in which they were registered.

    Attributes:
        model: The crud's model.
        attribute_of: Column name -> attribute name.
    """

    model: type[Any]
    attribute_of: Mapping[str, str]
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

    def change(self, kind: Kind | None, rows: Iterable[tuple[Image, Image]] | None) -> Change | None:
        """Give what is told of a write, where there is anybody to tell.

        Args:
            kind: What it did; ``None``: several things.
            rows: The images of each row before and after, by column names; ``None``: they cannot be named.
        """
        if not self.hooks:
            return None
        return Change(kind, None if rows is None else [RowChange(*map(self._named, images)) for images in rows])

    def _named(self, image: Image) -> Image:
        if image is None:
            return None
        names = self.attribute_of
        return MappingProxyType({names[column]: value for column, value in image.items() if column in names})

    def _event(self, changes: Sequence[Change]) -> Committed:
        kinds: set[Kind] = {each.kind for each in changes if each.kind is not None}
        rows: list[RowChange] = []
        for each in changes:
            if each.rows is None:
                return Committed(self.model, frozenset(kinds), None)
            rows += each.rows
            kinds |= {row.kind for row in each.rows}
        return Committed(self.model, frozenset(kinds), tuple(rows))
