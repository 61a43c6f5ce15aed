"""The outbox: invalidations that a write leaves in its own transaction, because Redis was away."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    DateTime,
    MetaData,
    StaticPool,
    String,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.dialects import mysql
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker

from ..cache.outbox import KeptRow
from ..db.servers import family
from ..errors import ConfigurationError, SessionRefused

TABLE_NAME = "fastrdb_outbox"
_PAGE = 200  # rows that are read at once, and ids that are deleted at once
# The table is where it was made, whatever schemas the writer's own tables are translated to.
_AS_IT_IS: dict[str, Any] = {"schema_translate_map": None}


def outbox_table(metadata: MetaData, name: str = TABLE_NAME, *, schema: str | None = None) -> Table:
    """Give the table of an outbox, as part of *metadata*.

    Args:
        metadata: What ``create_all`` and Alembic look at.
        name: The table's.
        schema: Its schema; needed where sessions change their ``search_path``.
    """
    return Table(
        name,
        metadata,
        Column("id", String(32), primary_key=True),
        Column("namespace", Text(), nullable=False),
        Column("keys", Text().with_variant(mysql.MEDIUMTEXT(), "mysql", "mariadb"), nullable=False),
        Column("kept_at", DateTime(timezone=True), nullable=False, server_default=func.now()),
        schema=schema,
    )


class Outbox:
    """A table that keeps, in their own transactions, what writes could not tell Redis: ``Cache.from_url(outbox=…)``.

    Every process that uses the cache should be given it: each looks for what others have left.

    Args:
        table: Made by ``outbox_table``; it must be there in the database, and the writers may insert into it.
        factory: An ``async_sessionmaker`` whose engine is that of the primary database, in which it is looked for rows.
        look_every_s: Seconds from one look to the next: how long a process that did not notice that Redis was away may
            go on with what a writer, killed meanwhile, has left.

    Raises:
        ConfigurationError: The table is another one, or the engine is one that cannot be used.
        SessionRefused: The factory has no engine of its own.
    """

    def __init__(self, table: Table, factory: async_sessionmaker[Any], *, look_every_s: float = 1.0) -> None:
        if not {"id", "namespace", "keys", "kept_at"} <= set(table.columns.keys()):
            raise ConfigurationError(f"table {table.name!r} is not that of an outbox; make it by outbox_table()")
        if look_every_s <= 0:
            raise ConfigurationError(f"look_every_s: {look_every_s}; it is a number of seconds, more than 0")
        engine = factory.kw.get("bind") if isinstance(factory, async_sessionmaker) else None
        if not isinstance(engine, AsyncEngine):
            raise SessionRefused("factory: pass an async_sessionmaker that is bound to an AsyncEngine")
        if isinstance(engine.sync_engine.pool, StaticPool):
            raise ConfigurationError(
                "factory: all of its sessions share one connection, and would end each other's work"
            )
        self.table, self.look_every_s = table, look_every_s
        self._engine = engine

    def __repr__(self) -> str:
        return f"<Outbox {self.table.fullname!r} look_every_s={self.look_every_s}>"

    def lies_in(self, connection: Connection) -> bool:
        """Tell whether the table is in the database that a connection leads to."""
        return _database(connection.engine.url, connection.dialect) == _database(
            self._engine.url, self._engine.sync_engine.dialect
        )

    def write(self, connection: Connection, namespace: str, keys: Iterable[bytes]) -> None:
        """Keep an invalidation in the connection's open transaction."""
        row = {
            "id": secrets.token_hex(16),
            "namespace": namespace,
            "keys": json.dumps(sorted(key.decode() for key in keys)),
        }
        connection.execute(insert(self.table), row, execution_options=_AS_IT_IS)

    async def read(self, namespace: str, after: str) -> Sequence[KeptRow]:
        """Give the next rows of a namespace that are committed, in the order of their ids; none after the last."""
        columns = self.table.c
        wanted = select(columns.id, columns.namespace, columns["keys"]).order_by(columns.id).limit(_PAGE)
        async with self._engine.connect() as connection:
            while True:
                page = wanted.where(columns.namespace == namespace, columns.id > after)
                rows = (await connection.execute(page, execution_options=_AS_IT_IS)).all()
                # A database may take other texts for equal.
                found = [KeptRow(id, _keys(text)) for id, of, text in rows if of == namespace]
                if found or not rows:
                    return found
                after = rows[-1].id

    async def delete(self, ids: Collection[str]) -> None:
        """Delete rows that are delivered; those that are gone already are no error."""
        ordered = sorted(ids)
        for start in range(0, len(ordered), _PAGE):
            those = self.table.c.id.in_(ordered[start : start + _PAGE])
            async with self._engine.begin() as connection:
                await connection.execute(delete(self.table).where(those), execution_options=_AS_IT_IS)


def _keys(text: str) -> list[bytes]:
    return [key.encode() for key in json.loads(text)]


def _database(url: URL, dialect: Any) -> tuple[str, str]:
    """Name a database as the cache's keys do: whatever host or pooler leads to it."""
    kind, name = family(dialect), url.database or ""
    if kind == "sqlite" and name and not name.startswith(("file:", ":")):
        name = os.path.abspath(name)
    return kind, name
