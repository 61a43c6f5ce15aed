"""An environment for each peer: a venv in a cache folder, with pinned versions, made once."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

from .catalogue import Peer

HERE = Path(__file__).parent
CHECKOUT = HERE.parents[1]


class NotInstalled(Exception):
    """pip could not install a peer; its environment is not there."""

    def __init__(self, peer: Peer, said: str) -> None:
        super().__init__(peer, said)
        self.peer, self.said = peer, said

    def __str__(self) -> str:
        return f"pip could not install {', '.join(self.peer.requirements)}; it said:\n{self.said}"


def cache_folder() -> Path:
    """Give the folder for environments: of ``XDG_CACHE_HOME``, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fastrdb-benchmarks"


def python_of(peer: Peer, folder: Path) -> Path:
    """Give the Python of a peer's environment, which is made if it is not there; raise NotInstalled if it cannot be."""
    pins = "\n".join((sys.version, *peer.requirements))
    place = folder / f"{peer.name}-{hashlib.sha256(pins.encode()).hexdigest()[:12]}"
    python, complete = place / "bin" / "python", place / "complete"
    if complete.exists():
        return python
    print(f"making an environment for {peer.title} …", file=sys.stderr, flush=True)
    venv.create(place, with_pip=True, clear=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *peer.requirements]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise NotInstalled(peer, done.stderr)
    complete.touch()  # last: an environment without it was cut short
    return python


def environment(peer: Peer) -> dict[str, str]:
    """Give the variables of a worker's process; only fastrdb's own worker sees the checkout."""
    path = [str(HERE), *([str(CHECKOUT)] if peer.checkout else [])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
