"""Sessions that read from replicas until they write."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Final
from weakref import WeakKeyDictionary

from sqlalchemy import Engine, Select, TableClause, event
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker
from sqlalchemy.orm import Mapper, Session
from sqlalchemy.sql import visitors
from sqlalchemy.sql.selectable import GenerativeSelect

from ..errors import SettingRefused

ROUTING: Final = "routing"  # the argument of RoutingSession


class Routing:
    """Which engine is the primary, which are replicas, and for how long a context that wrote stays with the primary.

    Attributes:
        primary: Takes all writes.
        replicas: Take reads; may lag behind.
        read_your_writes_s: Seconds.
    """

    def __init__(self, primary: AsyncEngine, replicas: Sequence[AsyncEngine], read_your_writes_s: float) -> None:
        if not replicas:
            raise SettingRefused("replicas", "none were given: pass at least one engine, or use a plain sessionmaker")
        if read_your_writes_s < 0:
            raise SettingRefused("read_your_writes_s", f"seconds, at least 0, not {read_your_writes_s}")
        self.primary, self.replicas, self.read_your_writes_s = primary, tuple(replicas), read_your_writes_s

    def choose(self) -> AsyncEngine:
        """Give a replica for one session, which thus never sees time run backwards."""
        return random.choice(self.replicas)


class _Written:
    """When a context has last committed, by routing; tasks that it starts share it."""

    def __init__(self) -> None:
        self._until: WeakKeyDictionary[Routing, float] = WeakKeyDictionary()

    def note(self, routing: Routing) -> None:
        self._until[routing] = time.monotonic() + routing.read_your_writes_s

    def recent(self, routing: Routing) -> bool:
        until = self._until.get(routing)
        return until is not None and time.monotonic() < until


_written: ContextVar[_Written] = ContextVar("fastrdb_written")


class RoutingSession(Session):
    """A session that sends plain SELECTs of tables to a replica, and anything else to the primary.

    From the first thing that is not such a SELECT on, all of this session goes to the primary. So do the sessions of
    this context for ``read_your_writes_s`` seconds after it commits.
    """

    def __init__(self, *args: Any, routing: Routing, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._routing, self._replica, self._primary_only = routing, routing.choose(), False
        written = _written.get(None)
        if written is None:
            _written.set(written := _Written())
        self._written = written

    def use_primary(self) -> None:
        """Send all that follows to the primary."""
        self._primary_only = True

    def get_bind(
        self,
        mapper: type[Any] | Mapper[Any] | None = None,
        *,
        clause: Any = None,
        bind: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Give the engine for a statement; what is no SELECT of tables, a flush say, goes to the primary."""
        if bind is not None:
            return bind
        # Without a clause somebody asks for a connection, and may do anything with it.
        if not self._primary_only and not _reads(clause):
            self._primary_only = True
        away = not self._primary_only and not self._written.recent(self._routing)
        engine: Engine = (self._replica if away else self._routing.primary).sync_engine
        return engine

    def note_commit(self) -> None:
        """Remember in this context that there may be something that replicas lack."""
        if self._primary_only and self._routing.read_your_writes_s:
            self._written.note(self._routing)


def create_routing_sessionmaker(
    primary: AsyncEngine, replicas: Sequence[AsyncEngine], *, read_your_writes_s: float = 0.0, **kwargs: Any
) -> async_sessionmaker[AsyncSession]:
    """Give a factory of sessions that read from a replica, each from one of them, until they write.

    To the primary go: flushes, INSERT, UPDATE, DELETE, text, SELECT … FOR UPDATE, a SELECT that names no table,
    ``session.connection()``, all that follows one of these in the same session, and for *read_your_writes_s* seconds
    after its COMMIT all sessions of the same context (a request, a task and those it starts). Cruds always use the
    primary: what they cache must not be older than the last write.

    Args:
        primary: Takes the writes.
        replicas: At least one.
        read_your_writes_s: Seconds; longer than replicas usually lag.
        kwargs: As ``async_sessionmaker`` takes them.

    Raises:
        SettingRefused: There is no replica, or the seconds are negative.
    """
    routing = Routing(primary, replicas, read_your_writes_s)
    given = {"expire_on_commit": False, **kwargs, "sync_session_class": RoutingSession, ROUTING: routing}
    return async_sessionmaker(primary, **given)


@event.listens_for(RoutingSession, "after_commit")
def _on_commit(session: RoutingSession) -> None:
    session.note_commit()


def _reads(clause: Any) -> bool:
    """Tell whether a statement is a SELECT of tables that changes and locks nothing."""
    if not isinstance(clause, (Select, GenerativeSelect)):
        return False
    tables = False
    for element in visitors.iterate(clause):
        if getattr(element, "is_dml", False) or getattr(element, "_for_update_arg", None) is not None:
            return False
        tables = tables or isinstance(element, TableClause)
    return tables
