"""Runs one write statement by statement, and ties it to the transaction it is in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session
from sqlalchemy.util import await_only

from ..cache.cache import Cache
from ..db.sessions import Place, SessionFactory, joins, place_of
from ..errors import Conflict, FastRDBError, MultipleFound, NotFound, ReplicaRefused, SessionRefused
from ..writes.announcements import note
from ..writes.effects import Effects
from ..writes.outcome import did_not_commit, finish
from ..writes.reach import reached_by_any_write
from ..writes.touched import Through
from ..writes.transaction import commit, effects_on, follow
from ..writes.turns import end_turn, take_turn
from .committed import Change, Hooks
from .execution import connect, run_sync
from .integrity import read_only, translated

T = TypeVar("T")


@dataclass(slots=True)
class Written:
    """What a write did: its rows before and after by column names, and what else it reaches.

    Attributes:
        images: Row images.
        tables: Other tables whose rows it may have changed.
        directories: Tokens of the directories that the crud declared.
        everything: The rows cannot be named.
        through: Values to put in place, if nothing else happens before COMMIT.
        change: What hooks are told; ``None``: that something was written.
        nothing: Nothing was written.
    """

    images: list[Mapping[str, Any]] = field(default_factory=list)
    tables: set[Table] = field(default_factory=set)
    directories: set[bytes] = field(default_factory=set)
    everything: bool = False
    through: list[Through] = field(default_factory=list)
    change: Change | None = None
    nothing: bool = False


class Done(NamedTuple, Generic[T]):
    """The statements of a write are done.

    Attributes:
        answer: Makes what the caller gets; called before COMMIT, while the cache is asked to hold.
        written: What the cache must know.
    """

    answer: Callable[[], T]
    written: Written


Statements: TypeAlias = Callable[[Connection, Session], Done[T]]


@dataclass(slots=True)
class Writer:
    """Whose transaction a write is in, and which cache must know.

    Attributes:
        table: The table written to.
        commits: The crud, or the call, wants a commit where the transaction is ours.
        touches: Other tables that triggers of this one change.
        hooks: What is told of the write after its COMMIT.
    """

    place: Place
    cache: Cache | None
    table: Table
    mapper: Any
    commits: bool
    touches: tuple[Table, ...]
    hooks: Hooks

    async def run(
        self,
        db: AsyncSession | SessionFactory,
        statements: Statements[T],
    ) -> T:
        """Run the statements of a write and, where the transaction is ours, commit.

        Raises:
            SessionRefused: ``commit=False`` with a factory, whose session nobody could commit.
            IntegrityViolation: A constraint refused it; nothing is written, and a transaction of ours is rolled back.
        """
        if not self.commits and not isinstance(db, AsyncSession):
            raise SessionRefused("db: commit=False with a factory would lose the write; pass a session that you commit")
        if isinstance(db, AsyncSession):
            return await self._run(db, statements, close=False)
        session = db()
        try:
            return await self._run(session, statements, close=True)
        except BaseException:
            await finish(session.close())
            raise

    async def _run(
        self,
        session: AsyncSession,
        statements: Statements[T],
        *,
        close: bool,
    ) -> T:
        turn = take_turn(session.sync_session)
        try:
            return await self._run_alone(session, statements, close)
        finally:
            end_turn(session.sync_session, turn)

    async def _run_alone(self, session: AsyncSession, statements: Statements[T], close: bool) -> T:
        ours = is_ours(session, self.place, self.commits)
        alone = ours and not session.in_transaction()
        try:
            done: tuple[T, Effects | None] = await run_sync(
                session, self.place, self._statements, statements, ours, alone
            )
        except BaseException:
            if ours:
                await finish(session.rollback())
            raise
        if ours:
            await self._commit(session, done[1], close)
        elif close:
            await finish(session.commit())  # on a Connection: of the savepoint that such a session may have made
            await finish(session.close())
        return done[0]

    async def _commit(self, session: AsyncSession, effects: Effects | None, close: bool) -> None:
        try:
            await commit(session, effects, close=close, tells=bool(self.hooks))
        except IntegrityError as error:  # a deferred constraint
            await finish(session.rollback())
            raise translated(error) or error from error.orig
        except BaseException:
            await finish(session.rollback())
            raise

    def _statements(
        self,
        session: Session,
        statements: Statements[T],
        ours: bool,
        alone: bool,
    ) -> tuple[T, Effects | None]:
        connection = connect(session, self.mapper)
        if self.cache is None and not self.hooks:
            return self._translated(statements, connection, session).answer(), None
        place = place_of(connection, self.place)
        if place.autocommit:
            return self._autocommit(statements, connection, session, place), None
        effects = effects_on(connection, place.transactions)
        fresh, before = not effects.caches, effects.transaction.writes
        effects.transaction.named = self.cache
        try:
            answer, written = self._translated(statements, connection, session)
        except BaseException as error:
            if not ours and _may_stay(error, effects.transaction.writes - before):
                self._note(session, Written())
                self._record(effects, Written(everything=True, tables=self._reached()))
                self._tie(session, effects, ours)
            raise
        finally:
            effects.transaction.named = None
        self._note(session, written)
        if not written.nothing:
            self._record(effects, written)
        if self.cache is not None and alone and fresh and not written.nothing and place is self.place:
            effects.write_through(self.cache, written.through)
            effects.ask()
        self._tie(session, effects, ours)
        return answer(), effects

    def _tie(self, session: Session, effects: Effects, ours: bool) -> None:
        """See to the end of a transaction that is not ours."""
        if self.place.bound:
            effects.let_run_out()
        elif not ours:
            follow(session, effects)

    def _note(self, session: Session, written: Written) -> None:
        """Remember what hooks are told after COMMIT; of a connection's transaction nobody knows when that is."""
        if self._is_told(written):
            note(session, self.hooks, written.change or Change(None, None))

    def _is_told(self, written: Written) -> bool:
        return bool(self.hooks) and not written.nothing and not self.place.bound

    def _reached(self) -> set[Table]:
        return reached_by_any_write(self.table) | {*self.touches}

    def _record(self, effects: Effects, written: Written) -> None:
        if self.cache is None:
            return
        touched = effects.of(self.cache).touch()
        touched.directories |= written.directories
        write = touched.table(self.table)
        write.images += written.images
        write.everything |= written.everything
        for table in written.tables:
            touched.table(table).everything = True

    def _autocommit(
        self,
        statements: Statements[T],
        connection: Connection,
        session: Session,
        place: Place,
    ) -> T:
        """Hold all of the table, and what it may reach, before a statement that commits by itself; let go after it."""
        effects = Effects(place.transactions.take_up(connection))
        self._record(effects, Written(everything=True, tables=self._reached()))
        try:
            await_only(effects.before_commit())
            answer, written = self._translated(statements, connection, session)
        except BaseException as error:
            if isinstance(error, FastRDBError) or did_not_commit(error):
                await_only(effects.release(committed=True))  # no statement is under way; earlier ones are committed
            else:
                effects.leave()
            raise
        await_only(effects.release(committed=True))
        if written.directories:  # known only from the rows
            after = Effects(place.transactions.take_up(connection))
            self._record(after, Written(directories=written.directories))
            await_only(after.before_commit())
            await_only(after.release(committed=True))
        if self._is_told(written):
            end_turn(session)  # a hook may write in it
            await_only(finish(self.hooks.announce([written.change or Change(None, None)])))
        return answer()

    def _translated(
        self,
        statements: Statements[T],
        connection: Connection,
        session: Session,
    ) -> Done[T]:
        try:
            return statements(connection, session)
        except DBAPIError as error:
            violation = translated(error)
            if violation is not None:
                raise violation from error.orig
            if (refusal := read_only(error)) is not None:
                raise refusal from error
            raise


def is_ours(db: AsyncSession | SessionFactory, place: Place, commits: bool) -> bool:
    """Tell whether a write's transaction is committed, or rolled back, by the write, and not by its caller."""
    return commits and not place.bound and not (isinstance(db, AsyncSession) and joins(db))


def _may_stay(error: BaseException, writes: int) -> bool:
    """Tell whether a caller who goes on after the error, and commits, may commit something of the failed write."""
    if isinstance(error, (Conflict, NotFound, MultipleFound, ReplicaRefused)):
        return False  # which are raised before anything is changed
    return writes > isinstance(error, DBAPIError)  # the statement that the database refused has changed nothing
