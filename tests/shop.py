"""People with a country, a boss, orders, tags and cars: relationships of every kind, and a crud for each table."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import date
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, Column, ForeignKey, Numeric, String, Table, event, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column, relationship

from fastrdb import Cache, Crud


class Base(DeclarativeBase):
    """The tables of the shop."""


class Country(Base):
    """Where people live."""

    __tablename__ = "countries"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str | None] = mapped_column(String(50))
    people: Mapped[list["Person"]] = relationship(back_populates="country")


tagged = Table(
    "tagged",
    Base.metadata,
    Column("person_id", ForeignKey("people.id"), primary_key=True),
    Column("tag_id", ForeignKey("tags.id"), primary_key=True),
)


class Tag(Base):
    """What people are called."""

    __tablename__ = "tags"
    id: Mapped[int] = mapped_column(primary_key=True)
    label: Mapped[str] = mapped_column(String(50))


class Tagging(Base):
    """One person's one tag, as a row of its own."""

    __table__ = tagged


class Order(Base):
    """Something that a person ordered."""

    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    person_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    status: Mapped[str] = mapped_column(String(20))
    stars: Mapped[int | None]
    amount: Mapped[Decimal | None] = mapped_column(Numeric(10, 2))
    weight: Mapped[float | None]
    day: Mapped[date | None]
    notes: Mapped[list[str] | None] = mapped_column(JSON)
    person: Mapped["Person"] = relationship(back_populates="orders")

    @hybrid_property
    def is_dear(self) -> bool:
        """Whether it cost more than ten."""
        return self.amount is not None and self.amount > 10

    @is_dear.inplace.expression
    @classmethod
    def _is_dear(cls) -> Any:
        return func.coalesce(cls.amount > 10, False)  # type: ignore[operator]  # a column of numbers

    @hybrid_property
    def is_heavy(self) -> bool:
        """Whether it weighs more than one; the SQL of it cannot be that of an alias."""
        return self.weight is not None and self.weight > 1

    @is_heavy.inplace.expression
    @classmethod
    def _is_heavy(cls) -> Any:
        return Order.weight > 1  # type: ignore[operator]  # a column of numbers


class Vehicle(Base):
    """Cars and bikes, in one table."""

    __tablename__ = "vehicles"
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(10))
    brand: Mapped[str] = mapped_column(String(50))
    owner_id: Mapped[int] = mapped_column(ForeignKey("people.id"))
    __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "vehicle"}


class Car(Vehicle):
    """One kind of vehicle."""

    __mapper_args__ = {"polymorphic_identity": "car"}


class Bike(Vehicle):
    """Another one."""

    __mapper_args__ = {"polymorphic_identity": "bike"}


class Person(Base):
    """Who lives in a country, has a boss, orders, tags and cars."""

    __tablename__ = "people"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50))
    email: Mapped[str | None] = mapped_column(String(50))
    country_id: Mapped[int | None] = mapped_column(ForeignKey("countries.id"))
    boss_id: Mapped[int | None] = mapped_column(ForeignKey("people.id"))
    country: Mapped[Country | None] = relationship(back_populates="people")
    boss: Mapped["Person | None"] = relationship(remote_side="Person.id", back_populates="staff")
    staff: Mapped[list["Person"]] = relationship(back_populates="boss")
    orders: Mapped[list[Order]] = relationship(back_populates="person")
    tags: Mapped[list[Tag]] = relationship(secondary=tagged)
    cars: Mapped[list[Car]] = relationship()


Person.order_count = column_property(  # type: ignore[attr-defined]  # as SQLAlchemy adds properties later
    select(func.count(Order.id)).where(Order.person_id == Person.id).correlate_except(Order).scalar_subquery()
)


class Loose(BaseModel):
    """Any columns: what is written."""

    model_config = ConfigDict(extra="allow")


class Named(BaseModel):
    """A row with an id."""

    model_config = ConfigDict(from_attributes=True)
    id: int


class PersonOut(Named):
    """A person."""

    name: str
    country_id: int | None
    boss_id: int | None


class OrderOut(Named):
    """An order."""

    person_id: int
    status: str
    amount: Decimal | None


