"""How many values are read through the cache together: hits in a few round trips, and one load for the rest.

Each entry is treated as ``reads`` treats a single one. What differs is the order: a reader first leads for all entries
that nobody loads yet, and lets those who wait for it go on, before it waits for anybody else. So two readers of the
same entries never wait for each other, whatever their orders are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from ..errors import CacheUnavailable
from . import protocol
from .done import forget
from .protocol import Cell
from .reads import (
    LACKING,
    NULL,
    Ask,
    Decode,
    Headers,
    Loaded,
    count_miss,
    fill_of,
    headers_under,
    held,
    hit,
    mint_for,
    poll,
    token_life_ms,
)
from .store import Claim, Command, Fill, Found, Reply, Store, Unclaim

if TYPE_CHECKING:
    from .cache import Cache

T = TypeVar("T")
K = TypeVar("K")

MOST_KEYS = 256  # of one MGET
MOST_COMMANDS = 1_000  # that are sent at once: all of them have to be answered in time

_NOBODY_WAITS = "bypass: someone else loads, in a transaction nobody waits"

LoadMany = Callable[[Sequence[int], bool], Awaitable[list[Loaded[T]]]]


@dataclass(slots=True)
class Missing(Generic[T]):
    """One of the values that were not in the cache.

    Attributes:
        at: Its number, which a load is told.
        ask: What is asked for.
        found: What the cache had.
        mark: Our claim.
        headers: The stamps that a value may be stored with, once its entry is claimed.
        loaded: What the load gave.
    """

    at: int
    ask: Ask
    found: Found
    mark: bytes = b""
    headers: Headers | None = None
    loaded: Loaded[T] | None = None


async def look(store: Store, wanted: Sequence[tuple[bytes, tuple[bytes, ...]]]) -> list[Found | None]:
    """Read entries, each with the tokens of its scopes, in shared round trips; ``None`` where nobody answered.

    Entries of equal scopes are asked for as if they were tokens of the first: that costs a future for all of them.
    """
    scopes: dict[tuple[bytes, ...], list[int]] = {}
    for number, (_, tokens) in enumerate(wanted):
        scopes.setdefault(tokens, []).append(number)
    parts: list[tuple[tuple[bytes, ...], list[int]]] = []
    for tokens, numbers in scopes.items():
        most = max(1, MOST_KEYS - len(tokens))
        parts += [(tokens, numbers[start : start + most]) for start in range(0, len(numbers), most)]
    reads: list[asyncio.Future[Found]] = []
    for tokens, numbers in parts:
        first, *rest = [wanted[number][0] for number in numbers]
        reads.append(asyncio.ensure_future(store.read(first, (*tokens, *rest) if rest else tokens)))
    found: list[Found | None] = [None] * len(wanted)
    try:
        for (tokens, numbers), read in zip(parts, reads, strict=True):
            try:
                entry, cells = await read
            except CacheUnavailable:
                continue
            of_scope = cells[: len(tokens)]
            for number, cell in zip(numbers, (entry, *cells[len(tokens) :]), strict=True):
                found[number] = cell, of_scope
    finally:
        for read in reads:  # done, unless this is cancelled, or the cache was closed
            read.cancel()
            read.add_done_callback(forget)
    return found


async def miss_many(
    cache: Cache, missing: Sequence[Missing[T]], load: LoadMany[T], decode: Decode[T], *, keeps: bool
) -> dict[int, T]:
    """Answer reads that are no hits, with one load for all that nobody else is loading.

    Args:
        missing: Of different entries, all read just now: nothing was awaited since.
        load: Loads the values of these numbers; told whether any of them may be stored.
        decode: Makes an answer of what is stored.
        keeps: After a load the caller is in a transaction, which keeps its connection: then nobody is waited for.

    Returns:
        The answers, by number.
    """
    leads: list[Missing[T]] = []
    asides: list[Missing[T]] = []
    followed: list[Missing[T]] = []
    for each in missing:
        if (reason := held(each.ask, each.found)) is not None:
            cache.stats.count(reason)
            asides.append(each)
        elif each.ask.entry not in cache.flights and not protocol.is_claim(each.found[0]):
            leads.append(each)
        elif each.ask.waits:
            followed.append(each)
        else:
            cache.stats.count(_NOBODY_WAITS)
            asides.append(each)
    if keeps and followed and (leads or asides):
        for _ in followed:
            cache.stats.count(_NOBODY_WAITS)
        asides, followed = [*asides, *followed], []
    answers: dict[int, T] = {}
    if leads or asides:
        await lead_many(cache, leads, load, asides)
        answers = {each.at: each.loaded.answer for each in (*leads, *asides) if each.loaded is not None}
    if followed:
        answers |= await _follow(cache, followed, load, decode)
    return answers


async def lead_many(
    cache: Cache,
    leads: Sequence[Missing[T]],
    load: LoadMany[T],
    asides: Sequence[Missing[T]] = (),
    *,
    wait: bool = False,
) -> int:
    """Load for everybody: claim, load, fill. Whatever happens, the claims go and those who wait go on.

    Args:
        leads: What nobody else is loading.
        load: As in ``miss_many``.
        asides: What is loaded besides, and not stored.
        wait: Wait until all is stored.

    Returns:
        How many values were stored, if that was waited for.
    """
    flights, store, loop = cache.flights, cache.store, asyncio.get_running_loop()
    futures = {each.ask.entry: loop.create_future() for each in leads}
    flights.update(futures)
    stored, filled = 0, frozenset[bytes]()
    for each in leads:
        each.mark = protocol.claim_mark(protocol.random_name())
    try:
        await _claim_all(cache, leads)
        storable = any(each.headers is not None for each in leads)
        everything = [*leads, *asides]
        for each, loaded in zip(everything, await load([each.at for each in everything], storable), strict=True):
            each.loaded = loaded
        fills = _fills(cache, leads)
        for part in _parts(fills):
            posted = store.post(part)
            filled |= {fill.key for fill in part}
            cache.count_refused(posted, *(fill.value for fill in part))
            if wait or len(fills) > MOST_COMMANDS:
                stored += await _stored(cache, posted, part)
        return stored
    finally:
        unused = [Unclaim(each.ask.entry, each.mark) for each in leads if each.ask.entry not in filled]
        for unclaims in _parts(unused):
            cache.drop(store.post(unclaims))
        for entry, future in futures.items():
            del flights[entry]
            future.set_result(None)


def _fills(cache: Cache, leads: Sequence[Missing[T]]) -> list[Fill]:
    found = []
    for each in leads:
        if each.headers is not None and each.loaded is not None:
            fill = fill_of(cache, each.ask, each.mark, each.headers, each.loaded)
            if fill is not None:
                found.append(fill)
    return found


async def _stored(cache: Cache, posted: Awaitable[list[Reply]], fills: Sequence[Fill]) -> int:
    try:
        replies, _ = await cache.answers(posted)
    except CacheUnavailable:
        return 0
    return sum(found == fill.value for found, fill in zip(replies, fills, strict=True))


async def _claim_all(cache: Cache, leads: Sequence[Missing[T]]) -> None:
    """Claim entries, and do what their tokens need first; leaves the stamps in those that may be stored."""
    now_ms, epoch, lists = time.monotonic() * 1000, cache.store.epoch, cache.parts.lists
    first: dict[bytes, Command] = {}
    lives: dict[bytes, float] = {}
    for alike in _alike(leads):
        ask, listed = max((each.ask for each in alike), key=token_life_ms), alike[0].ask.listed if lists else None
        for at, command in mint_for(cache, ask, alike[0].found[1], listed, now_ms).items():
            first.setdefault(ask.tokens[at], command)
            lives.setdefault(ask.tokens[at], now_ms + token_life_ms(ask))
    claims: list[Command] = [Claim(each.ask.entry, each.mark, each.ask.claim_ms) for each in leads]
    replies, lacking = await _answers(cache, [*first.values(), *claims])
    untold = {key for at, key in enumerate(first) if at in lacking}
    minted = dict(zip(first, replies, strict=False))
    for key, cell in minted.items():
        cache.seen.note(key, cell, lives[key])
    claimed = replies[len(first) :]
    known: dict[tuple[Any, ...], tuple[Headers | None, str | None]] = {}
    for number, each in enumerate(leads):
        if number >= len(claimed):
            refusal: str | None = "bypass: unreachable"
        elif len(first) + number in lacking or (untold and not untold.isdisjoint(each.ask.tokens)):
            refusal = LACKING
        elif claimed[number] != each.mark:
            refusal = "bypass: someone else claimed or holds the entry"
        else:
            tokens = tuple([minted.get(key, cell) for key, cell in zip(each.ask.tokens, each.found[1], strict=True)])
            listed = each.ask.listed if lists else None
            shape = id(each.ask.stamps), tokens, listed
            if shape not in known:
                known[shape] = headers_under(each.ask, tokens, listed, epoch)
            each.headers, refusal = known[shape]
        count_miss(cache, each.found, refusal)


async def _answers(cache: Cache, commands: Sequence[Command]) -> tuple[list[Any], set[int]]:
    """Give the replies, as far as Redis answered, and the places of those for which it had no memory."""
    replies: list[Any] = []
    lacking: set[int] = set()
    for part in _parts(commands):
        try:
            told, refused = await cache.answers(cache.store.run(part))
        except CacheUnavailable:
            break
        lacking.update(len(replies) + at for at in refused)
        replies += told
    return replies, lacking


def _alike(leads: Sequence[Missing[T]]) -> Iterator[list[Missing[T]]]:
    """Give what has equal tokens, and found them alike: all of one scope, as a rule."""
    found: dict[tuple[tuple[bytes, ...], tuple[Cell, ...], bytes | None], list[Missing[T]]] = {}
    for each in leads:
        found.setdefault((each.ask.tokens, each.found[1], each.ask.listed), []).append(each)
    yield from found.values()


async def _follow(cache: Cache, followed: list[Missing[T]], load: LoadMany[T], decode: Decode[T]) -> dict[int, T]:
    """Wait for the loads of others, for ``wait_s`` in all; then read again, and load what still is not there."""
    flights = [future for each in followed if (future := cache.flights.get(each.ask.entry)) is not None]
    claims = [each.ask.entry for each in followed if each.ask.entry not in cache.flights]
    wait_s = max(each.ask.wait_s for each in followed)
    await asyncio.gather(_ended(flights, wait_s), _all_unclaimed(cache, claims, wait_s))
    answers: dict[int, T] = {}
    rest: list[int] = []
    again = await look(cache.store, [(each.ask.entry, each.ask.tokens) for each in followed])
    for each, found in zip(followed, again, strict=True):
        raw = hit(each.ask.stamps, found, cache.store.epoch) if found is not None else None
        if raw is not None:
            cache.stats.hits += 1
            answers[each.at] = decode(raw) if raw is not NULL else cast("T", None)
        else:
            known = "miss: waited for another's load in vain" if found is not None else "bypass: unreachable"
            cache.stats.count(known)
            rest.append(each.at)
    if rest:
        for at, loaded in zip(rest, await load(rest, False), strict=True):
            answers[at] = loaded.answer
    return answers


async def _ended(flights: Sequence[asyncio.Future[None]], wait_s: float) -> None:
    if flights:
        await asyncio.wait(flights, timeout=wait_s)


async def _all_unclaimed(cache: Cache, entries: Sequence[bytes], wait_s: float) -> None:
    """Poll entries that readers elsewhere have claimed, until none is claimed any more."""
    if not entries:
        return

    async def still_claimed() -> bool:
        """Tell whether any of the loads elsewhere goes on, as far as can be told."""
        found = await look(cache.store, [(entry, ()) for entry in entries])
        return any(each is not None and protocol.is_claim(each[0]) for each in found)

    await poll(still_claimed, wait_s)


def _parts(commands: Sequence[K]) -> Iterator[list[K]]:
    for start in range(0, len(commands), MOST_COMMANDS):
        yield list(commands[start : start + MOST_COMMANDS])
