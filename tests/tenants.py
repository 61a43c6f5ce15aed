"""Notes of several tenants under row-level security, a role that is bound by it, and one that is not."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict
from sqlalchemy import make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, foreign, mapped_column, relationship

from fastrdb import Cache, Crud
from fastrdb.tenancy import RLSPolicyManager


class Base(DeclarativeBase):
    """The tables of these tests."""


class Note(Base):
    """A row of a tenant."""

    __tablename__ = "notes"
    id: Mapped[int] = mapped_column(primary_key=True)
    tenant_id: Mapped[str]
    folder: Mapped[int] = mapped_column(default=1)
    text: Mapped[str]


class Country(Base):
    """A row of everybody."""

    __tablename__ = "countries"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    notes: Mapped[list[Note]] = relationship(primaryjoin=lambda: foreign(Note.folder) == Country.id, viewonly=True)


class NoteIn(BaseModel):
    """What ``create`` takes."""

    tenant_id: str
    text: str
    folder: int = 1


class NoteChange(BaseModel):
    """What ``update`` takes."""

    text: str | None = None
    folder: int | None = None


class NoteOut(BaseModel):
    """What reads give."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    tenant_id: str
    folder: int
    text: str


class CountryOut(BaseModel):
    """What reads give."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


NoteCrud = Crud[Note, NoteIn, NoteChange, NoteOut]


def note_crud(**options: Any) -> NoteCrud:
    """Notes, cached by id, and as lists of a folder."""
    defaults: dict[str, Any] = {
        "pattern": "note:id:{id}",
        "list_pattern": "note:folder:{folder}:page:{page}:limit:{limit}",
        "exp": 600,
    }
    return Crud[Note, NoteIn, NoteChange, NoteOut](Note, NoteOut, **{**defaults, **options})


def country_crud() -> Crud[Country, Any, Any, CountryOut]:
    """Countries, cached by id."""
    return Crud(Country, CountryOut, pattern="country:id:{id}", exp=600)


class Tenants:
    """One note of each of two tenants, "a" (1) and "b" (2), and a country (1).

    Attributes:
        url: The database, as the ordinary role, which owns its tables.
        engine, factory: Of that role; ``sent`` grows by each statement but the question which tables hide rows.
        admin: A factory of the superuser's sessions, whom nothing binds.
    """

    def __init__(self, url: str, redis_url: str, role: str, through: str | None, options: dict[str, Any]) -> None:
        self.url = make_url(url).set(username=role).render_as_string(hide_password=False)
        self.role = role
        self.engine = create_async_engine(through or self.url, **options)
        self.admin_engine = create_async_engine(url, connect_args={"server_settings": {"role": "none"}})
        self.factory = async_sessionmaker(self.engine, expire_on_commit=False)
        self.admin = async_sessionmaker(self.admin_engine, expire_on_commit=False)
        self.cache = Cache.from_url(redis_url)
        self.notes, self.countries = note_crud(), country_crud()

    async def texts(self, session: AsyncSession) -> list[str]:
        """The notes that a session is shown."""
        return list((await session.execute(text("SELECT text FROM notes ORDER BY id"))).scalars())

    async def close(self) -> None:
        """End it all."""
        await self.cache.aclose()
        await self.engine.dispose()
        async with self.admin_engine.begin() as connection:
            await connection.exec_driver_sql(f"REASSIGN OWNED BY {self.role} TO CURRENT_USER")
            await connection.exec_driver_sql(f"DROP OWNED BY {self.role}")
        async with self.admin_engine.begin() as connection:
            await connection.exec_driver_sql(f"DROP ROLE {self.role}")
        await self.admin_engine.dispose()


async def owned(engine: AsyncEngine, role: str) -> None:
    """Make an ordinary role, and let it own the database's schema ``public``."""
    async with engine.begin() as connection:
        await connection.exec_driver_sql(f"CREATE ROLE {role} LOGIN")
        await connection.exec_driver_sql(f"GRANT CREATE ON DATABASE {engine.url.database} TO {role}")
        await connection.exec_driver_sql(f"ALTER SCHEMA public OWNER TO {role}")


@asynccontextmanager
async def opened(url: str, redis_url: str, through: str | None = None, **options: Any) -> AsyncIterator[Tenants]:
    """Two tenants with their notes in place, under a policy.

    Args:
        through: The database through a pooler, which connects as a role of its own: the database changes that.
        options: Of the ordinary role's engine.
    """
    tenants = Tenants(url, redis_url, f"ordinary_{uuid4().hex[:12]}", through, options)
    try:
        await owned(tenants.admin_engine, tenants.role)
        async with tenants.admin_engine.begin() as connection:
            await connection.exec_driver_sql(f"ALTER DATABASE {tenants.engine.url.database} SET role = {tenants.role}")
        setup = create_async_engine(tenants.url)
        async with setup.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.exec_driver_sql("INSERT INTO notes (tenant_id, folder, text) VALUES ('a', 1, 'of a')")
            await connection.exec_driver_sql("INSERT INTO notes (tenant_id, folder, text) VALUES ('b', 1, 'of b')")
            await connection.exec_driver_sql("INSERT INTO countries (name) VALUES ('Chad')")
        async with AsyncSession(setup) as session:
            manager = RLSPolicyManager(session)
            await manager.enable_rls(Note)
            await manager.create_tenant_policy(Note)
            await session.commit()
        await setup.dispose()
        yield tenants
    finally:
        await tenants.close()
