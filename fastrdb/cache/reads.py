"""How one value is read through the cache: hit, bypass, or miss with a single load."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar, cast

from ..errors import CacheFull, CacheUnavailable
from . import protocol
from .protocol import ALL_PARTS, Cell, Parts
from .relief import relieve
from .store import Claim, Command, Fill, Found, Get, ListTemplates, Mint, Unclaim

if TYPE_CHECKING:
    from .aged import Spare
    from .cache import Cache

T = TypeVar("T")

CLAIM_MS = 5_000
WAIT_S = 0.5
_FIRST_POLL_S, _LAST_POLL_S = 0.002, 0.05
_REMEMBERED = 4_096  # stamps that are kept for one shape of value


class Headers(NamedTuple):
    """The stamps that a value, and a null, must carry under one set of tokens; ``None``: none is valid."""

    value: bytes | None
    null: bytes | None


class Stamps:
    """The stamps of one kind of value, computed once for each set of tokens.

    Args:
        context: What else the stamp hashes: schema fingerprint, database, namespace.
        value_tokens: How many of the tokens age a value; all of them age a null.
        parts: The parts of the protocol, for tests.
    """

    def __init__(self, context: bytes, value_tokens: int, parts: Parts = ALL_PARTS) -> None:
        self.context, self.value_tokens, self.parts = context, value_tokens, parts
        # Each of the two is replaced whole, so that threads with loops of their own never see half of it.
        self._known: tuple[bytes, dict[tuple[Cell, ...], Headers]] = b"", {}
        self._last: tuple[tuple[Cell, ...], bytes, Headers] = (), b"", Headers(None, None)

    def headers(self, tokens: tuple[Cell, ...], epoch: bytes) -> Headers:
        """Give the stamps under these tokens, of a server with this run id."""
        last_tokens, last_epoch, last = self._last
        if tokens is last_tokens and epoch is last_epoch:  # those who share a round trip share the tuple
            return last
        of_epoch, known = self._known
        if epoch != of_epoch or len(known) > _REMEMBERED:
            known = {}
            self._known = epoch, known
        found = known.get(tokens)
        if found is None:
            found = known[tokens] = Headers(self.stamp(tokens[: self.value_tokens], epoch), self.stamp(tokens, epoch))
        self._last = tokens, epoch, found
        return found

    def stamp(self, tokens: tuple[Cell, ...], epoch: bytes) -> bytes | None:
        """Hash tokens; ``None`` where one is missing or held."""
        if not self.parts.tokens_minted:
            tokens = tuple(cell or b"" for cell in tokens)
        usable = [cell for cell in tokens if cell is not None and not protocol.is_hold(cell)]
        return protocol.stamp(usable, epoch, self.context) if len(usable) == len(tokens) else None


@dataclass(frozen=True, slots=True)
class Ask:
    """One value that is asked for.

    Attributes:
        entry: Key of its entry.
        tokens: Keys of the tokens of its scopes, the table's ``all`` first.
        any_key: Key of the table's ``any``, which lies beside ``all``.
        listed: The template that must be confirmed before the value is stored; ``None``: it lies under ``any`` only.
        stamps: The stamps of its kind.
        ttl_ms: Life of a value, jitter included.
        null_ttl_ms: Life of a null.
        bulk: A list: travels apart.
        waits: The caller may wait for another's load; not from within a transaction, whose connection it would keep.
        claim_ms: Life of a claim: a load that takes longer is not stored.
        wait_s: How long to wait for a load of another process, which may be dead.
        wait_here_s: How long to wait for one of this process: as a rule while it may still be stored.
        spare: An aged value that may be given at once, instead of waiting for another's load or write.
    """

    entry: bytes
    tokens: tuple[bytes, ...]
    any_key: bytes
    listed: bytes | None
    stamps: Stamps
    ttl_ms: int
    null_ttl_ms: int
    bulk: bool = False
    waits: bool = True
    claim_ms: int = CLAIM_MS
    wait_s: float = WAIT_S
    wait_here_s: float = CLAIM_MS / 1_000
    spare: Spare | None = None


class Loaded(NamedTuple, Generic[T]):
    """What a load gave: the caller's answer, and the JSON to store (``None``: not to be stored, for the reason)."""

    answer: T
    payload: bytes | None
    reason: str = ""


