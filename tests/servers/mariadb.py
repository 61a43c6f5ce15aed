"""The MariaDB server of a test run, and a database for each test."""

import asyncio
import secrets
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import asyncmy
import asyncmy.errors
from sqlalchemy import URL, make_url

from tests.servers import programs
from tests.servers.errors import ServerUnavailable
from tests.servers.process import HOST, Process
from tests.servers.programs import Program

ACCOUNT = "nobody"  # MariaDB refuses to run as root
USER = "fastrdb"
# In this order they make the database "mysql"; newer releases call them mariadb_*.
SCRIPTS = ("system_tables", "performance_tables", "system_tables_data")
SETTINGS = {
    "bind-address": HOST,
    "character-set-server": "utf8mb4",  # else latin1
    "max-connections": "200",
    "skip-name-resolve": "ON",
    "lower-case-table-names": "0",
    # Small, and nothing here is to survive a power failure.
    "innodb-flush-log-at-trx-commit": "0",
    "innodb-flush-method": "nosync",
    "innodb-log-file-size": "16M",
    "innodb-buffer-pool-size": "64M",
    "innodb-use-native-aio": "OFF",  # containers often forbid io_uring
}


class MariaDBServer:
    """A MariaDB server: one of this run, or, without *process*, one that was given by URL.

    Attributes:
        version: As the server says, such as ``10.11.19``.
        source: Where its program comes from.
    """

    flavour = "mariadb"

    def __init__(self, url: URL, source: str, process: Process | None = None) -> None:
        self._url, self.source, self.process = url, source, process
        self.version = str(self.ask("SELECT VERSION()")).split("-")[0]

    def __repr__(self) -> str:
        return f"<mariadb {self.version} ({self.source}) {self._url!r}>"

    @classmethod
    def start(cls) -> "MariaDBServer":
        """Start a private server on a free port."""
        program = programs.mariadb()
        process = Process("mariadb", lambda process: command(program, process), ready, account=ACCOUNT)
        (process.folder / "grants.sql").write_text(grants())
        process.run("sh", "-ec", bootstrap(program, process))
        process.start()
        return cls(own_url(process), program.source, process)

    @classmethod
    def given(cls, url: str) -> "MariaDBServer":
        """The server of ``FASTRDB_TEST_MYSQL_URL``, whose user may create databases and end connections."""
        try:
            return cls(make_url(url), "FASTRDB_TEST_MYSQL_URL")
        except (OSError, asyncmy.errors.Error) as failure:
            raise ServerUnavailable(f"FASTRDB_TEST_MYSQL_URL names a dead server: {failure}") from failure

    @property
    def url(self) -> str:
        """The server without a database, for SQLAlchemy."""
        return self._url.set(drivername="mysql+asyncmy").render_as_string(hide_password=False)

    @property
    def pid(self) -> int:
        """The server's process."""
        if self.process is None:
            raise RuntimeError(f"{self._url!r} was given by URL: its process is not ours")
        return self.process.pid

    def database_url(self, name: str) -> str:
        """The database *name* of this server, for SQLAlchemy."""
        url = self._url.set(drivername="mysql+asyncmy", database=name)
        return url.render_as_string(hide_password=False)

    def ask(self, *statements: str) -> object:
        """The first value that the last of *statements* returns, in a connection and an event loop of its own."""
        return ask(self._url, *statements)

    @contextmanager
    def database(self) -> Iterator[str]:
        """The URL of a new, empty database, dropped afterwards whoever is still connected."""
        name = f"test_{secrets.token_hex(6)}"
        self.ask(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
        try:
            yield self.database_url(name)
        finally:
            self.end_connections(name)
            self.ask(f"DROP DATABASE {name}")

    def end_connections(self, database: str) -> None:
        """End whatever is connected to *database*: an open transaction would keep it from being dropped."""
        listed = "SELECT GROUP_CONCAT(id) FROM information_schema.processlist"
        for connection in str(self.ask(f"{listed} WHERE db = '{database}'") or "").split(","):
            if connection:
                self.ask(f"BEGIN NOT ATOMIC DECLARE EXIT HANDLER FOR 1094 SELECT 1; KILL HARD {connection}; END")

    def stop(self) -> None:
        """End the server and remove its data; a given server is left alone."""
        if self.process is not None:
            self.process.remove()


def own_url(process: Process) -> URL:
    """Where a private server is reached."""
    return URL.create("mysql+asyncmy", USER, host=HOST, port=process.port)


def ask(url: URL, *statements: str) -> object:
    """The first value that the last of *statements* returns.

    Raises:
        OSError: Nobody answers.
    """

    async def work() -> object:
        place = {
            "host": url.host or HOST,
            "port": url.port or 3306,
            "user": url.username,
            "password": url.password or "",
        }
        connection = await asyncmy.connect(**place, autocommit=True, connect_timeout=10)
        try:
            async with connection.cursor() as cursor:
                for statement in statements:
                    await cursor.execute(statement)
                row = await cursor.fetchone() if cursor.description else None
                return row[0] if row else None
        finally:
            await connection.ensure_closed()

    # A thread, because a fixture may be asked for while the test's loop runs.
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work()).result()


def grants() -> str:
    """What lets the tests in, and nobody from elsewhere; one statement per line, as a bootstrap wants it."""
    user = f"{USER}@'{HOST}'"
    return f"FLUSH PRIVILEGES;\nCREATE USER {user};\nGRANT ALL ON *.* TO {user} WITH GRANT OPTION;\n"


def shared_files(program: Program) -> Path:
    """The folder of the program's messages, character sets and scripts.

    Raises:
        ServerUnavailable: It is not where the program's packages have it.
    """
    for script in program.path.resolve().parents[1].glob(f"share/*/m*_{SCRIPTS[0]}.sql"):
        return script.parent
    raise ServerUnavailable(f"{program.path} came without its scripts: apt-get install mariadb-server-core")


def bootstrap(program: Program, process: Process) -> str:
    """The shell command that makes the system's tables; mariadb-install-db would want an installed system."""
    share, data = shared_files(program), process.folder / "data"
    scripts = [next(share.glob(f"m*_{name}.sql")) for name in SCRIPTS]
    read = shlex.join(["cat", *map(str, scripts), str(process.folder / "grants.sql")])
    make = r"printf 'CREATE DATABASE mysql;\nUSE mysql;\n'"
    return f"mkdir {data}; {{ {make}; {read}; }} | {shlex.join(command(program, process))} --bootstrap"


def command(program: Program, process: Process) -> list[str]:
    """The command line of a server that may lose everything."""
    folder, share = process.folder, shared_files(program)
    places = {
        "port": process.port,
        "datadir": folder / "data",
        "tmpdir": folder,
        "socket": folder / "socket",
        "pid-file": folder / "pid",
        "lc-messages-dir": share,
        "character-sets-dir": share / "charsets",
    }
    settings = [f"--{name}={value}" for name, value in (places | SETTINGS).items()]
    return [*program.argv, "--no-defaults", *settings]  # --no-defaults stands first, or is unknown


def ready(process: Process) -> None:
    """Raise OSError until the server on the port answers, and is ours."""
    try:
        found = ask(own_url(process), "SELECT @@pid_file")
    except asyncmy.errors.Error as failure:
        raise OSError(str(failure)) from failure
    if found != str(process.folder / "pid"):
        raise OSError(f"port {process.port} is served by another process, {found}")
