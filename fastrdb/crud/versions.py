"""Rows that count their versions: which one the caller saw, and what it means that none matches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, select

from ..errors import Conflict, EmptyInput, KeyMismatch, NotFound, ValueRefused
from .arguments import Asked
from .core import C, M, R, U
from .reading import Reading


class Versions(Reading[M, C, U, R]):
    """What the writes of one row ask about versions."""

    def _seen_version(self, key: Mapping[str, Any], values: dict[str, Any]) -> dict[str, Any]:
        """Take the version that the caller saw out of the values of an update, and give it as a filter."""
        version = self._model.version
        if version is None or version not in values:
            return {}
        seen = values.pop(version)
        if seen is None:
            raise ValueRefused(version, "the version that you saw (leave it out to overwrite any)", seen)
        if version in key and self._model.values[version].coerce(key[version]) != seen:
            raise KeyMismatch(version, key[version], seen)
        if not values:
            raise EmptyInput("obj_in", "set at least one field of the update schema besides the version")
        return {version: seen}

    def _missing(self, connection: Connection, asked: Asked) -> NotFound | Conflict:
        """Tell a row that is not there from one that has another version than the caller saw."""
        version, given = self._model.version, dict(asked.given)
        seen = asked.filter.plain.get(version) if version is not None else None
        if version is not None and seen is not None and version in given:
            rest = {name: value for name, value in given.items() if name not in (version, "filters")}
            others = self._asked(rest, given.get("filters"), asked.where, asked.options)
            statement = self._conditioned(select(self._model.columns[version]), others).limit(2)
            found = connection.execute(statement, others.params).scalars().all()
            if len(found) == 1:  # with the version seen, it is from a snapshot older than the one that the write met
                return Conflict(self._model.name, rest, seen, found[0] if found[0] != seen else None)
        return NotFound(self._model.name, asked.criterion, "deleted" if asked.options.only_deleted else "")
