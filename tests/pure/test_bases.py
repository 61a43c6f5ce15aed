"""How classes become tables: bases, mixins and their combinations, without any database."""

import itertools
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Annotated, Any

import pytest
from sqlalchemy import (
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column

from fastrdb import UnknownField, ValueRefused, db
from fastrdb.db import (
    GUID,
    AuditMixin,
    Base,
    BaseModel,
    Conventions,
    FullAuditMixin,
    SoftDeleteAuditMixin,
    SoftDeleteMixin,
    SortableKeyMixin,
    TenantAuditMixin,
    TenantAwareMixin,
    TimestampMixin,
    VersionedMixin,
    naming_convention,
)

MIXINS = (SoftDeleteMixin, AuditMixin, TenantAwareMixin, TimestampMixin, VersionedMixin)
COLUMNS = {
    SoftDeleteMixin: {"is_active", "deleted_at"},
    AuditMixin: {"created_by", "updated_by", "request_id"},
    TenantAwareMixin: {"tenant_id"},
    TimestampMixin: {"created_at", "updated_at"},
    VersionedMixin: {"version"},
}
COMBINED = {
    SoftDeleteAuditMixin: (SoftDeleteMixin, AuditMixin),
    TenantAuditMixin: (TenantAwareMixin, AuditMixin),
    FullAuditMixin: (TenantAwareMixin, SoftDeleteMixin, AuditMixin),
}
NUMBERS = itertools.count()


class Scratch(BaseModel):
    """Models with ``id`` and timestamps, apart from all others."""

    __abstract__ = True
    metadata = MetaData(naming_convention=naming_convention())


class Keyless(Base):
    """Models without columns, apart from all others."""

    __abstract__ = True
    metadata = MetaData(naming_convention=naming_convention())


def model(*bases: type[Any], **attributes: Any) -> Any:
    """A new model."""
    return type(f"Model{next(NUMBERS)}", bases, {"__module__": __name__, **attributes})


def index_names(table: Table) -> set[str]:
    """The names of a table's indexes, without the table's own."""
    return {str(index.name).removeprefix(f"idx_{table.name}_") for index in table.indexes}


def check_names(table: Table) -> set[str]:
    """The names of a table's CHECKs, without the table's own."""
    checks = (c for c in table.constraints if isinstance(c, CheckConstraint))
    return {str(check.name).removeprefix(f"ck_{table.name}_") for check in checks}


def test_dm_1_every_combination_of_mixins_is_a_model() -> None:
    """Any of the five mixins, in either order and on either side of the base, gives a model with all their columns."""
    for size in range(1, len(MIXINS) + 1):
        for mixins in itertools.combinations(MIXINS, size):
            back = mixins[::-1]
            for bases in ((Scratch, *mixins), (*mixins, Scratch), (Scratch, *back), (*back, Scratch)):
                made = model(*bases)
                wanted = {"id", "created_at", "updated_at"}.union(*(COLUMNS[mixin] for mixin in mixins))
                assert set(made.__table__.c.keys()) == wanted, bases
                assert (made.__mapper__.version_id_col is not None) == (VersionedMixin in mixins)
                assert made()  # an instance can be made


@pytest.mark.parametrize("combined", COMBINED, ids=lambda mixin: mixin.__name__)
def test_dm_1_combined_mixins_are_what_they_combine(combined: type[Any]) -> None:
    """A combined mixin has the columns of its parts, goes with the others, and is an instance of each part."""
    parts = COMBINED[combined]
    others = [mixin for mixin in MIXINS if mixin not in parts]
    for bases in ((Scratch, combined), (combined, Scratch), (Scratch, combined, *others), (*others, combined, Scratch)):
        made = model(*bases)
        assert set().union(*(COLUMNS[part] for part in parts)) <= set(made.__table__.c.keys())
        assert all(issubclass(made, part) for part in parts)


def test_mixins_bring_their_indexes_and_checks() -> None:
    """Indexes and CHECKs of all mixins are there, beside the model's own."""
    own = (CheckConstraint("amount > 0", name="positive"), Index(None, "amount", "tenant_id"))
    table = model(Scratch, FullAuditMixin, VersionedMixin, amount=Column(Integer), __table_args__=own).__table__
    assert index_names(table) == {
        *("created_at", "updated_at", "tenant_id", "tenant_id_created_at", "is_active_deleted_at"),
        *("created_by", "updated_by", "amount_tenant_id"),
    }
    assert check_names(table) == {"positive", "soft_delete"}


def test_tenant_index_needs_created_at() -> None:
    """Without ``created_at`` there is just the index on the tenant."""
    assert index_names(model(Keyless, TenantAwareMixin, __tablename__="plain").__table__) == {"tenant_id"}


def test_mapper_arguments_of_a_model_do_not_switch_versions_off() -> None:
    """A model's own ``__mapper_args__`` stand beside what the mixins need."""
    made = model(Scratch, VersionedMixin, __mapper_args__={"confirm_deleted_rows": False})
    assert made.__mapper__.version_id_col is made.__table__.c.version
    assert (made.__mapper__.eager_defaults, made.__mapper__.confirm_deleted_rows) == (True, False)


def test_mixins_work_on_any_declarative_base() -> None:
    """A base that is not fastrdb's may use the mixins, and keeps its names."""

    class Elsewhere(DeclarativeBase):
        pass

    class Note(FullAuditMixin, VersionedMixin, TimestampMixin, Elsewhere):
        __tablename__ = "notes"
        id: Mapped[int] = mapped_column(primary_key=True)

    assert check_names(Note.__table__) == {"soft_delete"}  # type: ignore[arg-type]  # a Table
    assert Note.__mapper__.version_id_col is Note.__table__.c.version


def test_second_base_has_tables_of_its_own() -> None:
    """``Conventions`` makes further bases, each with metadata of its own."""

    class Ledger(Conventions, DeclarativeBase):
        metadata = MetaData(naming_convention=naming_convention())

    class LedgerEntry(Ledger):
        id: Mapped[int] = mapped_column(primary_key=True)

    assert list(Ledger.metadata.tables) == ["ledger_entry"]
    assert "ledger_entry" not in Base.metadata.tables


def test_dm_11_every_name_that_is_offered_is_there() -> None:
    """What ``fastrdb.db`` lists can be imported from it."""
    assert [name for name in db.__all__ if not hasattr(db, name)] == []


# Names of tables.


class Prefixed(Keyless):
    """A base with a column and a prefix."""

    organization_id: Mapped[str | None] = mapped_column(String(50))

    @classmethod
    def get_table_prefix(cls) -> str:
        """What the tables begin with."""
        return "myorg_"


def test_dm_10_custom_base_with_columns_is_no_table() -> None:
    """A base that adds columns maps no table, and its models have them."""
    assert "__table__" not in vars(Prefixed)
    assert not hasattr(Prefixed, "__mapper__")
    made = model(Prefixed, id=mapped_column(Integer, primary_key=True))
    assert set(made.__table__.c.keys()) == {"id", "organization_id"}


def test_dm_10_explicit_names_have_the_prefix() -> None:
    """A name that a model spells out gets the prefix, once, and so does an automatic one."""

    class MyModel(Prefixed):
        __tablename__ = "my_models"
        name: Mapped[str] = mapped_column(String(255))

    class HTTPRequest(Prefixed):
        id: Mapped[int] = mapped_column(primary_key=True)

    assert (MyModel.__table__.name, MyModel.__tablename__) == ("myorg_my_models", "myorg_my_models")  # type: ignore[attr-defined]  # a Table
    assert HTTPRequest.__table__.name == HTTPRequest.__tablename__ == "myorg_http_request"  # type: ignore[attr-defined]  # a Table


def test_names_from_mixins_have_the_prefix_too() -> None:
    """A ``__tablename__`` that a mixin computes or states is as good as the model's own."""

    class Plural:
        @declared_attr.directive
        def __tablename__(cls) -> str:
            return cls.__name__.lower() + "s"  # type: ignore[attr-defined]  # a class

    class Named:
        __tablename__ = "named"

    class Dog(Plural, Prefixed):
        id: Mapped[int] = mapped_column(primary_key=True)

    class Cat(Named, Prefixed):
        id: Mapped[int] = mapped_column(primary_key=True)

    assert Dog.__table__.name == "myorg_dogs"  # type: ignore[attr-defined]  # a Table
    assert Cat.__table__.name == "myorg_named"  # type: ignore[attr-defined]  # a Table


def test_inheritance_is_sqlalchemys() -> None:
    """A subclass of a model shares its table, unless it names one of its own."""

    class Employee(Scratch, VersionedMixin, SoftDeleteMixin):
        kind: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "employee"}

    class Manager(Employee):
        level: Mapped[int | None]
        __mapper_args__ = {"polymorphic_identity": "manager"}

    class Engineer(Employee):
        __tablename__ = "engineers"
        id: Mapped[uuid.UUID] = mapped_column(ForeignKey("employee.id"), primary_key=True)
        __mapper_args__ = {"polymorphic_identity": "engineer"}

    class Named(Prefixed):
        __tablename__ = "named_parents"
        id: Mapped[int] = mapped_column(primary_key=True)
        kind: Mapped[str]
        __mapper_args__ = {"polymorphic_on": "kind", "polymorphic_identity": "parent"}

    class Child(Named):
        __mapper_args__ = {"polymorphic_identity": "child"}

    class Grandchild(Child):
        __mapper_args__ = {"polymorphic_identity": "grandchild"}

    assert Named.__table__.name == "myorg_named_parents"  # type: ignore[attr-defined]  # a Table
    assert Grandchild.__table__ is Child.__table__ is Named.__table__
    assert Manager.__table__ is Employee.__table__
    assert [c.name for c in Engineer.__table__.columns] == ["id"]
    assert Manager.__mapper__.version_id_col is Engineer.__mapper__.version_id_col is Employee.__table__.c.version


