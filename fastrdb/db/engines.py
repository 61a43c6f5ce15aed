"""Engines and factories of sessions."""

from __future__ import annotations

from typing import Any

import sqlalchemy.ext.asyncio as sa
from sqlalchemy import URL
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from . import environment


def create_async_engine(url: str | URL | None = None, **kwargs: Any) -> AsyncEngine:
    """Give an engine for a database.

    Args:
        url: The database; that of the environment if it is left out.
        kwargs: As SQLAlchemy's function of this name takes them.
    """
    return sa.create_async_engine(url or environment.database_url(), **kwargs)


def create_async_sessionmaker(engine: AsyncEngine, **kwargs: Any) -> async_sessionmaker[AsyncSession]:
    """Give a factory of sessions whose objects stay readable after a commit."""
    return async_sessionmaker(engine, **{"expire_on_commit": False, **kwargs})
