"""The PostgreSQL server of a test run, and a database for each test."""

import asyncio
import secrets
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import asyncpg
from sqlalchemy import make_url

from tests.servers import programs
from tests.servers.errors import ServerUnavailable
from tests.servers.process import HOST, Process
from tests.servers.programs import Program

ACCOUNT = "nobody"  # PostgreSQL refuses to run as root
INITDB = (
    "--username=postgres",
    "--auth=trust",
    "--encoding=UTF8",
    "--locale=C.UTF-8",
    "--no-sync",
    "--no-instructions",
)
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    # Nothing here is to survive a power failure.
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
}


class PostgresServer:
    """A PostgreSQL server: one of this run, or, without *process*, one that was given by URL.

    Attributes:
        url: ``postgresql+asyncpg://postgres@127.0.0.1:PORT/postgres``, the maintenance database.
        version: As the server says.
        source: Where its program comes from.
    """

    flavour = "postgres"

    def __init__(self, url: str, source: str, process: Process | None = None) -> None:
        self._url = make_url(url).set(drivername="postgresql")
        self.source, self.process = source, process
        self._worker = ThreadPoolExecutor(1)
        self._spare: Future[str] | None = None
        self._dropped: list[Future[None]] = []
        self.version = str(self.ask("SHOW server_version")).split()[0]

    def __repr__(self) -> str:
        return f"<postgres {self.version} ({self.source}) {self.url}>"

    @classmethod
    def start(cls, program: Program | None = None, **settings: str) -> "PostgresServer":
        """Start a private server on a free port: of *program*, or of whatever there is, with further settings."""
        program = program or programs.postgres()
        process = Process(
            "postgres",
            lambda process: command(program, process, settings),
            ready,
            account=ACCOUNT,
            deadly=signal.SIGQUIT,  # SIGKILL would leave its shared memory behind
        )
        process.run(str(program.path.with_name("initdb")), *INITDB, "--pgdata", str(process.folder / "data"))
        process.start()
        return cls(f"postgresql://postgres@{HOST}:{process.port}/postgres", program.source, process)

    @classmethod
    def given(cls, url: str) -> "PostgresServer":
        """The server of ``FASTRDB_TEST_POSTGRES_URL``, whose user may create databases."""
        try:
            return cls(url, "FASTRDB_TEST_POSTGRES_URL")
        except (OSError, asyncpg.PostgresError) as failure:
            raise ServerUnavailable(f"FASTRDB_TEST_POSTGRES_URL names a dead server: {failure}") from failure

    @property
    def url(self) -> str:
        """The maintenance database, for SQLAlchemy."""
        return self.database_url(self._url.database or "postgres")

    @property
    def pid(self) -> int:
        """The server's process."""
        if self.process is None:
            raise RuntimeError(f"{self.url} was given by URL: its process is not ours")
        return self.process.pid

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._url.port or 5432

    def database_url(self, name: str) -> str:
        """The database *name* of this server, for SQLAlchemy."""
        url = self._url.set(drivername="postgresql+asyncpg", database=name)
        return url.render_as_string(hide_password=False)

    def ask(self, statement: str) -> object:
        """The first value that *statement* returns, in a session and an event loop of its own."""

        async def work() -> object:
            connection = await asyncpg.connect(self._url.render_as_string(hide_password=False), timeout=10)
            try:
                return await connection.fetchval(statement)
            finally:
                await connection.close()

        # A thread, because a fixture may be asked for while the test's loop runs.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, work()).result()

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database, dropped afterwards whoever is still connected.

        To make one takes longer than most tests: the next one is made, and the last one dropped, while tests run.
        """
        name = self._spare.result() if self._spare is not None else self._create()
        self._spare = self._worker.submit(self._create)
        try:
            yield self.database_url(name)
        finally:
            self._dropped.append(self._worker.submit(self._drop, name))

    def _create(self) -> str:
        name = f"test_{secrets.token_hex(6)}"
        self.ask(f"CREATE DATABASE {name} TEMPLATE template0")
        return name

    def _drop(self, name: str) -> None:
        self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        """End the server and remove its data; a given server is left alone, without our databases."""
        if self._spare is not None:
            self._dropped.append(self._worker.submit(self._drop, self._spare.result()))
        for dropped in self._dropped:
            dropped.result()
        self._worker.shutdown()
        if self.process is not None:
            self.process.remove()


def command(program: Program, process: Process, settings: Mapping[str, str] | None = None) -> list[str]:
    """The command line of a server that may lose everything, with further settings."""
    given = [f"--{name}={value}" for name, value in {**SETTINGS, **(settings or {})}.items()]
    return [*program.argv, "-D", str(process.folder / "data"), "-p", str(process.port), *given]


def ready(process: Process) -> None:
    """Raise OSError until the server writes into its own data folder that it accepts connections."""
    lines = (process.folder / "data" / "postmaster.pid").read_text().splitlines()
    if len(lines) < 8 or lines[7].strip() != "ready" or int(lines[0]) != process.pid:
        raise OSError("starting up")
