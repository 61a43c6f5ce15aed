"""What the database says, asked in plain SQL: no crud, no ORM, no cache."""

from __future__ import annotations

from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

COLUMNS = "id, slug, country, name, population, latitude, longitude, timezone"
PAGE = 50

Plain = dict[str, Any]


class Truth:
    """Answers to the questions that the tour asks through the cruds."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def rows(self, sql: str, **parameters: object) -> list[Plain]:
        """Give the rows of a SELECT."""
        return [dict(row) for row in (await self._connection.execute(text(sql), parameters)).mappings()]

    async def countries(self) -> list[Plain]:
        """Give all countries."""
        return await self.rows("SELECT iso, name, continent, capital, area_km2 FROM gazetteer_country ORDER BY iso")

    async def cities(self) -> list[Plain]:
        """Give all cities."""
        return await self.rows(f"SELECT {COLUMNS} FROM gazetteer_city ORDER BY id")

    async def city(self, number: int) -> Plain | None:
        """Give one city, if there is one."""
        found = await self.rows(f"SELECT {COLUMNS} FROM gazetteer_city WHERE id = :id", id=number)
        return found[0] if found else None

    async def city_by_slug(self, slug: str) -> Plain | None:
        """Give one city, if there is one."""
        found = await self.rows(f"SELECT {COLUMNS} FROM gazetteer_city WHERE slug = :slug", slug=slug)
        return found[0] if found else None

    async def largest(self, country: str) -> list[Plain]:
        """Give the largest cities of a country."""
        order = "ORDER BY population DESC, id DESC"
        sql = f"SELECT {COLUMNS} FROM gazetteer_city WHERE country = :country {order} LIMIT {PAGE}"
        return await self.rows(sql, country=country)

    async def count(self, country: str) -> int:
        """Give the number of a country's cities."""
        sql = "SELECT count(*) AS n FROM gazetteer_city WHERE country = :country"
        return int((await self.rows(sql, country=country))[0]["n"])