class Led(NamedTuple, Generic[T]):
    """The answer of who was first."""

    answer: T


class Lost(NamedTuple):
    """Somebody else was faster."""


Load = Callable[[bool], Awaitable[Loaded[T]]]
Decode = Callable[[bytes], T]

NULL = b"null"
LACKING: Final = "out of memory"  # why there is no claim, where Redis has no memory for one
_NO_STAMP = b" " * protocol.STAMP_LENGTH
_CLAIM_LOST = "bypass: someone else claimed or holds the entry"
_TOKEN_HELD = "bypass: a token is held"
# Why a reader who would have loaded for all may get an aged value: somebody came first.
_STANDS_IN: Mapping[str | None, str] = MappingProxyType(
    {_CLAIM_LOST: "another one refreshes", _TOKEN_HELD: "a writer holds it"}
)


def hit(stamps: Stamps, found: Found, epoch: bytes) -> bytes | None:
    """Give the stored bytes, stamp included, if they may be served; ``NULL`` itself for "there is no such row"."""
    raw, tokens = found
    if raw is None:
        return None
    value, null = stamps.headers(tokens, epoch)
    if value is not None and raw.startswith(value) and not raw.endswith(NULL):
        return raw
    return NULL if null is not None and raw == null + NULL else None


async def miss(cache: Cache, ask: Ask, found: Found, load: Load[T], decode: Decode[T]) -> T:
    """Answer a read that is no hit, with at most one load for all who ask.

    Whoever comes second waits, and then looks again. If who was first has left nothing because it was cancelled, or was
    itself too late for the claim, that is a new read, which may be the first. Who have waited in vain share a load.
    """
    began = asyncio.get_running_loop().time()
    while (reason := held(ask, found)) is None:
        if ask.entry not in cache.flights and not protocol.is_claim(found[0]):
            led = await _lead(cache, ask, found, load, decode)
            if not isinstance(led, Lost):
                return led.answer
        if (raw := _aged(cache, ask, "another one refreshes")) is not None:
            return decoded(raw, decode)
        if not ask.waits:
            return await _aside(cache, "bypass: someone else loads, in a transaction nobody waits", load)
        in_vain = await _wait(cache, ask, began)
        sent = ask.spare.aged.begin() if ask.spare is not None else 0.0
        again = await _look_again(cache, ask)
        if again is None:
            return await _aside(cache, "bypass: unreachable", load)
        found = again
        if (raw := hit(ask.stamps, found, cache.store.epoch)) is not None:
            cache.stats.hits += 1
            if ask.spare is not None:
                ask.spare.note(raw, sent, null=raw is NULL)
            return decoded(raw, decode)
        if in_vain:
            cache.stats.count("miss: waited for another's load in vain")
            got = await relieve(cache, ask, began, load)
            if not isinstance(got, bytes):
                return cast("T", got.answer)
            return decoded(got if got == NULL else _NO_STAMP + got, decode)
    if (raw := _aged(cache, ask, "a writer holds it")) is not None:
        return decoded(raw, decode)
    return await _aside(cache, reason, load)


def decoded(raw: bytes, decode: Decode[T]) -> T:
    """Make an answer of what ``hit`` gives, or of what is kept of it."""
    return decode(raw) if raw != NULL else cast("T", None)


def _aged(cache: Cache, ask: Ask, reason: str) -> bytes | None:
    """Give the aged value, if there is one and the caller accepts it."""
    raw = ask.spare.answer() if ask.spare is not None else None
    if raw is not None:
        cache.stats.count(f"aged: {reason}")
    return raw


