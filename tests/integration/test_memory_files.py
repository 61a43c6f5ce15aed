"""``memory://`` is for one process and one database: which SQLite file is meant does not hang on how it is written."""

from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine

from fastrdb import Cache, CacheShared
from tests.tutorial.cruds import user_crud
from tests.tutorial.models import Base


async def use(cache: Cache, url: str) -> None:
    """Read and write through a cache, on the SQLite file of the current folder."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        assert await user_crud.get_or_none(db=async_sessionmaker(engine), redis=cache, email="a@example.com") is None
    finally:
        await engine.dispose()


async def test_files_of_two_folders_are_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two programs, each with an ``app.db`` in a folder of its own, both get their ``memory://``."""
    async with Cache.from_url("memory://") as first, Cache.from_url("memory://") as second:
        for name, cache in (("one", first), ("two", second)):
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            await use(cache, "sqlite+aiosqlite:///app.db")


async def test_one_file_under_two_names_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second cache on the same file is refused, whether the path is relative or absolute."""
    monkeypatch.chdir(tmp_path)
    async with Cache.from_url("memory://") as first, Cache.from_url("memory://") as second:
        await use(first, "sqlite+aiosqlite:///app.db")
        with pytest.raises(CacheShared):
            await use(second, f"sqlite+aiosqlite:///{tmp_path}/app.db")


async def test_unused_cache_lets_go(tmp_path: Path) -> None:
    """A cache that is closed before anything was read or written keeps no other one off the database."""
    first = Cache.from_url("memory://")
    first.exclude_others(str(tmp_path).encode())
    await first.aclose()
    async with Cache.from_url("memory://") as second:
        second.exclude_others(str(tmp_path).encode())
        with pytest.raises(CacheShared):
            Cache.from_url("memory://").exclude_others(str(tmp_path).encode())
