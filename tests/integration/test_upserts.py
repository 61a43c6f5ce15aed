"""upsert, upsert_multi and get_or_create on each database, and what they do to the cache."""

import asyncio
import datetime as dt
import uuid
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from pydantic import BaseModel, ConfigDict
from sqlalchemy import Index, String, UniqueConstraint, event, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import (
    BatchRefused,
    Cache,
    Crud,
    EmptyInput,
    InputError,
    KeyMismatch,
    NotNullViolation,
    SessionRefused,
    UniqueViolation,
    UnknownField,
    Upserted,
    UsageError,
    ValueRefused,
)
from tests.models import User, UserIn, UserOut
from tests.world import ANN, BOB, World, opened


class Base(DeclarativeBase):
    """The tables of this module."""


class Part(Base):
    """Several unique keys, a version, and something that is none."""

    __tablename__ = "parts"
    id: Mapped[int] = mapped_column(primary_key=True)
    shelf: Mapped[int]
    place: Mapped[int]
    serial: Mapped[str | None] = mapped_column(String(20), unique=True)
    note: Mapped[str] = mapped_column(String(50), default="none")
    stamp: Mapped[str] = mapped_column(String(20), default="made", onupdate="changed")
    counter: Mapped[int] = mapped_column(default=0, onupdate=lambda: 7)
    version: Mapped[int] = mapped_column()
    __table_args__ = (
        UniqueConstraint("shelf", "place"),
        Index(
            "noted", "note", unique=True, postgresql_where=text("note = 'x'"), sqlite_where=text("note = 'x'")
        ).ddl_if(dialect=("postgresql", "sqlite")),
    )
    __mapper_args__ = {"version_id_col": version}


class Animal(Base):
    """Animals in one table, of which a crud of cats sees cats."""

    __tablename__ = "animals"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    name: Mapped[str] = mapped_column(String(20), unique=True)
    food: Mapped[str] = mapped_column(String(20), default="any")
    __mapper_args__ = {"polymorphic_on": "kind"}


class Cat(Animal):
    """A cat."""

    __mapper_args__ = {"polymorphic_identity": "cat"}


class Dog(Animal):
    """A dog."""

    __mapper_args__ = {"polymorphic_identity": "dog"}


class Typed(Base):
    """Columns of many types, by which it is cached."""

    __tablename__ = "typed"
    id: Mapped[int] = mapped_column(primary_key=True)
    uid: Mapped[uuid.UUID] = mapped_column(sa.Uuid)
    day: Mapped[dt.date]
    at: Mapped[dt.datetime] = mapped_column(sa.DateTime(timezone=True))
    price: Mapped[Decimal] = mapped_column(sa.Numeric(12, 2))
    flag: Mapped[bool]
    kind: Mapped[str] = mapped_column(sa.Enum("red", "green", name="kinds"))
    raw: Mapped[bytes | None] = mapped_column(sa.LargeBinary(20))
    word: Mapped[str | None] = mapped_column(sa.CHAR(5))


class TypedOut(BaseModel):
    """What is sent of it."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    uid: uuid.UUID
    day: dt.date
    price: Decimal
    flag: bool
    kind: str
    word: str | None


class AnimalOut(BaseModel):
    """What is sent of an animal."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    kind: str
    name: str
    food: str


class PartGiven(BaseModel):
    """What makes a part: any of its columns."""

    model_config = ConfigDict(extra="allow")


class PartOut(BaseModel):
    """What is sent of a part."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    shelf: int
    place: int
    serial: str | None
    note: str
    stamp: str
    counter: int
    version: int


def part(**fields: Any) -> PartGiven:
    """A part with these fields."""
    return PartGiven(**fields)


PartCrud = Crud[Part, PartGiven, PartGiven, PartOut]


@pytest.fixture
def parts() -> PartCrud:
    """A crud of parts, cached by id, by place, and as lists of a shelf."""
    return Crud[Part, PartGiven, PartGiven, PartOut](
        Part,
        PartOut,
        pattern=("part:{id}", "part:place:{shelf}:{place}"),
        list_pattern="part:shelf:{shelf}:page:{page}:limit:{limit}",
    )


@pytest.fixture
async def given(database_url: str, valkey_url: str) -> AsyncIterator[dict[str, Any]]:
    """A database with the module's tables, and a cache: the arguments of calls."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with Cache.from_url(valkey_url) as cache:
        yield {"db": async_sessionmaker(engine, expire_on_commit=False), "redis": cache}
    await engine.dispose()


def calls(world: World) -> dict[str, Any]:
    """The arguments of calls in a world."""
    return {"db": world.factory, "redis": world.cache}


