"""A Debian package, unpacked without root and without being installed."""

import os
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.servers.errors import ServerUnavailable
from tests.servers.folders import kept


def unpacked(package: str) -> Path:
    """The root folder of *package* and of those of its dependencies that are not installed.

    Takes some seconds and the network the first time.

    Raises:
        ServerUnavailable: This is no Debian, or its package archive is out of reach.
    """
    try:
        system = platform.freedesktop_os_release()
        name = f"{package}-{system['ID']}-{system.get('VERSION_ID', 'testing')}-{platform.machine()}"
        return kept(name, lambda folder: download(package, folder))
    except (OSError, KeyError, subprocess.CalledProcessError) as failure:
        reason = getattr(failure, "stderr", "") or str(failure)
        raise ServerUnavailable(f"{package} cannot be unpacked: {reason.strip().splitlines()[-1]}") from failure


def download(package: str, folder: Path) -> None:
    """Fetch *package* with apt-get's own state kept in *folder*, and unpack it there."""
    work = folder / "apt"
    for part in ("lists/partial", "archives/partial"):
        (work / part).mkdir(parents=True)
    options = {
        "Dir::State::lists": work / "lists",
        "Dir::Cache::archives": work / "archives",
        "Dir::Cache::pkgcache": "",
        "Dir::Cache::srcpkgcache": "",
        "Debug::NoLocking": 1,
        "APT::Sandbox::User": "",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in options.items())]
    # A source that is out of reach makes update fail, though the package may come from another one.
    run([*apt, "update"], check=False)
    run([*apt, "--yes", "--no-install-recommends", "--download-only", "install", package])
    for archive in sorted((work / "archives").glob("*.deb")):
        run(["dpkg-deb", "--extract", str(archive), str(folder)])
    run(["rm", "-r", str(work)])


def run(command: Sequence[str], *, check: bool = True) -> None:
    """Run to the end, quietly; what it printed is in the error."""
    subprocess.run(command, check=check, stdin=subprocess.DEVNULL, capture_output=True, text=True)


def library_path(root: Path) -> str:
    """LD_LIBRARY_PATH for the programs of an unpacked package."""
    folders = {str(library.parent) for library in root.rglob("*.so*")}
    return os.pathsep.join(sorted(folders))
