"""Which servers are measured on: given by URL, or started as for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.servers.postgres import PostgresServer
from tests.servers.redis import RedisServer


@dataclass(frozen=True, slots=True)
class Servers:
    """Two servers.

    Attributes:
        versions: What they are, for the report.
    """

    postgres_url: str
    redis_url: str
    versions: dict[str, str]


@contextmanager
def servers(postgres_url: str | None, redis_url: str | None) -> Iterator[Servers]:
    """Give the servers at these URLs, or private ones, without persistence, that end with the block."""
    with ExitStack() as stack:
        postgres = PostgresServer.given(postgres_url) if postgres_url else PostgresServer.start()
        stack.callback(postgres.stop)
        redis = RedisServer.given(redis_url) if redis_url else RedisServer.start("valkey")
        stack.callback(redis.stop)
        versions = {"PostgreSQL": postgres.version, "Redis, Valkey": f"{redis.version} ({redis.flavour})"}
        yield Servers(postgres.url, redis.url, versions)
