"""The caller's own instances, of rows that a write has changed behind their back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Row
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import instance_state, set_committed_value

from .core import C, M, R, U
from .statements import Change
from .touching import Touching


class Instances(Touching[M, C, U, R]):
    """What the writes of one row do to the session that they run in."""

    def _refresh(self, session: Session, image: Mapping[str, Any], row: Row[Any], change: Change) -> None:
        """Give the session's own instance of the row, if it has one, the values that were written."""
        instance = self._instance(session, image)
        if instance is None:
            return
        alters(session, instance)
        known = dict(zip(self._responses.columns, row, strict=False)) if self._plain else {}
        known |= self._by_attribute(change.returned.image(row))
        pending = instance_state(instance).committed_state  # changed by the caller, and not flushed yet
        for name, value in known.items():
            column = self._model.columns.get(name)
            if column is not None and (column.name in change.assigned or name not in pending):
                set_committed_value(instance, name, value)
        unknown = [n for n, c in self._model.columns.items() if c.name in change.assigned and n not in known]
        if unknown:
            session.expire(instance, unknown)

    def _forget(self, session: Session, image: Mapping[str, Any]) -> None:
        instance = self._instance(session, image)
        if instance is not None:
            lets_go(session, instance)

    def _instance(self, session: Session, image: Mapping[str, Any]) -> Any:
        if not session.identity_map:
            return None
        key = tuple(image[column.name] for column in self._model.mapper.primary_key)
        return session.identity_map.get(self._model.mapper.identity_key_from_primary_key(key))


# A rollback to a savepoint brings the row back as it was, and the instance with it, if the session knows of the change.
# There is no public way to tell it; these are what its own UPDATE and DELETE statements call.


def alters(session: Session, instance: Any) -> None:
    """Tell the session that the row of an instance is changed."""
    session._register_altered([instance_state(instance)])


def lets_go(session: Session, instance: Any) -> None:
    """Take an instance out of its session: its row is deleted."""
    session._remove_newly_deleted([instance_state(instance)])
