"""Bad input gets a typed error that names the field and the fix; nothing is written, and everything stays usable."""

import datetime as dt
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from sqlalchemy import (
    JSON,
    CheckConstraint,
    ForeignKey,
    String,
    UniqueConstraint,
    create_engine,
    event,
    exists,
    func,
    select,
    text,
)
from sqlalchemy.exc import IntegrityError, MultipleResultsFound, NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, aliased, mapped_column, relationship

from fastrdb import (
    Cache,
    CacheClosed,
    CheckViolation,
    ConfigurationError,
    Crud,
    EmptyInput,
    ForeignKeyViolation,
    InputError,
    KeyMismatch,
    MissingKeyField,
    MultipleFound,
    NotFound,
    NotNullViolation,
    OrderRefused,
    OutOfRange,
    RedisRefused,
    SessionRefused,
    TemplateError,
    UniqueViolation,
    UnknownField,
    UnknownOperator,
    UnsupportedModel,
    UsageError,
    ValueRefused,
)


class Base(DeclarativeBase):
    """Tables of these tests."""


class Team(Base):
    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)


class Player(Base):
    __tablename__ = "players"
    __table_args__ = (UniqueConstraint("email", name="uq_players_email"), CheckConstraint("age >= 0", name="ck_age"))
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(50))
    age: Mapped[int]
    team_id: Mapped[int | None] = mapped_column(ForeignKey("teams.id", name="fk_players_team"))
    born: Mapped[dt.date | None]


class PlayerIn(BaseModel):
    email: str
    age: int | None
    team_id: int | None = None


class PlayerChange(BaseModel):
    email: str | None = None
    age: int | None = None
    team_id: int | None = None


class PlayerOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str
    age: int
    team_id: int | None


class Oddity(BaseModel):
    email: str
    age: int
    shoe_size: int = 3


players = Crud[Player, PlayerIn, PlayerChange, PlayerOut](
    Player, PlayerOut, ("player:{email}", "player:id:{id}"), "players:{page}:{limit}", max_limit=50
)
ANN = PlayerIn(email="ann@x", age=30)


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[async_sessionmaker[AsyncSession]]:
    """Ann is there, and a check afterwards that she is still the only one."""
    engine = create_async_engine(database_url)
    if database_url.startswith("sqlite"):

        @event.listens_for(engine.sync_engine, "connect")
        def keys(connection: Any, record: object) -> None:
            connection.execute("PRAGMA foreign_keys=ON")

    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        factory = async_sessionmaker(engine, expire_on_commit=False)
        await players.create(db=factory, redis=None, obj_in=ANN)
        yield factory
        async with factory() as session:
            rows = (await session.execute(select(Player.email, Player.age, Player.team_id))).all()
        assert rows == [("ann@x", 30, None)], "nothing was written"
    finally:
        await engine.dispose()


@pytest.fixture
async def cache() -> AsyncIterator[Cache]:
    """A cache that must hold nothing wrong."""
    async with Cache.from_url("memory://") as cache:
        yield cache


async def test_missing_key_field(db: Any, cache: Cache) -> None:
    """A read without a field of the template names the field and the template."""
    with pytest.raises(MissingKeyField, match="'email'"):
        await players.get(db=db, redis=cache, age=30)


async def test_unknown_fields(db: Any, cache: Cache) -> None:
    """A field that does not exist is never ignored; the error names the valid ones and the nearest."""
    with pytest.raises(UnknownField, match="did you mean 'email'"):
        await players.get(db=db, redis=cache, email="ann@x", emial="x")
    with pytest.raises(UnknownField, match="valid: age"):
        await players.get_multi(db=db, redis=cache, shoe_size=3)
    with pytest.raises(UnknownField):
        await players.count(db=db, redis=cache, shoe_size=3)
    with pytest.raises(UnknownField):
        await players.delete(db=db, redis=cache, shoe_size=3)
    with pytest.raises(UnknownField):
        await players.create(db=db, redis=cache, obj_in=PlayerIn(email="b", age=1), shoe_size=3)
    with pytest.raises(UnknownField):
        await players.create(db=db, redis=cache, obj_in=Oddity(email="b", age=1))  # type: ignore[arg-type]
    with pytest.raises(UnknownOperator, match="between"):
        await players.get_multi(db=db, redis=cache, age={"=>": 3})


