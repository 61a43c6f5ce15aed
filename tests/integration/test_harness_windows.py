"""What a write's own process sees of its holds, and that the harness under outages tells windows from stale reads."""

import random
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import NamedTuple

import pytest
from redis.asyncio import Redis
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import await_only

from fastrdb import Cache
from fastrdb.cache.cache import store_factory
from fastrdb.cache.protocol import ALL_PARTS
from fastrdb.testing.faults import Proxy
from fastrdb.testing.harness import Scenario, Weather, run
from fastrdb.testing.harness.builtin import Builtin
from fastrdb.testing.harness.deeds import DEED, Ledger, Note, Seen
from fastrdb.testing.harness.outages import restarted_empty
from fastrdb.testing.harness.storm import Sky, StormyStore
from tests.models import named
from tests.servers.redis import RedisServer
from tests.world import ANN, World, opened, until

CALM = Weather(points=(), kill_every_s=0, cut_every_s=0, deadly=0)


class There(NamedTuple):
    """A world whose cache talks through a proxy, and is followed by a ledger."""

    world: World
    proxy: Proxy
    ledger: Ledger
    notes: list[Note]

    async def change(self, *, bound: bool = False) -> None:
        """Change Ann's name, as one deed."""
        world, entered = self.world, DEED.set("1.1")
        try:
            if bound:
                async with world.engine.begin() as connection, AsyncSession(connection) as session:
                    await world.crud.update(db=session, redis=world.cache, obj_in=named("new"), id=ANN)
            else:
                await world.crud.update(db=world.factory, redis=world.cache, obj_in=named("new"), id=ANN)
        finally:
            DEED.reset(entered)
            self.ledger.end("1.1", undelivered=world.cache.undelivered)

    def seen(self) -> list[Seen]:
        """What was noted of the deed."""
        assert {note.deed for note in self.notes} == {"1.1"}
        return [note.seen for note in self.notes]

    async def is_closed(self) -> bool:
        """Whether the release, or the kept invalidation, has arrived."""
        return Seen.CLOSED in self.seen()

    def cut_off(self) -> None:
        """Let the cache not reach Redis."""
        self.proxy.refuses = True
        self.proxy.cut()


@pytest.fixture
async def there(postgres_url: str, valkey_url: str) -> AsyncIterator[There]:
    """Two users, and a cache that can be cut off."""
    host, _, port = valkey_url.removeprefix("redis://").partition("/")[0].partition(":")
    notes: list[Note] = []
    ledger, sky = Ledger(notes.append), Sky(Scenario("", "", weather=CALM), random.Random(), 0.0, mortal=False)
    async with opened(postgres_url, valkey_url) as world, Proxy.to(host, int(port)) as proxy:
        make = store_factory(proxy.through(valkey_url), timeout_s=1)
        async with Cache(lambda: StormyStore(make(), sky, ledger)) as world.cache:
            await world.warm()
            yield There(world, proxy, ledger, notes)


def at_commit(world: World, happens: Callable[[], object]) -> None:
    """Let something happen after a write has held, just before its COMMIT is sent."""
    event.listen(world.engine.sync_engine, "commit", lambda _: happens(), once=True)


async def test_undisturbed_write_has_no_window(there: There) -> None:
    """All holds are found when COMMIT has returned."""
    await there.change()
    assert there.seen() == [Seen.ASKED, Seen.OVER, Seen.INTACT, Seen.CLOSED, Seen.ENDED]


async def test_lost_hold_is_seen(there: There, valkey_url: str) -> None:
    """A hold that is gone when COMMIT has returned is a window until the release."""
    client = Redis.from_url(valkey_url)

    def flush(connection: Connection) -> None:
        await_only(client.flushall())

    event.listen(there.world.engine.sync_engine, "commit", flush, once=True)
    await there.change()
    await client.aclose()
    assert there.seen() == [Seen.ASKED, Seen.OVER, Seen.LOST, Seen.CLOSED, Seen.ENDED]


@pytest.mark.parametrize("bound", [False, True], ids=["own", "bound"])
async def test_kept_invalidation_is_a_window_until_it_is_delivered(there: There, bound: bool) -> None:
    """A write without Redis has a window, which the courier's delivery ends."""
    there.cut_off()
    await there.change(bound=bound)
    assert there.seen()[:2] == [Seen.ASKED, Seen.UNHELD]
    assert there.seen()[-1] is Seen.ENDED
    there.proxy.refuses = False
    await until(there.is_closed)


async def test_release_that_does_not_arrive_is_delivered_later(there: There) -> None:
    """Redis is lost between hold and release: nothing is known of the hold, until the invalidation is delivered."""
    at_commit(there.world, there.cut_off)
    await there.change()
    assert there.seen() == [Seen.ASKED, Seen.OVER, Seen.ENDED]
    there.proxy.refuses = False
    await until(there.is_closed)


def test_part_that_is_off_is_found_under_outages(
    postgres_url: str, private_redis: Callable[[], RedisServer], capsys: pytest.CaptureFixture[str]
) -> None:
    """Without parts of the protocol, outages are no excuse: stale reads are found outside the windows."""
    server = private_redis()
    scenario = Scenario(
        postgres_url,
        server.url,
        reads=10**9,
        limit_s=90,
        subjects=(Builtin("old", rows=4), Builtin("new", rows=4)),
        batch=8,
        ways={"alone": 1.0},
        weather=Weather(kill_every_s=0, cut_every_s=0, deadly=0),
        stop_at_first=True,
        seed=random.randrange(2**32),
        parts=replace(ALL_PARTS, tokens_minted=False, lists=False),
        outages=(restarted_empty(server, server.url, 0.1),),
        outage_every_s=4.0,  # what is cached has to last for a while
        outages_wanted=1,
        timeout_s=2.0,
    )
    report = run(scenario)
    with capsys.disabled():
        print(f"\n{report}")
    assert report.stale > 0, report
    assert report.outages
