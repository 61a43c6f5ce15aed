"""The proxy that misbehaves, and the process that is stopped, in front of and behind a real server."""

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import InvalidResponse, RedisError
from redis.exceptions import TimeoutError as RedisSilent

from fastrdb.testing.faults import Proxy, ServerProcess
from tests.servers import programs
from tests.servers.process import free_port
from tests.world import until


class Line(NamedTuple):
    """A client, and the proxy that it talks through."""

    proxy: Proxy
    client: Redis


@pytest.fixture
async def line(valkey_url: str) -> AsyncIterator[Line]:
    """A client of a real server, through a proxy."""
    host, _, port = valkey_url.removeprefix("redis://").partition("/")[0].partition(":")
    async with Proxy.to(host, int(port)) as proxy:
        client = Redis.from_url(proxy.through(valkey_url), socket_timeout=0.3, retry=None)
        yield Line(proxy, client)
        await client.aclose()


async def test_what_is_left_alone_passes(line: Line) -> None:
    """Without faults the proxy is not to be noticed; a large value passes, too."""
    await line.client.set("key", b"x" * 300_000)
    assert await line.client.get("key") == b"x" * 300_000
    assert line.proxy.accepted == 1


async def test_credentials_stay_in_the_url(line: Line) -> None:
    """The URL of the server goes through the proxy with its credentials, path and options."""
    found = line.proxy.through("redis://app:p%40ss@db.example:6379/2?protocol=3")
    assert found == f"redis://app:p%40ss@127.0.0.1:{line.proxy.port}/2?protocol=3"


async def test_a_request_that_is_cut_does_not_arrive(line: Line) -> None:
    """The connection ends when the bytes pass, and the server has not seen them."""
    await line.client.ping()
    line.proxy.cut_at = b"SET"
    with pytest.raises(RedisGone):
        await line.client.set("key", "new")
    line.proxy.cut_at = None
    assert await line.client.get("key") is None


async def test_a_reply_that_is_cut_was_given(line: Line) -> None:
    """The server has done what was asked, and the client does not hear of it."""
    await line.client.ping()
    line.proxy.cut_after_reply_to = b"SET"
    with pytest.raises(RedisGone):
        await line.client.set("key", "new")
    line.proxy.cut_after_reply_to = None
    assert await line.client.get("key") == b"new"


async def test_a_reply_is_cut_in_its_middle(line: Line) -> None:
    """So many bytes pass, and no more."""
    await line.client.set("key", b"x" * 1_000)
    line.proxy.reply_bytes = 100
    with pytest.raises(RedisGone):
        await line.client.get("key")
    line.proxy.reply_bytes = None
    assert await line.client.get("key") == b"x" * 1_000


async def test_what_is_corrupt_is_read_as_such(line: Line) -> None:
    """Replies are changed on their way."""
    await line.client.set("key", "abc")
    line.proxy.corrupt = lambda data: data.replace(b"abc", b"abd")
    assert await line.client.get("key") == b"abd"
    line.proxy.corrupt = lambda data: b"?" + data
    with pytest.raises((InvalidResponse, RedisError)):
        await line.client.get("key")


async def test_late_stalled_and_half_closed(line: Line) -> None:
    """A late or missing reply times out; what was held up passes in the end; an end of the stream is one."""
    await line.client.ping()
    line.proxy.delay_s = 1.0
    with pytest.raises(RedisSilent):
        await line.client.ping()
    line.proxy.delay_s = 0.0
    assert await line.client.ping()
    line.proxy.stall()
    with pytest.raises(RedisSilent):
        await line.client.set("key", "held up")
    line.proxy.resume()

    async def arrived() -> bool:
        return bool(await line.client.get("key") == b"held up")

    await until(arrived)
    line.proxy.half_close()
    with pytest.raises(RedisGone):
        await line.client.ping()
    line.proxy.refuses = True
    line.proxy.cut()
    with pytest.raises(RedisGone):
        await line.client.ping()


@pytest.fixture
def process(tmp_path: Path) -> Iterator[tuple[ServerProcess, int]]:
    """A Valkey that keeps nothing on disk, and its port."""
    port = free_port()
    place = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(tmp_path), "--save", "", "--appendonly", "no"]
    command = [*programs.valkey().argv, *place]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as child:
        found = ServerProcess(child.pid, command)
        yield found, port
        found.kill()


async def test_a_process_is_stopped_killed_and_started_again(process: tuple[ServerProcess, int]) -> None:
    """Paused it is silent and goes on; restarted it is another process, which has forgotten all."""
    server, port = process
    async with Redis(host="127.0.0.1", port=port, socket_timeout=0.3, retry=None) as client:

        async def answers() -> bool:
            try:
                return bool(await client.ping())
            except (RedisError, OSError):
                return False

        await until(answers)
        await client.set("key", "value")
        server.pause()
        with pytest.raises(RedisSilent):
            await client.get("key")
        server.resume()
        await until(answers)
        assert await client.get("key") == b"value"
        before = server.pid
        server.restart()
        await until(answers)
        assert server.pid != before
        assert await client.get("key") is None