# One row.


async def test_row_that_is_not_there_is_created(world: World) -> None:
    """An upsert creates a row, with the columns' defaults, and says so."""
    found = await world.crud.upsert(**calls(world), obj_in=UserIn(email="eve@x", name="Eve"))
    assert found.created
    assert (found.row.email, found.row.name, found.row.group_id) == ("eve@x", "Eve", 1)
    assert await world.stored(found.row.id) == "Eve"


async def test_row_that_is_there_is_changed(world: World) -> None:
    """An upsert changes the row that has the key, keeps its id, and says that it was there."""
    found = await world.crud.upsert(**calls(world), obj_in=UserIn(email="ann@x", name="Anna"))
    assert found == Upserted(UserOut(id=ANN, email="ann@x", name="Anna", group_id=1), False)
    assert await world.stored() == "Anna"


async def test_defaults_of_the_schema_do_not_overwrite(world: World) -> None:
    """Only what the caller has set is written to a row that is there."""
    await world.execute("UPDATE users SET group_id = 5 WHERE id = 1")
    found = await world.crud.upsert(**calls(world), obj_in=UserIn(email="ann@x", name="Anna"))
    assert found.row.group_id == 5


async def test_present_row_takes_one_statement_on_postgresql(pg_world: World) -> None:
    """FastCRUD's upsert of a present row is four statements and not atomic; this is one, images before included."""
    await pg_world.crud.upsert(**calls(pg_world), obj_in=UserIn(email="ann@x", name="A", group_id=2))
    pg_world.sent.clear()
    await pg_world.crud.upsert(**calls(pg_world), obj_in=UserIn(email="ann@x", name="B", group_id=3))
    assert len(pg_world.sent) == 1
    assert "ON CONFLICT (email) DO UPDATE" in pg_world.sent[0]


async def test_concurrent_upserts_make_one_row(world: World) -> None:
    """dataset's upsert selects, then inserts: three at once made three rows; here one creates, the others change."""
    many = [world.crud.upsert(**calls(world), obj_in=UserIn(email="new@x", name=f"N{n}")) for n in range(12)]
    found = await asyncio.gather(*many)
    assert [each.created for each in found].count(True) == 1
    assert len({each.row.id for each in found}) == 1
    assert await world.crud.count(world.factory, email="new@x") == 1


async def test_concurrent_get_or_create_gives_all_the_same_row(world: World) -> None:
    """Of many callers at once one creates, all get the same row, and nobody gets an error."""
    for turn in range(3):
        name = f"new{turn}@x"
        many = [world.crud.get_or_create(**calls(world), obj_in=UserIn(email=name, name=f"N{n}")) for n in range(15)]
        found = await asyncio.gather(*many)
        assert [each.created for each in found].count(True) == 1
        assert len({(each.row.id, each.row.name) for each in found}) == 1


async def test_get_or_create_leaves_the_row_alone(world: World) -> None:
    """A row that is there comes back as it is."""
    found = await world.crud.get_or_create(**calls(world), obj_in=UserIn(email="ann@x", name="Other"))
    assert found == Upserted(UserOut(id=ANN, email="ann@x", name="Ann", group_id=1), False)
    assert await world.stored() == "Ann"


async def test_empty_update_fields_change_nothing(given: dict[str, Any], parts: PartCrud) -> None:
    """With ``update_fields=[]`` a row that is there stays as it is, its version and its onupdate columns, too."""
    made = await parts.upsert(**given, obj_in=part(shelf=1, place=1, note="a"), update_fields=[])
    again = await parts.upsert(**given, obj_in=part(shelf=1, place=1, note="b"), update_fields=[])
    assert made.created
    assert again == Upserted(made.row, False)


async def test_update_fields_choose(given: dict[str, Any], parts: PartCrud) -> None:
    """Just the named fields are written to a row that is there."""
    await parts.upsert(**given, obj_in=part(shelf=1, place=1, serial="s", note="a"), conflict_fields=["shelf", "place"])
    again = await parts.upsert(
        **given,
        obj_in=part(shelf=1, place=1, serial="t", note="b"),
        conflict_fields=["shelf", "place"],
        update_fields=["note"],
    )
    assert (again.row.serial, again.row.note) == ("s", "b")


async def test_version_is_counted_and_onupdate_fires(given: dict[str, Any], parts: PartCrud) -> None:
    """A changed row has the next version, and what its columns set by themselves; a new one has the first."""
    made = (await parts.upsert(**given, obj_in=part(shelf=1, place=1, note="a"))).row
    changed = (await parts.upsert(**given, obj_in=part(shelf=1, place=1, note="b"))).row
    assert (made.version, made.stamp, made.counter) == (1, "made", 0)
    assert (changed.version, changed.stamp, changed.counter, changed.note) == (2, "changed", 7, "b")