def held(ask: Ask, found: Found) -> str | None:
    """Say why a value may neither be served nor stored: a writer holds the entry, or a token that ages values."""
    # A held token that ages nulls only leaves values storable: else rows with text keys would starve under writes.
    raw, tokens = found[0], found[1][: ask.stamps.value_tokens]
    if protocol.is_hold(raw):
        return "bypass: the entry is held"
    return _TOKEN_HELD if any(protocol.is_hold(token) for token in tokens) else None


async def _aside(cache: Cache, reason: str, load: Load[T]) -> T:
    cache.stats.count(reason)
    return (await load(False)).answer


async def _look_again(cache: Cache, ask: Ask) -> Found | None:
    """Give what is there now; ``None`` where Redis cannot be reached."""
    try:
        return await cache.store.read(ask.entry, ask.tokens, bulk=ask.bulk)
    except CacheUnavailable:
        return None


async def _wait(cache: Cache, ask: Ask, began: float) -> bool:
    """Wait until whoever is first has ended; tell whether there is nothing more to wait for.

    For a load elsewhere one of us looks, and the others wait for that: a flight that is cancelled says to look again.

    Args:
        cache: Where the entry has no value.
        ask: What is asked for.
        began: When that began: both times are counted from then.
    """
    now, flight = asyncio.get_running_loop().time(), cache.flights.get(ask.entry)
    if flight is not None:
        await asyncio.wait({flight}, timeout=max(0.0, began + ask.wait_here_s - now))
        return not flight.cancelled()

    async def still_claimed() -> bool:
        """Tell whether the load elsewhere goes on, as far as can be told."""
        try:
            raw, _ = await cache.store.read(ask.entry, (), bulk=ask.bulk)
        except CacheUnavailable:
            return False
        return protocol.is_claim(raw)

    flights = cache.flights
    flight = flights[ask.entry] = asyncio.get_running_loop().create_future()
    try:
        await poll(still_claimed, began + ask.wait_s - now)
    finally:
        del flights[ask.entry]
        flight.cancel()
    return asyncio.get_running_loop().time() >= began + ask.wait_s


async def poll(goes_on: Callable[[], Awaitable[bool]], wait_s: float) -> None:
    """Ask again and again, with growing pauses, until something does not go on; for *wait_s* at most."""
    loop = asyncio.get_running_loop()
    until, pause = loop.time() + wait_s, _FIRST_POLL_S
    while loop.time() < until:
        await asyncio.sleep(pause)
        pause = min(pause * 2, _LAST_POLL_S)
        if not await goes_on():
            return


async def _lead(cache: Cache, ask: Ask, found: Found, load: Load[T], decode: Decode[T]) -> Led[T] | Lost:
    """Load for everybody: claim, load, fill. Whatever happens, the claim goes and those who wait go on."""
    flights = cache.flights  # now: when the load ends, the cache may be closed
    flight = flights[ask.entry] = asyncio.get_running_loop().create_future()
    mark = protocol.claim_mark(protocol.random_name())
    store, posted = cache.store, False
    try:
        headers, refusal = await _claim(cache, ask, found, mark)
        if refusal == _CLAIM_LOST and ask.waits:
            posted = flight.cancel()  # there is nothing of ours to take away; and those who wait look for the other one
            return Lost()
        if refusal in (_CLAIM_LOST, _TOKEN_HELD) and (raw := _aged(cache, ask, _STANDS_IN[refusal])) is not None:
            return Led(decoded(raw, decode))
        count_miss(cache, found, refusal)
        loaded = await load(refusal is None)
        if headers is not None and (fill := fill_of(cache, ask, mark, headers, loaded)) is not None:
            cache.count_refused(store.post([fill], bulk=ask.bulk), fill.value)
            posted = True
        return Led(loaded.answer)
    except asyncio.CancelledError:
        flight.cancel()  # one of those who wait takes our place; an error is theirs, too, as a rule
        raise
    finally:
        if not posted:
            cache.drop(store.post([Unclaim(ask.entry, mark)], bulk=ask.bulk))
        del flights[ask.entry]
        if not flight.done():
            flight.set_result(None)


