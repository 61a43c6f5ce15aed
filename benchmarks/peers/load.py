"""The load generator, a process of its own: ``python -m benchmarks.peers.load --port … --path … --seconds …``.

HTTP/1.1 by hand over asyncio's streams: each connection sends a request as soon as the last answer is read. Prints one
JSON object: requests, elapsed seconds, bytes of one body.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from time import perf_counter

import uvloop

_HOST = "127.0.0.1"


class Refused(Exception):
    """The app answered something else than 200."""


async def load(port: int, path: str, connections: int, seconds: float) -> dict[str, float]:
    """Send requests for so long, and count them."""
    request = f"GET {path} HTTP/1.1\r\nHost: {_HOST}\r\n\r\n".encode()
    requests = size = 0
    streams = [await asyncio.open_connection(_HOST, port) for _ in range(connections)]
    start = perf_counter()

    async def connection(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal requests, size
        while perf_counter() - start < seconds:
            writer.write(request)
            size = len(await _body(reader))
            requests += 1
        writer.close()

    await asyncio.gather(*(connection(*stream) for stream in streams))
    return {"requests": requests, "elapsed": perf_counter() - start, "bytes": size}


async def _body(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise Refused(head.partition(b"\r\n")[0].decode())
    _, _, after = head.lower().partition(b"content-length:")
    return await reader.readexactly(int(after.partition(b"\r\n")[0]))


def main() -> None:
    """Load, and print."""
    parser = argparse.ArgumentParser(prog="benchmarks.peers.load", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/users")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(runner.run(load(options.port, options.path, options.connections, options.seconds))))


if __name__ == "__main__":
    main()
