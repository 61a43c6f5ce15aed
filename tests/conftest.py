"""Fixtures: real servers, clean for each test; and what every test is held to."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

from tests.blocking import watched_loops
from tests.servers.cluster import Cluster
from tests.servers.errors import ServerUnavailable
from tests.servers.fleet import FLAVOURS, POSTGRES_MAJORS, Fleet
from tests.servers.mariadb import MariaDBServer
from tests.servers.pgbouncer import PgBouncerServer
from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer
from tests.servers.replicated import ReplicatedPostgres

settings.register_profile("fastrdb", deadline=None, print_blob=True)  # a busy machine is no failure
settings.load_profile("fastrdb")

FLEET = pytest.StashKey[Fleet]()
SUITES = pytest.StashKey[defaultdict[str, Counter[str]]]()


def pytest_configure(config: pytest.Config) -> None:
    """Every run has a fleet of its own; it starts empty."""
    config.stash[FLEET] = Fleet()
    suites: defaultdict[str, Counter[str]] = defaultdict(Counter)
    config.stash[SUITES] = suites


def shared_servers(item: pytest.Function) -> Iterator[str]:
    """The names, in the fleet, of the servers that a test's fixtures ask for."""
    yield from (name for name in ("postgres", *POSTGRES_MAJORS) if name in item.fixturenames)
    if "pgbouncer" in item.fixturenames:
        yield "pgbouncer"
    if "replicated_server" in item.fixturenames:
        yield "replicated"
    if "mariadb" in item.fixturenames:
        yield "mariadb"
    if "cluster" in item.fixturenames:
        yield "cluster"
    if "redis_server" in item.fixturenames:
        yield str(item.callspec.params["redis_server"])
    if "valkey_server" in item.fixturenames:
        yield FLAVOURS[0]
    if "redis7_server" in item.fixturenames:
        yield FLAVOURS[-1]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start all servers of the selected tests at once, while the first tests already run."""
    suites = session.config.stash[SUITES]
    for item in session.items:
        if isinstance(item, pytest.Function):
            suite = os.path.relpath(item.path.parent, session.config.rootpath)
            for name in shared_servers(item):
                suites[name][suite] += 1
    if not (session.config.option.collectonly or session.testsfailed):
        session.config.stash[FLEET].prefetch(suites)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop the servers, but ask them first whether anybody walked or dropped a key space."""
    fleet = session.config.stash[FLEET]
    try:
        calls = fleet.forbidden_calls()
    finally:
        fleet.stop()
    if calls:
        report = pytest.TestReport(
            nodeid="the whole run",
            location=("tests/conftest.py", None, "the whole run"),
            keywords={},
            outcome="failed",
            longrepr=f"the Redis servers were sent {described(calls)}",
            when="teardown",
        )
        session.config.hook.pytest_runtest_logreport(report=report)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Say which server, of which version and origin, stood behind which tests."""
    suites = config.stash[SUITES]
    servers = config.stash[FLEET].running()
    if servers:
        terminalreporter.section("servers")
    for server in servers:
        used = ", ".join(f"{suite} ({count})" for suite, count in suites[server.flavour].items())
        terminalreporter.line(f"{server.flavour} {server.version} ({server.source}): {used or 'asked for by name'}")


def described(calls: Counter[str]) -> str:
    """Such as ``KEYS x 3, SCAN x 1``."""
    return ", ".join(f"{name} x {count}" for name, count in sorted(calls.items()))


@contextmanager
def failing_in_one_line() -> Iterator[None]:
    """A missing server fails the test, and says what to install instead of where in here it was missed."""
    try:
        yield
    except ServerUnavailable as failure:
        raise pytest.fail.Exception(str(failure), pytrace=False) from None


@contextmanager
def held_to_promises(server: RedisServer | Cluster) -> Iterator[RedisServer | Cluster]:
    """Fail the test in which a server was told to walk or drop a key space."""
    before = server.forbidden_calls()
    yield server
    calls = server.forbidden_calls() - before
    if calls:
        pytest.fail(f"{server!r} was sent {described(calls)}", pytrace=False)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True)
def responsive_loop(request: pytest.FixtureRequest) -> Iterator[None]:
    """A test that blocks the event loop fails, unless it is marked ``may_block``."""
    with watched_loops() as blocked:
        yield
    if blocked and request.node.get_closest_marker("may_block") is None:
        pytest.fail("the event loop was held up:\n" + "\n".join(blocked), pytrace=False)


@pytest.fixture(scope="session")
def fleet(pytestconfig: pytest.Config) -> Fleet:
    """The servers of this run."""
    return pytestconfig.stash[FLEET]


@pytest.fixture(scope="session")
def postgres(fleet: Fleet) -> PostgresServer:
    """The run's PostgreSQL server."""
    with failing_in_one_line():
        return fleet.postgres()


@pytest.fixture
def postgres_url(postgres: PostgresServer) -> Iterator[str]:
    """An empty PostgreSQL database of this test's own, as a SQLAlchemy URL."""
    with postgres.database() as url:
        yield url


