"""The servers behind the other tests: real, private, and gone when the run is."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
import redis
from sqlalchemy import NullPool, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine

from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import PostgresServer
from tests.servers.process import DEFAULT_PORTS, LEASH
from tests.servers.redis import RedisServer, client, commandstats

ROOT = Path(__file__).parents[2]
GIVEN = ("FASTRDB_TEST_POSTGRES_URL", "FASTRDB_TEST_MYSQL_URL", "FASTRDB_TEST_REDIS_URL")
OWNER = """
import sys, time
from tests.servers.fleet import Fleet
server = Fleet().server(sys.argv[1])
print(server.pid, server.process.folder, flush=True)
time.sleep(60)
"""


def gone(pid: int) -> bool:
    """Whether no process with that pid runs; one that only waits to be reaped does not."""
    try:
        return stat(pid)[0] == "Z"
    except FileNotFoundError:
        return True


def stat(pid: int) -> list[str]:
    """State and parent of a process, from proc(5)."""
    return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[:2]


def private_environment() -> dict[str, str]:
    """The environment without servers given by URL: what runs in it starts its own."""
    return {key: value for key, value in os.environ.items() if key not in GIVEN}


def eventually(condition: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether the condition becomes true in time."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


async def scalar(url: str, statement: str) -> object:
    """The value that a statement returns through SQLAlchemy."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            return (await connection.execute(text(statement))).scalar()
    finally:
        await engine.dispose()


async def test_postgres_answers(postgres: PostgresServer, postgres_url: str) -> None:
    """SQLAlchemy reaches PostgreSQL through asyncpg."""
    assert str(await scalar(postgres_url, "SHOW server_version")).split()[0] == postgres.version


async def test_databases_are_apart(postgres: PostgresServer, postgres_url: str) -> None:
    """What one test writes into PostgreSQL, the next does not find."""
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE mine (id int)"))
    await engine.dispose()
    with postgres.database() as other:
        assert await scalar(other, "SELECT to_regclass('mine')::text") is None


def name_of(url: str) -> str:
    """The database of a URL."""
    return url.rsplit("/", 1)[1]


def test_databases_are_dropped(postgres: PostgresServer) -> None:
    """There is no database of a test's name soon after it, even while somebody is connected to it."""

    async def use(url: str) -> None:
        engine = create_async_engine(url)
        connection = await engine.connect()
        await connection.execute(text("SELECT 1"))
        used.__exit__(None, None, None)
        assert await asyncio.to_thread(eventually, is_gone, 30)
        await connection.invalidate()
        await connection.close()
        await engine.dispose()

    def is_gone() -> bool:
        return postgres.ask(f"SELECT count(*) FROM pg_database WHERE datname = '{name_of(url)}'") == 0

    used = postgres.database()
    url = used.__enter__()
    asyncio.run(use(url))


