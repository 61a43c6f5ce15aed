"""Every store keeps the one contract."""

import pytest

from fastrdb.cache.memory import MemoryStore
from fastrdb.cache.redis import RedisStore
from fastrdb.testing.stores import StoreContract


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
    await StoreContract(RedisStore.factory_from_url(redis_url)).run(check)