KEY = Annotated[int, mapped_column(primary_key=True)]


def test_primary_keys_are_found_wherever_they_are_declared() -> None:
    """A model without a table name is no base if its key is annotated, inherited, or named in ``__table_args__``."""

    class Annotating(Keyless):
        id: Mapped[KEY]

    class InText(Keyless):
        id: "Mapped[KEY]"
        note: "Mapped[str | None]"

    class Declaring:
        @declared_attr
        def id(cls) -> Mapped[int]:
            return mapped_column(primary_key=True)

    class Inheriting(Declaring, Keyless):
        pass

    class Constraining(Keyless):
        a = Column(Integer)
        b = Column(Integer)
        __table_args__ = (PrimaryKeyConstraint("a", "b"),)

    for made in (Annotating, InText, Inheriting):
        assert [column.name for column in made.__table__.primary_key.columns] == ["id"]  # type: ignore[attr-defined]  # a Table
    assert [column.name for column in Constraining.__table__.primary_key.columns] == ["a", "b"]  # type: ignore[attr-defined]  # a Table


def test_table_object_is_taken_as_it_is() -> None:
    """A model with a ``__table__`` of its own keeps its name and columns."""
    table = Table("given", MetaData(), Column("number", Integer, primary_key=True))
    made = model(Keyless, __table__=table)
    assert (made.__table__ is table, table.name, table.c.keys()) == (True, "given", ["number"])


