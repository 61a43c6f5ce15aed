"""Kinds of models and schemas that a crud takes, each with a life of its own: create, read, list, update, delete."""

import enum
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator, model_validator
from sqlalchemy import (
    JSON,
    Column,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    Integer,
    LargeBinary,
    MetaData,
    Numeric,
    String,
    Table,
    Uuid,
    func,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import (
    DeclarativeBase,
    Mapped,
    MappedAsDataclass,
    column_property,
    mapped_column,
    registry,
    synonym,
)

from fastrdb import Cache, Crud, MultipleFound, NotFound, UnsupportedModel

Sessions = async_sessionmaker[AsyncSession]


@asynccontextmanager
async def database(url: str, metadata: MetaData) -> AsyncIterator[Sessions]:
    """Tables of a test's own, and sessions on them."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(metadata.create_all)
        yield async_sessionmaker(engine, expire_on_commit=False)
    finally:
        await engine.dispose()


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """Each kind of model lives on SQLite, on PostgreSQL and on MariaDB."""
    return str(request.getfixturevalue(f"{request.param}_url"))


class Answer(BaseModel):
    """The base of response schemas here."""

    model_config = ConfigDict(from_attributes=True)


async def lives(
    crud: Crud[Any, Any, Any, Any],
    db: Sessions,
    create: BaseModel,
    change: BaseModel,
    key: Callable[[Any], dict[str, Any]],
) -> None:
    """Walk one row through its life: what is written, loaded and hit is one and the same."""
    async with Cache.from_url("memory://") as cache:
        made = await crud.create(db=db, redis=cache, obj_in=create)
        assert await crud.get(db=db, redis=cache, **key(made)) == made
        assert await crud.get(db=db, redis=None, **key(made)) == made
        await crud.clear(cache)
        assert await crud.get(db=db, redis=cache, **key(made)) == made, "loaded"
        hits = cache.stats.hits
        assert await crud.get(db=db, redis=cache, **key(made)) == made, "hit"
        assert cache.stats.hits == hits + 1
        assert await crud.get_multi(db=db, redis=cache) == [made]
        assert await crud.get_multi(db=db, redis=cache) == [made]
        changed = await crud.update(db=db, redis=cache, obj_in=change, **key(made))
        assert await crud.get(db=db, redis=cache, **key(changed)) == changed
        assert await crud.get_multi(db=db, redis=cache) == [changed]
        assert await crud.count(db=db, redis=cache) == 1
        await crud.delete(db=db, redis=cache, **key(changed))
        assert await crud.get_or_none(db=db, redis=cache, **key(changed)) is None
        with pytest.raises(NotFound):
            await crud.get(db=db, redis=cache, **key(changed))
        assert await crud.get_multi(db=db, redis=cache) == []


async def test_composite_key(url: str) -> None:
    """A row is named by all columns of a composite primary key."""

    class Base(DeclarativeBase):
        pass

    class Verse(Base):
        __tablename__ = "verses"
        chapter: Mapped[int] = mapped_column(primary_key=True)
        verse: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str] = mapped_column(String(50))

    class VerseIn(BaseModel):
        chapter: int
        verse: int
        text: str

    class VerseChange(BaseModel):
        text: str | None = None

    class VerseOut(Answer):
        chapter: int
        verse: int
        text: str

    crud = Crud[Verse, VerseIn, VerseChange, VerseOut](
        Verse, VerseOut, pattern="verse:{chapter}:{verse}", list_pattern="verses:{page}:{limit}"
    )
    async with database(url, Base.metadata) as db:
        await lives(
            crud, db, VerseIn(chapter=1, verse=2, text="a"), VerseChange(text="b"),
            lambda row: {"chapter": row.chapter, "verse": row.verse},
        )  # fmt: skip


async def test_uuid_key(url: str) -> None:
    """A UUID key made by the model's default is returned, and read as UUID or as text."""

    class Base(MappedAsDataclass, DeclarativeBase):
        pass

    class Thing(Base):
        __tablename__ = "things"
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True, init=False, default_factory=uuid.uuid4)
        name: Mapped[str] = mapped_column(String(50))
        tags: Mapped[list[str]] = mapped_column(JSON, default_factory=list)

    class ThingIn(BaseModel):
        name: str

    class ThingOut(Answer):
        id: uuid.UUID
        name: str
        tags: list[str]

    crud = Crud[Thing, ThingIn, ThingIn, ThingOut](Thing, ThingOut, "thing:{id}", "things:{page}:{limit}")
    async with database(url, Base.metadata) as db:
        await lives(crud, db, ThingIn(name="a"), ThingIn(name="b"), lambda row: {"id": row.id})
        async with Cache.from_url("memory://") as cache:
            made = await crud.create(db=db, redis=cache, obj_in=ThingIn(name="c"))
            assert await crud.get(db=db, redis=cache, id=str(made.id)) == made
            assert cache.stats.hits == 1