async def test_any_unique_key_decides(given: dict[str, Any], parts: PartCrud) -> None:
    """Primary key, unique column and composite key each name the row."""
    made = (await parts.upsert(**given, obj_in=part(shelf=1, place=1, serial="s"), conflict_fields=["serial"])).row
    by_key = await parts.upsert(**given, obj_in=part(id=made.id, shelf=1, place=2))
    by_serial = await parts.upsert(**given, obj_in=part(serial="s", shelf=1, place=3), conflict_fields=["serial"])
    by_place = await parts.upsert(**given, obj_in=part(shelf=1, place=3, note="n"), conflict_fields=("place", "shelf"))
    assert {each.row.id for each in (by_key, by_serial, by_place)} == {made.id}
    assert not (by_key.created)
    assert not (by_serial.created)
    assert not (by_place.created)
    assert (by_place.row.place, by_place.row.note) == (3, "n")


async def test_another_unique_key_in_the_way_raises(given: dict[str, Any], parts: PartCrud) -> None:
    """A row that would meet another one by another key raises UniqueViolation, and changes neither."""
    first = (await parts.upsert(**given, obj_in=part(shelf=1, place=1, serial="a"), conflict_fields=["serial"])).row
    second = (await parts.upsert(**given, obj_in=part(shelf=1, place=2, serial="b"), conflict_fields=["serial"])).row
    for wrong in (part(shelf=1, place=1, serial="new"), part(shelf=1, place=1, serial="b")):
        with pytest.raises(UniqueViolation):
            await parts.upsert(**given, obj_in=wrong, conflict_fields=["serial"])
    assert await parts.get_multi(db=given["db"], redis=None, order_by="id") == [first, second]


async def test_other_key_that_is_not_written_is_not_in_the_way(given: dict[str, Any], parts: PartCrud) -> None:
    """Where the field that another row has is not written, the row that was meant is changed."""
    await parts.upsert(**given, obj_in=part(shelf=1, place=1, serial="a"), conflict_fields=["serial"])
    second = (await parts.upsert(**given, obj_in=part(shelf=1, place=2, serial="b"), conflict_fields=["serial"])).row
    found = await parts.upsert(
        **given,
        obj_in=part(shelf=1, place=1, serial="b", note="n"),
        conflict_fields=["serial"],
        update_fields=["note"],
    )
    assert (found.created, found.row.id, found.row.place, found.row.note) == (False, second.id, 2, "n")


async def test_key_fields_set_what_the_schema_lacks(given: dict[str, Any], parts: PartCrud) -> None:
    """A key field is written like a field of the schema; one that differs from it raises."""
    found = await parts.upsert(**given, obj_in=part(place=1), shelf=4)
    assert found.row.shelf == 4
    with pytest.raises(KeyMismatch):
        await parts.upsert(**given, obj_in=part(shelf=3, place=1), shelf=4)


async def test_missing_value_is_refused_by_the_database(given: dict[str, Any], parts: PartCrud) -> None:
    """A NOT NULL column without a value raises NotNullViolation, as ``create`` does."""
    with pytest.raises(NotNullViolation):
        await parts.upsert(**given, obj_in=part(serial="s", shelf=None, place=1), conflict_fields=["serial"])


@pytest.mark.parametrize(
    ("fields", "asked", "error", "said"),
    [
        ({"shelf": 1, "place": 1}, ["note"], InputError, r"it has \['id'\], \['serial'\], \['shelf', 'place'\] \("),
        ({"shelf": 1, "place": 1}, ["nothing"], UnknownField, "nothing"),
        ({"shelf": 1, "place": 1}, [], InputError, "an empty list is no unique key"),
        ({"shelf": 1, "place": 1}, "serial", InputError, r"pass a list of fields, \['serial'\]"),
        ({"shelf": 1, "place": 1}, ["serial"], ValueRefused, "a value in each row"),
        ({"shelf": 1, "place": 1, "serial": None}, ["serial"], ValueRefused, "NULL equals no other NULL"),
        ({"shelf": 1, "note": "n"}, None, InputError, "cover none of its unique keys; name one of"),
        ({"shelf": 1, "place": 1, "serial": "s"}, None, InputError, "cover several of its unique keys; name one of"),
    ],
)
async def test_keys_that_decide_nothing_are_refused(
    sqlite_url: str, parts: PartCrud, fields: dict[str, Any], asked: Any, error: type[Exception], said: str
) -> None:
    """What is no unique key of the model, or has no value, is refused with the list of those that there are."""
    factory = async_sessionmaker(create_async_engine(sqlite_url))
    for call in (parts.upsert, parts.get_or_create):
        with pytest.raises(error, match=said):
            await call(db=factory, redis=None, obj_in=part(**fields), conflict_fields=asked)


