"""What a write, a miss and a hit return is what the schema makes of the row: over generated models and rows."""

import datetime as dt
import enum
import uuid
from decimal import Decimal
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, computed_field, create_model
from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Date,
    DateTime,
    Enum,
    Float,
    Integer,
    Interval,
    LargeBinary,
    Numeric,
    String,
    Text,
    Time,
    Uuid,
    select,
)
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeEngine

from fastrdb import Cache, Crud


class Mood(enum.Enum):
    """An enumeration whose names and values differ."""

    GOOD = "fine ☀"
    BAD = "not: fine"


class Kind(NamedTuple):
    """A type of column, the Python type of its values, and the values."""

    type: TypeEngine[Any]
    python: Any
    values: st.SearchStrategy[Any]


TEXT = st.text(st.characters(exclude_characters="\x00", exclude_categories=["Cs"]), max_size=30)
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**40), 2**40) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
MOMENTS = st.datetimes(dt.datetime(1900, 1, 1), dt.datetime(2200, 1, 1))
KINDS = [
    Kind(Integer(), int, st.integers(-(2**31), 2**31 - 1)),
    Kind(BigInteger(), int, st.integers(-(2**63), 2**63 - 1)),
    Kind(String(100), str, TEXT),
    Kind(Text(), str, TEXT),
    Kind(Boolean(), bool, st.booleans()),
    Kind(Float(53), float, st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=False, width=32)),
    Kind(Numeric(12, 4), Decimal, st.decimals(-(10**7), 10**7, places=4)),
    Kind(Date(), dt.date, st.dates()),
    Kind(Time(), dt.time, st.times()),
    Kind(DateTime(), dt.datetime, MOMENTS),
    Kind(DateTime(timezone=True), dt.datetime, MOMENTS.map(lambda moment: moment.replace(tzinfo=dt.UTC))),
    Kind(Interval(), dt.timedelta, st.timedeltas(dt.timedelta(0), dt.timedelta(days=10_000))),
    Kind(Uuid(), uuid.UUID, st.uuids(version=4)),  # MariaDB refuses variants that no RFC describes
    Kind(Enum(Mood, name="mood"), Mood, st.sampled_from(Mood)),
    Kind(JSON(), Any, st.dictionaries(TEXT, JSONS, max_size=3)),
    Kind(LargeBinary(), bytes, st.binary(max_size=20)),
]


class Case(NamedTuple):
    """A model, its schemas and the rows to write."""

    model: type[DeclarativeBase]
    create: type[BaseModel]
    update: type[BaseModel]
    response: type[BaseModel]
    rows: list[dict[str, Any]]
    change: dict[str, Any]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a table of a few columns, aliases among its fields, and some rows."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=6))
    nullable = draw(st.lists(st.booleans(), min_size=len(kinds), max_size=len(kinds)))
    aliased = draw(st.lists(st.sampled_from(["none", "alias", "one way"]), min_size=len(kinds), max_size=len(kinds)))
    computed = draw(st.booleans())
    name = f"t_{uuid.uuid4().hex}"

    class Base(DeclarativeBase):
        pass

    columns = {
        f"c{n}": Column(kind.type, nullable=nulls) for n, (kind, nulls) in enumerate(zip(kinds, nullable, strict=True))
    }
    model = type("Row", (Base,), {"__tablename__": name, "id": Column(Integer, primary_key=True), **columns})
    created, shown = {}, {}
    for n, (kind, nulls, alias) in enumerate(zip(kinds, nullable, aliased, strict=True)):
        python = kind.python | None if nulls and kind.python is not Any else kind.python
        created[f"c{n}"] = (python, None if nulls else ...)
        if alias == "none":
            shown[f"c{n}"] = (python, ...)
        elif alias == "alias":
            shown[f"field{n}"] = (python, Field(alias=f"c{n}"))
        else:
            shown[f"field{n}"] = (python, Field(validation_alias=f"c{n}", serialization_alias=f"out{n}"))
    values = {
        f"c{n}": kind.values | st.none() if nulls else kind.values
        for n, (kind, nulls) in enumerate(zip(kinds, nullable, strict=True))
    }
    base = _Computed if computed else _Plain
    return Case(
        model,
        create_model("Create", **created),
        create_model("Update", **{field: (kind | None, None) for field, (kind, _) in created.items()}),
        create_model("Response", __base__=base, **shown),
        draw(st.lists(st.fixed_dictionaries(values), min_size=1, max_size=3)),
        draw(st.fixed_dictionaries(values)),
    )


class _Plain(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int


class _Computed(_Plain):
    @computed_field
    def twice(self) -> int:
        return self.id * 2


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    """Every database."""
    return str(request.getfixturevalue(f"{request.param}_url"))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(case=cases())
async def test_every_way_gives_the_same_response(url: str, case: Case) -> None:
    """Create, update, miss, hit, list and JSON of a row equal what the schema makes of the mapped instance."""
    engine = create_async_engine(url)
    db = async_sessionmaker(engine)
    crud: Crud[Any, Any, Any, Any] = Crud(case.model, case.response, "row:{id}", "rows:{page}:{limit}")
    try:
        async with engine.begin() as connection:
            await connection.run_sync(case.model.metadata.create_all)
        async with Cache.from_url("memory://") as cache:
            for row in case.rows:
                written = await crud.create(db=db, redis=cache, obj_in=case.create(**row))
                await agree(crud, db, cache, case, written)
            changed = await crud.update(db=db, redis=cache, obj_in=case.update(**case.change), id=1)
            await agree(crud, db, cache, case, changed)
    finally:
        async with engine.begin() as connection:
            await connection.run_sync(case.model.metadata.drop_all)
        await engine.dispose()


async def agree(crud: Crud[Any, Any, Any, Any], db: Any, cache: Cache, case: Case, written: Any) -> None:
    """Compare every way of getting one row with the instance that SQLAlchemy loads."""
    async with db() as session:
        instances = (await session.execute(select(case.model).order_by(case.model.id))).scalars().all()  # type: ignore[attr-defined]
        expected = {row.id: case.response.model_validate(row) for row in instances}
    right = expected[written.id]
    assert written == right, "the write"
    assert await crud.get(db=db, redis=cache, id=right.id) == right, "after the write"
    await crud.clear(cache)
    for way in ("miss", "hit"):
        assert await crud.get(db=db, redis=cache, id=right.id) == right, way
        assert await crud.get_multi(db=db, redis=cache) == list(expected.values()), way
    if sendable(right):
        for way in ("hit", "miss"):
            assert (
                await crud.get_json(db=db, redis=cache, id=right.id) == right.model_dump_json(by_alias=True).encode()
            ), way
            await crud.clear(cache)


def sendable(response: BaseModel) -> bool:
    """Tell whether JSON can say the response at all: not every bytes can."""
    try:
        response.model_dump_json()
    except ValueError:
        return False
    return True
