"""A private server process: its folder, its port, its life and death."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.servers.errors import ServerUnavailable
from tests.servers.leash import started

HOST = "127.0.0.1"
LEASH = Path(__file__).with_name("leash.py")
READY_S = 30.0
DEFAULT_PORTS = frozenset({3306, 5432, 6379})


class Port:
    """A port nobody listens on, below the ephemeral range, and kept from other tests until :meth:`release`.

    In the ephemeral range a client that keeps trying to reach a killed server may be given the server's own port,
    and then connects to itself. While a server is down, a worker beside this one could start its own in its place:
    who wants a port binds a name that Linux keeps beside the file system, and that goes with the process.

    Attributes:
        number: The port.
    """

    def __init__(self) -> None:
        self._claim = socket.socket(socket.AF_UNIX)
        self.number = self._find()

    def _find(self) -> int:
        while True:
            port = random.randrange(15_000, 32_000)
            with socket.socket() as probe, suppress(OSError):
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((HOST, port))
                self._claim.bind(f"\0fastrdb-port-{port}")
                return port

    def release(self) -> None:
        """Let others have it."""
        self._claim.close()


def free_port() -> int:
    """A port nobody listens on, and where none of the servers of tests will be started again."""
    port = Port()
    port.release()
    return port.number


class Process:
    """One server under a leash, see ``leash.py``.

    Args:
        name: For messages and the folder's name.
        command: The command line, from this object's folder and port.
        ready: Raises ``OSError`` until the server answers, and is the process *pid*, not another on its port.
        account: Whom root runs the server as.
        deadly: The signal that makes the server leave nothing behind.
    """

    def __init__(
        self,
        name: str,
        command: Callable[["Process"], Sequence[str]],
        ready: Callable[["Process"], None],
        *,
        account: str = "",
        deadly: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name, self.command, self.ready = name, command, ready
        self.account, self.deadly = account if os.geteuid() == 0 else "", deadly
        self.folder = Path(tempfile.mkdtemp(prefix=f"fastrdb-{name}-"))
        self._port = Port()
        self.pid = 0
        self._leash: subprocess.Popen[str] | None = None
        if self.account:
            shutil.chown(self.folder, self.account)

    @property
    def port(self) -> int:
        """Where the server listens, before a restart and after."""
        return self._port.number

    @property
    def alive(self) -> bool:
        """Whether the server process exists; a paused one does."""
        return self._leash is not None and self._leash.poll() is None

    def run(self, *command: str) -> None:
        """Run a program to its end in the server's folder and as its account.

        Raises:
            ServerUnavailable: It failed.
        """
        leash = self._hold(command)
        leash.communicate()
        if leash.returncode:
            reason = self.last_words()
            self.remove()
            raise ServerUnavailable(f"{Path(command[0]).name} failed: {reason}")

    def start(self) -> None:
        """Start the server on its port and wait until it answers."""
        self._leash = self._hold(self.command(self))
        assert self._leash.stdout is not None
        with self._leash.stdout as answer:
            self.pid = int(answer.readline() or 0)
        self._wait_until_ready()

    def _hold(self, command: Sequence[str]) -> subprocess.Popen[str]:
        arguments = [str(os.getpid()), self.account, str(int(self.deadly)), str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            return started(
                lambda: subprocess.Popen(
                    [sys.executable, "-I", "-S", str(LEASH), *arguments, *command],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    text=True,
                    start_new_session=True,  # Ctrl-C ends the tests, and they end the servers
                )
            )

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            try:
                return self.ready(self)
            except OSError as failure:
                if not self.alive or time.monotonic() > deadline:
                    self.end(signal.SIGKILL)
                    reason = self.last_words() or failure
                    self.remove()
                    raise ServerUnavailable(f"{self.name} did not start: {reason}") from failure
            time.sleep(0.02)

    def last_words(self) -> str:
        """The last line of the server's log."""
        with suppress(OSError):
            return "".join((self.folder / "log").read_text(errors="replace").splitlines()[-1:])
        return ""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to the server, if it still runs."""
        if self.alive and self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def end(self, number: signal.Signals) -> None:
        """Send a signal that ends the server, paused or not, and wait until it is gone."""
        self.send(number)
        self.send(signal.SIGCONT)
        if self._leash is not None:
            try:
                self._leash.wait(5)
            except subprocess.TimeoutExpired:
                self.send(signal.SIGKILL)
                self._leash.wait(5)

    def remove(self) -> None:
        """End the server and remove its folder."""
        self.end(self.deadly)
        self._port.release()
        shutil.rmtree(self.folder, ignore_errors=True)
