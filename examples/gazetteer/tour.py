"""The tour: each step is asked through the cruds, timed, and then asked again in plain SQL."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from . import source
from .cruds import city_crud, country_crud
from .schemas import CityUpdate
from .setup import Setup
from .truth import PAGE, Truth

READS, WRITES = 1_000, 200  # cities that are read, and cities that each writing step changes
AT_ONCE = 64  # reads that are under way together; writes go one by one
BATCH = 2_000  # rows of one create_multi

Advance = Callable[[int], None]


@dataclass(frozen=True)
class Cost:
    """What one run of a step cost, and how many of its answers were not the database's."""

    calls: int
    statements: int
    seconds: float
    wrong: int


@dataclass(frozen=True)
class Line:
    """One line of the table; what has no warm run is done only once."""

    title: str
    cold: Cost
    warm: Cost | None = None

    @property
    def costs(self) -> list[Cost]:
        """The runs."""
        return [self.cold] if self.warm is None else [self.cold, self.warm]


@dataclass(frozen=True)
class Step:
    """A question, through the cruds and in plain SQL.

    Attributes:
        ask: Asks for one thing through the crud.
        truth: Asks for the same in plain SQL, afterwards.
        writes: It changes rows: the two runs take different ones.
        follows: It looks at what the step before left in the cache, which is not cleared for it.
    """

    title: str
    ask: Callable[[Tour, Any], Awaitable[Any]]
    truth: Callable[[Truth, Tour, Any], Awaitable[Any]]
    writes: bool = False
    follows: bool = False


