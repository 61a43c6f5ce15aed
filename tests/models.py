"""The model, the schemas and the crud that several tests share."""

from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Crud


class Base(DeclarativeBase):
    """The tables that the tests share."""


class User(Base):
    """A row with two keys, in a group."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(String(100), unique=True)
    name: Mapped[str] = mapped_column(String(100))
    group_id: Mapped[int] = mapped_column(default=1)


class UserIn(BaseModel):
    """What ``create`` takes."""

    email: str
    name: str = "new"
    group_id: int = 1


class UserChange(BaseModel):
    """What ``update`` takes."""

    email: str | None = None
    name: str | None = None
    group_id: int | None = None


class UserOut(BaseModel):
    """What reads and writes give."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str
    name: str
    group_id: int


UserCrud = Crud[User, UserIn, UserChange, UserOut]


def user_crud(**options: Any) -> UserCrud:
    """A crud over users, cached by id, by e-mail, and as lists of a group."""
    defaults: dict[str, Any] = {
        "pattern": ("user:id:{id}", "user:email:{email}"),
        "list_pattern": "user:group:{group_id}:page:{page}:limit:{limit}",
        "exp": 600,
    }
    return Crud[User, UserIn, UserChange, UserOut](User, UserOut, **{**defaults, **options})


def named(name: str) -> UserChange:
    """The update that changes a user's name."""
    return UserChange(name=name)
