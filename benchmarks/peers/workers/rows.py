"""What every peer works on: the table, and what is sent of a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, TypeAdapter
from sqlalchemy import DateTime, String, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

EXP_S = 600


class UserCreate(BaseModel):
    """What makes a user; nobody makes one here, but some libraries ask for it."""

    email: str
    name: str


class UserUpdate(BaseModel):
    """What changes a user."""

    name: str | None = None


class UserResponse(BaseModel):
    """What is sent of a user. *version* counts the row's updates where a trigger does so, else it stays 0."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    name: str
    bio: str | None = None
    is_active: bool
    version: int
    created_at: datetime


NAMES = tuple(UserResponse.model_fields)
LIST: TypeAdapter[list[UserResponse]] = TypeAdapter(list[UserResponse])


@dataclass(frozen=True, slots=True)
class Place:
    """Where a peer finds its rows.

    Attributes:
        postgres_url: For SQLAlchemy and asyncpg.
        redis_url: With the number of a database.
        table: Name of the table.
        prefix: Leads every key in Redis; ends with a colon.
    """

    postgres_url: str
    redis_url: str
    table: str
    prefix: str

    @property
    def redis_parts(self) -> dict[str, Any]:
        """Host, port and database of Redis, for libraries that take no URL."""
        parts = urlsplit(self.redis_url)
        return {"host": parts.hostname, "port": parts.port or 6379, "db": int(parts.path.strip("/") or 0)}


class Peer(Protocol):
    """The operations that are measured."""

    async def get(self, user_id: int) -> UserResponse:
        """Give one user, cached."""

    async def list(self, limit: int) -> Sequence[UserResponse]:
        """Give the first users by id, cached."""

    async def update(self, user_id: int, name: str) -> None:
        """Commit another name, and invalidate what is cached of the user and of lists."""


def mapped(table: str) -> type[Any]:
    """Map a class to the table of this name."""

    class Base(DeclarativeBase):
        pass

    class User(Base):
        __tablename__ = table

        id: Mapped[int] = mapped_column(primary_key=True)
        email: Mapped[str] = mapped_column(String(255), unique=True)
        name: Mapped[str] = mapped_column(String(100))
        bio: Mapped[str | None] = mapped_column(String(500))
        is_active: Mapped[bool] = mapped_column(default=True)
        version: Mapped[int] = mapped_column(default=0, server_default="0")
        created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())

    return User


def by_row(row: Sequence[object]) -> UserResponse:
    """Give what is sent of the columns *NAMES* of a row."""
    return UserResponse.model_validate(dict(zip(NAMES, row, strict=True)))
