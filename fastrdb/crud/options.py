"""What a read can be told besides its filters: fields of one frozen object, so that none takes a column's name away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import InputError


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read; pass it as ``options=``.

    Attributes:
        include_deleted: Of a model that is deleted softly, show deleted rows, too.
        only_deleted: Show deleted rows alone.

    Raises:
        InputError: Options that contradict each other.
    """

    include_deleted: bool = False
    only_deleted: bool = False

    def __post_init__(self) -> None:
        if self.include_deleted and self.only_deleted:
            raise InputError("options: include_deleted and only_deleted are two answers to one question; take one")

    @property
    def shape(self) -> object | None:
        """What the statement depends on, and so the key: ``None`` for the defaults. JSON can say it."""
        if self.include_deleted or self.only_deleted:
            return {"deleted": "only" if self.only_deleted else "included"}
        return None


PLAIN: Final = ReadOptions()
