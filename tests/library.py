"""A library's tables and cruds, and what they hold as dicts: the specification of the model-based tests."""

from copy import deepcopy
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Crud

Row = dict[str, Any]


class Base(DeclarativeBase):
    """Three tables."""


class Book(Base):
    """On a shelf, where no two have one title."""

    __tablename__ = "model_based_books"
    __table_args__ = (UniqueConstraint("shelf", "title"),)
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    shelf: Mapped[str] = mapped_column(String(20))
    title: Mapped[str] = mapped_column(String(20))
    rank: Mapped[int | None]


class Leaf(Base):
    """Goes with its book."""

    __tablename__ = "model_based_leaves"
    id: Mapped[int] = mapped_column(primary_key=True)
    book_id: Mapped[int] = mapped_column(ForeignKey("model_based_books.id", ondelete="CASCADE"))
    page: Mapped[int]


class Card(Base):
    """A tenant's, deleted softly."""

    __tablename__ = "model_based_cards"
    id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    tenant_id: Mapped[str] = mapped_column(String(10))
    word: Mapped[str] = mapped_column(String(20))
    closed_at: Mapped[datetime | None]


class Loose(BaseModel):
    """Any columns: what is written."""

    model_config = ConfigDict(extra="allow")


class BookIn(BaseModel):
    """A new book."""

    id: int
    shelf: str
    title: str
    rank: int | None = None


class BookChange(BaseModel):
    """What changes of a book."""

    shelf: str | None = None
    title: str | None = None
    rank: int | None = None


class BookOut(BookIn):
    """A book."""

    model_config = ConfigDict(from_attributes=True)


class LeafOut(BaseModel):
    """A leaf."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    book_id: int
    page: int


class CardOut(BaseModel):
    """A card."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    tenant_id: str
    word: str


class Cruds:
    """Books by id, by shelf and title, and as lists of a shelf; again with one list; leaves; cards."""

    def __init__(self) -> None:
        self.books = Crud[Book, BookIn, BookChange, BookOut](
            Book,
            BookOut,
            pattern=("book:id:{id}", "book:on:{shelf}:{title}"),
            list_pattern="book:shelf:{shelf}:page:{page}:limit:{limit}",
        )
        self.all_books = Crud[Book, BookIn, BookChange, BookOut](
            Book, BookOut, pattern="all:{id}", list_pattern="all:page:{page}:limit:{limit}"
        )
        self.leaves = Crud[Leaf, Loose, Loose, LeafOut](
            Leaf, LeafOut, pattern="leaf:{id}", list_pattern="leaves:{book_id}:{page}:{limit}", max_limit=100
        )
        self.cards = Crud[Card, Loose, Loose, CardOut](
            Card, CardOut, "card:{id}", "cards:{page}:{limit}", tenant="tenant_id", soft_delete="closed_at"
        )


@dataclass
class State:
    """What the tables hold."""

    books: dict[int, Row] = field(default_factory=dict)
    leaves: dict[int, Row] = field(default_factory=dict)
    cards: dict[int, Row] = field(default_factory=dict)  # with "gone": whether it was deleted softly

    def copy(self) -> "State":
        """The same, to be changed."""
        return deepcopy(self)

    def clash(self, row: Row, but: int | None = None) -> bool:
        """Whether a book cannot be there beside the others."""
        others = [other for id, other in self.books.items() if id != but]
        return any(other["id"] == row["id"] or same_place(other, row) for other in others)

    def drop_book(self, id: int) -> None:
        """Take a book away, and its leaves."""
        del self.books[id]
        self.leaves = {key: leaf for key, leaf in self.leaves.items() if leaf["book_id"] != id}

    def of(self, book: int) -> list[Row]:
        """The leaves of a book, in the order of their ids."""
        return [leaf for _, leaf in sorted(self.leaves.items()) if leaf["book_id"] == book]

    def shown(self, tenant: str, gone: tuple[bool, ...] = (False,)) -> list[Row]:
        """The cards of a tenant, as they are shown."""
        kept = [card for _, card in sorted(self.cards.items()) if card["tenant_id"] == tenant and card["gone"] in gone]
        return [{name: value for name, value in card.items() if name != "gone"} for card in kept]


def same_place(one: Row, other: Row) -> bool:
    """Whether two books have one shelf and one title."""
    return (one["shelf"], one["title"]) == (other["shelf"], other["title"])
