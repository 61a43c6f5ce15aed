"""What the methods of Crud are given: a database, a cache, filters; as given, and as understood."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple, TypeAlias

from redis.asyncio import Redis, RedisCluster
from sqlalchemy import ColumnElement
from sqlalchemy.ext.asyncio import AsyncSession

from ..cache.cache import Cache
from ..db.sessions import Database, Place, SessionFactory
from ..errors import InputError
from ..filters import Filter
from .keyspace import Keyspace
from .options import ReadOptions
from .sight import Sight


class Unset(Enum):
    """The type of ``UNSET``, which stands for an argument that was not given; ``None`` is a value."""

    UNSET = "UNSET"

    def __repr__(self) -> str:
        return "UNSET"


UNSET: Final = Unset.UNSET
MaybeRedis: TypeAlias = "Redis | RedisCluster | Cache | Unset | None"
MaybeDatabase: TypeAlias = "Database | None"
Filters: TypeAlias = "Mapping[str, Any] | Sequence[Mapping[str, Any]] | None"


def check_missing(missing: object, choices: Sequence[str]) -> None:
    """Refuse a ``missing=`` that means nothing.

    Raises:
        InputError: It is none of *choices*.
    """
    if missing not in choices:
        raise InputError(f"missing: {missing!r}; pass one of {', '.join(map(repr, choices))}")


@dataclass(frozen=True, slots=True)
class Asked:
    """What a statement was asked for, parsed.

    Attributes:
        filter: The keyword filters.
        where: The caller's own expression.
        where_text: Its canonical text, for keys.
        tables: Names of the other tables that the filters and the expression read.
        uncacheable: Why the result may not be cached, if so.
        given: The filters as given, for errors.
        options: What else the call was told.
    """

    filter: Filter
    where: ColumnElement[bool] | None
    where_text: str | None
    tables: frozenset[str]
    uncacheable: str | None
    given: Mapping[str, Any]
    options: ReadOptions

    @property
    def shape(self) -> Hashable:
        """What the SQL depends on, but for ``where``."""
        return self.filter.shape, self.options

    @property
    def criterion(self) -> dict[str, Any]:
        """The filters as given, and the SQL of the caller's own expression, without its values; for errors."""
        return dict(self.given) if self.where is None else {**self.given, "where": str(self.where)}

    @property
    def params(self) -> dict[str, Any]:
        """The parameters of the SQL."""
        return self.filter.params

    @property
    def equal(self) -> frozenset[str]:
        """Names of the fields that must equal a value, which is not NULL."""
        return frozenset([name for name, value in self.filter.plain.items() if value is not None])

    def extras(self, besides: frozenset[str], order: object = None, sight: Sight | None = None) -> object | None:
        """Give what the key must hold besides the template's own fields; ``None`` for nothing."""
        rest, told = self.filter.canonical_without(besides), self.options.shape
        if sight is None and told is None:
            nothing = rest is None and self.where_text is None and order is None
            return None if nothing else [rest, self.where_text, order]
        return [rest, self.where_text, order, sight.extras if sight is not None else None, told]


class Sources(NamedTuple):
    """Where the answers of a call come from.

    Attributes:
        db: The session, or the factory.
        place: Where its statements go.
        cache: The cache, or ``None``.
        space: The crud's keys in that cache.
        sight: Whose eyes it reads with, where not everybody sees the same rows.
    """

    db: AsyncSession | SessionFactory
    place: Place
    cache: Cache | None
    space: Keyspace | None
    sight: Sight | None = None
