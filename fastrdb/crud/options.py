"""What a read can be told besides its filters: fields of one frozen object, so that none takes a column's name away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """How to read; pass it as ``options=``."""

    @property
    def shape(self) -> object | None:
        """What the statement depends on, and so the key: ``None`` for the defaults. JSON can say it."""
        return None


PLAIN: Final = ReadOptions()
