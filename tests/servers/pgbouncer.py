"""A PgBouncer in front of the test run's PostgreSQL: transaction pooling, as hosted databases offer it."""

from sqlalchemy import make_url

from tests.servers import programs
from tests.servers.postgres import PostgresServer
from tests.servers.process import HOST, Process
from tests.servers.programs import Program

ACCOUNT = "nobody"  # PgBouncer refuses to run as root
SETTINGS = {
    "auth_type": "any",  # whoever asks is let in, as the user of [databases]
    "pool_mode": "transaction",
    "max_client_conn": "500",
    "default_pool_size": "20",
    "listen_addr": HOST,
    "unix_socket_dir": "",
    "ignore_startup_parameters": "extra_float_digits",
}
KNOWS_PREPARED = (1, 21)  # before, no prepared statement outlived its transaction; that is how it stays here


class PgBouncerServer:
    """A private PgBouncer; it has no databases of its own, but those of *upstream*.

    Attributes:
        version: As its program says.
        source: Where its program comes from.
    """

    flavour = "pgbouncer"

    def __init__(self, program: Program, upstream: PostgresServer) -> None:
        self.source, self._upstream, self._program = program.source, upstream, program
        _, version = program.version()
        self.version = ".".join(map(str, version))
        self.process = Process("pgbouncer", self._command, ready, account=ACCOUNT)
        (self.process.folder / "pgbouncer.ini").write_text(self._settings(version))
        self.process.start()

    def __repr__(self) -> str:
        return f"<pgbouncer {self.version} ({self.source}) {self.url}>"

    @classmethod
    def start(cls, upstream: PostgresServer) -> "PgBouncerServer":
        """Start one on a free port, in front of *upstream*."""
        return cls(programs.pgbouncer(), upstream)

    @property
    def url(self) -> str:
        """The maintenance database of the server behind it, through it."""
        return self.through(self._upstream.url)

    @property
    def pid(self) -> int:
        """PgBouncer's process."""
        return self.process.pid

    def through(self, url: str) -> str:
        """The URL by which the database of *url*, of the server behind it, is reached through PgBouncer."""
        return make_url(url).set(host=HOST, port=self.process.port).render_as_string(hide_password=False)

    def stop(self) -> None:
        """End the process and remove its folder."""
        self.process.remove()

    def _command(self, process: Process) -> list[str]:
        return [*self._program.argv, str(process.folder / "pgbouncer.ini")]

    def _settings(self, version: tuple[int, ...]) -> str:
        behind = make_url(self._upstream.url)
        place = {"host": behind.host, "port": behind.port or 5432, "user": behind.username, "password": behind.password}
        settings = SETTINGS | {"listen_port": str(self.process.port)}
        if version >= KNOWS_PREPARED:
            settings["max_prepared_statements"] = "0"
        target = " ".join(f"{key}={value}" for key, value in place.items() if value is not None)
        lines = [f"{name} = {value}" for name, value in settings.items()]
        return "\n".join(["[databases]", f"* = {target}", "[pgbouncer]", *lines, ""])


def ready(process: Process) -> None:
    """Raise OSError until PgBouncer says in its log that it listens; it ends where it cannot."""
    if "process up" not in (process.folder / "log").read_text(errors="replace"):
        raise OSError("starting up")
