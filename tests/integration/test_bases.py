"""Bases on real databases: keys, timestamps, and what is there after a flush."""

import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import func, insert, inspect, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine

from fastrdb.db import uuid7
from tests.people import Apart, People, Person, Plain, people_in


@pytest.fixture
async def people(database_url: str) -> AsyncIterator[People]:
    """An empty database, once PostgreSQL and once SQLite."""
    async with people_in(database_url) as people:
        yield people


@pytest.fixture
async def session(people: People) -> AsyncIterator[AsyncSession]:
    """A session as SQLAlchemy makes it: a commit expires everything."""
    async with AsyncSession(people.engine) as session:
        yield session


async def test_key_and_times_are_there_after_a_flush(session: AsyncSession) -> None:
    """An INSERT gives the key and the times of the database's clock, aware and in UTC."""
    row = Plain(name="a")
    session.add(row)
    await session.flush()
    assert (row.id.version, row.created_at) == (4, row.updated_at)
    assert row.created_at.utcoffset() == timedelta(0)
    assert abs(datetime.now(UTC) - row.created_at) < timedelta(minutes=1)


async def test_updated_at_is_there_after_an_update(session: AsyncSession) -> None:
    """An UPDATE moves ``updated_at``, and reading it needs no I/O, which an attribute cannot do here."""
    old = datetime(2000, 1, 1, tzinfo=UTC)
    row = Plain(name="a", created_at=old, updated_at=old)
    session.add(row)
    await session.commit()
    await session.refresh(row)
    row.name = "b"
    await session.flush()
    assert row.updated_at > row.created_at == old


async def test_zone_is_kept_as_utc(session: AsyncSession) -> None:
    """Whatever zone a time is given in, the same moment comes back, in UTC, and equality finds it."""
    at = datetime(2026, 7, 1, 12, 30, 15, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    row = Plain(name="a", created_at=at)
    session.add(row)
    await session.commit()
    await session.refresh(row)
    assert (row.created_at, row.created_at.utcoffset()) == (at, timedelta(0))
    assert (await session.scalars(select(Plain.name).where(Plain.created_at == at))).all() == ["a"]
    later = select(func.count()).where(Plain.updated_at > Plain.created_at + timedelta(hours=1))
    if session.bind.dialect.name == "postgresql":  # type: ignore[union-attr]  # an engine
        assert await session.scalar(later) == 1


async def test_database_clock_compares_with_python_times(session: AsyncSession) -> None:
    """A default of the database is stored as a bound value is, so that the two are equal and sort together."""
    await session.execute(text(f"INSERT INTO plain (id, name) VALUES ('{uuid.uuid4()}', 'raw')"))
    at = await session.scalar(select(Plain.created_at).where(Plain.name == "raw"))
    assert at is not None
    assert await session.scalar(select(Plain.name).where(Plain.created_at == at)) == "raw"
    assert await session.scalar(select(Plain.name).where(Plain.created_at < at)) is None
    assert await session.scalar(select(Plain.name).where(Plain.created_at <= at + timedelta(microseconds=1))) == "raw"


async def test_keys_are_found_by_uuid_and_by_text(session: AsyncSession) -> None:
    """A GUID is what Python calls it, whatever the database has."""
    key = uuid7()
    await session.execute(insert(Plain).values(id=str(key).upper(), name="a"))
    assert await session.scalar(select(Plain.id).where(Plain.id == key)) == key
    assert await session.scalar(select(Plain.id).where(Plain.id == str(key))) == key
    is_postgresql = (await session.connection()).dialect.name == "postgresql"
    stored = await session.scalar(text("SELECT id FROM plain"))
    assert stored == (key if is_postgresql else str(key))


async def test_refresh_updated_at_writes_a_row_that_is_unchanged(session: AsyncSession) -> None:
    """The row is written with the time of this process."""
    row = Plain(name="a", updated_at=datetime(2000, 1, 1, tzinfo=UTC))
    session.add(row)
    await session.commit()
    await session.refresh(row)
    row.refresh_updated_at()
    await session.commit()
    assert (await session.scalars(select(Plain.updated_at))).one() > datetime(2020, 1, 1, tzinfo=UTC)


async def test_repr_of_an_expired_instance_does_no_io(session: AsyncSession) -> None:
    """After a commit, which expires everything, and after the session is closed, the repr is the same."""
    row = Plain(name="a")
    session.add(row)
    await session.flush()
    shown = repr(row)
    await session.commit()
    assert repr(row) == shown
    assert inspect(row).unloaded >= {"id", "name"}
    await session.close()
    assert repr(row) == shown == f"<Plain id={inspect(row).identity[0]!r}>"


async def test_update_statements_move_updated_at(session: AsyncSession) -> None:
    """A hand-written UPDATE moves ``updated_at``, one that names it sets it."""
    old = datetime(2000, 1, 1, tzinfo=UTC)
    for name in "ab":
        session.add(Plain(name=name, updated_at=old))
    await session.flush()
    await session.execute(update(Plain).where(Plain.name == "a").values(name="c"))
    await session.execute(update(Plain).where(Plain.name == "b").values(updated_at=old + timedelta(days=1)))
    session.expire_all()
    found = {row.name: row.updated_at for row in await session.execute(select(Plain.name, Plain.updated_at))}
    assert found["c"] > datetime(2020, 1, 1, tzinfo=UTC)
    assert found["b"] == old + timedelta(days=1)


async def test_names_in_the_database_are_those_of_the_metadata(people: People) -> None:
    """Constraints and indexes are found in the database under the names that migrations will use."""

    def names(connection: object) -> set[str]:
        found = inspect(connection)
        assert found is not None
        indexes = {str(index["name"]) for index in found.get_indexes("people")}
        checks = {str(check["name"]) for check in found.get_check_constraints("people")}
        uniques = {str(unique["name"]) for unique in found.get_unique_constraints("people")}
        return indexes | checks | uniques

    async with people.engine.connect() as connection:
        found = await connection.run_sync(names)
    assert {
        *("uq_people_name", "ck_people_soft_delete", "idx_people_tenant_id_created_at"),
        *("idx_people_is_active_deleted_at", "idx_people_created_at", "idx_people_updated_at"),
    } <= found


async def test_dm_33_models_work_in_memory() -> None:
    """Every column of every mixin works on an in-memory SQLite."""
    engine = create_async_engine("sqlite+aiosqlite:///:memory:")
    async with engine.begin() as connection:
        await connection.run_sync(Apart.metadata.create_all)
    async with AsyncSession(engine) as session:
        session.add(Person(name="Ann", tenant_id="acme"))
        await session.commit()
        found = (await session.scalars(select(Person))).one().to_dict()
        assert (found["version"], found["is_active"], found["created_at"].tzinfo) == (1, True, UTC)
    await engine.dispose()
