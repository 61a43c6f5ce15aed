"""MemoryStore beyond the contract: its size, its clean-up, and that it is alone."""

import gc
import signal
import subprocess
import sys
import threading

import anyio
import pytest

from fastrdb.cache.lockfile import LockFile
from fastrdb.cache.memory import MemoryStore
from fastrdb.cache.protocol import random_name
from fastrdb.cache.store import Claim, Get, HoldCell, Life, Mint, Release
from fastrdb.errors import CacheShared

LIFE_MS = 60_000


class Clock:
    """A clock that a test sets."""

    now_s = 0.0

    def __call__(self) -> float:
        """Give the seconds."""
        return self.now_s


async def put(store: MemoryStore, *keys: bytes, life_ms: int = LIFE_MS) -> None:
    """Put a token under each key."""
    await store.run([Mint(key, b"t", life_ms) for key in keys])


async def there(store: MemoryStore, *keys: bytes) -> set[bytes]:
    """Give those of the keys that have a cell, without touching them."""
    return {key for key, reply in zip(keys, [store._cells.get(key) for key in keys], strict=True) if reply}


# Size


async def test_the_least_recently_used_cells_go() -> None:
    """A full store lets the cells go that were neither written nor read for longest."""
    store = MemoryStore(max_cells=3)
    await put(store, b"a", b"b", b"c")
    await store.read(b"a", (b"b",))
    await put(store, b"d")
    assert await there(store, b"a", b"b", b"c", b"d") == {b"a", b"b", b"d"}


async def test_live_holds_never_go() -> None:
    """However much is put into a full store, a writer's hold stays until it lets go."""
    store = MemoryStore(max_cells=10)
    held = [b"held%d" % number for number in range(8)]
    await store.run([HoldCell(key, b"w", LIFE_MS) for key in held])
    for number in range(1_000):
        await put(store, b"%d" % number)
        assert len(store) <= 10
    assert await there(store, *held) == set(held)


async def test_more_holds_than_room() -> None:
    """Holds beyond the size are kept, and the store shrinks again when they were let go."""
    store = MemoryStore(max_cells=10)
    held = [b"held%d" % number for number in range(50)]
    await store.run([HoldCell(key, b"w", LIFE_MS) for key in held])
    assert len(store) == 50
    await store.run([Release(key, b"w", b"value", LIFE_MS) for key in held])
    await put(store, *[b"%d" % number for number in range(20)])
    assert len(store) == 10


async def test_dead_cells_do_not_stay() -> None:
    """Cells that ran out and are never asked for again are dropped as others come."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    for number in range(2_000):
        await put(store, b"%d" % number, life_ms=1_000)
        clock.now_s += 0.1
    assert len(store) <= 20


async def test_cells_written_again_and_again_take_no_room() -> None:
    """What the store remembers of lives stays in proportion to its cells."""
    store = MemoryStore()
    for number in range(20_000):
        await store.run([HoldCell(b"entry", b"w%d" % (number % 3), LIFE_MS + number)])
    assert len(store._ends) < 2_000


async def test_a_life_that_was_lengthened_is_kept() -> None:
    """The clean-up does not drop a cell whose life was lengthened since."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    await put(store, b"token", life_ms=1_000)
    await put(store, b"token", life_ms=10_000)
    clock.now_s = 5
    await put(store, b"other")
    assert await store.run([Get(b"token"), Life(b"token")]) == [b"t", b"5000"]


def test_some_room_is_needed() -> None:
    """A store without room is refused."""
    with pytest.raises(ValueError, match="max_cells"):
        MemoryStore(max_cells=0)


# Threads and loops


