"""What one transaction does to all caches that were used in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from sqlalchemy import Connection

from ..cache.cache import Cache
from ..db.transactions import Transaction
from .cache_effects import CacheEffects
from .touched import Through


class Effects:
    """What one transaction on one connection does to the caches that were used in it.

    Attributes:
        reached_commit: The caches were asked to hold: a COMMIT was to be sent.
        sent: They have held, so that COMMIT was sent, as far as can be told.
        failed: It failed, maybe without an answer.
    """

    def __init__(self, transaction: Transaction) -> None:
        self.transaction = transaction
        self.caches: dict[Cache, CacheEffects] = {}
        self.reached_commit = self.sent = self.failed = False
        self._statements = -1

    def of(self, cache: Cache) -> CacheEffects:
        """Give the effects on one cache."""
        found = self.caches.get(cache)
        if found is None:
            found = self.caches[cache] = CacheEffects(cache)
        return found

    def let_run_out(self) -> None:
        """Nobody will release: the holds end by themselves, and are not renewed."""
        for effects in self.caches.values():
            effects.renews = False

    def write_through(self, cache: Cache, through: list[Through]) -> None:
        """Ask for values to be put in place, unless any statement follows on this connection before COMMIT."""
        self.of(cache).through = through
        self._statements = self.transaction.statements

    def ask(self) -> None:
        """Ask the caches to hold: COMMIT comes next."""
        for effects in self.caches.values():
            effects.ask()

    async def before_commit(self) -> None:
        """Hold. Called in the Connection's ``commit`` event.

        Raises:
            CacheUnavailable: A cache that refuses writes in this case cannot be reached; nothing is committed.
        """
        if self.reached_commit:
            return
        self.reached_commit = True
        for effects in self.caches.values():
            if self.transaction.statements != self._statements:
                effects.through.clear()
            error = await effects.hold()
            if error is not None and effects.cache.on_unreachable == "refuse":
                raise error
            if effects.renews:
                continue
            if error is not None:
                effects.keep_twice()
            # Nobody will tell when the COMMIT is done: the hold's own life has to do.
            effects.drop_aged(lasting_s=effects.cache.hold_ms / 1_000)
        self.sent = True

    def write_down(self, connection: Connection) -> None:
        """Leave in the transaction what Redis could not be told, where a cache has an outbox. Called after that."""
        watched, self.transaction.watched = self.transaction.watched, None  # nobody's rows are written here
        try:
            for effects in self.caches.values():
                effects.write_down(connection)
        except BaseException:
            self.sent = False
            raise
        finally:
            self.transaction.watched = watched

    # A session that is cancelled when it gives its connection back never tells that its transaction has ended: then
    # nobody releases, and the holds have to end by themselves.

    def fail(self) -> None:
        """Renew nothing any more if it was the COMMIT that failed."""
        if self.sent:
            self.failed = True
            self.stop_renewing()

    def committed(self) -> None:
        """Renew nothing any more, and give no aged value: the COMMIT is done; the release comes next, or never."""
        for effects in self.caches.values():
            effects.stop_renewing()
            effects.drop_aged()

    def stop_renewing(self) -> None:
        """Let all holds end by themselves, unless they are released."""
        for effects in self.caches.values():
            effects.stop_renewing()

    async def release(self, *, committed: bool, meanwhile: Callable[[], Awaitable[None]] | None = None) -> None:
        """Let go in every cache.

        Args:
            committed: The COMMIT is done.
            meanwhile: What is done while the caches answer.
        """
        self.stop_renewing()  # of all, even if this is cancelled at the first
        for effects in self.caches.values():
            await effects.let_go(committed=committed)
        try:
            if meanwhile is not None:
                await meanwhile()
        finally:
            for effects in self.caches.values():
                await effects.released()
            self._part()

    def leave(self) -> None:
        """The outcome is unknown."""
        for effects in self.caches.values():
            effects.leave()
        self._part()

    def _part(self) -> None:
        """Let the transaction go: a cycle of every write would keep the garbage collector busy."""
        if self.transaction.effects is self:
            self.transaction.effects = None

    def forget(self) -> None:
        """The transaction was rolled back before its COMMIT."""
        if not self.reached_commit:
            for effects in self.caches.values():
                effects.withdraw()
            self.caches.clear()
