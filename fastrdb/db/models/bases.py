"""The bases that models are derived from."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar

from sqlalchemy import Column, MetaData, Table
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, has_inherited_table, mapped_column

from .custom import is_a_base
from .guid import GUID
from .mapping import Mapping
from .naming import naming_convention, snake_case
from .records import Record
from .timestamps import created_at_column, updated_at_column


def _owner_of_name(cls: type[Any]) -> type[Any]:
    """Give the class that says how a class's table is called; ``Conventions`` where no other does."""
    return next(each for each in cls.__mro__ if "__tablename__" in vars(each))


class Conventions(Record, Mapping):
    """What ``Base`` adds to SQLAlchemy's ``DeclarativeBase``; for a second base, with tables and metadata of its own.

    ``class Ledger(Conventions, DeclarativeBase): metadata = MetaData(naming_convention=naming_convention())``
    """

    __abstract__: ClassVar[bool]

    def __init_subclass__(cls, **options: Any) -> None:
        if DeclarativeBase not in cls.__bases__ and is_a_base(cls, Conventions):
            cls.__abstract__ = True
        elif has_inherited_table(cls) and "__table__" in vars(_owner_of_name(cls)):
            cls.__tablename__ = None  # SQLAlchemy would take the parent's name for that of a second table
        super().__init_subclass__(**options)

    if TYPE_CHECKING:
        __tablename__: Any  # subclasses assign text
    else:

        @declared_attr.directive
        def __tablename__(cls) -> str | None:
            return None if has_inherited_table(cls) else cls.get_table_prefix() + snake_case(cls.__name__)

    @classmethod
    def get_table_prefix(cls) -> str:
        """Give what the names of all tables begin with, those that a model spells out included. Override it."""
        return ""

    @classmethod
    def _table_name(cls, name: str) -> str:
        owner = _owner_of_name(cls)
        if owner is Conventions:
            return name  # has the prefix already
        full = cls.get_table_prefix() + name
        if owner is cls:
            cls.__tablename__ = full
        return full

    @classmethod
    def _complete_table(cls, table: Table) -> None:
        if not table.primary_key.columns and not has_inherited_table(cls):
            table.append_column(Column("id", GUID(), primary_key=True, default=uuid.uuid4))
        super()._complete_table(table)


class Base(Conventions, DeclarativeBase):
    """The base of all models; what it has in particular:

    - ``uuid.UUID`` annotations are ``GUID`` columns.
    - Constraints and indexes have names, the same on every database.
    - A table is named after its class, ``OrderItem`` -> ``order_item``, unless ``__tablename__`` says otherwise;
      ``get_table_prefix`` goes before either.
    - A subclass that names neither a table nor a primary key is a base itself, with columns for its subclasses.
    - A table that names no primary key gets ``id``, as in ``BaseModel``.
    - What the database sets (defaults, ``updated_at``) is there after a flush.
    """

    metadata = MetaData(naming_convention=naming_convention())
    type_annotation_map: ClassVar[dict[Any, Any]] = {uuid.UUID: GUID()}


class BaseModel(Base):
    """The base of models with an ``id`` and two timestamps.

    A base of your own below this one says ``__abstract__ = True``.

    Attributes:
        id: A random UUID; ``SortableKeyMixin`` makes it one that sorts by time.
        created_at: Of the INSERT, by the database's clock, in UTC.
        updated_at: Of the last INSERT or UPDATE, by the database's clock, in UTC.
    """

    __abstract__ = True

    id: Mapped[uuid.UUID] = mapped_column(GUID(), primary_key=True, default=uuid.uuid4, sort_order=-1)
    created_at: Mapped[datetime] = created_at_column()
    updated_at: Mapped[datetime] = updated_at_column()

    def refresh_updated_at(self) -> None:
        """Set ``updated_at`` to now, by this process's clock: a row of which nothing else changed is written, too."""
        self.updated_at = datetime.now(UTC)