def test_threads_and_loops_share_a_store() -> None:
    """Any number of threads, each with its event loop, claim one entry after another, and one of them gets each."""
    store = MemoryStore()
    entries = [b"%d" % number for number in range(300)]
    won: list[bytes] = []

    async def claim(mark: bytes) -> None:
        replies = [await store.run([Claim(entry, mark, LIFE_MS)]) for entry in entries]
        won.extend(entry for entry, reply in zip(entries, replies, strict=True) if reply == [mark])

    threads = [threading.Thread(target=anyio.run, args=(claim, b'"?%d"' % n)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == sorted(entries)


async def test_a_posted_command_needs_no_awaiting() -> None:
    """A post is done at once; its replies can be awaited, or not."""
    store = MemoryStore()
    store.post([Mint(b"token", b"t", LIFE_MS)])
    assert (await store.read(b"token", ()))[0] == b"t"
    assert await store.post([Get(b"token")]) == [b"t"]


# One process


def name() -> str:
    """Give a name that no other test run uses."""
    return f"test\n{random_name().decode()}"


def test_a_second_store_is_refused() -> None:
    """A second store for one database is refused, in this process, too; the first may ask again."""
    database, first, second = name(), MemoryStore(), MemoryStore()
    first.exclusive(database)
    first.exclusive(database)
    with pytest.raises(CacheShared, match="share one Cache object"):
        second.exclusive(database)
    second.exclusive(name())


async def test_closing_lets_the_next_one_in() -> None:
    """A closed store's database is free for another."""
    database, first = name(), MemoryStore()
    first.exclusive(database)
    await first.aclose()
    MemoryStore().exclusive(database)


def test_a_forgotten_store_lets_the_next_one_in() -> None:
    """A store that nobody has any more keeps nobody out."""
    database = name()
    MemoryStore().exclusive(database)
    gc.collect()
    MemoryStore().exclusive(database)


HOLDER = """
import sys
from fastrdb.cache.memory import MemoryStore
store = MemoryStore()
store.exclusive(sys.argv[1])
print("mine", flush=True)
sys.stdin.read()
"""


def test_another_process_is_kept_out_and_its_death_lets_in() -> None:
    """A database that another process has is refused, until that process ends, killed or not."""
    database = name()
    command = [sys.executable, "-c", HOLDER, database]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "mine\n"
        with pytest.raises(CacheShared, match="Redis"):
            MemoryStore().exclusive(database)
        other.send_signal(signal.SIGKILL)
        other.wait()
    MemoryStore().exclusive(database)


def test_a_lock_says_nothing_of_the_database() -> None:
    """The lock file's name and content give no URL away, no other user may open it, and it goes with the lock."""
    lock = LockFile.take("secret" + name())
    path = lock._path
    assert "secret" not in path.name
    assert (path.read_bytes(), path.stat().st_mode & 0o777) == (b"", 0o600)
    lock.release()
    assert not path.exists()


def test_threads_that_lock_and_let_go_exclude_each_other() -> None:
    """However often the file is made and deleted, two never have the lock at once."""
    database, inside, overlaps, taken = name(), threading.Semaphore(1), list[int](), list[int]()

    def work() -> None:
        for turn in range(300):
            try:
                lock = LockFile.take(database)
            except CacheShared:
                continue
            if not inside.acquire(blocking=False):
                overlaps.append(turn)
            taken.append(turn)
            inside.release()
            lock.release()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert taken
    assert not overlaps


FORKING = """
import asyncio, os
from fastrdb.cache.memory import MemoryStore
from fastrdb.cache.store import Get
from fastrdb.errors import CacheShared

async def use():
    refused = 0
    for attempt in (store.read(b"x", ()), store.run([Get(b"x")]), store.post([Get(b"x")])):
        try:
            await attempt
        except CacheShared:
            refused += 1
    return refused

store = MemoryStore()
assert asyncio.run(use()) == 0
if (pid := os.fork()) == 0:
    os._exit(asyncio.run(use()))
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3
assert asyncio.run(use()) == 0
"""


def test_a_fork_is_refused() -> None:
    """In a forked process, which would write into a copy, everything raises CacheShared; the parent goes on."""
    command = [sys.executable, "-W", "error", "-c", FORKING]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
