"""The harness's own table, and two cruds over it: the old and the new code of a service during a deploy."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from pydantic import BaseModel
from sqlalchemy import BigInteger, MetaData, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb.crud.crud import Crud

from .subject import AnyCrud, Count, Page, Read, Row, Subject

NAMES = ("ann", "ben", "cat", "dan", "eve", "fay", "gus", "hal", "ida", "jon")
GROUPS = (1, 2)

# Each lacks templates that the other caches under: the entries of names, and lists by group.
CODES = {
    "old": (("item:id:{id}", "item:alias:{name}"), "item:page:{page}:limit:{limit}"),
    "new": (("item:id:{id}", "item:name:{name}"), "item:group:{group_id}:page:{page}:limit:{limit}"),
}


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
    """Builds a subject over the harness's own table; ``run`` says where that lies.

    Attributes:
        code: Which templates it has.
        rows: How many rows there can be; there are some more names than rows.
        by_name: Share of the reads of rows that are by name.
        schema: Where the table lies.
    """

    code: Literal["old", "new"]
    rows: int = 8
    by_name: float = 0.45
    schema: str = ""

    def __call__(self) -> Subject:
        """Build it."""
        patterns, list_pattern = CODES[self.code]
        crud: AnyCrud = Crud(
            model_in(self.schema),
            Item,
            pattern=patterns,
            list_pattern=list_pattern,
            create_schema=ItemCreate,
            update_schema=ItemUpdate,
        )
        return Subject(crud, range(1, self.rows + 1), "mark", self._create, self._change, self._read)

    def _name(self, random: Random) -> str:
        return random.choice(NAMES[: self.rows + 2])

    def _create(self, random: Random, key: int, mark: int) -> ItemCreate:
        return ItemCreate(
            id=key,
            name=self._name(random),  # it may be taken
            group_id=random.choice(GROUPS),
            flag=random.random() < 0.5,
            mark=mark,
        )

    def _change(self, random: Random, mark: int) -> ItemUpdate:
        values: dict[str, Any] = {"mark": mark}
        if random.random() < 0.25:
            values["name"] = self._name(random)
        if random.random() < 0.25:
            values["group_id"] = random.choice(GROUPS)
        if random.random() < 0.25:
            values["flag"] = random.random() < 0.5
        return ItemUpdate(**values)

    def _read(self, random: Random) -> Read:
        if random.random() < 0.8:
            return self._row(random)
        # The new code's lists are of one group, and only writes of that group age them.
        fields: dict[str, Any] = {"group_id": random.choice(GROUPS)} if self.code == "new" else {}
        if random.random() < 0.25:
            fields["flag"] = True
        return self._page(random, fields) if random.random() < 0.75 else Count(fields)

    def _row(self, random: Random) -> Row:
        if random.random() < self.by_name:
            return Row({"name": self._name(random)})
        key = random.randint(1, self.rows)
        return Row({"id": key} if random.random() < 0.7 else {"id": key, "flag": True})

    def _page(self, random: Random, fields: dict[str, Any]) -> Page:
        chance = random.random()
        if chance < 0.6:
            return Page(self.rows, fields=fields)
        if chance < 0.8:
            return Page(3, random.choice((1, 2)), fields=fields)
        return Page(3, 1, "mark", random.random() < 0.5, fields)
