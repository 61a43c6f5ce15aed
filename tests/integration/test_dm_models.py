"""What the documentation of dotmac-database shows of models, done with fastrdb: only the imports differ."""

from collections.abc import AsyncIterator

import pytest
from sqlalchemy import Column, MetaData, Numeric, String, Text, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from fastrdb import db
from fastrdb.context import actor, tenant
from fastrdb.db import AuditMixin, SoftDeleteMixin, TenantAwareMixin, naming_convention


class Base(db.Base):
    """The base, with metadata of this module's own."""

    __abstract__ = True
    metadata = MetaData(naming_convention=naming_convention())


class BaseModel(db.BaseModel):
    """The model base, with the same metadata."""

    __abstract__ = True
    metadata = Base.metadata


class User(BaseModel):
    """A model in the style of ``Column``."""

    __tablename__ = "users"

    email = Column(String(255), unique=True, nullable=False)
    name = Column(String(255), nullable=False)


class Product(BaseModel):
    """A model with id and timestamps."""

    __tablename__ = "products"

    name = Column(String(255), nullable=False)
    price = Column(Numeric(10, 2), nullable=False)


class Category(BaseModel, SoftDeleteMixin):
    """A model that is deleted softly."""

    __tablename__ = "categories"

    name = Column(String(255), nullable=False)


class Order(BaseModel, AuditMixin):
    """A model with an audit trail."""

    __tablename__ = "orders"

    total = Column(Numeric(10, 2), nullable=False)


class TenantData(BaseModel, TenantAwareMixin):
    """A model of tenants."""

    __tablename__ = "tenant_data"

    content = Column(Text)


class CustomBase(Base):
    """A base with a column and a prefix."""

    organization_id: Mapped[str | None] = mapped_column(String(50))

    @classmethod
    def get_table_prefix(cls) -> str:
        """What the names of its tables begin with."""
        return "myorg_"


class MyModel(CustomBase):
    """A model of the custom base, which names no primary key."""

    __tablename__ = "my_models"

    name: Mapped[str] = mapped_column(String(255))


@pytest.fixture(params=["memory", "sqlite_url", "postgres_url"], ids=["memory", "sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """A database in memory, in a file, and on PostgreSQL."""
    return "sqlite+aiosqlite:///:memory:" if request.param == "memory" else str(request.getfixturevalue(request.param))


@pytest.fixture
async def test_engine(url: str) -> AsyncIterator[AsyncEngine]:
    """An engine with all tables."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield engine
    await engine.dispose()


@pytest.fixture
async def test_session(test_engine: AsyncEngine) -> AsyncIterator[AsyncSession]:
    """A session, rolled back at the end."""
    async_session = async_sessionmaker(test_engine)
    async with async_session() as session:
        yield session
        await session.rollback()


async def test_user_creation(test_session: AsyncSession) -> None:
    """A flush gives a user its id and its time of creation."""
    user = User(name="Test User", email="test@example.com")
    test_session.add(user)
    await test_session.flush()

    assert user.id is not None
    assert user.created_at is not None
    users = (await test_session.execute(select(User))).scalars().all()
    assert users == [user]
    assert user.dict()["email"] == "test@example.com"


async def test_dm_1_soft_delete(test_session: AsyncSession) -> None:
    """A category has the fields, the method and the property."""
    category = Category(name="Books")
    test_session.add(category)
    await test_session.flush()
    assert (category.is_active, category.deleted_at, category.is_deleted) == (True, None, False)
    category.soft_delete()
    await test_session.flush()
    assert (category.is_active, category.is_deleted) == (False, True)
    assert (await test_session.scalars(select(Category).where(Category.active_only()))).all() == []


async def test_dm_1_audit(test_session: AsyncSession) -> None:
    """An order knows who made it, by hand or from the context."""
    order, other = Order(total=3), Order(total=4)
    order.set_audit_fields("ann", "r1")
    test_session.add_all([order, other])
    with actor("bob", "r2"):
        await test_session.flush()
    assert (order.created_by, order.updated_by, order.request_id) == ("ann", "ann", "r1")
    assert (other.created_by, other.updated_by, other.request_id) == ("bob", "bob", "r2")


async def test_dm_1_tenants(test_session: AsyncSession) -> None:
    """Data of a tenant need one, and are found by it."""
    test_session.add(TenantData(content="a", tenant_id="acme"))
    with tenant("other"):
        test_session.add(TenantData(content="b"))
        await test_session.flush()
    found = (await test_session.scalars(select(TenantData.content).where(TenantData.by_tenant("acme")))).all()
    assert found == ["a"]
    test_session.add(TenantData(content="c"))
    with pytest.raises(IntegrityError):
        await test_session.flush()


async def test_plain_model(test_session: AsyncSession) -> None:
    """A product needs no more than its own columns."""
    test_session.add(Product(name="Pen", price=2))
    await test_session.flush()
    assert (await test_session.scalars(select(Product.name))).all() == ["Pen"]


async def test_dm_10_custom_base(test_session: AsyncSession) -> None:
    """A model of a custom base has its column, its prefix, and a key, though nobody named one."""
    assert MyModel.__tablename__ == "myorg_my_models"
    row = MyModel(name="a", organization_id="o")
    test_session.add(row)
    await test_session.flush()
    found = (await test_session.execute(select(MyModel.name, MyModel.organization_id))).all()
    assert [tuple(each) for each in found] == [("a", "o")]
    assert row.to_dict()["id"].version == 4
    assert "custom_base" not in Base.metadata.tables
