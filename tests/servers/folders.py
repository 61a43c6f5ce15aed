"""Where unpacked and copied server programs are kept from one run to the next."""

import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SHARED = Path("/var/cache/fastrdb-tests")


def open_to_all(path: Path) -> bool:
    """Whether every account may reach and read the file *path*."""
    file = path.resolve()
    return bool(file.stat().st_mode & stat.S_IROTH) and all(
        folder.stat().st_mode & stat.S_IXOTH for folder in file.parents
    )


def cache_folder() -> Path:
    """The first of these that can be written: the user's cache, the environment of the tests.

    Root's is outside of /root, because its servers run as another account.
    """
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    first = SHARED if os.geteuid() == 0 else Path(home) / "fastrdb-tests"
    for folder in (first, Path(sys.prefix) / "fastrdb-tests"):
        try:
            if not folder.exists():
                folder.mkdir(parents=True)
                folder.chmod(0o755)  # whatever the umask
        except OSError:
            continue
        if os.access(folder, os.W_OK):
            return folder
    raise OSError(f"neither {first} nor a folder in {sys.prefix} can be written")


def kept(name: str, fill: Callable[[Path], None]) -> Path:
    """The folder *name* of the cache, filled the first time; nobody ever sees it half filled."""
    cache = cache_folder()
    folder = cache / name
    if not folder.exists():
        draft = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=cache))
        try:
            fill(draft)
            subprocess.run(["chmod", "-R", "a+rX", str(draft)], check=True)
            draft.rename(folder)
        except OSError:
            if not folder.exists():  # else another run was faster
                raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return folder