async def test_update_fields_are_checked(sqlite_url: str, parts: PartCrud) -> None:
    """Fields that are no columns, that have no value, or that are the primary key, are refused."""
    factory = async_sessionmaker(create_async_engine(sqlite_url))
    wrong: list[tuple[Any, type[Exception]]] = [
        (["nothing"], UnknownField),
        (["note"], ValueRefused),
        (["id"], InputError),
        ("place", InputError),
    ]
    for asked, error in wrong:
        given = part(id=1, shelf=1, place=1)
        with pytest.raises(error, match="|".join(asked)):
            await parts.upsert(factory, None, given, conflict_fields=["shelf", "place"], update_fields=asked)


async def test_autocommit_is_refused_where_it_takes_several_statements(world: World) -> None:
    """On SQLite and MariaDB an upsert needs a transaction; on PostgreSQL it is one statement."""
    engine = world.another_engine(isolation_level="AUTOCOMMIT")
    await world.warm()
    async with AsyncSession(engine) as session:
        if world.dialect == "postgresql":
            found = await world.crud.upsert(session, world.cache, UserIn(email="ann@x", name="Anna"))
            assert (found.created, (await world.read()).name) == (False, "Anna")
        else:
            with pytest.raises(SessionRefused, match="AUTOCOMMIT"):
                await world.crud.upsert(session, world.cache, UserIn(email="ann@x", name="Anna"))


async def test_row_that_the_crud_does_not_show_is_not_overwritten(given: dict[str, Any]) -> None:
    """A cat with a dog's name is refused, and the dog stays as it is: by each of the methods."""
    cats = Crud[Cat, PartGiven, PartGiven, AnimalOut](Cat, AnimalOut, pattern="cat:{id}")
    dogs = Crud[Dog, PartGiven, PartGiven, AnimalOut](Dog, AnimalOut, pattern="dog:{id}")
    rex = (await dogs.upsert(**given, obj_in=part(name="Rex", food="bones"))).row
    wrong = part(name="Rex", food="fish")
    with pytest.raises(UniqueViolation):
        await cats.upsert(**given, obj_in=wrong)
    with pytest.raises(UniqueViolation):
        await cats.get_or_create(**given, obj_in=wrong)
    with pytest.raises(UniqueViolation):
        await cats.upsert_multi(**given, instances=[part(name="Tom", food="fish"), wrong])
    assert await cats.update_where(**given, obj_in=part(food="fish"), name="Rex") == 0
    assert await cats.delete_where(**given, all_rows=True) == 0
    assert await dogs.get_multi(given["db"], None) == [rex]


async def test_rows_that_say_different_things(given: dict[str, Any], parts: PartCrud) -> None:
    """Rows of a batch may set different fields: each writes its own."""
    rows = [part(shelf=1, place=n, note=f"n{n}") for n in range(4)]
    await parts.upsert_multi(**given, instances=rows)
    again = [
        part(shelf=1, place=0, serial="s"),
        part(shelf=1, place=1, note="x"),
        part(shelf=1, place=2),
        part(shelf=2, place=0),
    ]
    found = await parts.upsert_multi(**given, instances=again)
    assert [(each.row.place, each.row.serial, each.row.note, each.created) for each in found] == [
        (0, "s", "n0", False), (1, None, "x", False), (2, None, "n2", False), (0, None, "none", True),
    ]  # fmt: skip
    assert [each.row.version for each in found] == [2, 2, 1, 1]


# The cache.


async def test_changed_row_is_not_served_stale(world: World) -> None:
    """Row entries, lists of the group before and after, and counts follow an upsert."""
    crud, given = world.crud, calls(world)
    for read in (
        lambda: crud.get(**given, id=ANN),
        lambda: crud.get(**given, email="ann@x"),
        lambda: crud.get_multi(**given, group_id=1),
        lambda: crud.get_multi(**given, group_id=2),
        lambda: crud.count(**given, group_id=1),
        lambda: crud.count(**given, group_id=2),
    ):
        await read()
        await read()
    await crud.upsert(**given, obj_in=UserIn(email="ann@x", name="Anna", group_id=2))
    assert (await crud.get(**given, id=ANN)).name == "Anna"
    assert (await crud.get(**given, email="ann@x")).group_id == 2
    assert [user.id for user in await crud.get_multi(**given, group_id=1)] == [BOB]
    assert [user.id for user in await crud.get_multi(**given, group_id=2)] == [ANN]
    assert await crud.count(**given, group_id=1) == 1
    assert await crud.count(**given, group_id=2) == 1


