"""Documents that belong to tenants and are deleted softly, with cruds on them, for the tests of policies."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from pydantic import BaseModel as Schema
from pydantic import ConfigDict
from sqlalchemy import ForeignKey, MetaData, String, event, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastrdb import Cache, Crud
from fastrdb.db import AuditMixin, SoftDeleteMixin, TenantAwareMixin, VersionedMixin, naming_convention


class Base(DeclarativeBase):
    """The tables of these tests."""

    metadata = MetaData(naming_convention=naming_convention())


class Doc(Base, TenantAwareMixin, SoftDeleteMixin, VersionedMixin, AuditMixin):
    """A tenant's document."""

    __tablename__ = "docs"
    id: Mapped[int] = mapped_column(primary_key=True)
    slug: Mapped[str] = mapped_column(String(50), index=True)
    folder: Mapped[int] = mapped_column(default=1)
    title: Mapped[str] = mapped_column(String(50))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("docs.id"))
    children: Mapped[list["Doc"]] = relationship(viewonly=True)


class Remark(Base):
    """Goes with its document."""

    __tablename__ = "remarks"
    id: Mapped[int] = mapped_column(primary_key=True)
    doc_id: Mapped[int] = mapped_column(ForeignKey("docs.id", ondelete="CASCADE"))


class DocIn(Schema):
    """What ``create`` takes; what is not declared is a column's, too."""

    model_config = ConfigDict(extra="allow")
    slug: str
    title: str = "t"


class DocChange(Schema):
    """What ``update`` takes."""

    model_config = ConfigDict(extra="allow")
    title: str | None = None


class DocOut(Schema):
    """What reads and writes give."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    tenant_id: str
    slug: str
    folder: int
    title: str
    is_active: bool
    deleted_at: datetime | None
    updated_by: str | None
    version: int


class RemarkOut(Schema):
    """A remark."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    doc_id: int


DocCrud = Crud[Doc, DocIn, DocChange, DocOut]

WITHOUT: dict[str, Any] = {
    "pattern": ("doc:{id}", "doc:slug:{slug}"),
    "list_pattern": "docs:page:{page}:limit:{limit}",
}
WITH: dict[str, Any] = {
    "pattern": ("doc:{tenant_id}:{id}", "doc:{tenant_id}:slug:{slug}"),
    "list_pattern": "docs:{tenant_id}:page:{page}:limit:{limit}",
}
OF_FOLDERS: dict[str, Any] = {
    "pattern": ("doc:{id}", "doc:slug:{slug}"),
    "list_pattern": "docs:folder:{folder}:page:{page}:limit:{limit}",
    "invalidate_pattern_prefix": "docs:*",
}
TEMPLATES = {"without": WITHOUT, "with": WITH, "of folders": OF_FOLDERS}


def doc_crud(**options: Any) -> DocCrud:
    """A crud of documents, whose templates do not name the tenant."""
    return Crud[Doc, DocIn, DocChange, DocOut](Doc, DocOut, **{**WITHOUT, **options})


class Shelf:
    """A database, a cache, and how both are used.

    Attributes:
        given: What every call takes.
        crud: Documents, of tenants, deleted softly.
        loose: The same, of nobody.
        sent: The statements that were sent.
    """

    def __init__(self, engine: AsyncEngine, cache: Cache) -> None:
        self.engine, self.cache = engine, cache
        self.factory = async_sessionmaker(engine, expire_on_commit=False)
        self.given: dict[str, Any] = {"db": self.factory, "redis": cache}
        self.crud, self.loose = doc_crud(), doc_crud(tenant=False)
        self.sent: list[str] = []
        event.listen(
            engine.sync_engine,
            "before_cursor_execute",
            lambda *args: None if "relrowsecurity" in args[2] else self.sent.append(args[2]),
        )

    async def is_hit(self, read: Callable[[], Awaitable[Any]]) -> bool:
        """Whether a read needs no SQL."""
        before = len(self.sent)
        await read()
        return len(self.sent) == before

    async def cached(self, read: Callable[[], Awaitable[Any]]) -> Any:
        """Read twice, the second time from the cache."""
        first = await read()
        assert await self.is_hit(read)
        assert await read() == first
        return first

    async def make(self, slug: str = "one", **fields: Any) -> DocOut:
        """Insert a document, of the tenant ``acme``."""
        return await self.crud.create(**self.given, obj_in=DocIn(slug=slug, **fields), tenant_id="acme")

    async def stored(self, id: int) -> Any:
        """What the database has of a document, by the ORM; ``None`` where it has none."""
        async with AsyncSession(self.engine) as session:
            return (await session.scalars(select(Doc).where(Doc.id == id))).one_or_none()


@asynccontextmanager
async def shelf_in(url: str, redis_url: str) -> AsyncIterator[Shelf]:
    """Tables in an empty database, and a cache."""
    engine = create_async_engine(url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    try:
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        async with Cache.from_url(redis_url) as cache:
            yield Shelf(engine, cache)
    finally:
        await engine.dispose()
