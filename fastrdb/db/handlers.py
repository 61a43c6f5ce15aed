"""The dependencies ``get_db``, ``get_read_session`` and ``get_write_session``, and where their sessions come from."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from weakref import WeakKeyDictionary

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from ..errors import DatabaseDependencyError, SessionRefused
from . import defaults
from .blocks import one_session
from .dependencies import Dependency
from .manager import DatabaseManager
from .read_only import read_only_sessionmaker

Sessions = async_sessionmaker[AsyncSession]


class DatabaseDependencies:
    """Dependencies on the sessions of one database, each for ``Depends`` and for ``async with``.

    Args:
        source: A ``DatabaseManager`` or an ``async_sessionmaker``; the process-wide default if it is left out.
        read_source: Where read-only sessions come from, such as a factory bound to a replica; *source* if left out.

    Attributes:
        get_db: A session, committed at the end, rolled back after an exception.
        get_write_session: The same; where sessions are routed, all of it goes to the primary.
        get_read_session: A session that the database lets only read.

    Raises:
        SessionRefused: A source is neither.
    """

    def __init__(
        self, source: DatabaseManager | Sessions | None = None, read_source: DatabaseManager | Sessions | None = None
    ) -> None:
        self._sessions = _factory_of(source)
        self._readers = _factory_of(read_source) if read_source is not None else self._sessions
        self._limited: WeakKeyDictionary[Sessions, Sessions] = WeakKeyDictionary()
        self.get_db = self.dependency()
        self.get_write_session = _dependency(self.factory, to_primary=True)
        self.get_read_session = self.dependency(read_only=True)

    def dependency(
        self, auto_commit: bool = True, auto_rollback: bool = True, read_only: bool = False
    ) -> Dependency[AsyncSession]:
        """Give a further dependency. Arguments as ``create_custom_session_dependency`` has them."""
        choose = self.read_only_factory if read_only else self.factory
        return _dependency(choose, auto_commit and not read_only, auto_rollback)

    def factory(self) -> Sessions:
        """Give what makes the sessions now.

        Raises:
            NotStarted: The manager was not started.
            SettingRefused: There is no default database.
        """
        return self._sessions()

    def read_only_factory(self) -> Sessions:
        """Give what makes the sessions that can only read. Raises as ``factory`` does."""
        factory = self._readers()
        limited = self._limited.get(factory)
        if limited is None:
            limited = self._limited[factory] = read_only_sessionmaker(factory)
        return limited


def configure_database_dependencies(
    source: DatabaseManager | Sessions, read_source: DatabaseManager | Sessions | None = None
) -> DatabaseDependencies:
    """Set where the sessions of ``get_db`` and its like come from, in this process, until ``defaults.reset()``.

    Arguments and errors as in ``DatabaseDependencies``.
    """
    found = DatabaseDependencies(source, read_source)
    defaults.set_dependencies(found)
    return found


def get_database_dependencies() -> DatabaseDependencies:
    """Give what was configured last, else the dependencies on the process-wide default database.

    Raises:
        DatabaseDependencyError: Nothing was configured, and there is no default. It is a RuntimeError, too.
    """
    found = defaults.dependencies()
    if isinstance(found, DatabaseDependencies):
        return found
    if not defaults.database_is_set():
        raise DatabaseDependencyError(
            "no database: call configure_database_dependencies(…) or configure(url=…), start a DatabaseManager, "
            "or set DATABASE_URL"
        )
    return _OF_DEFAULTS


def create_custom_session_dependency(
    auto_commit: bool = True, auto_rollback: bool = True, read_only: bool = False
) -> Dependency[AsyncSession]:
    """Give a dependency on sessions of what is configured when it is used.

    Args:
        auto_commit: Commit at the end. Without, what the handler has not committed itself is undone.
        auto_rollback: Roll back as soon as the handler raises. Without, closing the session does it.
        read_only: The database refuses writes; nothing is committed.
    """
    choose = _current_readers if read_only else _current_factory
    return _dependency(choose, auto_commit and not read_only, auto_rollback)


def _dependency(
    choose: Callable[[], Sessions], auto_commit: bool = True, auto_rollback: bool = True, to_primary: bool = False
) -> Dependency[AsyncSession]:
    return Dependency(partial(one_session, choose, auto_commit, auto_rollback, to_primary))


def _current_factory() -> Sessions:
    return get_database_dependencies().factory()


def _current_readers() -> Sessions:
    return get_database_dependencies().read_only_factory()


def _factory_of(source: DatabaseManager | Sessions | None) -> Callable[[], Sessions]:
    if source is None:
        return defaults.sessionmaker
    if isinstance(source, DatabaseManager):
        return lambda: source.sessionmaker
    if isinstance(source, async_sessionmaker):
        return lambda: source
    raise SessionRefused(f"source: {type(source).__name__}; pass a DatabaseManager or an async_sessionmaker")


_OF_DEFAULTS = DatabaseDependencies()
get_db = _dependency(_current_factory)
get_read_session = _dependency(_current_readers, auto_commit=False)
get_write_session = _dependency(_current_factory, to_primary=True)