async def test_every_type_of_column(url: str) -> None:
    """Decimal, zoned datetime, date, Enum, JSON, bytes, bool and NULL come back equal by every way."""

    class Colour(enum.Enum):
        RED = "r"
        BLUE = "b"

    class Base(DeclarativeBase):
        pass

    class Row(Base):
        __tablename__ = "rows"
        id: Mapped[int] = mapped_column(primary_key=True)
        price: Mapped[Decimal] = mapped_column(Numeric(12, 3))
        at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
        day: Mapped[date]
        colour: Mapped[Colour] = mapped_column(Enum(Colour))
        data: Mapped[dict[str, Any]] = mapped_column(JSON)
        raw: Mapped[bytes] = mapped_column(LargeBinary)
        flag: Mapped[bool]
        note: Mapped[str | None] = mapped_column(String(50))
        code: Mapped[str] = mapped_column(Uuid(as_uuid=False))

    class RowIn(BaseModel):
        price: Decimal
        at: datetime
        day: date
        colour: Colour
        data: dict[str, Any]
        raw: bytes
        flag: bool
        note: str | None = None
        code: str

    class RowChange(BaseModel):
        price: Decimal

    class RowOut(Answer, RowIn):
        id: int

    crud = Crud[Row, RowIn, RowChange, RowOut](Row, RowOut, "row:{id}", "rows:{page}:{limit}")
    value = RowIn(
        price=Decimal("12.500"), at=datetime(2026, 3, 29, 1, 30, tzinfo=UTC), day=date(2024, 2, 29), colour=Colour.BLUE,
        data={"a": [1, None, {"é": "☃"}]}, raw=b"plain", flag=False, code=str(uuid.uuid4()),
    )  # fmt: skip
    async with database(url, Base.metadata) as db:
        await lives(crud, db, value, RowChange(price=Decimal("0.001")), lambda row: {"id": row.id})


async def test_bytes_that_are_no_text(sqlite_url: str) -> None:
    """A value that JSON cannot say is served, never stored, and counted."""

    class Base(DeclarativeBase):
        pass

    class Blob(Base):
        __tablename__ = "blobs"
        id: Mapped[int] = mapped_column(primary_key=True)
        raw: Mapped[bytes]

    class BlobIn(BaseModel):
        raw: bytes

    class BlobOut(Answer):
        id: int
        raw: bytes

    crud = Crud[Blob, BlobIn, BlobIn, BlobOut](Blob, BlobOut, "blob:{id}")
    async with database(sqlite_url, Base.metadata) as db, Cache.from_url("memory://") as cache:
        made = await crud.create(db=db, redis=cache, obj_in=BlobIn(raw=b"\xff\xfe"))
        for _ in range(3):
            assert await crud.get(db=db, redis=cache, id=made.id) == made
        assert cache.stats.hits == 0
        assert cache.stats.reasons["not stored: not_round_trip"] == 3


async def test_columns_of_other_names(url: str) -> None:
    """An attribute whose column has another name, a synonym, a hybrid, a computed column and a column_property."""

    class Base(DeclarativeBase):
        pass

    class Person(Base):
        __tablename__ = "people"
        id: Mapped[int] = mapped_column("person_id", primary_key=True)
        year: Mapped[int] = mapped_column("born_in", default=2000)
        email: Mapped[str] = mapped_column("e_mail", String(50), unique=True)
        first: Mapped[str] = mapped_column(String(50))
        last: Mapped[str] = mapped_column(String(50))
        twice: Mapped[int] = mapped_column(Integer, Computed("born_in * 2", persisted=True))  # MariaDB: of no serial
        surname = synonym("last")

        @hybrid_property
        def full(self) -> str:
            return self.first + " " + self.last

    Person.shout = column_property(func.upper(Person.last))  # type: ignore[attr-defined]

    class PersonIn(BaseModel):
        email: str
        first: str
        last: str

    class PersonChange(BaseModel):
        email: str | None = None
        last: str | None = None

    class PersonOut(Answer):
        id: int
        email: str
        surname: str
        full: str
        shout: str
        twice: int

    crud = Crud[Person, PersonIn, PersonChange, PersonOut](
        Person, PersonOut, pattern=("person:{email}", "person:id:{id}"), list_pattern="people:{page}:{limit}"
    )
    async with database(url, Base.metadata) as db:
        await lives(
            crud, db, PersonIn(email="a@b", first="A", last="B"), PersonChange(email="c@d", last="C"),
            lambda row: {"email": row.email},
        )  # fmt: skip
        async with Cache.from_url("memory://") as cache:
            made = await crud.create(db=db, redis=cache, obj_in=PersonIn(email="x@y", first="X", last="Y"))
            assert made == await crud.get(db=db, redis=cache, email="x@y", full="X Y")
            assert (made.full, made.shout, made.twice) == ("X Y", "Y", 4000)


