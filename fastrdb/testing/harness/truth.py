"""What the rows are, by PostgreSQL's own word: side tables that a trigger keeps in the writer's own transaction."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from typing import Any

from asyncpg import InterfaceError, PostgresError
from sqlalchemy import event, text
from sqlalchemy import inspect as inspect_mapped
from sqlalchemy.exc import DisconnectionError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine
from sqlalchemy.util import await_only

from .deeds import DEED, SETTING
from .judging import Image, Item, Snapshot
from .subject import Subject
from .windows import Written

DEEP = 40  # versions of a row that are looked at, to explain an answer that lacks some

# AFTER triggers: the row's lock, or its place in the unique index, is ours until the transaction ends. So the versions
# of one row grow in the order of the COMMITs, whoever writes; one that was rolled back is never given again.
_SET_UP = (
    "CREATE SEQUENCE {schema}.versions",
    """
    CREATE TABLE {schema}.truth
      (id text PRIMARY KEY, version bigint NOT NULL, alive boolean NOT NULL, mark text NOT NULL, row jsonb NOT NULL)
    """,
    "CREATE TABLE {schema}.marks (id text, mark text, version bigint NOT NULL, PRIMARY KEY (id, mark))",
    """
    CREATE TABLE {schema}.history
      (id text, version bigint, alive boolean, mark text, row jsonb, deed text, at float8, PRIMARY KEY (id, version))
    """,
    """
    CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE
      number bigint := nextval('{schema}.versions');
      living boolean := TG_OP <> 'DELETE';
      image jsonb;
    BEGIN
      IF living THEN image := to_jsonb(NEW); ELSE image := to_jsonb(OLD); END IF;
      INSERT INTO {schema}.truth VALUES (image->>'{key}', number, living, image->>'{mark}', image)
        ON CONFLICT (id) DO UPDATE
        SET version = excluded.version, alive = excluded.alive, mark = excluded.mark, row = excluded.row;
      IF living THEN
        INSERT INTO {schema}.marks VALUES (image->>'{key}', image->>'{mark}', number);
      END IF;
      INSERT INTO {schema}.history VALUES (
        image->>'{key}', number, living, image->>'{mark}', image,
        coalesce(current_setting('{setting}', true), ''), extract(epoch FROM clock_timestamp())
      );
      RETURN NULL;
    END $$
    """,
    "CREATE TRIGGER {schema} AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH ROW EXECUTE FUNCTION {schema}.note()",
    """
    INSERT INTO {schema}.truth
      SELECT to_jsonb(t)->>'{key}', nextval('{schema}.versions'), true, to_jsonb(t)->>'{mark}', to_jsonb(t)
      FROM {table} AS t
    """,
    "INSERT INTO {schema}.marks SELECT id, mark, version FROM {schema}.truth",
    "INSERT INTO {schema}.history SELECT id, version, alive, mark, row, '', 0 FROM {schema}.truth",
)


async def set_up(engine: AsyncEngine, subject: Subject, schema: str, *, with_table: bool) -> None:
    """Make the side tables in a schema of their own, and the trigger; and before it the table, if it is not there."""
    quoted = engine.dialect.identifier_preparer.format_table(subject.table)
    names = {"key": subject.column(subject.primary_key), "mark": subject.column(subject.mark), "setting": SETTING}
    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"CREATE SCHEMA {schema}")
        if with_table:
            await connection.run_sync(subject.table.create)
        for statement in _SET_UP:
            await connection.exec_driver_sql(statement.format(schema=schema, table=quoted, **names))


async def tear_down(engine: AsyncEngine, schema: str) -> None:
    """Drop the schema and, with its function, the trigger."""
    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE")


class Truth:
    """Looks at the side tables over a connection of its own, on which every statement commits by itself.

    Args:
        connection: In AUTOCOMMIT.
        subject: Whose rows they are.
        schema: Where the side tables are.
    """

    def __init__(self, connection: AsyncConnection, subject: Subject, schema: str) -> None:
        self._connection, self._lock = connection, asyncio.Lock()
        self._coming: asyncio.Future[Snapshot] | None = None
        self._all = text(f"SELECT id, version, alive, mark, row::text FROM {schema}.truth")
        self._one = text(f"SELECT version FROM {schema}.marks WHERE id = :id AND mark = :mark")
        self._history = text(f"""
            SELECT id, version, alive, mark, row::text, deed, at FROM (
              SELECT *, row_number() OVER (PARTITION BY id ORDER BY version DESC) AS depth FROM {schema}.history
            ) AS numbered WHERE depth <= {DEEP} ORDER BY version
        """)
        self._key = subject.column(subject.primary_key)
        attributes = [prop.key for prop in inspect_mapped(subject.crud.model).column_attrs]
        self._attributes = {subject.column(attribute): attribute for attribute in attributes}

    async def snapshot(self) -> Snapshot:
        """Give all rows, deleted ones, too, as they are committed at some time between now and the return."""
        if self._coming is None:
            self._coming = asyncio.ensure_future(self._look())
        return await self._coming

    async def _look(self) -> Snapshot:
        async with self._lock:
            self._coming = None  # who asks from now on needs a later one
            rows = await self._connection.execute(self._all)
        return {row[0]: self._image(row[1], row[2], row[3], row[4]) for row in rows}

    def _image(self, version: int, alive: bool, mark: str, raw: str) -> Image:
        columns = json.loads(raw)
        row = {self._attributes[name]: value for name, value in columns.items() if name in self._attributes}
        return Image(version, alive, mark, columns[self._key], row)

    async def versions(self, items: Iterable[Item]) -> dict[Item, int]:
        """Give the versions of marks that were committed at any time."""
        found = {}
        for item in items:
            async with self._lock:
                version = await self._connection.scalar(self._one, {"id": item.id, "mark": item.mark})
            if version is not None:
                found[item] = version
        return found

    async def history(self) -> list[Written]:
        """Give the last versions of each row, in the order in which they were written."""
        async with self._lock:
            rows = await self._connection.execute(self._history)
        return [Written(row[0], self._image(*row[1:5]), row[5], row[6]) for row in rows]


def name_deeds(engine: AsyncEngine) -> None:
    """Mark the transactions on each connection of an engine with the deed of the task that takes it from the pool."""

    def taken(connection: Any, *_: object) -> None:
        # Past SQLAlchemy, which would take it for a statement of the transaction.
        statement = f"SELECT set_config('{SETTING}', '{DEED.get()}', false)"
        try:
            await_only(connection.driver_connection.execute(statement))
        except (OSError, InterfaceError, PostgresError) as error:  # it was cut meanwhile
            raise DisconnectionError from error

    event.listen(engine.sync_engine, "checkout", taken)