async def test_old_keys_of_every_type_are_dropped(given: dict[str, Any]) -> None:
    """Whatever the types of a template's columns, the entry under the old values is gone after an upsert."""
    pattern = "typed:{uid}:{day}:{at}:{price}:{flag}:{kind}:{raw}:{word}"
    typed = Crud[Typed, PartGiven, PartGiven, TypedOut](Typed, TypedOut, pattern=pattern)
    old: dict[str, Any] = {
        "uid": uuid.uuid4(),
        "day": dt.date(2024, 2, 29),
        "at": dt.datetime(2024, 2, 29, 12, 30, 1, tzinfo=dt.UTC),
        "price": Decimal("1.50"),
        "flag": True,
        "kind": "red",
        "raw": b"\x00\xff{}",
        "word": 'a"},b',
    }
    new: dict[str, Any] = {
        **old, "uid": uuid.uuid4(), "day": dt.date(2025, 1, 1), "price": Decimal(-2), "flag": False, "word": None,
    }  # fmt: skip
    for before, after in ((old, new), (new, old), (old, {**old, "raw": None, "kind": "green"})):
        await typed.upsert(**given, obj_in=part(id=1, **before))
        for _ in range(2):
            assert (await typed.get(**given, **before)).id == 1
        changed = await typed.upsert_multi(**given, instances=[part(id=1, **after)])
        assert not changed[0].created
        assert await typed.get_or_none(**given, **before) is None
        assert (await typed.get(**given, **after)).id == 1


async def test_created_row_is_not_missed(world: World) -> None:
    """What was cached as not there, and lists and counts without it, follow the row's creation."""
    crud, given = world.crud, calls(world)
    for _ in range(2):
        assert await crud.get_or_none(**given, email="new@x") is None
        assert await crud.count(**given, group_id=1) == 2
        await crud.get_multi(**given, group_id=1)
    for method, email in ((crud.upsert, "new@x"), (crud.get_or_create, "newer@x")):
        found = await method(**given, obj_in=UserIn(email=email))
        assert await crud.get(**given, email=email) == found.row
        assert found.row in await crud.get_multi(**given, group_id=1)
    assert await crud.count(**given, group_id=1) == 4


async def test_other_rows_stay_cached(world: World) -> None:
    """An upsert that changes one row leaves the entries of others where they are."""
    await world.warm(id=BOB)
    await world.crud.upsert(**calls(world), obj_in=UserIn(email="ann@x", name="Anna", group_id=2))
    assert (await world.read(id=BOB)).from_cache


async def test_written_row_is_put_into_the_cache(world: World) -> None:
    """The next reader of an upserted row gets it from the cache, as after ``update``."""
    await world.warm()
    await world.crud.upsert(**calls(world), obj_in=UserIn(email="ann@x", name="Anna"))
    assert await world.read() == ("Anna", True)


async def test_joined_upsert_waits_for_its_commit(world: World) -> None:
    """In a caller's transaction others get the old row until COMMIT, and after a rollback."""
    await world.warm()
    async with AsyncSession(world.engine) as session:
        for end in (session.rollback, session.commit):
            await session.begin()
            found = await world.crud.upsert(session, world.cache, UserIn(email="ann@x", name="Anna"))
            assert found.row.name == "Anna"
            if world.dialect != "sqlite" or end == session.rollback:
                assert await world.read() == ("Ann", True)
            await end()
            assert (await world.read()).name == ("Ann" if end == session.rollback else "Anna")


async def test_own_instance_is_refreshed(world: World) -> None:
    """An instance that the caller's session has of the row shows what was written."""
    async with AsyncSession(world.engine, expire_on_commit=False) as session, session.begin():
        ann = await session.get_one(User, ANN)
        await world.crud.upsert(session, world.cache, UserIn(email="ann@x", name="Anna"))
        assert ann.name == "Anna"
        await world.crud.upsert_multi(session, world.cache, [UserIn(email="ann@x", name="Annie")])
        assert ann.name == "Annie"


# Many rows.


