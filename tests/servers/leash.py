"""Keeps a server alive no longer than the test run that started it.

Run as a script: ``leash.py OWNER ACCOUNT SIGNAL FOLDER COMMAND...``. Prints the server's pid, then waits
until the server ends, or the process OWNER; in the latter case it stops the server and removes FOLDER.

Why a process of its own: the kernel's PR_SET_PDEATHSIG follows the *thread* that forked, and a test run has
several; and somebody has to remove the folder when the run was ended by SIGKILL. This one has a single
thread, so the server may be tied to it by PR_SET_PDEATHSIG, in case even the leash is killed.
"""

import ctypes
import errno
import os
import pwd
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")

PR_SET_PDEATHSIG = 1
GRACE_S = 3.0
TRIES = 5


def started(start: Callable[[], T]) -> T:
    """Give what *start* gives: once more where exec ends in EFAULT, as it does on some busy virtual machines."""
    for _ in range(TRIES - 1):
        try:
            return start()
        except OSError as error:
            if error.errno != errno.EFAULT:
                raise
    return start()


def die_with_parent(deadly: int) -> Callable[[], None]:
    """What the child runs before exec; subprocess calls it after setuid, which would reset it."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl

    def tie() -> None:
        prctl(PR_SET_PDEATHSIG, deadly)

    return tie


def launch(account: str, deadly: int, folder: str, command: Sequence[str]) -> "subprocess.Popen[bytes]":
    """Start the server; its output goes to FOLDER/log. An empty *account* means: the one we are."""
    who = pwd.getpwnam(account) if account else None
    with open(os.path.join(folder, "log"), "ab") as log:
        return started(
            lambda: subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                user=who.pw_uid if who else None,
                group=who.pw_gid if who else None,
                extra_groups=[] if who else None,
                preexec_fn=die_with_parent(deadly),  # noqa: PLW1509 - there are no other threads
            )
        )


def main(owner: int, account: str, deadly: int, folder: str, *command: str) -> int:
    """Hold the server until it or its owner is gone; its exit status, or 1."""
    server = launch(account, deadly, folder, command)
    with suppress(BrokenPipeError):  # the owner may be gone already
        os.write(1, b"%d\n" % server.pid)
    while os.getppid() == owner:
        if (status := server.poll()) is not None:
            return status
        signal.sigtimedwait({signal.SIGCHLD}, 0.2)
    server.send_signal(signal.SIGCONT)
    server.send_signal(deadly)
    try:
        server.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
    shutil.rmtree(folder, ignore_errors=True)
    return 1


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    sys.exit(main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), *sys.argv[4:]))
