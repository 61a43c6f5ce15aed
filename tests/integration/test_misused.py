"""Arguments that belong elsewhere are refused, with a word on where."""

from __future__ import annotations

from typing import Any

import pytest

from fastrdb import Cache, UsageError
from fastrdb.caching import SmartCache
from tests.drawers import things


@pytest.mark.parametrize(
    ("argument", "hint"),
    [("redis", "past the cache"), ("limit", "leave the loop"), ("page", "cursor_page")],
)
def test_a_stream_says_what_to_do_instead(argument: str, hint: str) -> None:
    """What other lists take, and a stream does not, is named with what to do instead."""
    given: dict[str, Any] = {argument: 2}
    with pytest.raises(UsageError, match=f"stream: '{argument}' is no argument of it: .*{hint}"):
        things().stream(None, **given)


async def test_a_cursor_page_has_no_number() -> None:
    """A page's number is refused by ``cursor_page``, which says how its pages are named."""
    with pytest.raises(UsageError, match=r"cursor_page: 'page' is no argument of it: .* as cursor="):
        await things().cursor_page(None, None, page=2)


def test_a_generator_has_no_pages() -> None:
    """``paginate`` refuses what has no length, unless it is told the total."""
    some: Any = (at for at in range(3))
    with pytest.raises(UsageError, match=r"data: generator; pass a list, or .* total="):
        things().paginate(some)
    assert things().paginate(some, total=9).data == [0, 1, 2]


async def test_a_coroutine_is_no_function() -> None:
    """``get_or_load`` refuses a coroutine, which nobody then awaits, and whatever else cannot be called."""

    async def load() -> int:
        return 1

    async with Cache.from_url("memory://") as cache:
        users = SmartCache("misused", redis=cache)
        loaded: Any = load()
        with pytest.raises(UsageError, match="pass the function itself, not its coroutine"):
            await users.get_or_load("user", 2, loaded)
        given: Any = 7
        with pytest.raises(UsageError, match="load: int; pass a function"):
            await users.get_or_load("user", 2, given)
        assert await users.get_or_load("user", 2, load) == 1


@pytest.mark.parametrize("ids", ["abc", b"abc", 7])
async def test_one_id_is_no_list(ids: Any) -> None:
    """``multi_get`` refuses one text, whose letters nobody means, and one number."""
    async with Cache.from_url("memory://") as cache:
        with pytest.raises(UsageError, match="pass a list of ids"):
            await SmartCache("misused", redis=cache).multi_get("user", ids)