def test_key_of_a_sortable_model_is_a_uuid7() -> None:
    """``SortableKeyMixin`` decides about the key on either side of ``BaseModel``, and on a base without one."""
    for bases in ((Scratch, SortableKeyMixin), (SortableKeyMixin, Scratch), (Keyless, SortableKeyMixin)):
        column = model(*bases, __tablename__=f"sorted_{next(NUMBERS)}").__table__.c.id
        assert (column.primary_key, column.default.arg(None).version) == (True, 7)
    assert model(Scratch).__table__.c.id.default.arg(None).version == 4


def test_uuid_annotations_are_guids() -> None:
    """``Mapped[uuid.UUID]`` needs no type."""

    class Annotated(Keyless):
        id: Mapped[uuid.UUID] = mapped_column(primary_key=True)

    assert isinstance(Annotated.__table__.c.id.type, GUID)


# Instances.


class Person(Scratch, FullAuditMixin, VersionedMixin):
    """A model with a secret."""

    name: Mapped[str] = mapped_column(String(20))
    password: Mapped[str | None] = mapped_column(String(20))


WRITTEN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_to_dict_has_all_columns() -> None:
    """``to_dict`` gives every column by its attribute, without those excluded; ``dict`` is the same."""
    key = uuid.uuid4()
    person = Person(id=key, name="Ann", password="hidden")
    assert set(person.to_dict()) == set(Person.__table__.c.keys())
    assert person.dict() == person.to_dict()
    assert person.to_dict(exclude={"password"}) == {k: v for k, v in person.to_dict().items() if k != "password"}
    assert (person.to_dict()["id"], person.dict(exclude=["id"]).get("id")) == (key, None)


