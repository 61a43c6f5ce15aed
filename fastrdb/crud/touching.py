"""What a write tells the cache: what it must drop, and what it may keep instead."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import Connection

from ..cache.cache import Cache
from ..db.sessions import Place, place_of
from ..writes.touched import Through
from .arguments import Sources
from .core import C, M, R, U
from .keyspace import key_of_row
from .savepoint import savepoint
from .statements import Change
from .versions import Versions
from .writing import Writer, Written, is_ours


class Touching(Versions[M, C, U, R]):
    """How the writes of this crud are tied to the cache."""

    def _writer(self, sources: Sources, commit: bool | None) -> Writer:
        commits = self._commit if commit is None else commit
        return Writer(
            sources.place, sources.cache, self._model.table, self._model.mapper, commits, self._touches, self._hooks
        )

    def _all_or_none(
        self, connection: Connection, sources: Sources, commit: bool | None
    ) -> AbstractContextManager[object]:
        """Undo all statements of the block if anything fails in it, and nothing that came before.

        A transaction of ours is rolled back whole, and where each statement commits by itself, there is nothing to
        undo. Of any other the caller may go on after the error, and commit.
        """
        commits = self._commit if commit is None else commit
        ours = is_ours(sources.db, sources.place, commits)
        return nullcontext() if ours or place_of(connection, sources.place).autocommit else savepoint(connection)

    def _written(
        self,
        sources: Sources,
        images: list[dict[str, Any]],
        answer: Callable[[], R] | None,
    ) -> Written:
        """Name what the cache must drop, and what it may keep instead."""
        _, place, cache, space, sight = sources
        if cache is None or space is None:
            return Written()
        written = Written(list(images), set(self._touches), space.dropped(map(self._by_attribute, images)))
        # The plain entry is read by those who see everything; what this caller sees lies elsewhere.
        plain = self._plain and sight is None and not self._layout.depends_on
        if answer is not None and plain and not self._triggers:
            written.through = self._through(cache, place, self._by_attribute(images[0]), answer)
        return written

    def _reaching(
        self, sources: Sources, change: Change, images: list[dict[str, Any]], answer: Callable[[], R] | None
    ) -> Written:
        """Name what the cache must drop for a change of one row, other tables that it reaches included."""
        written = self._written(sources, images, answer)
        written.tables |= change.reached
        return written

    def _through(self, cache: Cache, place: Place, row: Mapping[str, Any], answer: Callable[[], R]) -> list[Through]:
        def dump() -> bytes | None:
            return self._responses.dump(answer())

        found = []
        for keys in self._space(cache).rows:
            entry = key_of_row(keys.bound, row)
            # NULL is equal to nothing, so that several rows may have it under a unique key.
            if keys.unique and entry is not None and all(row[name] is not None for name in keys.fields):
                scope, life = keys.scope(row), self._layout.life_ms(entry)
                stamps = scope.stamps(place.identity)
                found.append(Through(entry, scope.value_tokens, keys.listed, stamps, dump, life))
        return found

    def _by_attribute(self, image: Mapping[str, Any]) -> dict[str, Any]:
        names = self._model.attribute_of
        return {names[column]: value for column, value in image.items() if column in names}