async def test_many_rows_say_each_what_became_of_them(world: World) -> None:
    """Rows come in their order, created or not, with the others' values untouched; the cache follows."""
    crud, given = world.crud, calls(world)
    await world.warm()
    await crud.get_multi(**given, group_id=1)
    rows = [UserIn(email=f"u{n}@x", name=f"U{n}") for n in (3, 1, 2)]
    rows[1:1] = [UserIn(email="bob@x", name="Bobby", group_id=2), UserIn(email="ann@x", name="Anna")]
    found = await crud.upsert_multi(**given, instances=rows)
    assert [(each.row.email, each.row.name) for each in found] == [(row.email, row.name) for row in rows]
    assert [each.created for each in found] == [True, False, False, True, True]
    assert [each.row.id for each in found[1:3]] == [BOB, ANN]
    assert (await world.read()).name == "Anna"
    assert next(user.name for user in await crud.get_multi(**given, group_id=1)) == "Anna"
    assert await crud.count(**given, group_id=2) == 1


async def test_more_rows_than_can_be_named(world: World) -> None:
    """Above 256 rows the table's whole cache is dropped; every row is right."""
    crud, given = world.crud, calls(world)
    await crud.upsert_multi(**given, instances=[UserIn(email=f"u{n}@x", name="old") for n in range(0, 300, 2)])
    read = await crud.get(**given, email="u4@x")
    assert await crud.get(**given, email="u4@x") == read
    found = await crud.upsert_multi(**given, instances=[UserIn(email=f"u{n}@x", name="new") for n in range(300)])
    assert [each.created for each in found] == [bool(n % 2) for n in range(300)]
    assert {each.row.name for each in found} == {"new"}
    assert (await crud.get(**given, email="u4@x")).name == "new"


async def test_batch_that_keeps_what_is_there(world: World) -> None:
    """``update_fields=[]`` inserts what is missing, and gives the others as they are."""
    rows = [UserIn(email="new@x", name="New"), UserIn(email="ann@x", name="Other")]
    found = await world.crud.upsert_multi(**calls(world), instances=rows, update_fields=[])
    assert [(each.row.name, each.created) for each in found] == [("New", True), ("Ann", False)]


@pytest.mark.parametrize("fields", [["name"], []])
async def test_many_rows_take_few_statements_and_say_exactly_which_are_new(world: World, fields: list[str]) -> None:
    """Of 1 200 rows in any order, each says whether it was created, on every database by few statements."""
    numbers = [number * 7 % 1_200 for number in range(1_200)]
    old = [UserIn(email=f"{number:04}@x", name="old") for number in numbers if number % 3 == 0]
    await world.crud.create_multi(world.factory, None, old, returning=False)
    world.sent.clear()
    found = await world.crud.upsert_multi(
        world.factory,
        world.cache,
        [UserIn(email=f"{number:04}@x", name="new") for number in numbers],
        update_fields=fields,
    )
    assert [(each.row.email, each.created) for each in found] == [(f"{n:04}@x", n % 3 != 0) for n in numbers]
    assert [each.row.name for each in found] == ["new" if fields or n % 3 else "old" for n in numbers]
    assert len({each.row.id for each in found}) == 1_200
    assert len(world.sent) < 20


@pytest.mark.parametrize("fields", [["name"], []])
async def test_concurrent_batches_create_each_row_once(world: World, fields: list[str]) -> None:
    """Of sessions that upsert the same rows at once, each row is created by one; the others change it, or leave it."""
    keys = [f"{number:03}@x" for number in range(200)]

    async def upsert(name: str, ordered: list[str]) -> list[Upserted[UserOut]]:
        users = [UserIn(email=email, name=name) for email in ordered]
        return await world.crud.upsert_multi(world.factory, world.cache, users, update_fields=fields)

    results = await asyncio.gather(upsert("a", keys), upsert("b", keys[::-1]), upsert("c", keys[50:]))
    creations = [each.row.email for result in results for each in result if each.created]
    assert sorted(creations) == keys
    assert await world.crud.count(world.factory, world.cache) == 202


async def test_rows_of_a_batch_may_take_over_what_earlier_ones_give_up(given: dict[str, Any], parts: PartCrud) -> None:
    """A batch goes row by row where one takes the unique value of another one that is changed before it."""
    await parts.create(**given, obj_in=PartGiven(shelf=1, place=1, serial="a"))
    batch = [PartGiven(shelf=1, place=1, serial="b"), PartGiven(shelf=1, place=2, serial="a")]
    found = await parts.upsert_multi(**given, instances=batch, conflict_fields=["shelf", "place"])
    assert [(each.row.serial, each.created) for each in found] == [("b", False), ("a", True)]
    with pytest.raises(UniqueViolation):
        await parts.upsert_multi(
            **given,
            instances=[PartGiven(shelf=1, place=1, serial="c"), PartGiven(shelf=1, place=3, serial="a")],
            conflict_fields=["shelf", "place"],
        )
    assert (await parts.get(**given, shelf=1, place=1)).serial == "b"


