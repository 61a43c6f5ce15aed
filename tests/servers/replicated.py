"""A PostgreSQL server and its streaming replica, whose replay can be paused."""

import signal
import time

from tests.servers import programs
from tests.servers.postgres import ACCOUNT, PostgresServer, command, ready
from tests.servers.process import HOST, Process

CAUGHT_UP_S = 30.0
# The log keeps what a replica that is paused or down has not got yet.
SETTINGS = {"synchronous_commit": "on", "wal_keep_size": "256MB"}


class ReplicatedPostgres:
    """Two servers of this run: a primary, and a replica that follows it.

    Attributes:
        primary: What writes.
        replica: Shows the primary's databases, as far as it has replayed them.
        url: A database of the primary, for SQLAlchemy; what a test leaves in it, the next one finds.
    """

    flavour = "replicated"

    def __init__(self, primary: PostgresServer, replica: PostgresServer, process: Process) -> None:
        self.primary, self.replica, self._process = primary, replica, process
        self.version, self.source = primary.version, primary.source
        # One for all tests: to make one, and to drop it, is much for a replica to replay.
        primary.ask("CREATE DATABASE shared TEMPLATE template0")
        self.url = primary.database_url("shared")

    @classmethod
    def start(cls) -> "ReplicatedPostgres":
        """Start a private primary, copy it, and start the copy as its replica."""
        primary = PostgresServer.start(programs.postgres(), **SETTINGS)
        return cls(primary, *copy_of(primary))

    def __repr__(self) -> str:
        return f"<{self.primary!r} with {self.replica!r}>"

    @property
    def url_of_replica(self) -> str:
        """The same database, as the replica shows it."""
        return self.replica.database_url("shared")

    def promoted_copy(self) -> PostgresServer:
        """A further replica that has become a primary of its own, as after a failover; the caller stops it."""
        server, _ = copy_of(self.primary)
        server.ask("SELECT pg_promote()")
        return server

    def pause(self) -> None:
        """Let the replica replay nothing more; it goes on receiving."""
        self.replica.ask("SELECT pg_wal_replay_pause()")
        self._wait("SELECT pg_get_wal_replay_pause_state() = 'paused'")

    def resume(self) -> None:
        """Let the replica replay again."""
        self.replica.ask("SELECT pg_wal_replay_resume()")

    def catch_up(self) -> None:
        """Wait until the replica shows all that was committed."""
        # What a reader's vacuuming of a page wrote is flushed with the next COMMIT only.
        self.primary.ask("SELECT pg_logical_emit_message(true, 'fastrdb', '')")
        written = self.primary.ask("SELECT pg_current_wal_flush_lsn()::text")
        self._wait(f"SELECT pg_last_wal_replay_lsn() >= '{written}'")

    def stop_replica(self) -> None:
        """End the replica; its data stay."""
        self._process.end(signal.SIGINT)  # in order, so that it need not replay all of its log when it starts

    def restore(self) -> None:
        """Bring the replica up, if it is down, let it replay, and wait until it has."""
        if not self._process.alive:
            self._process.start()
        self.resume()
        self.catch_up()

    def stop(self) -> None:
        """End both and remove their data."""
        self.replica.stop()
        self.primary.stop()

    def _wait(self, question: str) -> None:
        deadline = time.monotonic() + CAUGHT_UP_S
        while not self.replica.ask(question):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{self!r}: not within {CAUGHT_UP_S:g} s: {question}")
            time.sleep(0.01)


def copy_of(primary: PostgresServer) -> tuple[PostgresServer, Process]:
    """Copy a running server of this run, and start the copy as its replica."""
    program, source = programs.postgres(), primary.process
    assert source is not None
    process = Process(
        "replica",
        lambda process: command(program, process, SETTINGS),
        ready,
        account=ACCOUNT,
        deadly=signal.SIGQUIT,
    )
    copied = ("--pgdata", str(process.folder / "data"), "--write-recovery-conf", "--checkpoint=fast", "--no-sync")
    # Not on the path where distributions put the server itself: beside the file that a link there leads to.
    copier = program.path.resolve().with_name("pg_basebackup")
    process.run(str(copier), *copied, "--host", HOST, "--port", str(source.port), "--username", "postgres")
    process.start()
    return PostgresServer(f"postgresql://postgres@{HOST}:{process.port}/postgres", program.source, process), process