@pytest.fixture(scope="session")
def postgres16(fleet: Fleet) -> PostgresServer:
    """A PostgreSQL 16, whatever the run's own is."""
    with failing_in_one_line():
        return fleet.postgres("postgres16")


@pytest.fixture
def postgres16_url(postgres16: PostgresServer) -> Iterator[str]:
    """An empty database of this test's own on PostgreSQL 16, as a SQLAlchemy URL."""
    with postgres16.database() as url:
        yield url


@pytest.fixture(scope="session")
def postgres18(fleet: Fleet) -> PostgresServer:
    """A PostgreSQL 18, whatever the run's own is."""
    with failing_in_one_line():
        return fleet.postgres("postgres18")


@pytest.fixture
def postgres18_url(postgres18: PostgresServer) -> Iterator[str]:
    """An empty database of this test's own on PostgreSQL 18, as a SQLAlchemy URL."""
    with postgres18.database() as url:
        yield url


@pytest.fixture(scope="session")
def pgbouncer(fleet: Fleet) -> PgBouncerServer:
    """The run's PgBouncer, in front of its PostgreSQL server."""
    with failing_in_one_line():
        return fleet.pgbouncer()


@pytest.fixture
def pgbouncer_url(pgbouncer: PgBouncerServer, postgres_url: str) -> str:
    """The test's own PostgreSQL database, through PgBouncer that pools transactions, as a SQLAlchemy URL."""
    return pgbouncer.through(postgres_url)


@pytest.fixture(scope="session")
def replicated_server(fleet: Fleet) -> ReplicatedPostgres:
    """The run's PostgreSQL server with a streaming replica."""
    with failing_in_one_line():
        return fleet.replicated()


@pytest.fixture
def replicated(replicated_server: ReplicatedPostgres) -> Iterator[ReplicatedPostgres]:
    """The same, with the replica up and level; the test may pause it, stop it and let it fall behind."""
    replicated_server.restore()
    yield replicated_server
    replicated_server.restore()


@pytest.fixture(scope="session")
def mariadb(fleet: Fleet) -> MariaDBServer:
    """The run's MariaDB server."""
    with failing_in_one_line():
        return fleet.mariadb()


@pytest.fixture
def mariadb_url(mariadb: MariaDBServer) -> Iterator[str]:
    """An empty MariaDB database of this test's own, as a SQLAlchemy URL."""
    with mariadb.database() as url:
        yield url


@pytest.fixture(scope="session", params=FLAVOURS)
def redis_server(request: pytest.FixtureRequest, fleet: Fleet) -> RedisServer:
    """The run's server of the Redis family; a test that asks for it runs once per flavour."""
    with failing_in_one_line():
        return fleet.redis(request.param)


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """An emptied server; a test that asks for it runs once per flavour."""
    redis_server.clean()
    with held_to_promises(redis_server):
        yield redis_server.url


@pytest.fixture(scope="session")
def valkey_server(fleet: Fleet) -> RedisServer:
    """The run's Valkey server, for tests to which the flavour makes no difference."""
    with failing_in_one_line():
        return fleet.redis(FLAVOURS[0])


@pytest.fixture
def valkey_url(valkey_server: RedisServer) -> Iterator[str]:
    """An emptied Valkey server, for tests to which the flavour makes no difference."""
    valkey_server.clean()
    with held_to_promises(valkey_server):
        yield valkey_server.url


@pytest.fixture(scope="session")
def cluster(fleet: Fleet) -> Cluster:
    """The run's cluster of three masters and one replica."""
    with failing_in_one_line():
        return fleet.cluster()


@pytest.fixture
def cluster_url(cluster: Cluster) -> Iterator[str]:
    """A whole and empty cluster of three masters and one replica."""
    cluster.clean()
    with held_to_promises(cluster):
        yield cluster.url


@pytest.fixture(scope="session")
def redis7_server(fleet: Fleet) -> RedisServer:
    """The run's Redis 7, for tests that name the flavour."""
    with failing_in_one_line():
        return fleet.redis(FLAVOURS[-1])


@pytest.fixture
def redis7_url(redis7_server: RedisServer) -> Iterator[str]:
    """An emptied Redis 7, for tests that name the flavour."""
    redis7_server.clean()
    with held_to_promises(redis7_server):
        yield redis7_server.url


@pytest.fixture
def private_redis(fleet: Fleet) -> Iterator[Callable[..., RedisServer]]:
    """``private_redis(flavour="valkey", *options)`` starts a server to pause, kill and restart."""
    servers: list[RedisServer] = []

    def start(flavour: str = "valkey", *options: str) -> RedisServer:
        with failing_in_one_line():
            servers.append(fleet.private_redis(flavour, *options))
        return servers[-1]

    yield start
    calls: Counter[str] = Counter()
    for server in servers:
        calls += server.forbidden_calls()
        fleet.discard(server)
    if calls:
        pytest.fail(f"private servers were sent {described(calls)}", pytrace=False)


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """An empty SQLite file of this test's own, as a SQLAlchemy URL."""
    return f"sqlite+aiosqlite:///{tmp_path / 'test.db'}"
