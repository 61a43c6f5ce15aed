"""Who is compared: the pinned requirements of each peer, how it is configured, and what it does not do."""

from __future__ import annotations

from dataclasses import dataclass

_SQL = ("sqlalchemy[asyncio]==2.1.9", "asyncpg==0.32.0", "pydantic==2.14.3")
_WEB = ("fastapi==0.165.0", "uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0")
_REDIS = ("redis[hiredis]==8.1.0", "hiredis==3.5.0")
_ALL = (*_SQL, *_WEB, *_REDIS)


@dataclass(frozen=True, slots=True)
class Peer:
    """One contestant.

    Attributes:
        name: Its module in workers/.
        title: For the table, with the version.
        requirements: What pip installs into its environment.
        configured: How it is used.
        lacks: What it does not do of what the others do.
        sends_bytes: Whether it can answer with the cached bytes of a list.
        checkout: Whether it runs this checkout's fastrdb.
    """

    name: str
    title: str
    requirements: tuple[str, ...]
    configured: str
    lacks: str
    sends_bytes: bool = False
    checkout: bool = False


BY_HAND = Peer(
    "by_hand",
    "hand-written",
    _ALL,
    "`redis.get` and `model_validate_json`, else a Core statement and `set`; `delete` of the row's and the list's key"
    " after the commit. A session is opened only when SQL is needed; one client on a `BlockingConnectionPool`.",
    "No protection against a reader that stores the old row after the delete, nor against a writer that dies before.",
    sends_bytes=True,
)
OURS = Peer(
    "ours",
    "fastrdb",
    (*_ALL, "typing-extensions", "aiosqlite"),
    "`Crud` with a `pattern` and a `list_pattern`, a session factory as `db`, `Cache.from_url`.",
    "The windows that its promise leaves open are named in the explanation of the cache.",
    sends_bytes=True,
    checkout=True,
)
PEERS = (
    BY_HAND,
    OURS,
    Peer(
        "fastrdb_003",
        "FastRDB 0.0.3",
        ("fastrdb==0.0.3", *_SQL, *_WEB, "redis[hiredis]==5.3.1", "hiredis==3.5.0"),
        "`FastRDB` with the patterns of its tutorial and one `invalidate_pattern_prefix`; a session per call. Its"
        " requirements ask for redis-py before 6; what it prints goes to the null device.",
        "An update walks the whole key space with SCAN, so its cost grows with the keys of others; an order or a filter"
        " is no part of a list's key.",
    ),
    Peer(
        "fastcrud",
        "FastCRUD 0.23.0",
        ("fastcrud==0.23.0", *_ALL),
        "`FastCRUD(Model)`, `get` and `get_multi` with `schema_to_select` and `return_as_model`, without the total; a"
        " session per call.",
        "No cache: each read is SQL, so none is stale.",
    ),
    Peer(
        "advanced_alchemy",
        "advanced-alchemy 1.12.0",
        ("advanced-alchemy==1.12.0", "dogpile.cache==1.5.0", *_ALL),
        "A repository with `auto_expunge=True`, `cache_config` with `dogpile.cache.redis`; `update`, then the session's"
        " `commit()`; models by `model_validate`. A session per call.",
        "The invalidation of an async session is a task that nobody awaits; the Redis client is a synchronous one, in"
        " threads; the token that ages lists is kept per process.",
    ),
    Peer(
        "cashews",
        "cashews 7.6.0",
        ("cashews==7.6.0", *_ALL),
        "Decorated functions around hand-written SQL (pickles in Redis), `delete` of the row's key and `delete_tags` of"
        " the lists' tag after the commit.",
        "No SQL of its own; no protection against a reader that stores the old row after the delete.",
    ),
    Peer(
        "aiocache",
        "aiocache 0.12.3",
        ("aiocache==0.12.3", *_ALL),
        "`cached` functions with a `key_builder` and `PickleSerializer` around hand-written SQL, `delete` of both keys"
        " after the commit.",
        "No SQL of its own; invalidation by key only: there are no tags; no protection against late readers.",
    ),
)
