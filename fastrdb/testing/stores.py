"""The contract that every store keeps, as checks: for the stores of fastrdb, and for yours.

::

    @pytest.mark.parametrize("check", StoreContract.checks())
    async def test_my_store(check: str) -> None:
        await StoreContract(MyStore).run(check)

Each check is one claim, its docstring. Keys are random, so that checks may share a server.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fastrdb.cache.store import Store

from .store_entries import ClaimChecks, HoldChecks, TokenChecks
from .store_probe import Probe
from .store_reads import CallChecks, ReadChecks
from .store_tables import TableChecks

_GROUPS: tuple[type[Probe], ...] = (ReadChecks, TokenChecks, ClaimChecks, HoldChecks, TableChecks, CallChecks)


class StoreContract:
    """Checks of one store, which is opened anew for each of them.

    Args:
        open_store: Gives a new store; called inside the running event loop.
        pass_time: Lets so many seconds go by, for the store; a store with a clock of its own need not wait.
    """

    def __init__(
        self,
        open_store: Callable[[], Store],
        *,
        pass_time: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._open_store, self._pass_time = open_store, pass_time

    @classmethod
    def checks(cls) -> list[str]:
        """Name the checks, in their order."""
        return [name for group in _GROUPS for name in vars(group) if not name.startswith("_")]

    async def run(self, check: str) -> None:
        """Run one check.

        Raises:
            AssertionError: The store breaks the contract.
        """
        store = self._open_store()
        try:
            group = next(group for group in _GROUPS if check in vars(group))
            await getattr(group(store, self._pass_time), check)()
        finally:
            await store.aclose()
