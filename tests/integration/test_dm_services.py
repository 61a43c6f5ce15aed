"""What the documentation of dotmac-database shows of sessions, handlers, caches and locks; only the imports differ."""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import pytest
from fastapi import Depends, FastAPI, HTTPException
from httpx import ASGITransport, AsyncClient
from pydantic import BaseModel as Schema
from sqlalchemy import Column, MetaData, String, Text, select, text
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from fastrdb import db
from fastrdb.caching import SmartCache, get_redis_client
from fastrdb.db import (
    TenantAwareMixin,
    create_async_engine,
    defaults,
    get_db,
    get_read_session,
    naming_convention,
    with_async_session,
)
from fastrdb.locks import PgAdvisoryLock, RedisLock
from fastrdb.migrations import get_alembic_config_url
from fastrdb.tenancy import (
    clear_rls_context,
    create_tenant_schema,
    get_rls_context,
    set_rls_context,
    set_schema_search_path,
)

VARIABLES = (
    "DATABASE_URL", "SQLALCHEMY_ECHO", "REDIS_URL", "REDIS_MAX_CONNECTIONS",
    "DB_POOL_SIZE", "DB_MAX_OVERFLOW", "DB_POOL_RECYCLE",
)  # fmt: skip


class BaseModel(db.BaseModel):
    """The model base, with metadata of this module's own."""

    __abstract__ = True
    metadata = MetaData(naming_convention=naming_convention())


class User(BaseModel):
    """Whom the handlers create and list."""

    __tablename__ = "users"

    email = Column(String(255), unique=True, nullable=False)
    name = Column(String(255), nullable=False)


class TenantData(BaseModel, TenantAwareMixin):
    """What lies in each tenant's schema."""

    __tablename__ = "tenant_data"

    content = Column(Text)


class UserCreate(Schema):
    """What a client sends."""

    email: str
    name: str


class Loads:
    """A database that counts how often it is asked."""

    def __init__(self) -> None:
        self.ids: list[int] = []

    async def __call__(self, user_id: int) -> dict[str, Any]:
        """Give a user."""
        self.ids.append(user_id)
        return {"id": user_id, "name": "Ann"}


@pytest.fixture
async def environment(
    monkeypatch: pytest.MonkeyPatch, postgres_url: str, valkey_url: str
) -> AsyncIterator[dict[str, str]]:
    """The variables that the documentation lists, and a database with the tables; no default is left behind."""
    values = ("false", valkey_url, "50", "20", "30", "3600")
    found = dict(zip(VARIABLES, (postgres_url, *values), strict=True))
    for name, value in found.items():
        monkeypatch.setenv(name, value)
    engine = create_async_engine(postgres_url)
    async with engine.begin() as conn:
        await conn.run_sync(BaseModel.metadata.create_all)
    await engine.dispose()
    yield found
    await defaults.reset()


async def test_handlers_create_and_list(environment: dict[str, str]) -> None:
    """Handlers with ``get_db`` and ``get_read_session`` work on the database of the environment."""
    app = FastAPI()

    @app.post("/users")
    async def create_user(user_data: UserCreate, db: AsyncSession = Depends(get_db)) -> Any:
        user = User(**user_data.model_dump())
        db.add(user)
        await db.commit()
        return {"name": user.name}

    @app.get("/users")
    async def list_users(db: AsyncSession = Depends(get_read_session)) -> Any:
        result = await db.execute(select(User))
        return [user.name for user in result.scalars().all()]

    async with AsyncClient(transport=ASGITransport(app), base_url="http://app") as client:
        assert (await client.post("/users", json={"email": "a@x", "name": "Ann"})).json() == {"name": "Ann"}
        assert (await client.get("/users")).json() == ["Ann"]


async def test_engine_and_session(environment: dict[str, str]) -> None:
    """An engine with the settings shown, and a session that commits at the end of its block."""
    engine = create_async_engine(
        environment["DATABASE_URL"],
        pool_size=20,
        max_overflow=30,
        pool_recycle=3600,
        pool_pre_ping=True,
        echo=False,
        connect_args={"command_timeout": 60, "server_settings": {"jit": "off", "application_name": "dotmac-app"}},
    )
    async_session = async_sessionmaker(engine)
    async with with_async_session(async_session) as session:
        session.add(User(email="a@x", name="Ann"))
    async with with_async_session(async_session) as session:
        result = await session.execute(select(User))
        assert [user.name for user in result.scalars().all()] == ["Ann"]
        assert await session.scalar(text("SHOW application_name")) == "dotmac-app"
    await engine.dispose()


async def test_context_of_row_level_security(environment: dict[str, str]) -> None:
    """A block of ``get_db`` is told the tenant, and may be told to forget it."""
    async with get_db() as session:
        await set_rls_context(session, tenant_id="acme", user_id=7, client_ip="192.0.2.1")
        told = await session.scalar(text("SELECT current_setting('app.current_tenant_id')"))
        assert told == (await get_rls_context(session))["tenant_id"] == "acme"
        await clear_rls_context(session)
        assert await session.scalar(text("SELECT current_setting('app.current_tenant_id', true)")) == ""


