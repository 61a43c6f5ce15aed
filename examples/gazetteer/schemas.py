"""What goes in and what comes out."""

from __future__ import annotations

from pydantic import BaseModel


class CountryRow(BaseModel):
    """A country, in and out."""

    iso: str
    name: str
    continent: str
    capital: str
    area_km2: int


class CityRow(BaseModel):
    """A city, in and out."""

    id: int
    slug: str
    country: str
    name: str
    population: int
    latitude: float
    longitude: float
    timezone: str


class CountryUpdate(BaseModel):
    """What may change of a country."""

    capital: str | None = None


class CityUpdate(BaseModel):
    """What may change of a city; a new slug is another key."""

    slug: str | None = None
    name: str | None = None
    population: int | None = None