LOOK = """
SELECT array_agg(row(nspname, nspowner::regrole, nspacl, obj_description(oid, 'pg_namespace')) ORDER BY nspname)::text
FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast_temp)'
"""
EMPTY = """
SELECT row(current_setting('work_mem'), datacl, (SELECT count(*) FROM pg_class WHERE relname = 'mine'),
    (SELECT count(*) FROM pg_publication), (SELECT count(*) FROM pg_largeobject_metadata))::text
FROM pg_database WHERE datname = current_database()
"""
CHANGES = {
    "table": "CREATE TABLE mine (id serial PRIMARY KEY, mood text); GRANT ALL ON mine TO public",
    "schema": "CREATE SCHEMA mine; CREATE TABLE mine.mine (id int); DROP SCHEMA public",
    "setting": "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET work_mem = 65', current_database()); END $$",
    "grant": "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO pg_monitor', current_database()); END $$",
    "publication": "CREATE PUBLICATION mine FOR ALL TABLES",
    "large object": "SELECT lo_create(0)",
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_database_is_as_new(change: str, postgres: PostgresServer) -> None:
    """What CREATE DATABASE makes is what each test gets, under a name of its own, whatever the tests before did."""
    with postgres.database() as url:
        new = name_of(url)
        looks = {str(postgres.ask(LOOK, database=new)) + str(postgres.ask(EMPTY, database=new))}
        postgres.ask(CHANGES[change], "SELECT 1", database=new)
    names = [new]
    for _ in range(3):
        with postgres.database() as url:
            names.append(name_of(url))
            looks.add(str(postgres.ask(LOOK, database=names[-1])) + str(postgres.ask(EMPTY, database=names[-1])))
    assert len(set(names)) == 4
    assert len(looks) == 1


def test_a_database_is_used_again(postgres: PostgresServer) -> None:
    """A server of the run's own makes a few databases, and empties them for one test after the other."""
    oids = set()
    for _ in range(10):
        with postgres.database() as url:
            oids.add(
                postgres.ask("SELECT oid FROM pg_database WHERE datname = current_database()", database=name_of(url))
            )
    assert len(oids) <= 5 or postgres.process is None or int(postgres.version.split(".")[0]) < 15


async def test_pgbouncer_answers(postgres: PostgresServer, pgbouncer_url: str) -> None:
    """SQLAlchemy reaches the test's database through PgBouncer, if it names no prepared statement twice."""
    engine = create_async_engine(
        pgbouncer_url,
        poolclass=NullPool,
        connect_args={
            "statement_cache_size": 0,
            "prepared_statement_cache_size": 0,
            "prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__",
        },
    )
    try:
        async with engine.connect() as connection:
            name = (await connection.execute(text("SELECT current_database()"))).scalar_one()
    finally:
        await engine.dispose()
    assert pgbouncer_url.endswith(f"/{name}")


async def test_pgbouncer_pools_transactions(pgbouncer_url: str) -> None:
    """Two transactions of one client may be served by two connections, so what a session prepared is gone."""
    url = make_url(pgbouncer_url).set(drivername="postgresql").render_as_string(hide_password=False)
    first = await asyncpg.connect(url, statement_cache_size=0)
    second = await asyncpg.connect(url, statement_cache_size=0)
    try:
        one = await first.fetchval("SELECT pg_backend_pid()")
        async with second.transaction():
            assert await second.fetchval("SELECT pg_backend_pid()") == one
            assert await first.fetchval("SELECT pg_backend_pid()") != one
    finally:
        await first.close()
        await second.close()


async def test_mariadb_answers(mariadb: MariaDBServer, mariadb_url: str) -> None:
    """SQLAlchemy reaches MariaDB through asyncmy."""
    assert str(await scalar(mariadb_url, "SELECT VERSION()")).split("-")[0] == mariadb.version
    assert tuple(map(int, mariadb.version.split("."))) >= (10, 11)


async def test_mariadb_databases_are_dropped(mariadb: MariaDBServer) -> None:
    """A test's database is dropped even while somebody has a transaction open in it."""
    with mariadb.database() as url:
        engine = create_async_engine(url)
        connection = await engine.connect()
        await connection.execute(text("CREATE TABLE mine (id int)"))
        await connection.execute(text("INSERT INTO mine VALUES (1)"))
    await connection.invalidate()
    await connection.close()
    await engine.dispose()
    name = url.rsplit("/", 1)[1]
    assert mariadb.ask(f"SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = '{name}'") == 0


async def test_sqlite_answers(sqlite_url: str) -> None:
    """SQLAlchemy reaches a SQLite file through aiosqlite."""
    assert await scalar(sqlite_url, "SELECT 1") == 1


def test_redis_answers(redis_server: RedisServer, redis_url: str) -> None:
    """Each flavour answers, and has the command that the cache stands on: SET NX GET, Redis 7's."""
    with client(redis_url) as connection:
        assert connection.set("key", "new", nx=True, get=True) is None
        assert connection.set("key", "newer", nx=True, get=True) == b"new"
    assert int(redis_server.version.split(".")[0]) >= 7


def test_redis_is_cleaned(private_redis: Callable[..., RedisServer]) -> None:
    """Cleaning empties keys, databases and scripts, and starts a killed server again."""
    server = private_redis()
    with client(server.url) as connection:
        connection.set("left", "behind")
        digest = connection.script_load("return 1")
        server.clean()
        assert connection.dbsize() == 0
        assert connection.script_exists(digest) == [False]
    server.kill()
    server.clean()
    assert server.alive


def test_no_default_port(postgres: PostgresServer, mariadb: MariaDBServer, redis_server: RedisServer) -> None:
    """No server listens where somebody's own data may be."""
    for server in (postgres, mariadb, redis_server):
        if server.process is not None:
            assert server.process.port not in DEFAULT_PORTS
            assert server.url.count("127.0.0.1") == 1


def test_restart_loses_everything(private_redis: Callable[..., RedisServer]) -> None:
    """A restarted server has the same address, another process, and no data."""
    server = private_redis()
    before, url = server.pid, server.url
    with client(url) as connection:
        connection.set("key", "value")
    server.restart()
    assert gone(before)
    assert (server.pid != before, server.url) == (True, url)
    with client(url) as connection:
        assert connection.get("key") is None


def test_killed_server_refuses(private_redis: Callable[..., RedisServer]) -> None:
    """A killed server refuses connections at once, and none is made to anything else."""
    server = private_redis()
    server.kill()
    assert not server.alive
    with client(server.url) as connection, pytest.raises(redis.ConnectionError, match="refused"):
        connection.ping()


def test_paused_server_is_silent(private_redis: Callable[..., RedisServer]) -> None:
    """A paused server keeps its connections and its data, but answers nothing until it is resumed."""
    server = private_redis()
    with redis.Redis.from_url(server.url, socket_timeout=0.2, retry=None) as connection:
        connection.set("key", "value")
        server.pause()
        with pytest.raises(redis.TimeoutError):
            connection.get("key")
        server.resume()
        assert connection.get("key") == b"value"


def test_options_reach_the_server(private_redis: Callable[..., RedisServer]) -> None:
    """A private server takes the options of redis-server's command line."""
    server = private_redis("redis7", "--maxmemory", "3mb")
    with client(server.url) as connection:
        assert connection.config_get("maxmemory") == {"maxmemory": "3145728"}


def test_commands_are_counted(redis_url: str) -> None:
    """commandstats counts each call, those of scripts too."""
    before = commandstats(redis_url).get("get", 0)
    with client(redis_url) as connection:
        connection.get("key")
        connection.eval("return redis.call('GET', KEYS[1])", 1, "key")
    assert commandstats(redis_url)["get"] - before == 2


@pytest.mark.parametrize("flavour", ["valkey", "redis7"])
def test_forbidden_commands_are_noticed(flavour: str) -> None:
    """Who walks or drops a key space is found out, although the server was killed and restarted."""
    server = RedisServer.start(flavour)
    try:
        with client(server.url) as connection:
            connection.keys("*")
            server.restart()
            connection.scan()
            connection.flushdb()
        assert server.forbidden_calls() == {"KEYS": 1, "SCAN": 1, "FLUSHDB": 1}
    finally:
        server.stop()


OFFENDER = """
import redis

def test_that_walks(valkey_url):
    with redis.Redis.from_url(valkey_url) as connection:
        connection.keys("*")

def test_that_walks_unnoticed(valkey_server):
    with redis.Redis.from_url(valkey_server.url) as connection:
        connection.keys("*")
"""


@pytest.mark.parametrize("workers", [0, 2])
def test_the_run_fails_when_keys_were_walked(workers: int, tmp_path: Path) -> None:
    """Who uses KEYS, SCAN or FLUSHDB fails his test, if it can be told which, and always the run, parted or not."""
    offenders = [tmp_path / f"test_offender{number}.py" for number in range(2)]
    for offender in offenders:
        offender.write_text(OFFENDER)
    options = ["-c", "pyproject.toml", "-p", "tests.conftest", f"--rootdir={tmp_path}", "-n", str(workers)]
    command = [sys.executable, "-m", "pytest", *options, *map(str, offenders)]
    run = subprocess.run(command, cwd=ROOT, env=private_environment(), capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stdout.count("was sent KEYS x 1") >= 2
    assert "the Redis servers were sent KEYS x 4" in run.stdout
    assert "4 passed, 3 errors" in run.stdout.splitlines()[-1]
    assert re.search(rf"^{'2 x ' if workers else ''}valkey [\d.]+ \(.*\): .* \(4\)$", run.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", ["postgres", "pgbouncer", "mariadb", "valkey", "redis7"])
def test_nothing_outlives_the_run(name: str) -> None:
    """A server and its files vanish when the process that started it is killed with SIGKILL."""
    command = [sys.executable, "-c", OWNER, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=private_environment()) as owner:
        assert owner.stdout is not None
        pid, folder = owner.stdout.readline().split()
        assert not gone(int(pid))
        owner.send_signal(signal.SIGKILL)
    assert eventually(lambda: gone(int(pid)))
    assert eventually(lambda: not Path(folder).exists())


def test_nothing_is_left_of_a_start(tmp_path: Path) -> None:
    """A server that was still starting when its run was killed is stopped, and its folder removed."""
    folder = tmp_path / "server"
    folder.mkdir()
    nobody_reads, answer = os.pipe()
    os.close(nobody_reads)
    command = [sys.executable, str(LEASH), "0", "", str(int(signal.SIGKILL)), str(folder), "sleep", "60"]
    subprocess.run(command, stdout=answer, timeout=10)
    os.close(answer)
    assert not folder.exists()


@pytest.mark.parametrize("start", [PostgresServer.start, partial(RedisServer.start, "valkey")])
def test_nothing_outlives_the_leash(start: Callable[[], PostgresServer | RedisServer]) -> None:
    """A server ends even when the process that watches over it is killed."""
    server = start()
    try:
        os.kill(int(stat(server.pid)[1]), signal.SIGKILL)
        assert eventually(lambda: gone(server.pid))
    finally:
        server.stop()
