"""The servers of one test run: started once, side by side, when a test first asks; stopped together."""

import os
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial

from tests.servers.cluster import Cluster
from tests.servers.errors import ServerUnavailable
from tests.servers.mariadb import MariaDBServer
from tests.servers.pgbouncer import PgBouncerServer
from tests.servers.postgres import PostgresServer
from tests.servers.programs import postgres_of_wheel
from tests.servers.redis import RedisServer
from tests.servers.replicated import ReplicatedPostgres

Server = Cluster | MariaDBServer | PostgresServer | PgBouncerServer | RedisServer | ReplicatedPostgres

POSTGRES_URL = os.environ.get("FASTRDB_TEST_POSTGRES_URL")
MYSQL_URL = os.environ.get("FASTRDB_TEST_MYSQL_URL")
REDIS_URL = os.environ.get("FASTRDB_TEST_REDIS_URL")
POSTGRES_MAJORS = {"postgres16": 16, "postgres18": 18}  # of the wheel, whatever is installed or given
FLAVOURS = ("given",) if REDIS_URL else ("valkey", "redis7")


def start(name: str) -> Server:
    """Start, or reach, a server: ``postgres``, ``replicated``, ``mariadb``, ``cluster``, a major or a flavour."""
    if name in POSTGRES_MAJORS:
        return PostgresServer.start(postgres_of_wheel(POSTGRES_MAJORS[name]))
    if name == "replicated":
        return ReplicatedPostgres.start()
    if name == "cluster":
        return Cluster.start()
    if name == "postgres":
        return PostgresServer.given(POSTGRES_URL) if POSTGRES_URL else PostgresServer.start()
    if name == "mariadb":
        return MariaDBServer.given(MYSQL_URL) if MYSQL_URL else MariaDBServer.start()
    return RedisServer.given(REDIS_URL) if REDIS_URL else RedisServer.start(name)


class Fleet:
    """Owns every server of the run."""

    def __init__(self) -> None:
        self._shared: dict[str, Future[Server]] = {}
        self._private: list[RedisServer] = []
        self._stopped_calls: Counter[str] = Counter()

    def prefetch(self, names: Iterable[str]) -> None:
        """Begin to start servers, each in a thread that ends with the start."""
        for name in names:
            if name not in self._shared:
                self._shared[name] = in_thread(partial(self._start, name))

    def _start(self, name: str) -> Server:
        if name == "pgbouncer":
            return PgBouncerServer.start(self.postgres())
        return start(name)

    def postgres(self, name: str = "postgres") -> PostgresServer:
        """The run's PostgreSQL server, or that of a major version.

        Raises:
            ServerUnavailable: There is none, for each who asks.
        """
        server = self.server(name)
        assert isinstance(server, PostgresServer)
        return server

    def replicated(self) -> ReplicatedPostgres:
        """The run's PostgreSQL server with a streaming replica, beside the one without.

        Raises:
            ServerUnavailable: There is none, for each who asks.
        """
        server = self.server("replicated")
        assert isinstance(server, ReplicatedPostgres)
        return server

    def pgbouncer(self) -> PgBouncerServer:
        """The run's PgBouncer, in front of its PostgreSQL server.

        Raises:
            ServerUnavailable: There is none, for each who asks.
        """
        server = self.server("pgbouncer")
        assert isinstance(server, PgBouncerServer)
        return server

    def mariadb(self) -> MariaDBServer:
        """The run's MariaDB server.

        Raises:
            ServerUnavailable: There is none, for each who asks.
        """
        server = self.server("mariadb")
        assert isinstance(server, MariaDBServer)
        return server

    def cluster(self) -> Cluster:
        """The run's cluster: three masters, one replica.

        Raises:
            ServerUnavailable: There is none, for each who asks.
        """
        server = self.server("cluster")
        assert isinstance(server, Cluster)
        return server

    def redis(self, flavour: str) -> RedisServer:
        """The run's server of that flavour.

        Raises:
            ServerUnavailable: There is none, for each who asks.
        """
        server = self.server(flavour)
        assert isinstance(server, RedisServer)
        return server

    def server(self, name: str) -> Server:
        """The run's server *name*.

        Raises:
            ServerUnavailable: There is none, for each who asks.
        """
        self.prefetch([name])
        return self._shared[name].result()

    def private_redis(self, flavour: str, *options: str) -> RedisServer:
        """A new server for one test; the caller gives it back to :meth:`discard`."""
        server = RedisServer.start(flavour, *options)
        self._private.append(server)
        return server

    def discard(self, server: RedisServer) -> None:
        """Stop a private server."""
        server.stop()
        self._private.remove(server)
        self._stopped_calls += server.forbidden_calls()

    def running(self) -> list[Server]:
        """The shared servers that came up."""
        found: list[Server] = []
        for future in self._shared.values():
            with suppress(ServerUnavailable):
                found.append(future.result())
        return found

    def forbidden_calls(self) -> Counter[str]:
        """What all servers of the run were made to do and should not have been."""
        servers = [server for server in self.running() if isinstance(server, RedisServer | Cluster)]
        return sum((server.forbidden_calls() for server in servers), start=self._stopped_calls)

    def stop(self) -> None:
        """Stop every server that the run started."""
        for server in [*self.running(), *self._private]:
            server.stop()


def in_thread(work: Callable[[], Server]) -> Future[Server]:
    """Run *work* in a thread that does not outlive it, so that tests may still fork."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(work)
    finally:
        pool.shutdown(wait=False)
