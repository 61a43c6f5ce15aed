"""The courier: who delivers kept invalidations, and when they are forgotten."""

import asyncio
from collections.abc import Sequence

from fastrdb.cache.courier import Courier
from fastrdb.cache.in_loop import InLoop
from fastrdb.cache.memory import MemoryStore
from fastrdb.cache.store import Command, Reply, keys_of
from tests.world import until


class Gated(MemoryStore):
    """A store whose answers wait for a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.sent: list[bytes] = []

    async def run(self, commands: Sequence[Command], *, bulk: bool = False) -> list[Reply]:
        """Run commands; say so when the gate is open."""
        replies = await super().run(commands, bulk=bulk)
        self.sent += [key for command in commands for key in keys_of(command)]
        await self.gate.wait()
        return replies


async def test_an_older_answer_delivers_no_later_write() -> None:
    """What a second loop keeps while a first one delivers the same key is kept until it is delivered once more."""
    courier, loop = Courier(), asyncio.get_running_loop()
    first, second = Gated(), Gated()
    # Two of one loop stand for those of two loops: what comes before what is the same.
    one, other = InLoop(loop, first), InLoop(loop, second)
    courier.keep({b"row"}, one)
    await asyncio.sleep(0)
    courier.keep({b"row"}, other)
    await asyncio.sleep(0)
    assert (first.sent, second.sent) == ([b"row"], [b"row"])
    first.gate.set()

    async def delivered() -> bool:
        return not courier.kept

    await until(delivered)
    assert first.sent == [b"row", b"row"], "the answer to the first was older than the second write"
    second.gate.set()
    assert one.courier is not None
    assert other.courier is not None
    await asyncio.wait({one.courier, other.courier})


async def test_what_is_delivered_is_forgotten() -> None:
    """Nothing of a delivered invalidation stays in memory."""
    courier, store = Courier(), Gated()
    here = InLoop(asyncio.get_running_loop(), store)
    store.gate.set()
    for number in range(3):
        courier.keep({b"%d:%d" % (number, each) for each in range(50)}, here)
        assert here.courier is not None
        await asyncio.wait({here.courier})
    assert not courier.kept
    assert not courier._under_way