async def test_imperative_mapping(sqlite_url: str) -> None:
    """A class that is mapped imperatively is a model like any other."""
    mapping = registry()
    table = Table("plain", mapping.metadata, Column("id", Integer, primary_key=True), Column("name", String(20)))

    class Plain:
        id: int
        name: str

    mapping.map_imperatively(Plain, table)

    class PlainIn(BaseModel):
        name: str

    class PlainOut(Answer):
        id: int
        name: str

    crud = Crud[Plain, PlainIn, PlainIn, PlainOut](Plain, PlainOut, "plain:{id}", "plains:{page}:{limit}")
    async with database(sqlite_url, mapping.metadata) as db:
        await lives(crud, db, PlainIn(name="a"), PlainIn(name="b"), lambda row: {"id": row.id})


async def test_aliases_and_computed_fields(sqlite_url: str) -> None:
    """Aliases that read and write alike are stored as sent; others, and computed fields, come back equal, too."""

    class Base(DeclarativeBase):
        pass

    class Item(Base):
        __tablename__ = "items"
        id: Mapped[int] = mapped_column(primary_key=True)
        unit_price: Mapped[int]
        amount: Mapped[int]

    class ItemIn(BaseModel):
        unit_price: int
        amount: int

    class ItemOut(BaseModel):
        model_config = ConfigDict(from_attributes=True, populate_by_name=True)
        id: int
        price: int = Field(validation_alias="unit_price", serialization_alias="unitPrice")
        number: int = Field(alias="amount")

        @computed_field
        def total(self) -> int:
            return self.price * self.number

    class Strict(BaseModel):
        model_config = ConfigDict(from_attributes=True, extra="forbid")
        id: int
        amount: int

        @computed_field
        def half(self) -> float:
            return self.amount / 2

    for schema, sent in ((ItemOut, {"id": 1, "unitPrice": 3, "amount": 4, "total": 12}), (Strict, None)):
        crud: Crud[Item, ItemIn, ItemIn, Any] = Crud(Item, schema, "item:{id}", "items:{page}:{limit}")
        async with database(sqlite_url, Base.metadata) as db:
            await lives(
                crud, db, ItemIn(unit_price=3, amount=4), ItemIn(unit_price=5, amount=4), lambda r: {"id": r.id}
            )
            if sent is not None:
                async with Cache.from_url("memory://") as cache:
                    await crud.create(db=db, redis=cache, obj_in=ItemIn(unit_price=3, amount=4), id=1)
                    for _ in range(2):
                        raw = await crud.get_json(db=db, redis=cache, id=1)
                        assert (
                            raw
                            == schema.model_validate(dict(id=1, unit_price=3, amount=4))
                            .model_dump_json(by_alias=True)
                            .encode()
                        )
                    await crud.delete(db=db, redis=cache, id=1)


async def test_python_properties_and_validators(sqlite_url: str) -> None:
    """A schema that needs the instance (a Python property, a validator before) gets one, and is cached all the same."""

    class Base(DeclarativeBase):
        pass

    class Note(Base):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)
        text: Mapped[str] = mapped_column(String(50))

        @property
        def length(self) -> int:
            return len(self.text)

    class NoteIn(BaseModel):
        text: str

    class NoteOut(Answer):
        id: int
        text: str
        length: int
        kind: Literal["short", "long"] = "short"

        @model_validator(mode="before")
        @classmethod
        def sees_instances(cls, value: Any) -> Any:
            if isinstance(value, Note):
                return {"id": value.id, "text": value.text, "length": value.length, "kind": "long"}
            return value

        @field_validator("text")
        @classmethod
        def stripped(cls, value: str) -> str:
            return value.strip()

    crud = Crud[Note, NoteIn, NoteIn, NoteOut](Note, NoteOut, "note:{id}", "notes:{page}:{limit}")
    async with database(sqlite_url, Base.metadata) as db:
        await lives(crud, db, NoteIn(text=" a "), NoteIn(text="bcd"), lambda row: {"id": row.id})


