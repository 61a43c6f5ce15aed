"""A Valkey server with a replica, and the Sentinel that watches over them."""

from collections.abc import Callable
from typing import Any

import redis

from tests.servers import programs
from tests.servers.cluster import address, say, wait_until
from tests.servers.process import HOST, Process
from tests.servers.redis import RedisServer, client

SERVICE = "fastrdb"
DOWN_AFTER_MS = 500


class Watched:
    """A primary, its replica and one Sentinel, private to a test.

    Attributes:
        primary, replica: As they began.
        address: Host and port of the Sentinel.
    """

    def __init__(self, start: Callable[..., RedisServer]) -> None:
        self.primary, self.replica = (start("valkey", "--repl-diskless-sync-delay", "0") for _ in range(2))
        say(self.replica, "REPLICAOF", *address(self.primary).split(":"))
        wait_until(lambda: b"master_link_status:up" in say(self.replica, "INFO", "replication"))
        self._sentinel = Process("sentinel", self._command, self._ready)
        self._write_configuration()
        self._sentinel.start()  # now: it asks a primary for its replicas every ten seconds only
        self.address = HOST, self._sentinel.port
        wait_until(self._knows_the_replica)

    def _write_configuration(self) -> None:
        host, port = address(self.primary).split(":")
        lines = [
            f"port {self._sentinel.port}",
            f"bind {HOST}",
            f"sentinel monitor {SERVICE} {host} {port} 1",
            f"sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} 3000",
        ]
        (self._sentinel.folder / "sentinel.conf").write_text("\n".join(lines))

    def _command(self, process: Process) -> list[str]:
        return [*programs.valkey().argv, str(process.folder / "sentinel.conf"), "--sentinel"]

    def _ready(self, process: Process) -> None:
        try:
            with client(f"redis://{HOST}:{process.port}") as connection:
                connection.ping()
        except redis.RedisError as failure:
            raise OSError(str(failure)) from failure

    def ask(self, *command: Any) -> Any:
        """Send the Sentinel a command."""
        with client(f"redis://{HOST}:{self._sentinel.port}") as connection:
            connection.response_callbacks.clear()
            return connection.execute_command("SENTINEL", *command)

    def _knows_the_replica(self) -> bool:
        return len(self.ask("REPLICAS", SERVICE)) == 1

    def stop(self) -> None:
        """End the Sentinel."""
        self._sentinel.remove()
