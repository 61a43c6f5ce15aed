"""The rows that are measured: a table of users, what creates and changes them, and what is sent of them."""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict
from sqlalchemy import DateTime, String, Table, func
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column


class UserCreate(BaseModel):
    """What makes a user."""

    email: str
    name: str
    bio: str | None = None
    is_active: bool = True
    group_id: int = 1


class UserUpdate(BaseModel):
    """What changes a user."""

    email: str | None = None
    name: str | None = None
    bio: str | None = None
    is_active: bool | None = None


class UserResponse(BaseModel):
    """What is sent of a user."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    name: str
    bio: str | None = None
    is_active: bool
    created_at: datetime


class Users(NamedTuple):
    """A mapped class of users and its table."""

    model: type[Any]
    table: Table

    @classmethod
    def named(cls, table_name: str) -> Users:
        """Map a class to a table of this name."""

        class Base(DeclarativeBase):
            pass

        class User(Base):
            __tablename__ = table_name

            id: Mapped[int] = mapped_column(primary_key=True)
            email: Mapped[str] = mapped_column(String(255), unique=True)
            name: Mapped[str] = mapped_column(String(100))
            group_id: Mapped[int] = mapped_column(default=1)
            bio: Mapped[str | None] = mapped_column(String(500))
            created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())
            is_active: Mapped[bool] = mapped_column(default=True)

        return cls(User, Base.metadata.tables[table_name])


def some_users(first: int, count: int) -> list[UserCreate]:
    """Give users to create, numbered from *first*."""
    return [
        UserCreate(
            email=f"user{number}@example.com",
            name=f"User Number {number}",
            bio="Reads much, writes little." if number % 2 else None,
            group_id=number % 10,
        )
        for number in range(first, first + count)
    ]
