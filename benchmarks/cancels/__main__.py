"""The command line: ``python -m benchmarks.cancels --help``."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import uvloop

from ..servers import servers
from . import Plan, Report, cancel_requests


async def run(postgres_url: str, redis_url: str, plan: Plan) -> list[Report]:
    """Cancel on PostgreSQL and Redis, and a tenth of that on SQLite with a cache in this process."""
    with tempfile.TemporaryDirectory() as folder:
        small = replace(plan, cancellations=max(1, plan.cancellations // 10), callers=8)
        return [
            await cancel_requests(postgres_url, redis_url, plan),
            await cancel_requests(f"sqlite+aiosqlite:///{Path(folder, 'cancels.db')}", "memory://", small),
        ]


def main() -> None:
    """Cancel, report, and fail if anything was wrong."""
    parser = argparse.ArgumentParser(prog="benchmarks.cancels", description=__doc__)
    parser.add_argument("--cancellations", type=int, default=10_000)
    parser.add_argument("--callers", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--postgres", metavar="URL", help="a server to use instead of a private one")
    parser.add_argument("--redis", metavar="URL", help="the same")
    parser.add_argument("--uvloop", action="store_true", help="on uvloop, as services run")
    options = parser.parse_args()
    plan = Plan(options.cancellations, options.callers, options.seed)
    factory = uvloop.new_event_loop if options.uvloop else asyncio.new_event_loop
    with servers(options.postgres, options.redis) as on, asyncio.Runner(loop_factory=factory) as runner:
        reports = runner.run(run(on.postgres_url, on.redis_url, plan))
    print(*reports, sep="\n\n")
    sys.exit(not all(report.holds for report in reports))


if __name__ == "__main__":
    main()
