"""One load for all of a process who have waited for somebody else's in vain."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple, TypeVar

if TYPE_CHECKING:
    from .cache import Cache
    from .reads import Ask, Load

T = TypeVar("T")


class Relief(NamedTuple):
    """A load that stores nothing: under way, or ended a moment ago.

    Attributes:
        began: When, by the loop's clock.
        payload: The JSON that it gave; ``None`` where that may not be shared.
    """

    began: float
    payload: asyncio.Future[bytes | None]


class Answer(NamedTuple):
    """What a load of one's own gave."""

    answer: object


async def relieve(cache: Cache, ask: Ask, began: float, load: Load[T]) -> Answer | bytes:
    """Give the JSON of another's load, or the answer of one's own, for whose JSON others may be waiting.

    Nobody takes what was loaded before their own read began: of a relief that began later the SQL was sent later, too,
    and as its snapshot is fresh it has every COMMIT that came before the read, as SQL of one's own would have.

    Args:
        cache: Where the entry has no value.
        ask: What is asked for.
        began: A time after the read began, and before it was given up.
        load: Loads.
    """
    reliefs, key = cache.reliefs, (ask.entry, ask.stamps.context)
    while (other := reliefs.get(key)) is not None and other.began >= began:
        await asyncio.wait({other.payload}, timeout=ask.wait_here_s)
        if other.payload.cancelled():
            continue  # one of those who waited for it takes its place
        shared = other.payload.result() if other.payload.done() else None
        return Answer((await load(False)).answer) if shared is None else shared
    loop = asyncio.get_running_loop()
    ours = reliefs[key] = Relief(loop.time(), loop.create_future())

    def end() -> None:
        """Let nobody share this load any more."""
        if reliefs.get(key) is ours:
            del reliefs[key]

    try:
        loaded = await load(True)  # not to store it: for the JSON
    except asyncio.CancelledError:
        ours.payload.cancel()
        end()
        raise
    except BaseException:
        ours.payload.set_result(None)  # they find out for themselves
        end()
        raise
    ours.payload.set_result(loaded.payload)
    if loaded.payload is None:
        end()
    else:  # others who began to read before it give up waiting a little later
        loop.call_later(2 * ask.wait_s, end)
    return Answer(loaded.answer)