async def test_values_that_the_column_refuses(db: Any, cache: Cache) -> None:
    """A value of the wrong type is refused before anything is sent, with the field and what it takes."""
    for refused in ("x", 1.5, True, 2**80, [1], {"=": "x"}):
        with pytest.raises(ValueRefused, match="'id'"):
            await players.get(db=db, redis=cache, id=refused)
    with pytest.raises(ValueRefused, match="'born'"):
        await players.get_multi(db=db, redis=cache, born="yesterday")
    with pytest.raises(ValueRefused, match="'age'"):
        await players.update(db=db, redis=cache, obj_in=PlayerChange(age=2**40), email="ann@x")


@pytest.mark.parametrize(
    "window",
    [{"limit": 0}, {"limit": 51}, {"limit": -1}, {"limit": "5"}, {"limit": True}, {"page": 0}, {"page": 2**63}],
)
async def test_windows(db: Any, cache: Cache, window: dict[str, Any]) -> None:
    """A limit or a page that is out of range names its maximum."""
    with pytest.raises(OutOfRange, match="from 1 to"):
        await players.get_multi(db=db, redis=cache, **window)
    with pytest.raises(OutOfRange):
        await players.page(db=db, redis=cache, **window)


async def test_pages_far_out(db: Any, cache: Cache) -> None:
    """The largest page there can be is empty, and no error of the driver."""
    assert await players.get_multi(db=db, redis=cache, limit=1, page=2**62) == []


async def test_unknown_order(db: Any, cache: Cache) -> None:
    """An order by something that is no attribute names the attributes."""
    with pytest.raises(UnknownField, match="valid: age"):
        await players.get_multi(db=db, redis=cache, order_by="size")


class Tagged(Base):
    __tablename__ = "tagged"
    id: Mapped[int] = mapped_column(primary_key=True)
    tags: Mapped[list[str]] = mapped_column(JSON)


