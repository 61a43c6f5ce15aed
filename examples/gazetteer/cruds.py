"""One object per table."""

from __future__ import annotations

from fastrdb import Crud

from .models import City, Country
from .schemas import CityRow, CityUpdate, CountryRow, CountryUpdate

country_crud = Crud[Country, CountryRow, CountryUpdate, CountryRow](
    Country,
    CountryRow,
    pattern="country:iso:{iso}",
    list_pattern="country:page:{page}:limit:{limit}",
)

city_crud = Crud[City, CityRow, CityUpdate, CityRow](
    City,
    CityRow,
    pattern=("city:id:{id}", "city:slug:{slug}"),
    list_pattern="city:country:{country}:page:{page}:limit:{limit}",
)