def test_from_dict_takes_what_to_dict_gives() -> None:
    """A dict makes an equal instance, also when it has been JSON in between."""
    key = uuid.uuid4()
    person = Person(id=key, name="Ann", created_at=WRITTEN)
    assert Person.from_dict(person.to_dict()).to_dict() == person.to_dict()
    as_text = {"id": str(key), "created_at": WRITTEN.isoformat(), "name": "Ann"}
    assert Person.from_dict(as_text).to_dict() == person.to_dict()


def test_update_from_dict_keeps_key_and_creation() -> None:
    """``id`` and ``created_at`` stay, unless other names are excluded."""
    person = Person(name="Ann", created_at=WRITTEN)
    person.update_from_dict({"id": uuid.uuid4(), "created_at": "2000-01-01T00:00:00Z", "name": "Bob"})
    assert (person.id, person.created_at, person.name) == (None, WRITTEN, "Bob")
    person.update_from_dict({"created_at": "2000-01-01T00:00:00Z", "name": "Eve"}, exclude={"name"})
    assert (person.created_at.year, person.name) == (2000, "Bob")


def test_dicts_with_mistakes_are_refused() -> None:
    """An unknown name or a value that does not fit raises, and nothing is set."""
    person = Person(name="Ann")
    with pytest.raises(UnknownField, match=r"nmae.*did you mean 'name'"):
        person.update_from_dict({"name": "Bob", "nmae": "Eve"})
    with pytest.raises(ValueRefused, match="deleted_at"):
        Person.from_dict({"name": "Bob", "deleted_at": "yesterday"})
    assert person.name == "Ann"


def test_repr_shows_the_key_and_no_secret() -> None:
    """A repr names the class and the primary key, and nothing else."""
    key = uuid.uuid4()
    assert repr(Person(id=key, name="Ann", password="hidden")) == f"<Person id={key!r}>"
    assert repr(Person(password="hidden")) == "<Person id=None>"


def test_soft_delete_marks_and_restore_takes_the_mark_back() -> None:
    """The two columns agree at any time, and times are in UTC."""
    person = Person()
    assert not person.is_deleted
    person.soft_delete()
    assert (person.is_deleted, person.is_active) == (True, False)
    person.soft_delete(WRITTEN.astimezone(timezone(timedelta(hours=2))))
    assert person.deleted_at == WRITTEN
    assert person.deleted_at.tzinfo is UTC
    person.soft_delete(WRITTEN.replace(tzinfo=None))
    assert person.deleted_at == WRITTEN
    person.restore()
    assert (person.is_deleted, person.is_active, person.deleted_at) == (False, True, None)


def test_audit_fields_can_be_set_by_hand() -> None:
    """An update leaves who made the row alone, and what is not given is left as it is."""
    person = Person()
    person.set_audit_fields("ann", "r1")
    assert (person.created_by, person.updated_by, person.request_id) == ("ann", "ann", "r1")
    person.set_audit_fields(user_id="bob", is_update=True)
    assert (person.created_by, person.updated_by, person.request_id) == ("ann", "bob", "r1")
    key = uuid.uuid4()
    person.set_audit_fields(key, 7)
    assert (person.created_by, person.request_id) == (str(key), "7"), "ids that are no text become text"


def test_times_can_be_set_by_hand() -> None:
    """``refresh_updated_at`` and ``touch`` set an aware time."""

    class Touched(Scratch, TimestampMixin):
        pass

    row, before = Touched(), datetime.now(UTC)
    row.refresh_updated_at()
    assert before <= row.updated_at <= datetime.now(UTC)
    row.touch(WRITTEN)
    assert row.updated_at == WRITTEN
    row.touch()
    assert before <= row.updated_at <= datetime.now(UTC)


def test_tenant_and_version_of_an_instance() -> None:
    """``belongs_to_tenant`` compares, ``increment_version`` counts from nothing, too."""
    person = Person(tenant_id="acme")
    assert (person.belongs_to_tenant("acme"), person.belongs_to_tenant("other")) == (True, False)
    person.increment_version()
    person.increment_version()
    assert person.version == 2
