"""The harness's own table, and two cruds over it: the old and the new code of a service during a deploy."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any

from pydantic import BaseModel
from sqlalchemy import BigInteger, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb.crud.crud import Crud

from .subject import AnyCrud, Count, Page, Read, Row, Subject

IDS = range(1, 9)
NAMES = tuple("ann ben cat dan eve fay gus hal ida jon".split())
GROUPS = (1, 2)

# Each lacks templates that the other caches under: the entry of a name, and lists by group.
OLD = ("item:id:{id}", "item:alias:{name}"), "item:page:{page}:limit:{limit}"
NEW = ("item:id:{id}", "item:name:{name}"), "item:group:{group_id}:page:{page}:limit:{limit}"


class ItemCreate(BaseModel):
    """What ``create`` takes."""

    id: int
    name: str
    group_id: int
    flag: bool
    mark: int


class ItemUpdate(BaseModel):
    """What ``update`` takes."""

    name: str | None = None
    group_id: int | None = None
    flag: bool | None = None
    mark: int


class Item(BaseModel):
    """What is read."""

    id: int
    name: str
    group_id: int
    flag: bool
    mark: int


def model_in(schema: str) -> type[Any]:
    """Give the model of the table in this schema."""

    class Base(DeclarativeBase):
        metadata = MetaData(schema=schema)

    class ItemRow(Base):
        __tablename__ = "item"
        id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
        name: Mapped[str] = mapped_column(String(20), unique=True)
        group_id: Mapped[int]
        flag: Mapped[bool]
        mark: Mapped[int] = mapped_column(BigInteger)

    return ItemRow


@dataclass(frozen=True, slots=True)
class Builtin:
    """Builds the subject of one half of the processes.

    Attributes:
        schema: Where its table lies.
        new: The new code rather than the old.
    """

    schema: str
    new: bool

    def __call__(self) -> Subject:
        """Build it."""
        patterns, list_pattern = NEW if self.new else OLD
        crud: AnyCrud = Crud(
            model_in(self.schema),
            Item,
            pattern=patterns,
            list_pattern=list_pattern,
            create_schema=ItemCreate,
            update_schema=ItemUpdate,
        )
        return Subject(crud, IDS, "mark", created, changed, by_group if self.new else by_page)


def created(random: Random, key: int, mark: int) -> ItemCreate:
    """Give a new row, whose name may be taken."""
    return ItemCreate(
        id=key, name=random.choice(NAMES), group_id=random.choice(GROUPS), flag=random.random() < 0.5, mark=mark
    )


def changed(random: Random, mark: int) -> ItemUpdate:
    """Give a change: of the mark alone, of the name, of the group, of the flag."""
    values: dict[str, Any] = {"mark": mark}
    if random.random() < 0.25:
        values["name"] = random.choice(NAMES)
    if random.random() < 0.25:
        values["group_id"] = random.choice(GROUPS)
    if random.random() < 0.25:
        values["flag"] = random.random() < 0.5
    return ItemUpdate(**values)


def by_group(random: Random) -> Read:
    """Give a read of the new code: lists and counts by group, which only writes of that group age."""
    group: dict[str, int | str | bool | None] = {"group_id": random.choice(GROUPS)}
    if random.random() < 0.25:
        group["flag"] = True
    match random.random():
        case p if p < 0.8:
            return _row(random)
        case p if p < 0.95:
            return _page(random, group)
        case _:
            return Count(group)


def by_page(random: Random) -> Read:
    """Give a read of the old code: lists and counts of the whole table, with filters."""
    match random.random():
        case p if p < 0.8:
            return _row(random)
        case p if p < 0.95:
            return _page(random, {"flag": True} if random.random() < 0.25 else {})
        case _:
            return Count({"flag": True} if random.random() < 0.5 else {})


def _row(random: Random) -> Row:
    match random.random():
        case p if p < 0.4:
            return Row({"id": random.choice(IDS)})
        case p if p < 0.8:
            return Row({"name": random.choice(NAMES)})
        case _:
            return Row({"id": random.choice(IDS), "flag": True})


def _page(random: Random, fields: dict[str, int | str | bool | None]) -> Page:
    match random.random():
        case p if p < 0.6:
            return Page(len(IDS), fields=fields)
        case p if p < 0.8:
            return Page(3, random.choice((1, 2)), fields=fields)
        case _:
            return Page(3, 1, "mark", random.random() < 0.5, fields)
