"""A FastAPI app of one list endpoint, served by uvicorn: ``python -P -m workers.app PEER PLACE PORT WORKERS``.

``/users`` gives models to FastAPI, as its documentation shows; ``/users.json`` sends the cached bytes, for the peers
that have them.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response

from .rows import Place, UserResponse

PEER, PLACE = "FASTRDB_BENCHMARK_PEER", "FASTRDB_BENCHMARK_PLACE"


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    place = Place(**json.loads(os.environ[PLACE]))
    async with import_module(f"workers.{os.environ[PEER]}").opened(place) as peer:
        app.state.peer = peer
        yield


async def users(request: Request, limit: int = 100) -> Any:
    """List users."""
    return await request.app.state.peer.list(limit)


async def users_json(request: Request, limit: int = 100) -> Response:
    """List users, as the bytes that are cached."""
    return Response(await request.app.state.peer.list_json(limit), media_type="application/json")


def create() -> FastAPI:
    """Give the app of the peer that the environment names."""
    app = FastAPI(lifespan=_lifespan)
    app.get("/users", response_model=list[UserResponse])(users)
    app.get("/users.json")(users_json)
    return app


def main() -> None:
    """Serve on a port of loopback."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    peer_name, place, port, workers = sys.argv[1:]
    os.environ[PEER], os.environ[PLACE] = peer_name, place
    uvicorn.run(
        "workers.app:create",
        factory=True,
        host="127.0.0.1",
        port=int(port),
        workers=int(workers),
        loop="uvloop",
        log_level="error",
        access_log=False,
    )


if __name__ == "__main__":
    main()
