"""What a response schema may show of related rows, what it may not, and what is read for it."""

import re
from typing import Any, Optional

import pytest
from pydantic import AliasPath, BaseModel, Field, create_model, field_validator
from sqlalchemy import Column, ForeignKey, Integer, Table, and_, func
from sqlalchemy.ext.associationproxy import AssociationProxy, association_proxy
from sqlalchemy.orm import (
    DeclarativeBase,
    DynamicMapped,
    Mapped,
    WriteOnlyMapped,
    aliased,
    mapped_column,
    relationship,
)

from fastrdb import Crud, UnsupportedModel
from fastrdb.db import SoftDeleteMixin
from tests.shelves import Author, AuthorOut, Book, BookBrief, BookOut, NamedOut, Out, Remark, TagOut, Topic


def refused(model: type[Any], schema: type[BaseModel]) -> str:
    """The message with which a crud of this schema is refused."""
    with pytest.raises(UnsupportedModel) as caught:
        Crud(model, schema, "a:{id}")
    return str(caught.value)


def shown(model: type[Any], schema: type[BaseModel]) -> set[str]:
    """The tables whose rows a crud shows besides its own."""
    crud: Any = Crud(model, schema, "a:{id}")
    return set(crud._layout.depends_on)


class Kin(Out):
    """An author with books, which show their author again."""

    books: list["KinOfBook"]


class KinOfBook(Out):
    """A book with its author, which shows its books again."""

    author: Kin | None


class Early(Out):
    """An author with books of a class that never comes."""

    books: list["Later"]  # type: ignore[name-defined]  # noqa: F821


class Endless(Out):
    """A topic that shows the topics below it in the same way."""

    id: int
    below: list["Endless"] = []


def test_circle_is_refused_with_its_path() -> None:
    """Schemas that lead back to themselves are refused when the crud is built; the message shows the way."""
    assert refused(Author, Kin) == (
        "Kin: Kin.books → KinOfBook.author → Kin shows itself without end; let the last one be a schema without it"
    )
    assert "Endless.below → Endless" in refused(Topic, Endless)
    assert "BookBrief" not in refused(Author, create_model("Deep", __base__=Out, books=(list[KinOfBook], ...)))


def test_schema_that_is_not_there_yet_is_refused() -> None:
    """A schema that names a class which nobody has defined is refused, and the message says so."""
    assert "not there yet" in refused(Author, Early)


def test_same_schema_beside_itself_is_no_circle() -> None:
    """A schema may stand in several places, as long as none lies within itself."""
    twice = create_model("Twice", __base__=Out, author=(NamedOut, ...), publisher=(NamedOut | None, ...))
    assert shown(Book, twice) == {"authors", "publishers"}


@pytest.mark.parametrize("annotation", [int, list[int], Any, list[dict[str, Any]], TagOut | NamedOut])
def test_relationship_without_one_schema_is_refused(annotation: Any) -> None:
    """A field that shows a relationship is annotated with one pydantic model, or refused by name."""
    message = refused(Author, create_model("Bad", __base__=Out, books=(annotation, ...)))
    assert message.startswith("Bad: books shows the relationship Author.books: annotate it with one pydantic model")


def test_number_of_rows_must_fit() -> None:
    """A collection for one row, or one model for a collection, is refused."""
    one = create_model("One", __base__=Out, books=(Optional[TagOut], ...))  # noqa: UP045  # as older code writes it
    many = create_model("Many", __base__=Out, author=(list[NamedOut] | None, ...))
    assert "books shows the relationship Author.books, which has rows: annotate a collection" in refused(Author, one)
    assert "author shows the relationship Book.author, which has one row" in refused(Book, many)


def test_field_below_that_the_model_lacks_is_refused_by_name() -> None:
    """The fields of nested schemas are checked as those of the response are."""
    book = create_model("Sized", __base__=Out, size=(int, ...))
    message = refused(Author, create_model("A", __base__=Out, books=(list[book], ...)))
    assert message.startswith("Sized: Book has nothing for field 'size'; it has: ")


