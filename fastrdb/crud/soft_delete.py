"""Rows that are deleted by being marked so: restore, purge."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection
from sqlalchemy.orm import Session

from ..errors import ConfigurationError
from .arguments import UNSET, Asked, Filters, MaybeDatabase, MaybeRedis, Sources
from .changes import Changes
from .core import C, M, R, U
from .options import ReadOptions
from .writing import Done


class SoftDelete(Changes[M, C, U, R]):
    """What ``delete`` of a model that is deleted softly leaves to do."""

    async def restore(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        commit: bool | None = None,
        **key: Any,
    ) -> R:
        """Take back the deletion of the one deleted row that matches, and give it.

        Arguments as in ``delete``.

        Raises:
            NotFound: No deleted row matches.
            MultipleFound: Several do; nothing is changed.
            Conflict: The row has another version than the filters say.
            EmptyInput: No filter was given.
            UniqueViolation: Another row has its unique key by now.
            ConfigurationError: The model is not deleted softly.
        """
        self._require_deletion("restore")
        asked = self._criterion(key, filters, where, options=ReadOptions(only_deleted=True))
        return await self._write_one(db, redis, commit, asked, self._unmark)

    async def purge(
        self,
        db: MaybeDatabase = None,
        redis: MaybeRedis = UNSET,
        *,
        where: ColumnElement[bool] | None = None,
        filters: Filters = None,
        commit: bool | None = None,
        **key: Any,
    ) -> None:
        """Delete the one row that matches, marked deleted or not, for good. Arguments as in ``delete``.

        Raises:
            NotFound: No row matches.
            MultipleFound: Several do; nothing is deleted.
            Conflict: The row has another version than the filters say.
            EmptyInput: No filter was given.
            ForeignKeyViolation: Another row refers to it.
            ConfigurationError: The model is not deleted softly: ``delete`` is for good.
        """
        self._require_deletion("purge")
        asked = self._criterion(key, filters, where, options=ReadOptions(include_deleted=True))
        await self._write_one(db, redis, commit, asked, self._delete)

    def _unmark(self, connection: Connection, session: Session, sources: Sources, asked: Asked) -> Done[R]:
        """Take back the mark that the row is deleted."""
        return self._update(connection, session, sources, asked, {}, "unmarks")

    def _require_deletion(self, method: str) -> None:
        if self._policies.deletion is None:
            raise ConfigurationError(
                f"{method}: {self._model.name} is not deleted softly; build the crud with soft_delete=, or use delete"
            )