async def test_schema_per_tenant(environment: dict[str, str]) -> None:
    """A dependency that switches to the tenant's schema, whose queries then use it."""
    engine = create_async_engine(environment["DATABASE_URL"])
    async_session = async_sessionmaker(engine)

    async def get_tenant_session(tenant_id: str) -> AsyncGenerator[AsyncSession, None]:
        async with with_async_session(async_session) as session:
            await set_schema_search_path(session, tenant_id=tenant_id)
            yield session

    async with with_async_session(async_session) as session:
        name = await create_tenant_schema(session, "acme")
        await session.execute(text(f"CREATE TABLE {name}.tenant_data (LIKE public.tenant_data INCLUDING ALL)"))
    app = FastAPI()

    @app.get("/tenant-data")
    async def get_tenant_data(tenant_id: str, session: AsyncSession = Depends(get_tenant_session)) -> Any:
        session.add(TenantData(tenant_id=tenant_id, content="ours"))
        result = await session.execute(select(TenantData))
        return [data.content for data in result.scalars().all()]

    async with AsyncClient(transport=ASGITransport(app), base_url="http://app") as client:
        assert (await client.get("/tenant-data", params={"tenant_id": "acme"})).json() == ["ours"]
    async with with_async_session(async_session) as session:
        assert (await session.execute(select(TenantData))).all() == []
    await engine.dispose()


async def test_smart_cache(environment: dict[str, str]) -> None:
    """A row is cached as a dict, dropped by a pattern, and the hits are counted."""
    redis_client = get_redis_client()
    assert await redis_client.ping()
    user_cache = SmartCache(namespace="users", ttl=300)
    async with get_db() as session:
        session.add(User(email="a@x", name="Ann"))
    async with get_db() as session:
        known = (await session.execute(select(User))).scalar_one()
        user = known.dict()

    async def get_user_cached(user_id: Any) -> Any:
        cached = await user_cache.get("user", user_id)
        if cached:
            return cached
        await user_cache.set("user", user_id, user)
        return user

    assert (await get_user_cached(user["id"]))["name"] == "Ann"
    assert (await get_user_cached(user["id"]))["name"] == "Ann"
    stats = await user_cache.get_stats()
    assert f"Hit rate: {stats['hit_rate']:.2%}" == "Hit rate: 50.00%"
    await user_cache.invalidate_pattern("user:*")
    assert await user_cache.get("user", user["id"]) is None


async def test_two_levels(environment: dict[str, str]) -> None:
    """What the first level has lost comes from the second one, and the database is asked once."""
    l1_cache = SmartCache("users", ttl=60)
    l2_cache = SmartCache("users-l2", ttl=3600)
    fetch_user_from_db = Loads()

    async def get_user_multilevel(user_id: int) -> Any:
        user = await l1_cache.get("user", user_id)
        if user:
            return user
        user = await l2_cache.get("user", user_id)
        if user:
            await l1_cache.set("user", user_id, user)
            return user
        user = await fetch_user_from_db(user_id)
        await l1_cache.set("user", user_id, user)
        await l2_cache.set("user", user_id, user)
        return user

    first = await get_user_multilevel(1)
    await l1_cache.invalidate_pattern("user:*")
    assert await get_user_multilevel(1) == first == await l1_cache.get("user", 1)
    assert fetch_user_from_db.ids == [1]


async def test_locks(environment: dict[str, str]) -> None:
    """Who comes second to a lock is told so, and says it to the client; who comes after has it."""

    async def import_user_data() -> str:
        async with RedisLock("import:user-data", ttl=60) as lock:
            if lock.acquired:
                return "imported"
            raise HTTPException(409, "Import already in progress")

    async with RedisLock("import:user-data", ttl=60) as lock:
        assert lock.acquired
        with pytest.raises(HTTPException, match="already in progress"):
            await import_user_data()
    assert await import_user_data() == "imported"

    async with PgAdvisoryLock(12345) as outer, PgAdvisoryLock(12345) as inner:
        assert (outer.acquired, inner.acquired) == (True, False)
    async with PgAdvisoryLock(12345) as again:
        assert again.acquired


def test_url_for_alembic(monkeypatch: pytest.MonkeyPatch) -> None:
    """``env.py`` gets the URL of the environment."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://ann@db/shop")
    assert os.environ["DATABASE_URL"] in get_alembic_config_url()


async def test_two_databases(environment: dict[str, str]) -> None:
    """Handlers that read by one engine and write by another see each other's rows, and an error writes nothing."""
    read_engine = create_async_engine(environment["DATABASE_URL"])
    write_engine = create_async_engine(environment["DATABASE_URL"])
    read_session = async_sessionmaker(read_engine)
    write_session = async_sessionmaker(write_engine)

    async def get_read_db() -> AsyncGenerator[AsyncSession, None]:
        async with read_session() as session:
            try:
                yield session
            finally:
                await session.close()

    async def get_write_db() -> AsyncGenerator[AsyncSession, None]:
        async with write_session() as session:
            try:
                yield session
                await session.commit()
            except Exception:
                await session.rollback()
                raise
            finally:
                await session.close()

    app = FastAPI()

    @app.post("/users")
    async def create_user(user_data: UserCreate, db: AsyncSession = Depends(get_write_db, scope="function")) -> Any:
        db.add(User(**user_data.model_dump()))
        await db.flush()
        if not user_data.name:
            raise HTTPException(409)
        return {"name": user_data.name}

    @app.get("/users")
    async def list_users(db: AsyncSession = Depends(get_read_db)) -> Any:
        return (await db.execute(select(User.name))).scalars().all()

    async with AsyncClient(transport=ASGITransport(app), base_url="http://app") as client:
        assert (await client.post("/users", json={"email": "a@x", "name": "Ann"})).json() == {"name": "Ann"}
        assert (await client.post("/users", json={"email": "b@x", "name": ""})).status_code == 409
        assert (await client.get("/users")).json() == ["Ann"]
    for engine in (read_engine, write_engine):
        await engine.dispose()
