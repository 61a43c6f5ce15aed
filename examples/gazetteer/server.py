"""The gazetteer over HTTP; each answer's header says how many SQL statements it took."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from fastrdb import InputError, NotFound, PaginatedResponse, UniqueViolation

from .cruds import city_crud, country_crud
from .report import verdict
from .schemas import CityRow, CityUpdate, CountryRow
from .setup import Setup
from .tour import walk

JSON = "application/json"


def build_app(setup: Setup) -> FastAPI:
    """Give the app; its documentation is at ``/docs``."""
    app = FastAPI(title="Gazetteer", description=f"252 countries and 34 006 cities on {setup.where}.")
    _add_cities(app, setup)
    _add_countries(app, setup)
    _add_insight(app, setup)
    for error, status in ((NotFound, 404), (UniqueViolation, 409), (InputError, 422)):
        app.add_exception_handler(error, _answering(status))
    return app


def _answering(status: int) -> Callable[[Request, Exception], JSONResponse]:
    return lambda _, error: JSONResponse({"detail": str(error)}, status)


def _add_cities(app: FastAPI, setup: Setup) -> None:
    db, cache = setup.sessions, setup.cache

    @app.get("/cities/{id}", response_model=CityRow)
    async def read_city(id: int) -> Response:
        """Read a city by its number; a hit hands the cached bytes on."""
        return Response(await city_crud.get_json(db=db, redis=cache, id=id), media_type=JSON)

    @app.get("/cities/by-slug/{slug}", response_model=CityRow)
    async def read_city_by_slug(slug: str) -> Response:
        """Read a city by its slug, such as ``fr-paris``."""
        return Response(await city_crud.get_json(db=db, redis=cache, slug=slug), media_type=JSON)

    @app.patch("/cities/{id}")
    async def update_city(id: int, change: CityUpdate) -> CityRow:
        """Change a city; with a new slug it is found under that one only."""
        return await city_crud.update(db=db, redis=cache, obj_in=change, id=id)

    @app.delete("/cities/{id}", status_code=204)
    async def delete_city(id: int) -> None:
        """Delete a city."""
        await city_crud.delete(db=db, redis=cache, id=id)


def _add_countries(app: FastAPI, setup: Setup) -> None:
    db, cache = setup.sessions, setup.cache

    @app.get("/countries")
    async def list_countries(limit: int = 50, page: int = 1) -> PaginatedResponse[CountryRow]:
        """Read a page of the countries, and how many there are."""
        return await country_crud.page(db=db, redis=cache, limit=limit, page=page)

    @app.get("/countries/{iso}", response_model=CountryRow)
    async def read_country(iso: str) -> Response:
        """Read a country by its ISO code, such as ``FR``."""
        return Response(await country_crud.get_json(db=db, redis=cache, iso=iso), media_type=JSON)

    @app.get("/countries/{iso}/cities", response_model=list[CityRow])
    async def list_cities(iso: str, limit: int = Query(50), page: int = 1) -> Response:
        """Read a page of a country's cities, the largest first."""
        found = await city_crud.get_multi_json(
            db=db, redis=cache, limit=limit, page=page, order_by="population", ascending=False, country=iso
        )
        return Response(found, media_type=JSON)

    @app.get("/countries/{iso}/cities/count")
    async def count_cities(iso: str) -> int:
        """Count a country's cities."""
        return await city_crud.count(db=db, redis=cache, country=iso)


def _add_insight(app: FastAPI, setup: Setup) -> None:
    @app.get("/stats")
    async def stats() -> dict[str, int]:
        """Say what the cache did, and why it did not do the rest."""
        return setup.cache.stats.snapshot()

    @app.post("/tour")
    async def tour() -> dict[str, Any]:
        """Take the tour of the command line; it changes and deletes some cities."""
        lines = await walk(setup, lambda _: None)
        return {"verdict": verdict(lines), "steps": [asdict(line) for line in lines]}

    @app.middleware("http")
    async def count_statements(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        # Exact while one request is answered at a time.
        before = setup.statements.sent
        response = await answer(request)
        response.headers["X-SQL-Statements"] = str(setup.statements.sent - before)
        return response
