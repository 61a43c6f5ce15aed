"""A lock that the operating system lets go when the process ends, however it ends."""

from __future__ import annotations

import os
import sys
import tempfile
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

from fastrdb.errors import CacheShared


class LockFile:
    """A file in the temporary folder that is locked while this object is, by this user and for one name."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path, self._descriptor, self._pid = path, descriptor, os.getpid()

    @classmethod
    def take(cls, name: str) -> LockFile:
        """Lock what *name* names.

        Raises:
            CacheShared: It is locked already, by another process or another object of this one.
        """
        user = os.getuid() if sys.platform != "win32" else os.getlogin()
        digest = blake2b(name.encode(), digest_size=16).hexdigest()
        path = Path(tempfile.gettempdir(), f"fastrdb-{user}-{digest}.lock")
        while (lock := cls(path, _opened_and_locked(path))) and not lock._is_in_place():
            os.close(lock._descriptor)  # between our opening and locking the file, its owner deleted it
        return lock

    def release(self) -> None:
        """Let go, and delete the file; a forked child lets its parent's file alone."""
        if os.getpid() == self._pid:
            with suppress(OSError):
                self._path.unlink()
        os.close(self._descriptor)

    def _is_in_place(self) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(self._descriptor))
        except FileNotFoundError:
            return False


def _opened_and_locked(path: Path) -> int:
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
    descriptor = os.open(path, flags, 0o600)
    try:
        _lock(descriptor)
    except OSError as error:
        os.close(descriptor)
        raise CacheShared(
            "another memory:// cache has this database already, in this process or another one, and "
            "neither would see the other's writes: share one Cache object, or use a Redis server"
        ) from error
    return descriptor


if sys.platform == "win32":
    import msvcrt

    def _lock(descriptor: int) -> None:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