async def test_single_table_inheritance(url: str) -> None:
    """A crud of a subclass sees, writes and counts rows of that subclass only."""

    class Base(DeclarativeBase):
        pass

    class Employee(Base):
        __tablename__ = "employees"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(50))
        name: Mapped[str] = mapped_column(String(50))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}

    class Manager(Employee):
        level: Mapped[int | None]
        __mapper_args__ = {"polymorphic_identity": "manager"}

    class Person(BaseModel):
        name: str

    class Out(Answer):
        id: int
        name: str
        kind: str

    managers = Crud[Manager, Person, Person, Out](Manager, Out, "manager:{id}", "managers:{page}:{limit}")
    everybody = Crud[Employee, Person, Person, Out](Employee, Out, "employee:{id}", "employees:{page}:{limit}")
    async with database(url, Base.metadata) as db, Cache.from_url("memory://") as cache:
        clerk = await everybody.create(db=db, redis=cache, obj_in=Person(name="c"))
        boss = await managers.create(db=db, redis=cache, obj_in=Person(name="b"))
        assert (clerk.kind, boss.kind) == ("employee", "manager")
        assert await managers.get_or_none(db=db, redis=cache, id=clerk.id) is None
        assert await everybody.get(db=db, redis=cache, id=boss.id) == boss
        assert await managers.count(db=db, redis=cache) == 1
        assert await everybody.count(db=db, redis=cache) == 2
        with pytest.raises(NotFound):
            await managers.update(db=db, redis=cache, obj_in=Person(name="x"), id=clerk.id)
        renamed = await managers.update(db=db, redis=cache, obj_in=Person(name="B"), id=boss.id)
        assert await everybody.get(db=db, redis=cache, id=boss.id) == renamed
        with pytest.raises(NotFound):
            await managers.delete(db=db, redis=cache, id=clerk.id)


def test_joined_inheritance_is_refused() -> None:
    """A row that is spread over tables is refused at construction, with what to do instead."""

    class Base(DeclarativeBase):
        pass

    class Animal(Base):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str] = mapped_column(String(50))
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "animal"}

    class Dog(Animal):
        __tablename__ = "dogs"
        id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)
        __mapper_args__ = {"polymorphic_identity": "dog"}

    class Out(Answer):
        id: int

    for model in (Animal, Dog):
        with pytest.raises(UnsupportedModel, match="joined table inheritance"):
            Crud(model, Out, "animal:{id}")


def test_a_field_that_the_model_lacks_is_refused() -> None:
    """A response field that nothing of the model can fill is refused at construction; the message names what can."""

    class Base(DeclarativeBase):
        pass

    class Small(Base):
        __tablename__ = "small"
        id: Mapped[int] = mapped_column(primary_key=True)

    class Out(Answer):
        id: int
        missing: str

    with pytest.raises(UnsupportedModel, match=r"'missing'.*id"):
        Crud(Small, Out, "small:{id}")
    with pytest.raises(UnsupportedModel, match="no mapped class"):
        Crud(int, Out, "small:{id}")


async def test_reserved_column_names(sqlite_url: str) -> None:
    """A column named like an argument is reached by filters=, in keys by its own name where no argument has it."""

    class Base(DeclarativeBase):
        pass

    class Quota(Base):
        __tablename__ = "quotas"
        id: Mapped[int] = mapped_column(primary_key=True)
        limit: Mapped[int]

    class QuotaIn(BaseModel):
        limit: int

    class QuotaOut(Answer):
        id: int
        limit: int

    crud = Crud[Quota, QuotaIn, QuotaIn, QuotaOut](Quota, QuotaOut, "quota:{id}", "quotas:{page}:{limit}")
    async with database(sqlite_url, Base.metadata) as db, Cache.from_url("memory://") as cache:
        rows = [await crud.create(db=db, redis=cache, obj_in=QuotaIn(limit=n)) for n in (5, 7)]
        for _ in range(2):
            assert await crud.get_multi(db=db, redis=cache, limit=1, filters={"limit": 7}) == [rows[1]]
            assert await crud.get_multi(db=db, redis=cache, filters=[{"limit": 5}, {"limit": {">": 6}}]) == rows
            assert await crud.get_or_none(db=db, redis=cache, id=rows[0].id, filters={"limit": 7}) is None