async def _claim(cache: Cache, ask: Ask, found: Found, mark: bytes) -> tuple[Headers | None, str | None]:
    """Claim the entry, and do what its tokens need first: one pipeline. Gives the stamps, or why there are none."""
    store, now_ms = cache.store, time.monotonic() * 1000
    epoch, listed = store.epoch, ask.listed if cache.parts.lists else None
    first = mint_for(cache, ask, found[1], listed, now_ms)
    try:
        *replies, claimed = await store.run([*first.values(), Claim(ask.entry, mark, ask.claim_ms)], bulk=ask.bulk)
    except CacheFull:
        return None, LACKING
    except CacheUnavailable:
        return None, "bypass: unreachable"
    if claimed != mark:
        return None, _CLAIM_LOST
    tokens = list(found[1])
    for at, cell in zip(first, replies, strict=True):
        assert not isinstance(cell, tuple)
        tokens[at] = cell
        cache.seen.note(ask.tokens[at], cell, now_ms + token_life_ms(ask))
    return headers_under(ask, tuple(tokens), listed, epoch)


def count_miss(cache: Cache, found: Found, refusal: str | None) -> None:
    """Count a read that loads for everybody, under why it does, or why what it loads is not to be stored."""
    if refusal is LACKING:
        cache.lack()
        refusal = None
    cache.stats.count(refusal or ("miss: absent" if found[0] is None else "miss: aged"))


def headers_under(
    ask: Ask, tokens: tuple[Cell, ...], listed: bytes | None, epoch: bytes
) -> tuple[Headers | None, str | None]:
    """Give the stamps for what is loaded under a claim and these tokens, or why there are none."""
    if listed is not None and not _confirmed(tokens[0], listed):  # `all` may be another one than was found
        return None, "bypass: the template is not confirmed yet"
    headers = ask.stamps.headers(tokens, epoch)
    return (headers, None) if headers.value or headers.null else (None, _TOKEN_HELD)


def mint_for(
    cache: Cache, ask: Ask, found: tuple[Cell, ...], listed: bytes | None, now_ms: float
) -> dict[int, Command]:
    """Name what has to be done before a value carries these tokens, by their places.

    Nothing is done to one that was found, and is known to outlive a value that is claimed now. Any other is minted: if
    it is there, that makes it live longer.
    """
    if not cache.parts.tokens_minted:
        return {at: Get(key) for at, key in enumerate(ask.tokens)}
    life, until_ms = token_life_ms(ask), now_ms + ask.claim_ms + max(ask.ttl_ms, ask.null_ttl_ms)
    commands: dict[int, Command] = {}
    if listed is not None and not _confirmed(found[0], listed):
        commands[0] = ListTemplates(ask.any_key, ask.tokens[0], (listed,), protocol.random_name(), life, cache.parts)
    for at, key in enumerate(ask.tokens):
        lives = found[at] is not None and found[at] == cache.seen.get(key, until_ms)
        if at not in commands and not lives:
            commands[at] = Mint(key, protocol.random_name(), life)
    return commands


def token_life_ms(ask: Ask) -> int:
    """Give the life of a token that outlives what is stored under it."""
    return 2 * max(ask.ttl_ms, ask.null_ttl_ms) + ask.claim_ms


def _confirmed(all_cell: Cell, template: bytes) -> bool:
    if all_cell is None or protocol.is_hold(all_cell):
        return False
    return protocol.parse_listing(all_cell).confirmed(template)


def fill_of(cache: Cache, ask: Ask, mark: bytes, headers: Headers, loaded: Loaded[T]) -> Fill | None:
    """Give what stores a loaded value under its claim; ``None``, and counted, where it is not to be stored."""
    if loaded.payload is None:
        cache.stats.count(f"not stored: {loaded.reason}")
        return None
    null = loaded.payload == NULL
    header = headers.null if null else headers.value
    ttl_ms = ask.null_ttl_ms if null else ask.ttl_ms
    if header is None or ttl_ms < 1:
        return None
    return Fill(ask.entry, mark, header + loaded.payload, ttl_ms, cache.parts)
