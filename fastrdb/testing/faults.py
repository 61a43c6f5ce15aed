"""What goes wrong between a client and its server, on purpose: a proxy that misbehaves, and a process that is stopped.

For tests of services that use a cache: what do they do while Redis hangs, hangs up in mid-reply, or restarts
empty? Both work with any server that speaks over TCP.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

_CHUNK = 65_536
_PATIENCE_S = 10.0


class Proxy:
    """Stands between clients and a server; what it does to them may be changed at any time.

    ``async with Proxy.to("127.0.0.1", 6379) as proxy: client = Redis.from_url(proxy.through(url))``

    Attributes:
        host, port: Where it listens.
        target: Host and port of the server, for connections to come.
        accepted: How many connections were opened.
        delay_s: Seconds that everything the server says is held back.
        cut_at: A connection is closed, both ways, when these bytes pass on their way to the server; they do not arrive.
        cut_after_reply_to: It is closed when the server's first answer to these bytes was read, which the client does
            not get.
        reply_bytes: Of what the server says so many bytes pass, over all connections; then a connection is closed, in
            the middle of a reply perhaps. ``None``: all of them.
        corrupt: Makes other bytes of what the server says.
        refuses: Connections are closed as soon as they are opened.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = host, port
        self.host, self.port = "127.0.0.1", 0
        self.accepted = 0
        self.delay_s = 0.0
        self.cut_at: bytes | None = None
        self.cut_after_reply_to: bytes | None = None
        self.reply_bytes: int | None = None
        self.corrupt: Callable[[bytes], bytes] | None = None
        self.refuses = False
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._open: set[_Connection] = set()

    @classmethod
    @asynccontextmanager
    async def to(cls, host: str, port: int) -> AsyncIterator[Proxy]:
        """Listen on a free port until the end of the block."""
        proxy = cls(host, port)
        server = await asyncio.start_server(proxy._serve, proxy.host, 0)
        proxy.port = server.sockets[0].getsockname()[1]
        try:
            yield proxy
        finally:
            server.close()
            proxy.resume()
            proxy.cut()

    def through(self, url: str) -> str:
        """Give a URL of the server with the proxy's host and port in it."""
        parts = urlsplit(url)
        credentials, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{credentials}{at}{self.host}:{self.port}"))

    def cut(self) -> None:
        """Close all connections, both ways."""
        for connection in list(self._open):
            connection.close()

    def half_close(self) -> None:
        """Tell all clients that nothing more will come, and go on to take what they send."""
        for connection in list(self._open):
            with suppress(OSError, RuntimeError):
                connection.to_client.write_eof()

    def stall(self) -> None:
        """Let nothing pass, as a server that hangs; connections are taken, and stay open."""
        self._goes_on.clear()

    def resume(self) -> None:
        """Let pass what was held up, and what comes."""
        self._goes_on.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuses:
            writer.close()
            return
        try:
            from_server, to_server = await asyncio.open_connection(*self.target)
        except OSError:
            writer.close()
            return
        connection = _Connection(writer, to_server)
        self._open.add(connection)
        ways = [
            asyncio.create_task(self._to_server(connection, reader)),
            asyncio.create_task(self._to_client(connection, from_server)),
        ]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        for task in ways:
            task.cancel()
        await asyncio.wait(ways)
        connection.close()
        self._open.discard(connection)

    async def _to_server(self, connection: _Connection, source: asyncio.StreamReader) -> None:
        while data := await _read(source):
            await self._goes_on.wait()
            if self.cut_at is not None and self.cut_at in data:
                return
            connection.doomed |= self.cut_after_reply_to is not None and self.cut_after_reply_to in data
            connection.to_server.write(data)

    async def _to_client(self, connection: _Connection, source: asyncio.StreamReader) -> None:
        while data := await _read(source):
            await asyncio.sleep(self.delay_s)
            await self._goes_on.wait()
            if connection.doomed:
                return
            if self.corrupt is not None:
                data = self.corrupt(data)
            if self.reply_bytes is not None and len(data) > self.reply_bytes:
                connection.to_client.write(data[: self.reply_bytes])
                self.reply_bytes = 0
                return
            if self.reply_bytes is not None:
                self.reply_bytes -= len(data)
            connection.to_client.write(data)


class _Connection:
    """One connection, in its two halves."""

    def __init__(self, to_client: asyncio.StreamWriter, to_server: asyncio.StreamWriter) -> None:
        self.to_client, self.to_server = to_client, to_server
        self.doomed = False

    def close(self) -> None:
        for writer in (self.to_client, self.to_server):
            writer.close()


async def _read(source: asyncio.StreamReader) -> bytes:
    try:
        return await source.read(_CHUNK)
    except OSError:
        return b""


class ServerProcess:
    """A server that runs already, to be stopped, killed and started again. On Linux.

    Args:
        pid: Its process, which must be a child of nobody who waits for it, or of this process.
        command: How it is started again, where it is to be: servers change what the system says of it.

    Attributes:
        pid: Its process now.
    """

    def __init__(self, pid: int, command: Sequence[str] | None = None) -> None:
        self.pid = pid
        self._command = list(command or ())
        self._child: subprocess.Popen[bytes] | None = None

    def pause(self) -> None:
        """Stop it: its connections stay open, and nobody answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def kill(self) -> None:
        """End it at once, as a crash would, and wait until it is gone."""
        os.kill(self.pid, signal.SIGKILL)
        until = time.monotonic() + _PATIENCE_S
        while self._is_there():
            if time.monotonic() > until:
                raise TimeoutError(f"process {self.pid} does not end")
            time.sleep(0.005)

    def restart(self) -> None:
        """Kill it, and start it again; whether it answers already is for the caller to find out.

        Raises:
            ValueError: Nobody has said how it is started.
        """
        if not self._command:
            raise ValueError("command: say how the server is started, ServerProcess(pid, [program, argument, …])")
        if self._is_there():
            self.kill()
        self._child = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self.pid = self._child.pid

    def _is_there(self) -> bool:
        if self._child is not None and self._child.poll() is not None:
            return False
        with suppress(ChildProcessError):  # a child that nobody has waited for is still listed
            if os.waitpid(self.pid, os.WNOHANG)[0] == self.pid:
                return False
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        return True
