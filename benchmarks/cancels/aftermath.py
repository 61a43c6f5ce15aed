"""What is looked at when the last request has ended."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import redis.asyncio
from sqlalchemy import text

from fastrdb.cache.protocol import is_claim, is_hold
from fastrdb.cache.reads import CLAIM_MS
from fastrdb.cache.store import Command, Get, Life

from .accounts import LIMIT, AccountOut, stored, until

if TYPE_CHECKING:
    from .run import Scene

_CONNECTIONS = 2  # of a cache on one server: one for small values, one for large ones
_PAIRS = 500  # of commands, sent together
_IDLE = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'
"""


async def look_at_all(scene: Scene) -> None:
    """Look for connections, claims and holds that were left, and compare every row and list with the cache's."""
    await _connections(scene)
    await _marks(scene)
    rows = await stored(scene.outside)
    await _rows(scene, rows)
    for _ in range(2):  # the second time most come from the cache
        await _reads(scene, rows)
    await _redis_connections(scene)


async def _connections(scene: Scene) -> None:
    pool: Any = scene.engine.pool

    async def all_back() -> bool:
        return pool.checkedout() == 0

    if not await until(all_back):
        scene.fault(f"{pool.checkedout()} connections of the pool were not given back")
    if scene.cache.flights:
        scene.fault(f"loads are under way: {sorted(scene.cache.flights)[:5]}")
    if scene.cache.undelivered:
        scene.fault("an invalidation is kept, and Redis was never away")

    async def none_open() -> bool:
        async with scene.outside.connect() as connection:
            return (await connection.execute(text(_IDLE))).scalar() == 0

    if scene.engine.dialect.name == "postgresql" and not await until(none_open):
        scene.fault("a transaction was left open in the server")


async def _marks(scene: Scene) -> None:
    """Claims and holds may be left, for no longer than their life."""
    first = await _marked(scene)
    for kind, life in first:
        scene.report.left[kind] += 1
        longest = CLAIM_MS if kind == "claim" else scene.cache.hold_ms
        if not 0 <= life <= longest:
            scene.fault(f"a {kind} lives for {life} ms, and may for {longest}")

    async def none_left() -> bool:
        return not await _marked(scene)

    longest_s = max((CLAIM_MS if kind == "claim" else scene.cache.hold_ms) for kind, _ in first) / 1000 if first else 0
    if first and not await until(none_left, longest_s + 1):
        scene.fault(f"claims or holds are left: {await _marked(scene)}")


async def _marked(scene: Scene) -> list[tuple[str, int]]:
    keys, found = sorted(scene.marked), []
    for start in range(0, len(keys), _PAIRS):
        commands: list[Command] = [command for key in keys[start : start + _PAIRS] for command in (Get(key), Life(key))]
        replies: list[Any] = await scene.cache.run(commands)
        for cell, life in zip(replies[::2], replies[1::2], strict=True):
            scene.report.looked["cells of claims and holds"] += 1
            if is_claim(cell) or is_hold(cell):
                found.append(("claim" if is_claim(cell) else "hold", int(life)))
    return found


async def _rows(scene: Scene, rows: dict[str, AccountOut]) -> None:
    for owner in scene.owners:
        for fault in owner.faults([row for row in rows.values() if row.owner == owner.number]):
            scene.fault(f"in the end: {fault}")
        for email, values in owner.possible.items():
            scene.report.looked["rows in the end"] += 1
            value = rows[email].value if email in rows else None
            if value not in values:
                scene.fault(f"in the end {email} is {value!r}, and may be {values!r}")


async def _reads(scene: Scene, rows: dict[str, AccountOut]) -> None:
    """Read everything through the cache, all at once: each answer must be that of its own question."""
    crud, db, cache, report = scene.crud, scene.sessions, scene.cache, scene.report

    async def row(email: str, expected: AccountOut | None) -> None:
        report.looked["reads in the end"] += 1
        found = await crud.get_or_none(db=db, redis=cache, email=email)
        if found != expected:
            scene.fault(f"STALE in the end: {email} is {expected!r}, and {found!r} was read")
        if expected is not None and await crud.get(db=db, redis=cache, id=expected.id) != expected:
            scene.fault(f"STALE in the end: {expected!r}, by its id")

    async def lists(number: int) -> None:
        report.looked["reads in the end"] += 1
        expected = {email: each for email, each in rows.items() if each.owner == number}
        found = await crud.get_multi(db=db, redis=cache, limit=LIMIT, owner=number)
        if {each.email: each for each in found} != expected:
            scene.fault(f"STALE in the end: the list of {number}")
        page = await crud.page(db=db, redis=cache, limit=LIMIT, owner=number)
        count = await crud.count(db=db, redis=cache, owner=number)
        if not len(expected) == count == len(page.data) == page.total:
            scene.fault(f"STALE in the end: owner {number} has {len(expected)} rows, counted {count} and {page.total}")

    singles = [row(email, rows.get(email)) for owner in scene.owners for email in owner.possible]
    await asyncio.gather(*singles, *(lists(owner.number) for owner in scene.owners))


async def _redis_connections(scene: Scene) -> None:
    if scene.cache_url.startswith("memory:"):
        return
    async with redis.asyncio.Redis.from_url(scene.cache_url) as client:
        ours = [each for each in await client.client_list() if each["name"] == scene.name]
    if len(ours) != _CONNECTIONS:
        scene.fault(f"{len(ours)} connections to Redis")