async def test_database_equality_is_wider_than_keys(sqlite_url: str) -> None:
    """What is found by another spelling is served, and never stored under it: a write could not name that entry."""

    class Base(DeclarativeBase):
        pass

    class Login(Base):
        __tablename__ = "logins"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20, collation="NOCASE"), unique=True)
        rank: Mapped[int]

    class LoginIn(BaseModel):
        name: str | None = None
        rank: int

    class LoginOut(Answer):
        id: int
        name: str
        rank: int

    crud = Crud[Login, LoginIn, LoginIn, LoginOut](
        Login, LoginOut, ("login:{name}", "login:id:{id}"), "logins:{name}:{page}:{limit}"
    )
    async with database(sqlite_url, Base.metadata) as db, Cache.from_url("memory://") as cache:
        made = await crud.create(db=db, redis=cache, obj_in=LoginIn(name="john", rank=1))
        for _ in range(2):
            assert await crud.get(db=db, redis=cache, name="JOHN") == made
            assert await crud.get_multi(db=db, redis=cache, name="JOHN") == [made]
        changed = await crud.update(db=db, redis=cache, obj_in=LoginIn(rank=2), id=made.id)
        assert await crud.get(db=db, redis=cache, name="JOHN") == changed
        assert await crud.get_multi(db=db, redis=cache, name="JOHN") == [changed]
        assert await crud.get_or_none(db=db, redis=cache, name="MARY") is None
        mary = await crud.create(db=db, redis=cache, obj_in=LoginIn(name="mary", rank=3))
        assert await crud.get_or_none(db=db, redis=cache, name="MARY") == mary


async def test_several_rows_under_one_key(sqlite_url: str) -> None:
    """A template over columns that are not unique serves while one row matches, and raises when two do."""

    class Base(DeclarativeBase):
        pass

    class Tag(Base):
        __tablename__ = "tags"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(50))

    class TagIn(BaseModel):
        name: str

    class TagOut(Answer):
        id: int
        name: str

    crud = Crud[Tag, TagIn, TagIn, TagOut](Tag, TagOut, "tag:{name}")
    async with database(sqlite_url, Base.metadata) as db, Cache.from_url("memory://") as cache:
        first = await crud.create(db=db, redis=cache, obj_in=TagIn(name="a"))
        for _ in range(2):
            assert await crud.get(db=db, redis=cache, name="a") == first
        second = await crud.create(db=db, redis=cache, obj_in=TagIn(name="a"))
        with pytest.raises(MultipleFound):
            await crud.get(db=db, redis=cache, name="a")
        assert await crud.exists(db=db, redis=cache, name="a")
        with pytest.raises(MultipleFound):
            await crud.update(db=db, redis=cache, obj_in=TagIn(name="b"), name="a")
        with pytest.raises(MultipleFound):
            await crud.delete(db=db, redis=cache, name="a")
        async with db() as session:
            assert (await session.execute(select(func.count()).select_from(Tag))).scalar() == 2
        await crud.delete(db=db, redis=cache, id=second.id)
        assert await crud.get(db=db, redis=cache, name="a") == first


async def test_several_rows_that_the_database_takes_for_equal(sqlite_url: str) -> None:
    """Where no unique key forbids it, a second row in another spelling is seen by readers of the first one, too."""

    class Base(DeclarativeBase):
        pass

    class Nick(Base):
        __tablename__ = "nicks"
        id: Mapped[int] = mapped_column(primary_key=True)
        name: Mapped[str] = mapped_column(String(20, collation="NOCASE"))

    class NickIn(BaseModel):
        name: str

    class NickOut(Answer):
        id: int
        name: str

    crud = Crud[Nick, NickIn, NickIn, NickOut](Nick, NickOut, "nick:{name}")
    async with database(sqlite_url, Base.metadata) as db, Cache.from_url("memory://") as cache:
        first = await crud.create(db=db, redis=cache, obj_in=NickIn(name="john"))
        for _ in range(2):
            assert await crud.get(db=db, redis=cache, name="john") == first
        assert cache.stats.hits == 1
        second = await crud.create(db=db, redis=cache, obj_in=NickIn(name="JOHN"))
        with pytest.raises(MultipleFound):
            await crud.get(db=db, redis=cache, name="john")
        await crud.delete(db=db, redis=cache, id=second.id)
        assert await crud.get(db=db, redis=cache, name="john") == first
