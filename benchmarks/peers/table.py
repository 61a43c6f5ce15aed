"""The table in PostgreSQL that all peers share."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

_CREATE = """
    CREATE TABLE {table} (
        id serial PRIMARY KEY,
        email varchar(255) NOT NULL UNIQUE,
        name varchar(100) NOT NULL,
        bio varchar(500),
        is_active boolean NOT NULL DEFAULT true,
        version integer NOT NULL DEFAULT 0,
        created_at timestamptz NOT NULL DEFAULT now()
    );
    INSERT INTO {table} (email, name, bio)
    SELECT 'user' || at || '@example.com', 'User Number ' || at, CASE at % 2 WHEN 1 THEN 'Reads much.' END
    FROM generate_series(1, {rows}) AS at;
    ANALYZE {table};
"""
# BEFORE UPDATE, under the row's lock: versions grow in the order of commits.
_VERSIONS = """
    CREATE FUNCTION {table}_version() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN NEW.version := OLD.version + 1; RETURN NEW; END $$;
    CREATE TRIGGER version BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION {table}_version();
"""
_DROP = "DROP TABLE {table} CASCADE; DROP FUNCTION IF EXISTS {table}_version;"


@contextmanager
def table(postgres_url: str, rows: int, *, versions: bool = False) -> Iterator[str]:
    """Give the name of a new table with so many rows; *versions*: a trigger counts each row's updates."""
    name = f"peers_{secrets.token_hex(4)}"
    script = (_CREATE + (_VERSIONS if versions else "")).format(table=name, rows=rows)
    asyncio.run(_run(postgres_url, script))
    try:
        yield name
    finally:
        asyncio.run(_run(postgres_url, _DROP.format(table=name)))


async def _run(postgres_url: str, script: str) -> None:
    connection = await asyncpg.connect(postgres_url.replace("+asyncpg", ""))
    try:
        await connection.execute(script)
    finally:
        await connection.close()