class TaggedOut(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: int
    tags: list[str]


async def test_order_by_json(db: Any, cache: Cache) -> None:
    """An order by JSON, which PostgreSQL does not have, is refused before the session is lost to it."""
    crud: Any = Crud(Tagged, TaggedOut)
    for order in ("tags", ["id", "-tags"]):
        with pytest.raises(OrderRefused, match=r"tags.*JSON"):
            await crud.get_multi(db=db, redis=cache, order_by=order)
    assert await crud.get_multi(db=db, redis=cache, order_by="id") == []


def test_models_that_are_not_complete() -> None:
    """A crud that is built before the models its own needs are imported says so."""

    class Unready(DeclarativeBase):
        pass

    class Early(Unready):
        __tablename__ = "early"
        id: Mapped[int] = mapped_column(primary_key=True)
        late: Mapped["Late"] = relationship()  # type: ignore[name-defined]  # noqa: F821  # what is tested

    with pytest.raises(UnsupportedModel, match="import all modules with models before"):
        Crud(Early, TaggedOut)
    Unready.registry.dispose()


async def test_empty_writes(db: Any, cache: Cache) -> None:
    """An update that sets nothing, a list of no rows and a write without a criterion are refused."""
    with pytest.raises(EmptyInput, match="obj_in"):
        await players.update(db=db, redis=cache, obj_in=PlayerChange(), email="ann@x")
    with pytest.raises(EmptyInput, match="instances"):
        await players.create_multi(db=db, redis=cache, instances=[])
    with pytest.raises(EmptyInput, match="criterion"):
        await players.update(db=db, redis=cache, obj_in=PlayerChange(age=3))
    with pytest.raises(EmptyInput, match="criterion"):
        await players.delete(db=db, redis=cache)


async def test_no_row(db: Any, cache: Cache) -> None:
    """A row that does not exist raises fastrdb's error, which is SQLAlchemy's too, and names what was asked."""
    with pytest.raises(NotFound, match="email='bob'") as found:
        await players.get(db=db, redis=cache, email="bob")
    assert isinstance(found.value, NoResultFound)
    with pytest.raises(NotFound):
        await players.update(db=db, redis=cache, obj_in=PlayerChange(age=3), email="bob")
    with pytest.raises(NotFound):
        await players.delete(db=db, redis=cache, email="bob")


async def test_several_rows(db: Any, cache: Cache) -> None:
    """A criterion that matches several rows changes none of them."""
    await players.create(db=db, redis=cache, obj_in=PlayerIn(email="bob", age=30))
    for write in (
        lambda: players.update(db=db, redis=cache, obj_in=PlayerChange(age=3), age=30),
        lambda: players.delete(db=db, redis=cache, age=30),
    ):
        with pytest.raises(MultipleFound) as found:
            await write()
        assert isinstance(found.value, MultipleResultsFound)
    with pytest.raises(MultipleFound, match=r"with where='players.age > :age_1'"):
        await players.delete(db=db, redis=cache, where=Player.age > 20)
    with pytest.raises(NotFound, match=r"with age=30, where='players.id"):
        await players.delete(db=db, redis=cache, age=30, where=Player.id < 0)
    assert await players.count(db=db, redis=cache, age=30) == 2
    await players.delete(db=db, redis=cache, email="bob")


async def test_integrity(db: Any, cache: Cache) -> None:
    """A violated constraint is named, with the driver's error as the cause, in a session that stays usable."""
    async with db() as session:
        for write, kind, name in (
            (PlayerIn(email="ann@x", age=1), UniqueViolation, "email"),
            (PlayerIn(email="b", age=1, team_id=77), ForeignKeyViolation, "team"),
            (PlayerIn(email="b", age=None), NotNullViolation, "age"),
            (PlayerIn(email="b", age=-1), CheckViolation, "age"),
        ):
            with pytest.raises(kind) as found:
                await players.create(db=session, redis=cache, obj_in=write)
            assert isinstance(found.value, IntegrityError)
            assert found.value.__cause__ is found.value.orig is not None
            if found.value.constraint is not None:  # SQLite names no foreign key
                assert name in found.value.constraint
            if kind is NotNullViolation:
                assert found.value.constraint == name  # the column's alone, on every database
            assert not session.in_transaction()
            assert await players.count(db=session, redis=cache) == 1
        with pytest.raises(UniqueViolation):
            await players.create_multi(
                db=session, redis=cache, instances=[PlayerIn(email="c", age=1), PlayerIn(email="ann@x", age=2)]
            )
        assert await players.get_or_none(db=session, redis=cache, email="c") is None


async def test_key_mismatch(db: Any, cache: Cache) -> None:
    """A key field that differs from the row is refused, and the row is not written."""
    with pytest.raises(KeyMismatch, match="'x'"):
        await players.create(db=db, redis=cache, obj_in=PlayerIn(email="b", age=1), email="x")
    assert await players.get_or_none(db=db, redis=cache, email="b") is None


async def test_sessions(db: Any, cache: Cache) -> None:
    """What is no AsyncSession and no factory of one is refused, with what to pass."""
    sync = Session(create_engine("sqlite://"))
    engine = db.kw["bind"]
    async with engine.connect() as connection:
        for wrong in (sync, connection, engine, 5, "sqlite://", None):
            with pytest.raises(SessionRefused, match="AsyncSession"):
                await players.get(db=wrong, redis=cache, email="ann@x")  # type: ignore[arg-type]
    sync.get_bind().dispose()
    with pytest.raises(SessionRefused, match="commit=False"):
        await players.create(db=db, redis=cache, obj_in=PlayerIn(email="b", age=1), commit=False)


async def test_redis(db: Any, cache: Cache) -> None:
    """A forgotten redis is refused on reads and writes; None must be written out; other objects are named."""
    with pytest.raises(RedisRefused, match="redis is missing"):
        await players.get(db=db, email="ann@x")
    with pytest.raises(RedisRefused, match="redis=None"):
        await players.delete(db=db, email="ann@x")
    with pytest.raises(RedisRefused, match=r"builtins\.str"):
        await players.get(db=db, redis="redis://", email="ann@x")  # type: ignore[arg-type]
    assert (await players.get(db=db, redis=None, email="ann@x")).age == 30
    assert await players.count(db=db) == 1


async def test_closed(db: Any, cache: Cache, valkey_url: str) -> None:
    """A closed cache raises; a closed client does not matter, because the cache has its own connections."""
    client = Redis.from_url(valkey_url)
    await client.aclose()
    assert (await players.get(db=db, redis=client, email="ann@x")).age == 30
    closed = Cache.from_url("memory://")
    await closed.aclose()
    with pytest.raises(CacheClosed):
        await players.get(db=db, redis=closed, email="ann@x")


async def test_schemas(db: Any, cache: Cache) -> None:
    """A forgotten or foreign object in place of a schema is refused."""
    for wrong in ({}, {"obj_in": {"email": "x"}}, {"obj_in": PlayerIn}):
        with pytest.raises(UsageError, match="schema"):
            await players.create(db=db, redis=cache, **wrong)  # type: ignore[arg-type]
    for wrong_many in ({}, {"instances": PlayerIn(email="x", age=1)}):
        with pytest.raises(UsageError, match="schema"):
            await players.create_multi(db=db, redis=cache, **wrong_many)  # type: ignore[arg-type]


async def test_where(db: Any, cache: Cache) -> None:
    """A where= that is no SQL expression is refused, instead of finding everything or nothing."""
    for wrong in (True, "age > 3", [1]):
        with pytest.raises(InputError):
            await players.get_multi(db=db, redis=cache, where=wrong)  # type: ignore[arg-type]
    assert await players.get_multi(db=db, redis=cache, where=Player.age > 40) == []
    assert await players.get_multi(db=db, redis=cache, where=text("1 = 0")) == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "where",
    [
        Team.id > 0,
        Team.id == Player.team_id,
        aliased(Player).age > 0,
        (Player.age > 0) & (Team.id == 1),
    ],
    ids=["another table", "a join", "an alias", "among others"],
)
async def test_where_of_other_rows(db: Any, cache: Cache, where: Any) -> None:
    """A where= that would pair each row with all of another table is refused before anything is sent."""
    given = {"db": db, "redis": cache, "where": where}
    for attempt in (
        players.delete_where(**given),
        players.update_where(**given, obj_in=PlayerChange(age=1)),
        players.get_multi(**given),
        players.count(**given),
        players.exists(**given),
    ):
        with pytest.raises(InputError, match=r"without a subquery.*exists\(\)"):
            await attempt


