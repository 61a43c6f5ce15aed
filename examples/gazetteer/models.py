"""The two tables."""

from __future__ import annotations

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


def exact_text(length: int) -> String:
    """Give a text type whose equality is that of its characters, on SQLite and on PostgreSQL.

    Said like this, fastrdb knows that no other spelling finds the same row, so that a list of one country lives on
    when a city of another one is written.
    """
    return String(length, collation="BINARY").with_variant(String(length, collation="C"), "postgresql")


class Base(DeclarativeBase):
    """The models of the gazetteer."""


class Country(Base):
    """A country, by its ISO 3166 code."""

    __tablename__ = "gazetteer_country"

    iso: Mapped[str] = mapped_column(exact_text(2), primary_key=True)
    name: Mapped[str]
    continent: Mapped[str]
    capital: Mapped[str]
    area_km2: Mapped[int]


class City(Base):
    """A city of more than 15 000 people, by its number on geonames.org and by a readable slug."""

    __tablename__ = "gazetteer_city"

    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    slug: Mapped[str] = mapped_column(exact_text(250), unique=True)
    country: Mapped[str] = mapped_column(exact_text(2), ForeignKey(Country.iso), index=True)
    name: Mapped[str]
    population: Mapped[int]
    latitude: Mapped[float]
    longitude: Mapped[float]
    timezone: Mapped[str]