class TaggingOut(BaseModel):
    """A tag of a person."""

    model_config = ConfigDict(from_attributes=True)
    person_id: int
    tag_id: int


def crud_of(model: type[Any], schema: type[Any], **options: Any) -> Crud[Any, Loose, Loose, Any]:
    """A crud of a table; its lists are cached in one directory."""
    name: str = model.__table__.name
    given = {"list_pattern": f"{name}:page:{{page}}:{{limit}}", **options}
    return Crud[Any, Loose, Loose, Any](model, schema, create_schema=Loose, update_schema=Loose, **given)


ROWS: list[tuple[Any, list[dict[str, Any]]]] = [
    (Country.__table__, [{"name": "Peru"}, {"name": "Poland"}, {"name": None}]),
    (
        Person.__table__,
        [
            {"name": "Ann Lee", "email": "ann@x", "country_id": 1, "boss_id": None},
            {"name": "Bob", "email": "bob@lee", "country_id": 2, "boss_id": 1},
            {"name": "Cid", "email": None, "country_id": 1, "boss_id": 2},
            {"name": "50%_\\", "email": "d/d", "country_id": None, "boss_id": 3},
        ],
    ),
    (Tag.__table__, [{"label": "red"}, {"label": "blue"}]),
    (tagged, [{"person_id": 1, "tag_id": 1}, {"person_id": 1, "tag_id": 2}, {"person_id": 2, "tag_id": 2}]),
    (
        Order.__table__,
        [
            {"person_id": 1, "status": "open", "stars": 1, "amount": Decimal("0.10"), "weight": 0.5, "notes": None,
             "day": date(2024, 1, 1)},
            {"person_id": 1, "status": "sent", "stars": 5, "amount": Decimal("0.20"), "weight": 1.5, "notes": [],
             "day": date(2024, 1, 2)},
            {"person_id": 2, "status": "open", "stars": 5, "amount": Decimal("99.99"), "weight": None, "notes": None,
             "day": date(2024, 1, 2)},
            {"person_id": 3, "status": "lost", "stars": None, "amount": None, "weight": None, "notes": None,
             "day": None},
        ],
    ),
    (
        Vehicle.__table__,
        [
            {"kind": "car", "brand": "Fiat", "owner_id": 1},
            {"kind": "bike", "brand": "Fiat", "owner_id": 2},
            {"kind": "bike", "brand": "Gazelle", "owner_id": 2},
        ],
    ),
]  # fmt: skip


class Shop:
    """The tables with their rows, and a crud for each.

    Attributes:
        given: What every call is given.
        sent: The statements that were sent.
    """

    def __init__(self, engine: AsyncEngine, cache: Cache) -> None:
        self.engine, self.cache = engine, cache
        self.db: async_sessionmaker[AsyncSession] = async_sessionmaker(engine, expire_on_commit=False)
        self.given: dict[str, Any] = {"db": self.db, "redis": cache}
        self.people = crud_of(Person, PersonOut, pattern="person:{id}", search=("name", "email", "country.name"))
        self.orders = crud_of(Order, OrderOut, pattern="order:{id}")
        self.countries = crud_of(Country, Named, pattern="country:{id}", list_pattern=None)
        self.taggings = crud_of(Tagging, TaggingOut, list_pattern=None)
        self.tags = crud_of(Tag, Named, list_pattern=None)
        self.cars = crud_of(Car, Named, list_pattern=None)
        self.sent: list[str] = []

    async def names(self, *args: Any, **keywords: Any) -> list[str]:
        """The first names of the people that match."""
        found = await self.people.get_multi(*args, **{**self.given, **keywords})
        return [person.name.split()[0] for person in found]

    def sent_since(self, before: int, word: str) -> list[str]:
        """The statements with a word that were sent since there were so many."""
        return [statement for statement in self.sent[before:] if word in statement.lower()]


@asynccontextmanager
async def shop_in(url: str, redis_url: str) -> AsyncIterator[Shop]:
    """The tables with their rows in an empty database, and a cache."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            for table, rows in ROWS:
                await connection.execute(table.insert(), rows)
        async with Cache.from_url(redis_url) as cache:
            found = Shop(engine, cache)
            event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: found.sent.append(args[2]))
            yield found
    finally:
        await engine.dispose()