async def test_where_with_subqueries(db: Any, cache: Cache) -> None:
    """Subqueries on other tables, and on other rows of the same one, are conditions as any other."""
    other = aliased(Player)
    none = exists().where(Team.id == Player.team_id)
    oldest = ~exists().where(other.age > Player.age)
    in_team = Player.team_id.in_(select(Team.id))
    assert await players.count(db=db, redis=cache, where=none) == await players.count(db=db, redis=cache, where=in_team)
    assert await players.count(db=db, redis=cache, where=oldest) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pattern": "player:{mail}"}, "mail"),
        ({"pattern": "{email}"}, "literal"),
        ({"pattern": "player:{email}:{page}"}, "page"),
        ({"pattern": "player:*"}, r"\*"),
        ({"pattern": "player:{email}{id}"}, "two placeholders"),
        ({"pattern": ("player:{email}", "player:{id}")}, "same key"),
        ({"list_pattern": "players:{page}"}, "limit"),
        ({"pattern": "players:{id}:{email}", "list_pattern": "players:{page}:{limit}"}, "same key"),
        ({"pattern": "player:{id}", "invalidate_pattern_prefix": "player:nothing:*"}, "covers none"),
        ({"pattern": "player:{id}", "invalidate_pattern_prefix": "player:"}, r"\*"),
        ({"pattern": "player:{id}", "invalidate_pattern_prefix": "player:{shoe}:*"}, "shoe"),
    ],
)
def test_templates(arguments: dict[str, Any], message: str) -> None:
    """A template that cannot work raises at construction, and says what to change."""
    with pytest.raises(TemplateError, match=message):
        Crud(Player, PlayerOut, **arguments)


@pytest.mark.parametrize(
    "arguments",
    [{"exp": 0}, {"exp": -1}, {"exp": "x"}, {"negative_exp": -1}, {"max_limit": 0}, {"max_limit": 2.5}, {"exp": True}],
)
def test_numbers(arguments: dict[str, Any]) -> None:
    """A life or a limit that is out of range raises at construction, and names the argument."""
    with pytest.raises(ConfigurationError, match=next(iter(arguments))):
        Crud(Player, PlayerOut, "player:{id}", **arguments)


async def test_nothing_wrong_was_cached(db: Any, cache: Cache) -> None:
    """After every kind of refusal the cache answers as the database does."""
    for wrong in ({"id": "x"}, {"emial": 1, "email": "ann@x"}):
        with pytest.raises(InputError):
            await players.get(db=db, redis=cache, **wrong)
    with pytest.raises(UniqueViolation):
        await players.create(db=db, redis=cache, obj_in=ANN)
    for _ in range(2):
        assert (await players.get(db=db, redis=cache, email="ann@x")).age == 30
        assert await players.count(db=db, redis=cache) == 1
    async with db() as session:
        assert (await session.execute(select(func.count()).select_from(Player))).scalar() == 1


def test_errors_are_drawn_and_pickle() -> None:
    """Every error says its message from its own arguments, also after a trip through pickle."""
    import pickle

    for error in (
        UnknownField("emial", "Player", ["email"]),
        KeyMismatch("a", 1, 2),
        OutOfRange("limit", 0, 5),
        NotFound("Player", {"id": 1}),
        ValueRefused("id", "an integer", "x" * 500),
    ):
        assert str(pickle.loads(pickle.dumps(error))) == str(error)
