"""The reads that are measured: one row cached and cold, and a list."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from .contest import Contestant, Work, same
from .world import World

Read = Callable[[int], Awaitable[object]]
Run = Callable[[int], Awaitable[None]]

SESSION = "with a session opened per call"


def reads(world: World) -> list[Work]:
    """Give the works that read, in the order of the table."""
    one = OneRow(world)
    crowds = [one.cached_side_by_side(world.scale.callers, 0.22), one.cached_side_by_side(world.scale.crowd, 0.25)]
    return [one.cached(), *crowds, one.cold(), one.by_keys(), *lists(world)]


class OneRow:
    """Reads of one row by its key."""

    def __init__(self, world: World) -> None:
        self._world = world

    def cached(self) -> Work:
        """Give the work of one caller who reads one cached row after the other."""
        by_hand = Contestant(self._in_turn(self._world.by_hand.get))
        return Work(
            name="cached_get",
            title="cached get, one caller",
            target=1.05,
            by_hand=by_hand,
            fastrdb=self._hitting(self._in_turn(self._by_factory)),
            around=self._all_cached,
            beside={
                SESSION: self._hitting(self._in_turn(self._by_session)),
                "hand-written beside itself: the noise": by_hand,
            },
        )

    def cached_side_by_side(self, callers: int, target: float) -> Work:
        """Give the work of many callers, each reading one cached row after the other."""
        return Work(
            name=f"cached_get_{callers}",
            title=f"cached get, {callers} concurrent callers",
            target=target,
            by_hand=Contestant(self._side_by_side(self._world.by_hand.get, callers)),
            fastrdb=self._hitting(self._side_by_side(self._by_factory, callers)),
            around=self._all_cached,
            beside={SESSION: self._hitting(self._side_by_side(self._by_session, callers))},
            step=callers * 8,
        )

    def cold(self) -> Work:
        """Give the work of one caller who reads rows that are not cached."""
        return Work(
            name="cold_get",
            title="get, cold",
            target=1.15,
            by_hand=Contestant(_from_the_first(self._world.by_hand.get), self._forget),
            fastrdb=self._missing(self._by_factory),
            around=self._all_cached,
            beside={SESSION: self._missing(self._by_session)},
            most=self._world.scale.users,
        )

    def by_keys(self) -> Work:
        """Give the work of one caller who reads many cached rows by their keys; beside it, one ``get`` for each."""
        many = min(1_000, self._world.scale.users)
        return Work(
            name="get_by_keys",
            title=f"get_by_keys of {many:,} cached rows, beside as many gets one after the other",
            target=0.1,
            by_hand=self._hitting(self._in_turn(self._by_factory)),
            fastrdb=self._hitting(self._together(many)),
            around=self._all_cached,
            beside={"hand-written MGET": Contestant(self._mget(many))},
            step=many,
        )

    def _together(self, many: int) -> Run:
        async def run(count: int) -> None:
            for _ in range(count // many):
                keys = random.sample(self._world.user_ids, k=many)
                await self._world.crud.get_by_keys(db=self._world.sessions, redis=self._world.cache, keys=keys)

        return run

    def _mget(self, many: int) -> Run:
        async def run(count: int) -> None:
            for _ in range(count // many):
                await self._world.by_hand.mget(random.sample(self._world.user_ids, k=many))

        return run

    async def _by_factory(self, user_id: int) -> object:
        return await self._world.crud.get(db=self._world.sessions, redis=self._world.cache, id=user_id)

    async def _by_session(self, user_id: int) -> object:
        async with self._world.sessions() as session:
            return await self._world.crud.get(db=session, redis=self._world.cache, id=user_id)

    @asynccontextmanager
    async def _all_cached(self) -> AsyncIterator[None]:
        for user_id in self._world.user_ids:
            same([await read(user_id) for read in (self._world.by_hand.get, self._by_factory, self._by_session)])
        yield

    async def _forget(self, count: int) -> None:
        await self._world.forget(self._world.user_ids[:count])

    def _hitting(self, run: Run) -> Contestant:
        stats = self._world.cache.stats
        return Contestant(run, counter=lambda: stats.hits)

    def _missing(self, read: Read) -> Contestant:
        reasons = self._world.cache.stats.reasons
        return Contestant(_from_the_first(read), self._forget, lambda: reasons["miss: absent"])

    def _in_turn(self, read: Read) -> Run:
        async def run(count: int) -> None:
            for user_id in self._drawn(count):
                await read(user_id)

        return run

    def _side_by_side(self, read: Read, callers: int) -> Run:
        async def caller(user_ids: list[int]) -> None:
            for user_id in user_ids:
                await read(user_id)

        async def run(count: int) -> None:
            await asyncio.gather(*(caller(self._drawn(count // callers)) for _ in range(callers)))

        return run

    def _drawn(self, count: int) -> list[int]:
        return random.choices(self._world.user_ids, k=count)


def _from_the_first(read: Read) -> Run:
    async def run(count: int) -> None:
        for user_id in range(1, count + 1):
            await read(user_id)

    return run


def lists(world: World) -> list[Work]:
    """Give the works that read one page again and again; both are compared with a list of models by hand."""
    limit = world.scale.listed

    def work(name: str, title: str, target: float, ours: Callable[..., Awaitable[object]]) -> Work:
        async def by_hand() -> object:
            return await world.by_hand.get_multi(limit, 1)

        async def by_factory() -> object:
            return await ours(db=world.sessions, redis=world.cache, limit=limit)

        async def by_session() -> object:
            async with world.sessions() as session:
                return await ours(db=session, redis=world.cache, limit=limit)

        @asynccontextmanager
        async def around() -> AsyncIterator[None]:
            same([world.by_hand.listed(await read()) for read in (by_hand, by_factory, by_session)])
            yield

        return Work(
            name=name,
            title=f"cached list of {limit} rows{title}",
            target=target,
            by_hand=Contestant(_again(by_hand)),
            fastrdb=Contestant(_again(by_factory), counter=lambda: world.cache.stats.hits),
            around=around,
            beside={SESSION: Contestant(_again(by_session), counter=lambda: world.cache.stats.hits)},
        )

    return [
        work("cached_list", "", 1.05, world.crud.get_multi),
        work("cached_list_json", ", get_multi_json", 0.5, world.crud.get_multi_json),
    ]


def _again(read: Callable[[], Awaitable[object]]) -> Run:
    async def run(count: int) -> None:
        for _ in range(count):
            await read()

    return run
