"""Every store keeps the one contract."""

from typing import Any

import pytest

from fastrdb.cache.memory import MemoryStore
from fastrdb.cache.protocol import Parts
from fastrdb.cache.redis import RedisStore
from fastrdb.cache.store import Command, Fill, HoldCell, Release, ReleaseTable, RenewTable, Reply
from fastrdb.testing.stores import StoreContract


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"], scope="module")
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Stores are tried on both event loops that people use."""
    return "asyncio", {"use_uvloop": request.param}


@pytest.mark.parametrize("check", StoreContract.checks())
async def test_memory_store(check: str) -> None:
    """A dictionary in this process keeps the contract."""
    now_s = [1_000.0]

    async def pass_time(seconds: float) -> None:
        now_s[0] += seconds

    await StoreContract(lambda: MemoryStore(clock=lambda: now_s[0]), pass_time=pass_time).run(check)


@pytest.mark.parametrize("check", StoreContract.checks())
async def test_redis_store(redis_url: str, check: str) -> None:
    """Valkey and Redis keep the contract."""
    await StoreContract(RedisStore.factory_from_url(redis_url, timeout_s=10)).run(check)


class Careless(MemoryStore):
    """A store that fills without looking at the claim, installs through shared holds, and trusts holds on ``any``."""

    def _apply(self, command: Command, now_ms: int) -> Reply:
        if isinstance(command, Fill):
            command = command._replace(parts=Parts(claims=False))
        elif isinstance(command, Release):
            command = command._replace(parts=Parts(sole_holder_installs=False))
        elif isinstance(command, ReleaseTable):
            command = Release(command.any_key, command.writer)
        elif isinstance(command, RenewTable):
            command = HoldCell(command.any_key, command.writer, command.ttl_ms, again=True)
        return super()._apply(command, now_ms)


@pytest.mark.parametrize(
    "check",
    [
        "a_late_fill_is_refused",
        "a_fill_after_the_claim_ended_is_refused",
        "nothing_is_written_through_a_shared_hold",
        "a_dead_co_writer_is_remembered",
        "a_hold_that_was_lost_and_renewed_counts_as_shared",
        "who_lost_a_table_drops_its_list",
        "who_renews_a_lost_table_drops_its_list",
        "who_lost_a_table_leaves_a_held_list",
    ],
)
async def test_careless_stores_are_found_out(check: str) -> None:
    """A store that lacks a part of the protocol fails the checks of that part."""
    with pytest.raises(AssertionError):
        await StoreContract(Careless).run(check)