async def test_keys_that_a_trigger_writes_are_kept_once(pg_world: World) -> None:
    """With ``update_fields=[]``, a trigger that writes other keys than were given has each row inserted once."""
    await pg_world.execute(
        "CREATE FUNCTION low() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.email = lower(NEW.email); RETURN NEW; END $$",
        "CREATE TRIGGER low BEFORE INSERT ON users FOR EACH ROW EXECUTE FUNCTION low()",
    )
    users = [UserIn(email="Cid@x"), UserIn(email="Dan@x")]
    found = await pg_world.crud.upsert_multi(pg_world.factory, pg_world.cache, users, update_fields=[])
    assert [(each.row.email, each.created) for each in found] == [("cid@x", True), ("dan@x", True)]
    assert await pg_world.crud.count(pg_world.factory, pg_world.cache) == 4


async def test_equal_keys_in_a_batch_are_refused(world: World) -> None:
    """Rows with one key raise, before anything is sent, naming each of them."""
    rows = [UserIn(email="a@x"), UserIn(email="b@x"), UserIn(email="a@x"), UserIn(email="a@x")]
    before = len(world.sent)
    with pytest.raises(BatchRefused) as refused:
        await world.crud.upsert_multi(**calls(world), instances=rows)
    assert [row.index for row in refused.value.rows] == [0, 2, 3]
    assert refused.value.rows[0].field == "email"
    assert "rows 2, 3" in refused.value.rows[0].reason
    assert len(world.sent) == before


async def test_every_bad_row_is_reported(given: dict[str, Any], parts: PartCrud) -> None:
    """A batch with bad rows writes nothing, and tells index, field and reason of each."""
    rows = [
        part(shelf=1, place=1),
        part(shelf="x", place=2),
        part(shelf=1, place=3, colour="red"),
        part(shelf=1, place="y"),
    ]
    with pytest.raises(BatchRefused) as refused:
        await parts.upsert_multi(**given, instances=rows, conflict_fields=["shelf", "place"])
    assert [(row.index, row.field) for row in refused.value.rows] == [(1, "shelf"), (2, "colour"), (3, "place")]
    assert "whole number" in refused.value.rows[0].reason
    with pytest.raises(BatchRefused, match=r"\[1\]"):
        await parts.upsert_multi(
            **given,
            instances=[part(shelf=1, place=1, serial="s"), part(shelf=1, place=2, serial=None)],
            conflict_fields=["serial"],
        )
    assert await parts.count(given["db"]) == 0


async def test_row_that_the_database_refuses_leaves_nothing(given: dict[str, Any], parts: PartCrud) -> None:
    """One row in the way of another one's other key: nothing of the batch is written, in a joined transaction, too."""
    await parts.upsert(**given, obj_in=part(shelf=1, place=1, serial="a"), conflict_fields=["serial"])
    rows = [part(shelf=2, place=n, serial=f"n{n}") for n in range(5)] + [part(shelf=1, place=1, serial="z")]
    with pytest.raises(UniqueViolation):
        await parts.upsert_multi(**given, instances=rows, conflict_fields=["serial"])
    async with given["db"]() as session, session.begin():
        with pytest.raises(UniqueViolation):
            await parts.upsert_multi(session, given["redis"], rows, conflict_fields=["serial"])
        kept = await parts.upsert(session, given["redis"], part(shelf=3, place=1))
    assert [row.id for row in await parts.get_multi(**given, shelf=3)] == [kept.row.id]
    assert await parts.count(given["db"]) == 2


async def test_concurrent_batches_end_well(pg_world: World) -> None:
    """Batches of the same rows in other orders do not lock each other out: each row is created once."""
    rows = [UserIn(email=f"u{n:03}@x", name="u") for n in range(200)]
    batches = [rows, rows[::-1], rows[100:] + rows[:100], rows[::-1]]
    found = await asyncio.gather(*(pg_world.crud.upsert_multi(**calls(pg_world), instances=each) for each in batches))
    assert sum(each.created for batch in found for each in batch) == 200


async def test_what_is_no_batch_is_refused(world: World) -> None:
    """An empty list, one instance, and items of another kind raise before anything is sent."""
    with pytest.raises(EmptyInput):
        await world.crud.upsert_multi(**calls(world), instances=[])
    for wrong in (UserIn(email="a@x"), [{"email": "a@x"}], None):
        with pytest.raises(UsageError):
            await world.crud.upsert_multi(**calls(world), instances=wrong)  # type: ignore[arg-type]  # the point


# What one database does.