class Tour:
    """A walk through a loaded gazetteer."""

    def __init__(self, setup: Setup, cities: Sequence[dict[str, Any]], countries: Sequence[str]) -> None:
        self.setup, self.countries = setup, countries
        chosen = random.Random(1).sample(list(cities), min(READS, len(cities)))
        self.slugs: dict[int, str] = {city["id"]: city["slug"] for city in chosen}
        self.numbers = list(self.slugs)

    @property
    def db(self) -> Any:
        """What the cruds take as ``db``."""
        return self.setup.sessions

    def new_slug(self, number: int) -> str:
        """Give the slug that a city is renamed to."""
        return f"{self.slugs[number]}-renamed"

    def items(self, step: Step, run: int) -> list[Any]:
        """Give what a run of a step asks for: 0 is the cold one, 1 the warm one."""
        if step in BY_COUNTRY:
            return list(self.countries)
        if not (step.writes or step.follows):
            return self.numbers
        each = min(WRITES, len(self.numbers) // 2)
        return self.numbers[run * each : (run + 1) * each]

    async def line(self, step: Step) -> Line:
        """Run a step cold, then warm."""
        cold_items, warm_items = self.items(step, 0), self.items(step, 1)
        if not step.follows:
            await city_crud.clear(self.setup.cache)
        cold = await self._run(step, cold_items)
        if step.writes:
            await self._warm_up(warm_items)
        return Line(step.title, cold, await self._run(step, warm_items))

    async def _run(self, step: Step, items: list[Any]) -> Cost:
        before, started = self.setup.statements.sent, time.perf_counter()
        answers = await self._ask(step, items)
        seconds, sent = time.perf_counter() - started, self.setup.statements.sent - before
        async with self.setup.checks.connect() as connection:
            truth = Truth(connection)
            truths = [await step.truth(truth, self, item) for item in items]
        return Cost(len(items), sent, seconds, wrong(answers, truths))

    async def _ask(self, step: Step, items: list[Any]) -> list[Any]:
        width = 1 if step.writes else AT_ONCE
        answers: list[Any] = []
        for start in range(0, len(items), width):
            answers += await asyncio.gather(*(step.ask(self, item) for item in items[start : start + width]))
        return answers

    async def _warm_up(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            await read(self, number)
            await read_by_slug(self, self.slugs[number])
        for country in self.countries:
            await largest(self, country)
            await count(self, country)


def wrong(answers: Sequence[Any], truths: Sequence[Any]) -> int:
    """Count the answers that are not what the database says."""
    return sum(plain(answer) != truth for answer, truth in zip(answers, truths, strict=True))


def plain(answer: Any) -> Any:
    """Bring responses to dicts, as plain SQL gives them."""
    if isinstance(answer, BaseModel):
        return answer.model_dump()
    return [plain(each) for each in answer] if isinstance(answer, list) else answer


async def read(tour: Tour, number: int) -> Any:
    """Read a city by id."""
    return await city_crud.get_or_none(db=tour.db, redis=tour.setup.cache, id=number)


async def read_by_slug(tour: Tour, slug: str) -> Any:
    """Read a city by slug."""
    return await city_crud.get_or_none(db=tour.db, redis=tour.setup.cache, slug=slug)


async def largest(tour: Tour, country: str) -> Any:
    """Read the first page of a country's cities."""
    return await city_crud.get_multi(
        db=tour.db,
        redis=tour.setup.cache,
        limit=PAGE,
        order_by="population",
        ascending=False,
        country=country,
    )


async def count(tour: Tour, country: str) -> Any:
    """Count a country's cities."""
    return await city_crud.count(db=tour.db, redis=tour.setup.cache, country=country)


async def grow(tour: Tour, number: int) -> Any:
    """Change what is in no key."""
    change = CityUpdate(population=1_000_000 + number)
    return await city_crud.update(db=tour.db, redis=tour.setup.cache, obj_in=change, id=number)


async def rename(tour: Tour, number: int) -> Any:
    """Change what is in a key: the row moves from one entry to another."""
    change = CityUpdate(slug=tour.new_slug(number), name="Renamed")
    return await city_crud.update(db=tour.db, redis=tour.setup.cache, obj_in=change, id=number)


async def read_both_slugs(tour: Tour, number: int) -> Any:
    """Read under the old key, where there is nothing any more, and under the new one."""
    return [await read_by_slug(tour, tour.slugs[number]), await read_by_slug(tour, tour.new_slug(number))]


async def delete(tour: Tour, number: int) -> Any:
    """Delete a city."""
    return await city_crud.delete(db=tour.db, redis=tour.setup.cache, id=number)


async def true_city(truth: Truth, tour: Tour, number: int) -> Any:
    """Give the row as it is now."""
    return await truth.city(number)


async def true_slugs(truth: Truth, tour: Tour, number: int) -> Any:
    """Give what lies under both slugs now."""
    return [await truth.city_by_slug(tour.slugs[number]), await truth.city_by_slug(tour.new_slug(number))]


async def true_largest(truth: Truth, tour: Tour, country: str) -> Any:
    """Give the page as it is now."""
    return await truth.largest(country)


async def true_count(truth: Truth, tour: Tour, country: str) -> Any:
    """Give the number as it is now."""
    return await truth.count(country)


LIST = Step("list by country", largest, true_largest)
COUNT = Step("count by country", count, true_count)
LIST_AGAIN = Step("list again", largest, true_largest, follows=True)
COUNT_AGAIN = Step("count again", count, true_count, follows=True)
BY_COUNTRY = (LIST, COUNT, LIST_AGAIN, COUNT_AGAIN)
STEPS = (
    Step("read by id", read, true_city),
    LIST,
    COUNT,
    Step("update", grow, true_city, writes=True),
    Step("read the updated", read, true_city, follows=True),
    Step("rename to a new key", rename, true_city, writes=True),
    Step("read old and new key", read_both_slugs, true_slugs, follows=True),
    Step("delete", delete, true_city, writes=True),
    Step("read the deleted", read, true_city, follows=True),
    LIST_AGAIN,
    COUNT_AGAIN,
)


async def load(setup: Setup, data: source.Data, advance: Advance) -> list[Line]:
    """Fill both tables through ``create_multi``; *advance* is told of rows as they are written."""
    return [
        await _load(setup, "load countries", country_crud, data.countries, advance),
        await _load(setup, "load cities", city_crud, data.cities, advance),
    ]


async def _load(setup: Setup, title: str, crud: Any, rows: Sequence[Any], advance: Advance) -> Line:
    before, started, answers = setup.statements.sent, time.perf_counter(), []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        answers += await crud.create_multi(db=setup.sessions, redis=setup.cache, instances=batch)
        advance(len(batch))
    seconds, sent = time.perf_counter() - started, setup.statements.sent - before
    async with setup.checks.connect() as connection:
        truth = Truth(connection)
        truths = await (truth.countries() if crud is country_crud else truth.cities())
    key = "iso" if crud is country_crud else "id"
    answers.sort(key=lambda answer: getattr(answer, key))
    different = wrong(answers, truths) if len(answers) == len(truths) else abs(len(answers) - len(truths))
    return Line(title, Cost(len(rows), sent, seconds, different))


async def walk(setup: Setup, advance: Advance) -> list[Line]:
    """Take all steps of the tour; *advance* is told of each."""
    async with setup.checks.connect() as connection:
        truth = Truth(connection)
        cities, countries = await truth.cities(), [row["iso"] for row in await truth.countries()]
    tour, lines = Tour(setup, cities, countries), []
    for step in STEPS:
        lines.append(await tour.line(step))
        advance(1)
    return lines
