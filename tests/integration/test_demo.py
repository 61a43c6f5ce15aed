"""The demo: what it says is true, on SQLite and on servers, as a program and as an app."""

import asyncio
import io
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from httpx import ASGITransport, AsyncClient
from rich.console import Console
from sqlalchemy import text

from examples.gazetteer import source
from examples.gazetteer.__main__ import demo
from examples.gazetteer.report import show, wrong_answers
from examples.gazetteer.server import build_app
from examples.gazetteer.setup import Setup, opened
from examples.gazetteer.tour import Cost, Line, load, walk

ROOT = Path(__file__).parents[2]
COMMAND = [sys.executable, "-W", "error", "-m", "examples.gazetteer"]


@pytest.fixture(scope="module")
def few() -> source.Data:
    """The first two hundred cities, and their countries."""
    everything = source.everything()
    cities = everything.cities[:200]
    inhabited = {city.country for city in cities}
    return source.Data([country for country in everything.countries if country.iso in inhabited], cities)


@pytest.fixture
async def setup(few: source.Data) -> AsyncIterator[Setup]:
    """A small gazetteer on SQLite and ``memory://``."""
    async with opened() as setup:
        await load(setup, few, lambda _: None)
        yield setup


@pytest.fixture
async def client(setup: Setup) -> AsyncIterator[AsyncClient]:
    """A client of its app."""
    async with AsyncClient(transport=ASGITransport(build_app(setup)), base_url="http://app") as client:
        yield client


def by_title(lines: list[Line]) -> dict[str, Line]:
    """The lines of a tour by the name of their step."""
    return {line.title: line for line in lines}


def test_the_program_tells_what_each_step_cost() -> None:
    """``python -m examples.gazetteer`` loads everything, finds no wrong answer, and prints plain text to a pipe."""
    done = subprocess.run(COMMAND, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert re.search(r"load cities +34,006 ", done.stdout)
    assert re.search(r"read by id +1,000 +1,000 +0 ", done.stdout)
    assert "All 40,674 answers equal the database's." in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())


async def test_tour_on_servers(few: source.Data, postgres_url: str, valkey_url: str) -> None:
    """On PostgreSQL and a Redis server the tour finds no wrong answer, and a warm read sends no SQL."""
    for _ in range(2):  # the second finds what the first has left in Redis
        async with opened(postgres_url.replace("+asyncpg", ""), valkey_url) as setup:
            lines = [*await load(setup, few, lambda _: None), *await walk(setup, lambda _: None)]
        assert wrong_answers(lines) == 0
        warm = {title: line.warm.statements for title, line in by_title(lines).items() if line.warm}
        assert {warm[title] for title in ("read by id", "list by country", "count by country")} == {0}
        assert warm["read the updated"] == warm["list again"] == warm["count again"] == 0


async def test_wrong_answers_fail_the_demo(few: source.Data) -> None:
    """A row that changes behind fastrdb's back is found by the comparison, counted, and makes the exit code 1."""
    output = io.StringIO()
    async with opened() as setup:
        async with setup.checks.begin() as connection:
            await connection.execute(
                text(
                    "CREATE TRIGGER meddle AFTER UPDATE OF population ON gazetteer_city WHEN NEW.country = 'AE' "
                    "BEGIN UPDATE gazetteer_city SET name = 'Meddled' WHERE id = NEW.id; END"
                )
            )
        assert await demo(setup, few, Console(file=output, width=80)) == 1
    assert re.search(r"[1-9]\d* of [\d,]+ answers differ from the database's", output.getvalue())


def test_table_counts_wrong_answers() -> None:
    """The table names the step with a wrong answer; a step without a warm run shows a dash."""
    output = io.StringIO()
    lines = [
        Line("read", Cost(10, 10, 0.1, 0), Cost(10, 0, 0.01, 2)),
        Line("load", Cost(5, 1, 0.1, 0)),
    ]
    show(Console(file=output, width=80), lines, "nothing")
    assert re.search(r"read +10 +10 +0 +100 +10 +2 differ", output.getvalue())
    assert re.search(r"load +5 +1 +– +100 +– +yes", output.getvalue())
    assert "2 of 25 answers differ from the database's." in output.getvalue()


async def test_app_reads_from_the_cache(client: AsyncClient) -> None:
    """The first request for a city, a page or a number costs one statement, the second none, and they are equal."""
    for path in ("/cities/292968", "/cities/by-slug/ae-dubai", "/countries/AE/cities", "/countries/AE/cities/count"):
        first, second = await client.get(path), await client.get(path)
        assert (first.status_code, second.status_code) == (200, 200), path
        assert first.content == second.content
        assert (first.headers["X-SQL-Statements"], second.headers["X-SQL-Statements"]) == ("1", "0"), path


async def test_app_shows_each_write(client: AsyncClient) -> None:
    """After an update, a renaming and a deletion every read says so."""
    before = (await client.get("/countries/AE/cities/count")).json()
    assert (await client.get("/countries/AE/cities")).json()[0]["slug"] == "ae-dubai"
    assert (await client.patch("/cities/292223", json={"population": 5})).json()["population"] == 5
    assert (await client.get("/cities/by-slug/ae-dubai")).json()["population"] == 5
    assert (await client.get("/countries/AE/cities")).json()[0]["slug"] != "ae-dubai"
    await client.patch("/cities/292223", json={"slug": "ae-new-dubai"})
    assert (await client.get("/cities/by-slug/ae-dubai")).status_code == 404
    assert (await client.get("/cities/by-slug/ae-new-dubai")).json()["id"] == 292223
    assert (await client.delete("/cities/292223")).status_code == 204
    assert (await client.get("/cities/292223")).status_code == 404
    assert (await client.get("/countries/AE/cities/count")).json() == before - 1


async def test_app_names_mistakes(client: AsyncClient) -> None:
    """What the caller did wrong comes back with a fitting status and the error's own words."""
    taken = await client.patch("/cities/292223", json={"slug": "ae-abu-dhabi"})
    assert (taken.status_code, "slug" in taken.json()["detail"]) == (409, True)
    assert (await client.patch("/cities/292223", json={})).status_code == 422
    assert (await client.get("/countries", params={"limit": 0})).status_code == 422
    assert (await client.get("/countries/XX")).status_code == 404


async def test_app_counts_and_tours(client: AsyncClient) -> None:
    """The page of countries knows their number, and ``POST /tour`` finds no wrong answer."""
    countries = (await client.get("/countries", params={"limit": 1, "page": 2})).json()
    assert (countries["total"], len(countries["data"])) == (8, 1)
    tour = (await client.post("/tour")).json()
    assert tour["verdict"].startswith("All ")
    assert (await client.get("/stats")).json()["hits"] > 0
    assert (await client.get("/openapi.json")).json()["paths"].keys() >= {"/cities/{id}", "/tour", "/stats"}


@pytest.fixture
def served() -> Iterator[str]:
    """The address of ``--serve``, in a process of its own."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    process = subprocess.Popen([*COMMAND, "--serve", "--port", str(port)], cwd=ROOT, stdout=subprocess.DEVNULL)
    yield f"http://127.0.0.1:{port}"
    process.terminate()
    process.wait(30)


def got(url: str) -> str:
    """The body behind a URL, as soon as somebody listens."""
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(url) as response:
                return str(response.read().decode())
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


async def test_serve_has_documentation(served: str) -> None:
    """``--serve`` loads all cities, answers, and documents itself at ``/docs``."""
    assert "swagger-ui" in await asyncio.to_thread(got, f"{served}/docs")
    assert '"Paris"' in await asyncio.to_thread(got, f"{served}/cities/by-slug/fr-paris")
