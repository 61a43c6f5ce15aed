"""What a read can be told besides its filters: fields of one frozen object, so that none takes a column's name away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ..errors import InputError, UsageError

ForUpdate: TypeAlias = Literal["nowait", "skip_locked"] | bool
_FOR_UPDATE = (False, True, "nowait", "skip_locked")


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read; pass it as ``options=``.

    Attributes:
        include_deleted: Of a model that is deleted softly, show deleted rows, too.
        only_deleted: Show deleted rows alone.
        for_update: Lock the rows that are read until the caller's transaction ends. ``True`` waits for others' locks,
            ``"nowait"`` raises the driver's error instead, ``"skip_locked"`` leaves locked rows out.

    Raises:
        InputError: Options that contradict each other, or mean nothing.
    """

    include_deleted: bool = False
    only_deleted: bool = False
    for_update: ForUpdate = False

    def __post_init__(self) -> None:
        if self.include_deleted and self.only_deleted:
            raise InputError("options: include_deleted and only_deleted are two answers to one question; take one")
        if not any(self.for_update is each or self.for_update == each for each in _FOR_UPDATE):
            raise UsageError(f"for_update: {self.for_update!r}; pass True, 'nowait' or 'skip_locked'")

    @property
    def shape(self) -> object | None:
        """What the statement depends on, and so the key: ``None`` for the defaults. JSON can say it."""
        told: dict[str, object] = {}
        if self.include_deleted or self.only_deleted:
            told["deleted"] = "only" if self.only_deleted else "included"
        if self.for_update:
            told["for_update"] = self.for_update
        return told or None


PLAIN: Final = ReadOptions()
