"""The contract of Crud: what every public method does, on every database, with every cache and without one."""

import inspect
from collections.abc import Awaitable, Callable, Iterator

import pytest

from fastrdb import Crud
from tests.contract import crud_reads, crud_writes
from tests.contract.crud_writes import WRITES
from tests.ground import Ground, ground_on

Check = Callable[[Ground], Awaitable[None]]

CHECKS: list[tuple[str, Check]] = [
    (name, check)
    for module in (crud_reads, crud_writes)
    for name, check in vars(module).items()
    if "__" in name.strip("_") and inspect.iscoroutinefunction(check)
]
METHODS = {name for name in dir(Crud) if not name.startswith("_")}
READING = {name.partition("__")[0] for name, _ in CHECKS if hasattr(crud_reads, name)}


@pytest.fixture(params=["postgres16_url", "postgres18_url", "sqlite_url", "mariadb_url"])
def any_database(request: pytest.FixtureRequest) -> str:
    """An empty database of each kind."""
    return str(request.getfixturevalue(request.param))


@pytest.fixture(params=["valkey_url", "redis7_url", "memory://", None])
def any_cache(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """A cache of each kind, and none."""
    if request.param is None or "://" in request.param:
        yield request.param
    else:
        yield str(request.getfixturevalue(request.param))


def test_every_method_has_a_check() -> None:
    """A public method without a check, a check without a method, and a write that is not tried everywhere fail."""
    assert {name.partition("__")[0] for name, _ in CHECKS} == METHODS
    assert set(WRITES) == METHODS - READING


async def test_crud_keeps_its_contract(any_database: str, any_cache: str | None) -> None:
    """Each method does what it says; each write holds alone, joined and rolled back, and leaves nothing stale."""
    failures: list[Exception] = []
    async with ground_on(any_database) as ground:

        async def attempt(name: str, check: Check) -> None:
            try:
                async with ground.clean(any_cache):
                    await check(ground)
            except Exception as failure:
                failure.add_note(f"in {name}")
                failures.append(failure)

        for name, check in CHECKS:
            await attempt(name, check)
        for name, write in WRITES.items():
            await attempt(f"{name}, alone", lambda ground, write=write: crud_writes.committed_alone(ground, write))
            await attempt(f"{name}, joined", lambda ground, write=write: crud_writes.joined(ground, write))
    if failures:
        raise ExceptionGroup("the contract is broken", failures)