async def test_equality_of_mariadb_names_the_rows(mariadb_url: str, valkey_url: str) -> None:
    """Keys that only MariaDB takes for equal are refused with both rows, and nothing is written."""
    async with opened(mariadb_url, valkey_url) as world:
        found = await world.crud.upsert(**calls(world), obj_in=UserIn(email="ANN@x", name="Anna"))
        assert (found.created, found.row.email) == (False, "ann@x")
        rows = [UserIn(email="eve@x"), UserIn(email="new@x"), UserIn(email="EVE@x")]
        with pytest.raises(BatchRefused) as refused:
            await world.crud.upsert_multi(**calls(world), instances=rows)
        assert [row.index for row in refused.value.rows] == [0, 2]
        assert await world.crud.count(world.factory) == 2


async def test_equality_of_a_collation_of_postgresql_names_the_rows(pg_world: World) -> None:
    """So are keys that a collation of PostgreSQL's takes for equal."""
    await pg_world.execute(
        "CREATE COLLATION blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "ALTER TABLE users ALTER COLUMN email TYPE varchar(100) COLLATE blind",
    )
    rows = [UserIn(email="eve@x"), UserIn(email="new@x"), UserIn(email="EVE@x")]
    with pytest.raises(BatchRefused) as refused:
        await pg_world.crud.upsert_multi(**calls(pg_world), instances=rows)
    assert [row.index for row in refused.value.rows] == [0, 2]
    found = await pg_world.crud.get_or_create(**calls(pg_world), obj_in=UserIn(email="ANN@x"))
    assert (found.created, found.row.id) == (False, ANN)


async def test_partitioned_table_says_what_was_created(pg_world: World) -> None:
    """Where PostgreSQL has no ``xmax`` to look at, an upsert still knows what it created."""
    await pg_world.execute(
        "DROP TABLE users",
        "CREATE TABLE users (id serial, email varchar(100) PRIMARY KEY, name varchar(100), group_id int)"
        " PARTITION BY HASH (email)",
        "CREATE TABLE users0 PARTITION OF users FOR VALUES WITH (MODULUS 2, REMAINDER 0)",
        "CREATE TABLE users1 PARTITION OF users FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
    )
    rows = [UserIn(email=f"u{n}@x", group_id=n) for n in range(20)]
    first = await pg_world.crud.upsert_multi(**calls(pg_world), instances=rows[::2])
    second = await pg_world.crud.upsert_multi(**calls(pg_world), instances=rows)
    assert all(each.created for each in first)
    assert [each.created for each in second] == [n % 2 == 1 for n in range(20)]


async def test_triggers_do_not_mislead(pg_world: World) -> None:
    """Triggers that change rows before they are written leave ``created`` true, and responses as stored."""
    await pg_world.execute(
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN NEW.name := upper(NEW.name); RETURN NEW; END $$",
        "CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION shout()",
    )
    rows = [UserIn(email=email, name=email, group_id=3) for email in ("a@x", "ann@x", "b@x", "bob@x")]
    found = await pg_world.crud.upsert_multi(**calls(pg_world), instances=rows)
    assert [(each.row.name, each.created) for each in found] == [
        ("A@X", True), ("ANN@X", False), ("B@X", True), ("BOB@X", False),
    ]  # fmt: skip


async def test_upserts_serve_the_cache_while_they_race(world: World) -> None:
    """While upserts and deletes of one key race, no reader afterwards gets anything but what is stored."""
    crud, given = world.crud, calls(world)

    async def write(n: int) -> None:
        if n % 4 == 3:
            async with world.factory() as session:
                await crud.delete_where(session, world.cache, email="new@x")
        else:
            await crud.upsert(**given, obj_in=UserIn(email="new@x", name=f"N{n}", group_id=n % 3))

    for turn in range(3):
        await asyncio.gather(*(write(turn + n) for n in range(8)))
        cached = await crud.get_or_none(**given, email="new@x")
        assert cached == await crud.get_or_none(world.factory, None, email="new@x")
        for group in range(3):
            assert await crud.get_multi(**given, group_id=group) == await crud.get_multi(
                world.factory, None, group_id=group
            )


async def test_statements_are_built_once(pg_world: World) -> None:
    """Upserts of one shape send one and the same text."""
    texts: set[str] = set()
    event.listen(pg_world.engine.sync_engine, "before_cursor_execute", lambda *args: texts.add(args[2]))
    for n in range(3):
        await pg_world.crud.upsert(**calls(pg_world), obj_in=UserIn(email=f"u{n}@x", name="n"))
    assert len([each for each in texts if each.startswith("INSERT")]) == 1
