"""What a read can be told besides its filters: fields of one frozen object, so that none takes a column's name away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ..errors import UsageError

ForUpdate: TypeAlias = Literal["nowait", "skip_locked"] | bool
_FOR_UPDATE = (False, True, "nowait", "skip_locked")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read; pass it as ``options=``.

    Attributes:
        for_update: Lock the rows that are read until the caller's transaction ends. ``True`` waits for others' locks,
            ``"nowait"`` raises the driver's error instead, ``"skip_locked"`` leaves locked rows out.
    """

    for_update: ForUpdate = False

    def __post_init__(self) -> None:
        if not any(self.for_update is each or self.for_update == each for each in _FOR_UPDATE):
            raise UsageError(f"for_update: {self.for_update!r}; pass True, 'nowait' or 'skip_locked'")

    @property
    def shape(self) -> object | None:
        """What the statement depends on, and so the key: ``None`` for the defaults. JSON can say it."""
        return ["for update", self.for_update] if self.for_update else None


PLAIN: Final = ReadOptions()
