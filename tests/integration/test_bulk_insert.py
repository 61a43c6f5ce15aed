"""create_multi sends rows as arrays to PostgreSQL, and what cannot be sent so as VALUES: nobody can tell which."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import pytest
import sqlalchemy as sa
from pydantic import BaseModel
from sqlalchemy import event, func, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import BatchRefused, Cache, Crud, UniqueViolation, UnsupportedModel
from fastrdb.crud import progress
from fastrdb.db import create_async_engine as create_engine


class Base(DeclarativeBase):
    """The tables of this module."""


class Thing(Base):
    """A column of each type that arrays are made of; all but the first may be NULL."""

    __tablename__ = "things"

    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str | None] = mapped_column(sa.String(20), unique=True)
    note: Mapped[str | None] = mapped_column(sa.Text)
    small: Mapped[int | None] = mapped_column(sa.SmallInteger)
    large: Mapped[int | None] = mapped_column(sa.BigInteger)
    price: Mapped[Decimal | None] = mapped_column(sa.Numeric(12, 2))
    weight: Mapped[float | None] = mapped_column(sa.Float)
    good: Mapped[bool | None] = mapped_column(sa.Boolean)
    day: Mapped[dt.date | None] = mapped_column(sa.Date)
    at: Mapped[dt.datetime | None] = mapped_column(sa.DateTime(timezone=True))
    local: Mapped[dt.datetime | None] = mapped_column(sa.DateTime)
    time: Mapped[dt.time | None] = mapped_column(sa.Time)
    key: Mapped[uuid.UUID | None] = mapped_column(sa.Uuid)
    raw: Mapped[bytes | None] = mapped_column(sa.LargeBinary)
    made: Mapped[dt.datetime] = mapped_column(sa.DateTime(timezone=True), server_default=func.now())


class Ticket(Base):
    """A primary key that Python makes for each row."""

    __tablename__ = "tickets"

    id: Mapped[uuid.UUID] = mapped_column(primary_key=True, default=uuid.uuid4)
    title: Mapped[str]


class Document(Base):
    """Types that have no arrays here."""

    __tablename__ = "documents"

    id: Mapped[int] = mapped_column(primary_key=True)
    body: Mapped[dict[str, Any] | None] = mapped_column(sa.JSON)
    tags: Mapped[str | None] = mapped_column(sa.Enum("red", "green", name="tags"))


class ThingCreate(BaseModel):
    """All columns of a thing that are given."""

    code: str | None = None
    note: str | None = None
    small: int | None = None
    large: int | None = None
    price: Decimal | None = None
    weight: float | None = None
    good: bool | None = None
    day: dt.date | None = None
    at: dt.datetime | None = None
    local: dt.datetime | None = None
    time: dt.time | None = None
    key: uuid.UUID | None = None
    raw: bytes | None = None
    made: dt.datetime | None = None


class ThingResponse(ThingCreate):
    """A thing as it is sent."""

    id: int


class TicketCreate(BaseModel):
    """What makes a ticket."""

    title: str


class TicketResponse(TicketCreate):
    """A ticket as it is sent."""

    id: uuid.UUID


class DocumentCreate(BaseModel):
    """What makes a document."""

    body: dict[str, Any] | None = None
    tags: str | None = None


class BareDocumentCreate(BaseModel):
    """What makes a document without tags."""

    body: dict[str, Any] | None = None


class DocumentResponse(DocumentCreate):
    """A document as it is sent."""

    id: int


things = Crud[Thing, ThingCreate, BaseModel, ThingResponse](Thing, ThingResponse)
tickets = Crud[Ticket, TicketCreate, BaseModel, TicketResponse](Ticket, TicketResponse)
bare_documents = Crud[Document, BareDocumentCreate, BaseModel, DocumentResponse](Document, DocumentResponse)
documents = Crud[Document, DocumentCreate, BaseModel, DocumentResponse](Document, DocumentResponse)

AT = dt.datetime(2024, 2, 29, 12, 30, 0, 123_456)


def thing(number: int) -> ThingCreate:
    """Give a thing with a value in every column, none of them simple."""
    return ThingCreate(
        code=f"{number:05} é,\"'{{}}\\",
        note=f"{'long ' * 50}{number}\n\t",
        small=-number % 30_000,
        large=2**40 + number,
        price=Decimal(number) / 100,
        weight=number / 3,
        good=number % 2 == 0,
        day=AT.date() + dt.timedelta(days=number),
        at=AT.replace(tzinfo=dt.UTC) + dt.timedelta(seconds=number),
        local=AT + dt.timedelta(microseconds=number),
        time=dt.time(number % 24, 5, 6, 7),
        key=uuid.UUID(int=number),
        raw=bytes([0, 255, number % 256]),
    )


@pytest.fixture
async def engine(postgres_url: str) -> AsyncIterator[AsyncEngine]:
    """The module's tables in a database of their own."""
    engine = create_async_engine(postgres_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
def sent(engine: AsyncEngine) -> list[str]:
    """The INSERTs that were sent."""
    statements: list[str] = []

    @event.listens_for(engine.sync_engine, "before_cursor_execute")
    def keep(connection: object, cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT"):
            statements.append(statement)

    return statements


async def test_rows_come_back_in_order_and_whole(engine: AsyncEngine, sent: list[str]) -> None:
    """Every type survives the arrays, and each response stands at its instance's place."""
    given = [thing(number) for number in range(3_000)]
    created = await things.create_multi(db=async_sessionmaker(engine), redis=None, instances=given)
    assert [ThingCreate(**row.model_dump(exclude={"id", "made"})) for row in created] == given
    assert [row.id for row in created] == sorted(row.id for row in created)
    assert len(sent) == 1
    assert "unnest" in sent[0]


async def test_large_numbers_of_rows_are_cut(
    engine: AsyncEngine, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """More rows than one statement takes are sent in several, in one transaction and in order."""
    monkeypatch.setattr(progress, "ROWS", 7)
    given = [ThingCreate(code=str(number)) for number in range(20)]
    created = await things.create_multi(db=async_sessionmaker(engine), redis=None, instances=given)
    assert [row.code for row in created] == [each.code for each in given]
    assert len(sent) == 3


async def test_nulls_and_left_out_columns(engine: AsyncEngine) -> None:
    """NULL is sent as NULL, and rows that leave a column to its server default get it, whatever the others do."""
    made = AT.replace(tzinfo=dt.UTC)
    given = [ThingCreate(code=str(n), made=made) if n % 3 else ThingCreate(note=None) for n in range(30)]
    created = await things.create_multi(db=async_sessionmaker(engine), redis=None, instances=given)
    assert [row.code for row in created] == [each.code for each in given]
    assert all((row.made == made) == bool(n % 3) for n, row in enumerate(created))
    assert all(row.made is not None and row.price is None for row in created)


async def test_too_long_text_is_refused_not_cut(engine: AsyncEngine) -> None:
    """A text that is longer than the column is in the database fails, and nothing is written."""
    factory = async_sessionmaker(engine)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE things ALTER code TYPE varchar(10)"))
    given = [ThingCreate(code="short"), ThingCreate(code="x" * 11)]
    with pytest.raises(sa.exc.DBAPIError, match="too long"):
        await things.create_multi(db=factory, redis=None, instances=given)
    assert await things.count(db=factory) == 0


async def copied(engine: AsyncEngine, crud: Any, given: Any) -> list[Any]:
    """Create rows that nobody wants back, then again some that are given back; and give what is stored."""
    factory = async_sessionmaker(engine)
    rows = []
    for returning in (False, True):
        await crud.create_multi(db=factory, redis=None, instances=given, returning=returning)
        async with engine.begin() as connection:
            table = crud.model.__table__
            rows.append((await connection.execute(sa.select(table).order_by(table.c.id))).all())
            await connection.execute(text(f"TRUNCATE {table.name} RESTART IDENTITY"))
    return rows


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The columns of each COPY."""
    found: list[list[str]] = []
    send = asyncpg.Connection.copy_records_to_table

    async def keep(self: Any, name: str, **arguments: Any) -> Any:
        found.append(arguments["columns"])
        return await send(self, name, **arguments)

    monkeypatch.setattr(asyncpg.Connection, "copy_records_to_table", keep)
    return found


async def test_copied_rows_are_those_that_values_would_be(engine: AsyncEngine, copies: list[list[str]]) -> None:
    """Every type, NULL and default is the same by COPY as by the statements that give rows back; JSON, too."""
    given = [thing(number) for number in range(400)] + [ThingCreate(code="n")]
    made = AT.replace(tzinfo=dt.UTC)
    by_copy, by_arrays = await copied(engine, things, [each.model_copy(update={"made": made}) for each in given])
    assert by_copy == by_arrays
    bodies = [BareDocumentCreate(body={"n": n} if n % 2 else None) for n in range(400)]
    by_copy, by_values = await copied(engine, bare_documents, bodies)
    assert by_copy == by_values
    assert [columns[0] for columns in copies] == ["code", "body"]


async def test_copied_rows_get_the_defaults_of_python(engine: AsyncEngine, copies: list[list[str]]) -> None:
    """A default that Python computes is another one for each copied row."""
    given = [TicketCreate(title=str(n)) for n in range(400)]
    factory = async_sessionmaker(engine)
    assert await tickets.create_multi(db=factory, redis=None, instances=given, returning=False) == 400
    assert len({row.id for row in await tickets.get_multi(db=factory, redis=None, limit=1000)}) == 400
    assert copies == [["title", "id"]]


async def test_types_that_copy_does_not_take_go_another_way(engine: AsyncEngine, copies: list[list[str]]) -> None:
    """A native Enum, and a column whose type in the database is not the model's, are written all the same."""
    factory = async_sessionmaker(engine)
    given = [DocumentCreate(body={"n": n}, tags="red") for n in range(400)]
    assert await documents.create_multi(db=factory, redis=None, instances=given, returning=False) == 400
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE things ALTER COLUMN local TYPE timestamptz USING now()"))
    rows = [thing(number) for number in range(400)]
    assert await things.create_multi(db=factory, redis=None, instances=rows, returning=False) == 400
    assert copies == []


async def test_row_level_security_and_copy(engine: AsyncEngine, copies: list[list[str]]) -> None:
    """PostgreSQL copies into no table whose rows a policy hides: there, INSERTs are sent."""
    async with engine.begin() as connection:
        for statement in (
            "DO $$ BEGIN CREATE ROLE fastrdb_copier; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            "ALTER TABLE things ENABLE ROW LEVEL SECURITY",
            "CREATE POLICY all_of_it ON things USING (true)",
            "GRANT ALL ON things, things_id_seq TO fastrdb_copier",
        ):
            await connection.execute(text(statement))
    async with AsyncSession(engine) as session, session.begin():
        await session.execute(text("SET LOCAL ROLE fastrdb_copier"))
        given = [ThingCreate(code=str(n)) for n in range(400)]
        assert await things.create_multi(db=session, redis=None, instances=given, returning=False) == 400
    assert copies == []
    assert await things.count(db=async_sessionmaker(engine)) == 400


async def test_errors_of_copy_are_the_usual_ones(engine: AsyncEngine, copies: list[list[str]]) -> None:
    """A duplicate is a UniqueViolation with its constraint, a text that is too long an error of SQLAlchemy's."""
    factory = async_sessionmaker(engine)
    await things.create(db=factory, redis=None, obj_in=ThingCreate(code="7"))
    given = [ThingCreate(code=str(n)) for n in range(400)]
    with pytest.raises(UniqueViolation) as found:
        await things.create_multi(db=factory, redis=None, instances=given, returning=False)
    assert found.value.constraint == "things_code_key"
    assert isinstance(found.value.__cause__, Exception)
    given[7] = ThingCreate(code="x" * 11)
    async with engine.begin() as connection:
        await connection.execute(text("ALTER TABLE things ALTER code TYPE varchar(10)"))
    async with factory() as session:
        with pytest.raises(sa.exc.DBAPIError, match="too long"):
            await things.create_multi(db=session, redis=None, instances=given, returning=False)
        assert await things.count(db=session) == 1
    assert len(copies) == 2


async def test_copy_through_pgbouncer(pgbouncer_url: str, copies: list[list[str]]) -> None:
    """Where a pooler hands each transaction another connection, rows are copied, too."""
    engine = create_engine(pgbouncer_url, pgbouncer=True)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    given = [ThingCreate(code=str(n)) for n in range(400)]
    for _ in range(3):
        async with engine.begin() as connection:
            await connection.execute(text("TRUNCATE things"))
        factory = async_sessionmaker(engine)
        assert await things.create_multi(db=factory, redis=None, instances=given, returning=False) == 400
    assert len(copies) == 3
    await engine.dispose()


async def test_session_that_has_copied_is_not_answered_from_the_cache(engine: AsyncEngine, valkey_url: str) -> None:
    """The driver's own statement counts as a write: the session reads SQL, and what it reads is not cached."""
    crud = Crud[Thing, ThingCreate, BaseModel, ThingResponse](Thing, ThingResponse, pattern="thing:{code}")
    factory = async_sessionmaker(engine)
    async with Cache.from_url(valkey_url) as cache:
        assert await crud.get_or_none(factory, cache, code="7") is None
        async with factory() as session:
            await session.begin()
            given = [ThingCreate(code=str(n)) for n in range(400)]
            await crud.create_multi(session, cache, given, returning=False)
            assert await crud.get(session, cache, code="7") is not None
            await session.rollback()
        assert await crud.get_or_none(factory, cache, code="7") is None


async def test_errors_are_the_usual_ones(engine: AsyncEngine) -> None:
    """A row that is there already is a UniqueViolation, a wrong value is refused, and neither leaves a row."""
    factory = async_sessionmaker(engine)
    await things.create(db=factory, redis=None, obj_in=ThingCreate(code="a"))
    with pytest.raises(UniqueViolation):
        await things.create_multi(db=factory, redis=None, instances=[ThingCreate(code="b"), ThingCreate(code="a")])
    with pytest.raises(BatchRefused, match="small"):
        await things.create_multi(db=factory, redis=None, instances=[ThingCreate(small=1), ThingCreate(small=10**6)])
    assert await things.count(db=factory) == 1


async def test_defaults_of_python_are_made_for_each_row(engine: AsyncEngine, sent: list[str]) -> None:
    """A default that Python computes is another one for each row, and VALUES are sent."""
    created = await tickets.create_multi(
        db=async_sessionmaker(engine), redis=None, instances=[TicketCreate(title=str(n)) for n in range(50)]
    )
    assert [row.title for row in created] == [str(n) for n in range(50)]
    assert len({row.id for row in created}) == 50
    assert "unnest" not in "".join(sent)


async def test_other_types_are_sent_as_values(engine: AsyncEngine, sent: list[str]) -> None:
    """JSON and Enum columns go as VALUES, and come back equal."""
    given = [DocumentCreate(body={"n": n}, tags="red" if n % 2 else None) for n in range(20)]
    created = await documents.create_multi(db=async_sessionmaker(engine), redis=None, instances=given)
    assert [DocumentCreate(**row.model_dump(exclude={"id"})) for row in created] == given
    assert "unnest" not in "".join(sent)


async def test_row_that_a_trigger_drops_is_an_error(engine: AsyncEngine) -> None:
    """Where a trigger lets a row vanish, nobody gets another row's response: it fails, and nothing is written."""
    body = "BEGIN IF NEW.code = 'b' THEN RETURN NULL; END IF; RETURN NEW; END"
    async with engine.begin() as connection:
        await connection.execute(text(f"CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ {body} $$"))
        await connection.execute(
            text("CREATE TRIGGER skip BEFORE INSERT ON things FOR EACH ROW EXECUTE FUNCTION skip()")
        )
    factory = async_sessionmaker(engine)
    given = [ThingCreate(code=code) for code in "abc"]
    with pytest.raises(UnsupportedModel, match="vanish"):
        await things.create_multi(db=factory, redis=None, instances=given)
    assert await things.count(db=factory) == 0