def test_field_of_a_subclass_is_refused() -> None:
    """A field that only a subclass of the related model has would be loaded row by row, and is refused."""
    remark = create_model("AnyRemark", __base__=Out, stars=(int | None, None))
    message = refused(Author, create_model("A", __base__=Out, remarks=(list[remark], ...)))
    assert message.startswith("A: remarks.stars is a subclass's")


def test_way_around_the_schema_is_refused() -> None:
    """A path of aliases through a relationship, which nothing would load, is refused."""
    schema = create_model("Path", __base__=Out, called=(str, Field(validation_alias=AliasPath("author", "name"))))
    assert "called reads through the relationship 'author'" in refused(Book, schema)


def test_kinds_of_relationship_that_cannot_be_shown_are_refused() -> None:
    """A query (dynamic, write-only), an alias and an association proxy are refused, each with its reason."""

    class Base(DeclarativeBase):
        pass

    class Child(Base):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))

    class Parent(Base):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)
        children: Mapped[list[Child]] = relationship()
        asked: DynamicMapped[Child] = relationship(viewonly=True)
        written: WriteOnlyMapped[Child] = relationship(viewonly=True)
        ids: AssociationProxy[list[int]] = association_proxy("children", "id")

    other = aliased(Child)
    Parent.others = relationship(other, primaryjoin=Parent.id == other.parent_id, viewonly=True)  # type: ignore[attr-defined]
    child = create_model("ChildOut", __base__=Out, id=(int, ...))
    for name in ("asked", "written", "others"):
        schema = create_model("ParentOut", __base__=Out, **{name: (list[child], ...)})  # type: ignore[call-overload]
        assert name in refused(Parent, schema)
    assert "association proxy" in refused(Parent, create_model("ParentOut", __base__=Out, ids=(list[int], ...)))


def test_related_model_that_cannot_be_shown_is_refused_by_name() -> None:
    """A relationship to a model whose rows lie in several tables is refused; the message names the field."""

    class Base(DeclarativeBase):
        pass

    class Parent(Base):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)
        pets: Mapped[list["Animal"]] = relationship()

    class Animal(Base):
        __tablename__ = "animals"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))

    class Dog(Animal):
        __tablename__ = "dogs"
        id: Mapped[int] = mapped_column(ForeignKey("animals.id"), primary_key=True)

    pet = create_model("Pet", __base__=Out, id=(int, ...))
    message = refused(Parent, create_model("P", __base__=Out, pets=(list[pet], ...)))
    assert message.startswith("P: pets shows the relationship Parent.pets; Animal: joined table inheritance")
    assert Dog.__tablename__ in Base.metadata.tables


def test_all_tables_are_named() -> None:
    """What a crud depends on: the related tables, secondary ones, and those that a join's own condition reads."""
    assert shown(Author, AuthorOut) == {"books", "publishers", "tags", "book_tags"}
    assert shown(Book, BookOut) == {"authors", "parts", "pages"}


def test_own_table_is_named_where_it_is_shown_again() -> None:
    """A response that shows other rows of its own table depends on that table."""
    leaf = create_model("Below", __base__=Out, id=(int, ...))
    assert shown(Topic, create_model("T", __base__=Out, below=(list[leaf], ...))) == {"topics"}


def test_joins_that_change_by_themselves_are_not_cached() -> None:
    """A relationship whose condition asks the clock makes its response uncacheable; tables in it count."""

    class Base(DeclarativeBase):
        pass

    hidden = Table("hidden", Base.metadata, Column("child_id", Integer, primary_key=True))

    class Child(Base):
        __tablename__ = "children"
        id: Mapped[int] = mapped_column(primary_key=True)
        parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))
        until: Mapped[int]

    class Parent(Base):
        __tablename__ = "parents"
        id: Mapped[int] = mapped_column(primary_key=True)
        now: Mapped[list[Child]] = relationship(
            primaryjoin=lambda: and_(Parent.id == Child.parent_id, Child.until > func.now()), viewonly=True
        )
        seen: Mapped[list[Child]] = relationship(
            primaryjoin=lambda: and_(
                Parent.id == Child.parent_id, ~hidden.select().where(hidden.c.child_id == Child.id).exists()
            ),
            viewonly=True,
        )

    child = create_model("ChildOut", __base__=Out, id=(int, ...))
    now: Any = Crud(Parent, create_model("N", __base__=Out, now=(list[child], ...)), "n:{id}")
    seen: Any = Crud(Parent, create_model("S", __base__=Out, seen=(list[child], ...)), "s:{id}")
    assert "now()" in now._uncacheable
    assert seen._uncacheable is None
    assert "hidden" in seen._layout.depends_on


