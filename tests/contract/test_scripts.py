"""The Lua scripts do what ``command.apply`` says, command by command, on random cells."""

import re
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fastrdb.cache.memory import MemoryStore
from fastrdb.cache.protocol import ALL_PARTS, MAX_LISTED, Hold, Listing, Parts, claim_mark, random_name
from fastrdb.cache.redis import RedisStore
from fastrdb.cache.scripts import SCRIPTS
from fastrdb.cache.store import (
    Claim,
    Command,
    Fill,
    Get,
    HoldCell,
    HoldTable,
    Life,
    ListTemplates,
    Mint,
    Put,
    Release,
    ReleaseTable,
    RenewTable,
    Reply,
    Unclaim,
)

# Lives and deadlines are multiples of this: far enough apart that the two clocks, and the time a test takes, make
# no difference, whether for what is over or for how long something has left.
TICK_MS = 100_000

KEYS = (b"entry", b"{t}:any", b"{t}:all")
WRITERS = (b"0a", b"1b", b"ff", b"Zz9")
MARKS = tuple(map(claim_mark, (b"r1", b"r2")))
TOKENS = (b"token1", b"token2")
TEMPLATES = (b"user:email:{email}", b"user:{id}:", b"%w+(%d)[a-z]", b"templ\xc3\xa4te {x}")

keys = st.sampled_from(KEYS)
lives = st.integers(1, 4).map(lambda ticks: ticks * TICK_MS)
writers = st.sampled_from(WRITERS)
marks = st.sampled_from(MARKS)
templates = st.lists(st.sampled_from(TEMPLATES), max_size=5).map(tuple)
values = st.binary(max_size=12) | st.sampled_from((b' \t\r\n{"id":1}', b"", *MARKS))
parts = st.sampled_from((ALL_PARTS, Parts(claims=False), Parts(sole_holder_installs=False), Parts(waits=False)))


@st.composite
def holds(draw: st.DrawFn) -> bytes:
    """Draw a hold as it may be found: of several writers, dead and alive."""
    now_ms = int(time.time() * 1000)
    ticks = draw(st.dictionaries(writers, st.sampled_from((-2, -1, 1, 2, 3)), min_size=1))
    return Hold(draw(st.booleans()), {name: now_ms + tick * TICK_MS for name, tick in ticks.items()}).encode()


@st.composite
def listings(draw: st.DrawFn) -> bytes:
    """Draw a list of templates, some of them still waiting for writers; sometimes a full one."""
    waits = st.lists(writers, unique=True).map(tuple)
    listed = draw(st.dictionaries(st.sampled_from(TEMPLATES), waits))
    full = draw(st.sampled_from((0, MAX_LISTED - 2, MAX_LISTED)))
    return Listing(draw(st.sampled_from(TOKENS)), {b"t%d" % n: () for n in range(full)} | listed).encode()


def placed(cell: bytes, key: bytes, life_ms: int) -> Command:
    """Put any cell: a fill that compares nothing."""
    return Fill(key, b"", cell, life_ms, Parts(claims=False))


commands = st.one_of(
    st.builds(placed, holds() | listings() | values, keys, lives),
    st.builds(Mint, keys, st.sampled_from(TOKENS), lives),
    st.builds(Claim, keys, marks, lives),
    st.builds(Fill, keys, marks, values, lives, parts),
    st.builds(Put, keys, values, lives, st.booleans()),
    st.builds(Unclaim, keys, marks),
    st.builds(HoldCell, keys, writers, lives, st.booleans()),
    st.builds(
        HoldTable,
        st.just(KEYS[1]),
        st.just(KEYS[2]),
        writers,
        lives,
        templates,
        st.sampled_from(TOKENS),
        lives,
        parts,
    ),
    st.builds(ListTemplates, st.just(KEYS[1]), st.just(KEYS[2]), templates, st.sampled_from(TOKENS), lives, parts),
    st.builds(Release, keys, writers, st.none() | values | st.sampled_from(TOKENS), lives, parts),
    st.builds(ReleaseTable, st.just(KEYS[1]), st.just(KEYS[2]), writers),
    st.builds(RenewTable, st.just(KEYS[1]), st.just(KEYS[2]), writers, lives),
    st.builds(Get, keys),
)


def moved(command: Command, prefix: bytes) -> Command:
    """Give the command on keys of this example's own."""
    names = [name for name in ("key", "any_key", "all_key") if hasattr(command, name)]
    return command._replace(**{name: prefix + getattr(command, name) for name in names})


def rounded(reply: Reply, started_ms: int) -> object:
    """Give a reply with its deadlines in ticks since the start."""
    if isinstance(reply, tuple):
        return tuple(rounded(cell, started_ms) for cell in reply)
    if reply is None or not reply.startswith(b'"!'):
        return reply
    return re.sub(
        rb"=(\d+)",
        lambda found: b"=%d" % round((int(found[1]) - started_ms) / TICK_MS),
        reply,
    )


def observed(replies: Sequence[Reply], asked: Sequence[Command], started_ms: int) -> list[object]:
    """Give what is compared: lives in ticks, cells and replies with rounded deadlines."""
    return [
        round(int(reply) / TICK_MS)
        if isinstance(command, Life) and isinstance(reply, bytes)
        else rounded(reply, started_ms)
        for command, reply in zip(asked, replies, strict=True)
    ]


@pytest.fixture
async def in_redis(redis_url: str) -> AsyncIterator[RedisStore]:
    """Give a store on a server."""
    store = RedisStore.factory_from_url(redis_url, timeout_s=10)()
    yield store
    await store.aclose()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(walk=st.lists(commands, min_size=1, max_size=30))
async def test_scripts_and_apply_agree(in_redis: RedisStore, walk: list[Command]) -> None:
    """Any sequence of commands gives equal replies, cells and lives in Redis and in ``apply``."""
    in_memory = MemoryStore(clock=time.time)
    prefix = random_name() + b":"
    looks = [look(key) for key in KEYS for look in (Get, Life)]
    asked = [moved(each, prefix) for command in walk for each in (command, *looks)]
    started_ms = int(time.time() * 1000)
    scripted = observed(await in_redis.run(asked), asked, started_ms)
    applied = observed(await in_memory.run(asked), asked, started_ms)
    step = len(looks) + 1
    for at, command in enumerate(walk):
        here = slice(at * step, (at + 1) * step)
        assert scripted[here] == applied[here], f"after {command!r}"


def test_scripts_have_their_own_names() -> None:
    """No two scripts are one; each is named by the SHA-1 that Redis gives it."""
    assert len({script.sha for script in SCRIPTS}) == len(SCRIPTS) == 12
