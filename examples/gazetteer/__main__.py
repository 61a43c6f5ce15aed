"""``python -m examples.gazetteer [--serve] [--postgres URL] [--redis URL]``."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from rich.console import Console

from . import report, source
from .setup import Setup, opened
from .tour import STEPS, Line, load, walk


def arguments(given: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="gazetteer", description="A tour of fastrdb on real data.")
    parser.add_argument("--serve", action="store_true", help="serve it over HTTP, with documentation at /docs")
    parser.add_argument("--host", default="127.0.0.1", help="where to serve (%(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="where to serve (%(default)s)")
    parser.add_argument(
        "--postgres",
        metavar="URL",
        help="a PostgreSQL database instead of SQLite; gazetteer_country and gazetteer_city are dropped there",
    )
    parser.add_argument("--redis", metavar="URL", help="a Redis server instead of memory://")
    return parser.parse_args(given)


async def demo(setup: Setup, data: source.Data, console: Console) -> int:
    """Load, take the tour, show the table; gives the exit code: 1 if any answer was wrong."""
    lines = await fill(setup, data, console)
    with report.bar(console, "taking the tour", len(STEPS)) as advance:
        lines += await walk(setup, advance)
    report.show(console, lines, setup.where)
    return 1 if report.wrong_answers(lines) else 0


async def fill(setup: Setup, data: source.Data, console: Console) -> list[Line]:
    """Load countries and cities."""
    words = f"loading {len(data.countries):,} countries, {len(data.cities):,} cities"
    with report.bar(console, words, len(data.countries) + len(data.cities)) as advance:
        return await load(setup, data, advance)


async def serve(setup: Setup, console: Console, host: str, port: int) -> int:
    """Serve until interrupted."""
    import uvicorn

    from .server import build_app

    await fill(setup, source.everything(), console)
    console.print(f"documentation: http://{host}:{port}/docs")
    await uvicorn.Server(uvicorn.Config(build_app(setup), host, port, log_level="warning")).serve()
    return 0


async def main(given: Sequence[str]) -> int:
    """Do what the command line says; gives the exit code."""
    options, console = arguments(given), Console(highlight=False)
    async with opened(options.postgres, options.redis) as setup:
        if options.serve:
            return await serve(setup, console, options.host, options.port)
        return await demo(setup, source.everything(), console)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1:])))