def test_fingerprint_tells_what_is_read() -> None:
    """What is stored of another release is not read where a relationship's order, condition or schema has changed."""

    def fingerprint(order: str, condition: int, field: str) -> bytes:
        class Base(DeclarativeBase):
            pass

        class Child(Base):
            __tablename__ = "children"
            id: Mapped[int] = mapped_column(primary_key=True)
            age: Mapped[int]
            parent_id: Mapped[int] = mapped_column(ForeignKey("parents.id"))

        class Parent(Base):
            __tablename__ = "parents"
            id: Mapped[int] = mapped_column(primary_key=True)
            children: Mapped[list[Child]] = relationship(
                order_by=lambda: getattr(Child, order),
                primaryjoin=lambda: and_(Parent.id == Child.parent_id, Child.age > condition),
                viewonly=True,
            )

        child = create_model("ChildOut", __base__=Out, shown=(int, Field(validation_alias=field)))
        crud: Any = Crud(Parent, create_model("P", __base__=Out, children=(list[child], ...)), "p:{id}")
        fingerprint: bytes = crud._layout.fingerprint
        return fingerprint

    same = fingerprint("age", 3, "id")
    assert fingerprint("age", 3, "id") == same
    assert same not in (fingerprint("id", 3, "id"), fingerprint("age", 4, "id"), fingerprint("age", 3, "age"))


class Racks(DeclarativeBase):
    """Tables of racks."""


class Rack(SoftDeleteMixin, Racks):
    """A parent that is deleted softly."""

    __tablename__ = "racks"
    id: Mapped[int] = mapped_column(primary_key=True)


class Jar(Racks):
    """A child that always has a rack."""

    __tablename__ = "jars"
    id: Mapped[int] = mapped_column(primary_key=True)
    rack_id: Mapped[int] = mapped_column(ForeignKey("racks.id"))
    rack: Mapped[Rack] = relationship()


class RackOut(Out):
    """A rack."""

    id: int


class BareJar(Out):
    """A jar that says of a rack that is not there what it likes."""

    rack: RackOut

    @field_validator("rack", mode="before")
    @classmethod
    def _some(cls, given: Any) -> Any:
        return given or RackOut(id=0)


def test_a_parent_that_is_deleted_softly_may_be_none() -> None:
    """A field that demands a parent whose deletion hides it is refused, unless a validator of its own minds that."""
    problem = r"rack .* deleted softly and then not shown: annotate it with RackOut \| None"
    assert re.search(problem, refused(Jar, create_model("JarOut", __base__=Out, rack=(RackOut, ...))))
    assert "racks" in shown(Jar, create_model("JarOut", __base__=Out, rack=(RackOut | None, ...)))
    assert "racks" in shown(Jar, BareJar)


def test_remarks_have_one_table() -> None:
    """A relationship to a class that shares its table names that table once."""
    remark = create_model("RemarkOut", __base__=Out, id=(int, ...))
    assert shown(Author, create_model("A", __base__=Out, reviews=(list[remark], ...))) == {Remark.__tablename__}


def test_dump_and_load_keep_nested_responses() -> None:
    """What is stored of nested responses reads back equal, alone and in lists."""
    crud: Any = Crud(Author, AuthorOut, "a:{id}")
    book = BookBrief(id=1, title="x", publisher=None, tags=[TagOut(id=1, label="red")])
    author = AuthorOut(id=1, name="Ann", books=[book, book])
    responses = crud._responses
    assert responses.load(responses.dump(author)) == author
    assert responses.load_list(responses.dump_list([author, author])) == [author, author]
