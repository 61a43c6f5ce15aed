"""A model with every column mixin, its schemas and its crud, for the tests of models on real databases."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

from pydantic import BaseModel as Schema
from pydantic import ConfigDict
from sqlalchemy import MetaData, String
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import Mapped, mapped_column

from fastrdb import Cache, Crud
from fastrdb.db import BaseModel, FullAuditMixin, VersionedMixin, naming_convention


class Apart(BaseModel):
    """Models of the tests, with metadata of their own."""

    __abstract__ = True
    metadata = MetaData(naming_convention=naming_convention())


class Person(Apart, FullAuditMixin, VersionedMixin):
    """All columns that the mixins have, and a name."""

    __tablename__ = "people"
    name: Mapped[str] = mapped_column(String(50), unique=True)


class Plain(Apart):
    """A model with an id, a name and timestamps."""

    name: Mapped[str] = mapped_column(String(50))


class PersonIn(Schema):
    """What ``create`` takes."""

    name: str
    tenant_id: str | None = None
    created_by: str | None = None


class PersonChange(Schema):
    """What ``update`` takes."""

    name: str | None = None
    updated_by: str | None = None
    version: int | None = None


class PersonOut(Schema):
    """What reads and writes give: every column."""

    model_config = ConfigDict(from_attributes=True)
    id: UUID
    name: str
    tenant_id: str
    is_active: bool
    deleted_at: datetime | None
    created_at: datetime
    updated_at: datetime
    created_by: str | None
    updated_by: str | None
    request_id: str | None
    version: int


PersonCrud = Crud[Person, PersonIn, PersonChange, PersonOut]


class People(NamedTuple):
    """An empty database, a cache and a crud that asks for no tenant."""

    engine: AsyncEngine
    db: async_sessionmaker[AsyncSession]
    cache: Cache
    crud: PersonCrud

    async def create(self, name: str = "Ann", **fields: Any) -> PersonOut:
        """Insert a person, of the tenant ``acme`` where no fields are given."""
        given = PersonIn(name=name, **(fields or {"tenant_id": "acme"}))
        return await self.crud.create(db=self.db, redis=self.cache, obj_in=given)

    async def update(self, id: UUID, **fields: Any) -> PersonOut:
        """Change a person."""
        return await self.crud.update(db=self.db, redis=self.cache, obj_in=PersonChange(**fields), id=id)

    async def get(self, id: UUID) -> PersonOut:
        """Read a person, from the cache if it is there."""
        return await self.crud.get(db=self.db, redis=self.cache, id=id)

    async def stored(self, id: UUID) -> PersonOut:
        """Read a person from the database."""
        return await self.crud.get(db=self.db, redis=None, id=id)


@asynccontextmanager
async def people_in(url: str) -> AsyncIterator[People]:
    """Tables in an empty database, and what the tests need around them."""
    engine = create_async_engine(url)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Apart.metadata.create_all)
        async with Cache.from_url("memory://") as cache:
            crud: PersonCrud = Crud[Person, PersonIn, PersonChange, PersonOut](
                Person,
                PersonOut,
                pattern=("person:{id}", "person:name:{name}"),
                list_pattern="people:{page}:{limit}",
                tenant=False,
            )
            yield People(engine, async_sessionmaker(engine, expire_on_commit=False), cache, crud)
    finally:
        await engine.dispose()
