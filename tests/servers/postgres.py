"""The PostgreSQL server of a test run, and a database for each test."""

import asyncio
import secrets
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress

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

USED_AGAIN = (15,)  # from this version on, emptying knows how a new database looks
# Ends whoever is connected, and leaves what CREATE DATABASE would have made of template0.
EMPTYING = """
SET client_min_messages = error;
SET lock_timeout = '5s';
DO $$
DECLARE name text;
BEGIN
    PERFORM pg_terminate_backend(pid, 5000) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    COMMENT ON SCHEMA public IS 'standard public schema';
    GRANT USAGE ON SCHEMA public TO PUBLIC;
END $$
"""
# What stands outside of schemas: grants, settings, extensions, publications ...
EMPTIED = """
SELECT datacl IS NULL AND datconnlimit = -1
    AND NOT EXISTS (SELECT FROM pg_shdepend WHERE dbid = d.oid)
    AND NOT EXISTS (SELECT FROM pg_db_role_setting WHERE setdatabase = d.oid)
    AND NOT EXISTS (SELECT FROM pg_prepared_xacts WHERE database = datname)
    AND NOT EXISTS (SELECT FROM pg_replication_slots WHERE database = datname)
    AND NOT EXISTS (SELECT FROM pg_extension WHERE oid >= 16384)
    AND NOT EXISTS (SELECT FROM pg_language WHERE oid >= 16384)
    AND NOT EXISTS (SELECT FROM pg_cast WHERE oid >= 16384)
    AND NOT EXISTS (SELECT FROM pg_event_trigger)
    AND NOT EXISTS (SELECT FROM pg_publication)
    AND NOT EXISTS (SELECT FROM pg_foreign_data_wrapper)
    AND NOT EXISTS (SELECT FROM pg_default_acl)
    AND NOT EXISTS (SELECT FROM pg_largeobject_metadata)
FROM pg_database d WHERE datname = current_database()
"""


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
        self._spares: list[Future[str]] = []
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

    def ask(self, *statements: str, database: str | None = None) -> object:
        """The first value that the last of *statements* returns, in a session and an event loop of its own."""
        url = self._url if database is None else self._url.set(database=database)

        async def work() -> object:
            connection = await asyncpg.connect(url.render_as_string(hide_password=False), timeout=10)
            try:
                for statement in statements[:-1]:
                    await connection.execute(statement)
                return await connection.fetchval(statements[-1])
            finally:
                await connection.close()

        # A thread, because a fixture may be asked for while the test's loop runs.
        with ThreadPoolExecutor(1) as thread:
            return thread.submit(asyncio.run, work()).result()

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of an empty database of a new name, gone afterwards whoever is still connected.

        To make and to drop one takes longer than most tests: there are two, and while a test has the one, the other
        is emptied and given a new name. One that cannot be emptied is dropped.
        """
        name = self._spares.pop(0).result() if self._spares else self._create()
        if not self._spares:
            self._spares.append(self._worker.submit(self._create))
        try:
            yield self.database_url(name)
        finally:
            self._spares.append(self._worker.submit(self._renew, name))

    def _create(self) -> str:
        name = new_name()
        self.ask(f"CREATE DATABASE {name} TEMPLATE template0")
        return name

    def _renew(self, name: str) -> str:
        """The name of an empty database; there is none of the old name."""
        with suppress(asyncpg.PostgresError):
            if self._reuses and self.ask(EMPTYING, EMPTIED, database=name):
                renamed = new_name()
                self.ask(f"ALTER DATABASE {name} RENAME TO {renamed}")
                return renamed
        self._drop(name)
        return self._create()

    @property
    def _reuses(self) -> bool:
        return self.process is not None and tuple(map(int, self.version.split("."))) >= USED_AGAIN

    def _drop(self, name: str) -> None:
        self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    def stop(self) -> None:
        """End the server and remove its data; a given server is left alone, without our databases."""
        names = [spare.result() for spare in self._spares]
        self._worker.shutdown()
        if self.process is not None:
            self.process.remove()
        else:
            for name in names:
                self._drop(name)


def new_name() -> str:
    """A name that no database had: who is late finds none, instead of another test's."""
    return f"test_{secrets.token_hex(6)}"


def command(program: Program, process: Process, settings: Mapping[str, str] | None = None) -> list[str]:
    """The command line of a server that may lose everything, with further settings."""
    given = [f"--{name}={value}" for name, value in {**SETTINGS, **(settings or {})}.items()]
    return [*program.argv, "-D", str(process.folder / "data"), "-p", str(process.port), *given]


def ready(process: Process) -> None:
    """Raise OSError until the server writes into its own data folder that it accepts connections."""
    lines = (process.folder / "data" / "postmaster.pid").read_text().splitlines()
    if len(lines) < 8 or lines[7].strip() != "ready" or int(lines[0]) != process.pid:
        raise OSError("starting up")
