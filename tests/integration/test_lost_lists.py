"""A table's list of templates is dropped between a reader's look and its claim."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Column, Integer, MetaData, Table

from fastrdb import Cache
from fastrdb.cache.protocol import random_name
from fastrdb.cache.reads import Ask, Loaded, Stamps, hit, miss
from fastrdb.cache.store import Found, ListTemplates, Release
from fastrdb.writes.cache_effects import CacheEffects
from fastrdb.writes.templates import table_keys

LIFE_MS = 60_000
TEMPLATE = b"row:{id}"
ROWS = Table("rows", MetaData(), Column("id", Integer, primary_key=True))
ANY, ALL = table_keys(ROWS, "")


class Reader:
    """Reads one row under a template that the writer's code lacks; the row is written while it is loaded.

    Attributes:
        version: What is committed.
    """

    def __init__(self, cache: Cache) -> None:
        self.version = 0
        self._cache, self._stamps = cache, Stamps(b"", 1)
        self._ask = Ask(b"row:1", (ALL,), ANY, TEMPLATE, self._stamps, LIFE_MS, LIFE_MS)

    async def look(self) -> Found:
        """Give what is in the entry and in ``all``."""
        return await self._cache.store.read(self._ask.entry, self._ask.tokens)

    async def miss(self, found: Found) -> int:
        """Go on after a look that was no hit."""
        return await miss(self._cache, self._ask, found, self._load, int)

    async def is_hit(self) -> bool:
        """Tell whether a look would be answered from the cache."""
        return hit(self._stamps, await self.look(), self._cache.store.epoch) is not None

    async def _load(self, fills: bool) -> Loaded[int]:
        selected = self.version
        effects = CacheEffects(self._cache)
        effects.touch().table(ROWS).images.append({"id": 1})
        await effects.hold()
        self.version += 1
        await effects.release(committed=True)
        return Loaded(selected, b"%d" % selected)


@pytest.fixture(params=["valkey", "memory"])
async def cache(request: pytest.FixtureRequest) -> AsyncIterator[Cache]:
    """A cache whose list has the template, confirmed."""
    url = "memory://" if request.param == "memory" else request.getfixturevalue("valkey_url")
    async with Cache.from_url(url) as cache:
        await cache.run([ListTemplates(ANY, ALL, (TEMPLATE,), random_name(), LIFE_MS)])
        yield cache


async def test_a_list_that_is_gone_confirms_nothing(cache: Cache) -> None:
    """A reader whose template was confirmed by a list that is gone when it claims stores nothing.

    The next writer would not find the template in the new list, and would leave the old row in the cache.
    """
    reader = Reader(cache)
    found = await reader.look()
    await cache.run([Release(ALL, random_name())])
    assert await reader.miss(found) == 0
    assert not await reader.is_hit()


async def test_tokens_that_are_gone_make_no_value(cache: Cache) -> None:
    """A reader that has loaded before under the list that is gone serves nobody with what it stores."""
    reader = Reader(cache)
    await reader.miss(await reader.look())
    found = await reader.look()
    await cache.run([Release(ALL, random_name())])
    assert await reader.miss(found) == 1
    assert not await reader.is_hit()


async def test_a_list_that_stays_lets_the_writer_know(cache: Cache) -> None:
    """With the list in place the same writer finds the template, and the old row is not stored either."""
    reader = Reader(cache)
    assert await reader.miss(await reader.look()) == 0
    assert not await reader.is_hit()
