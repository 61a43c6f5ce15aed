"""What is kept beside the lists: values that are made of all rows that match, such as their number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from ..cache.reads import Decode, Load
from ..errors import OutOfRange
from ..keys import suffix
from .arguments import Asked, Sources
from .core import NO_TABLES, C, M, R, U
from .reading import Reading

T = TypeVar("T")
_LARGEST_LIMIT = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Beside:
    """One value beside the lists.

    Attributes:
        name: The last word of its key, below the list template's directory.
        shape: What else the key must say of it, as JSON can.
        tables: Names of the other tables that it reads besides those of the filters.
        uncacheable: Why it may not be cached, if so.
        life_ms: Its life, where that alone bounds its age; ``None``: it ages with the lists.
    """

    name: bytes
    shape: object = None
    tables: frozenset[str] = NO_TABLES
    uncacheable: str | None = None
    life_ms: int | None = None


class Besides(Reading[M, C, U, R]):
    """Reads what is kept beside the lists."""

    async def _beside(self, sources: Sources, asked: Asked, beside: Beside, load: Load[T], decode: Decode[T]) -> T:
        """Answer from the cache if all fields of the list template are given; else load."""
        keys = sources.space.lists if sources.space is not None else None
        if sources.cache is None or keys is None:
            return (await load(False)).answer
        given = {name: value for name, value in asked.given.items() if name in keys.fields}
        reason = asked.uncacheable or beside.uncacheable
        if reason is None and len(given) < len(keys.fields):
            reason = f"{beside.name.decode()} without its list's fields"
        if reason is not None:
            sources.cache.stats.count(f"bypass: {reason}")
            return (await load(False)).answer
        extras = asked.extras(keys.counted_by, beside.shape, sources.sight)
        entry = keys.directory(given) + beside.name + (suffix(extras).encode() if extras is not None else b"")
        if beside.life_ms is not None:
            scope, listed = keys.lasting_scope(given), None
        else:
            scope, listed = keys.scope(given, self._depends(asked.tables | beside.tables, keys.prefix)), keys.listed
        return await self._read(
            sources, entry, scope, load, decode, listed=listed, life_ms=beside.life_ms, options=asked.options
        )

    def _attributes_read(self, names: Iterable[str]) -> tuple[frozenset[str], str | None]:
        """Tell which other tables these attributes read, and why their values may not be cached, if so."""
        analyses = [self._analysis(name) for name in names if name not in self._model.columns]
        reason = next((each.uncacheable for each in analyses if each.uncacheable is not None), None)
        return NO_TABLES.union(*(each.tables for each in analyses)), reason


def limited(limit: int | None) -> Mapping[str, Any]:
    """Give the parameter of a statement's LIMIT; none where there is none.

    Raises:
        OutOfRange: It is no whole number, or below 1.
    """
    if limit is None:
        return {}
    if type(limit) is not int or not 1 <= limit <= _LARGEST_LIMIT:
        raise OutOfRange("limit", limit, _LARGEST_LIMIT)
    return {"fastrdb_limit": limit}
