"""A service as users of FastRDB write it, on its dependencies and on fastrdb's, method by method and under load."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from httpx import ASGITransport, AsyncClient, Response
from redis.asyncio import Redis
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine

from fastrdb.db import async_get_db, get_redis
from tests.tutorial.cruds import chapter_crud, user_crud, verse_crud
from tests.tutorial.main import build_app, client_closed_after_each_request, session_per_request
from tests.tutorial.models import Base
from tests.tutorial.schemas import ChapterRow, UserCreate, UserResponse, UserUpdate, VerseRow, VerseUpdate

JOHN = UserCreate(email="john@example.com", name="John", bio="Hello")
CALLERS, ROUNDS = 64, 20

Factory = async_sessionmaker[AsyncSession]


async def tables(url: str) -> AsyncIterator[Factory]:
    """Sessions on the tables of the service, as its users configure them."""
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield async_sessionmaker(engine, expire_on_commit=False, autoflush=False)
    await engine.dispose()


@pytest.fixture
async def factory(sqlite_url: str) -> AsyncIterator[Factory]:
    """The tables on SQLite."""
    async for factory in tables(sqlite_url):
        yield factory


@pytest.fixture
async def postgres_factory(postgres_url: str) -> AsyncIterator[Factory]:
    """The tables on PostgreSQL."""
    async for factory in tables(postgres_url):
        yield factory


@pytest.fixture
async def redis(valkey_url: str) -> AsyncIterator[Redis]:
    """A client that decodes its replies, as users of FastRDB have it."""
    client: Redis = Redis.from_url(valkey_url, decode_responses=True)
    yield client
    await client.aclose()


@pytest.fixture
async def db(factory: Factory) -> AsyncIterator[AsyncSession]:
    """One session."""
    async with factory() as session:
        yield session


def talking_to(async_get_db: Any, get_redis: Any) -> AsyncClient:
    """A client of the app over these dependencies."""
    return AsyncClient(transport=ASGITransport(build_app(async_get_db, get_redis)), base_url="http://app")


# Method by method


async def test_create_gives_the_row(db: AsyncSession, redis: Redis) -> None:
    """``create`` gives the row with the database's defaults, and leaves plain JSON under its key."""
    user = await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    assert isinstance(user, UserResponse)
    assert (user.id, user.is_active, user.created_at == user.updated_at) == (1, True, True)
    stored = await redis.get("user:email:john@example.com")
    assert stored is not None
    assert json.loads(stored) == user.model_dump(mode="json")


async def test_get_finds_and_misses(db: AsyncSession, redis: Redis) -> None:
    """``get`` gives the row, and raises SQLAlchemy's NoResultFound where there is none."""
    created = await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    assert await user_crud.get(db=db, redis=redis, email="john@example.com") == created
    with pytest.raises(NoResultFound):
        await user_crud.get(db=db, redis=redis, email="jane@example.com")


async def test_update_changes_what_was_set(db: AsyncSession, redis: Redis) -> None:
    """``update`` writes the fields that were set, leaves the others, and every read shows it."""
    await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    changed = await user_crud.update(db=db, redis=redis, obj_in=UserUpdate(name="J. Doe"), email=JOHN.email)
    assert (changed.name, changed.bio) == ("J. Doe", "Hello")
    assert await user_crud.get(db=db, redis=redis, email=JOHN.email) == changed
    assert await user_crud.get_multi(db=db, redis=redis) == [changed]


async def test_get_multi_pages_in_order(db: AsyncSession, redis: Redis) -> None:
    """``get_multi`` gives pages of *limit* rows in the order asked, from the cache the second time, too."""
    people = [UserCreate(email=f"{name}@example.com", name=name) for name in "dacb"]
    await user_crud.create_multi(db=db, redis=redis, instances=people)
    for _ in range(2):
        found = await user_crud.get_multi(db=db, redis=redis, limit=3, page=1, order_by="name")
        assert [user.name for user in found] == ["a", "b", "c"]
        found = await user_crud.get_multi(db=db, redis=redis, limit=3, page=2, order_by="name", ascending=False)
        assert [user.name for user in found] == ["a"]


async def test_verses_of_one_chapter(db: AsyncSession, redis: Redis) -> None:
    """A list template with a column lists the rows of that column's value, and a write there shows at once."""
    for chapter in (3, 4):
        await chapter_crud.create(db=db, redis=redis, obj_in=ChapterRow(id=chapter, title=f"Chapter {chapter}"))
        verses = [VerseRow(chapter_id=chapter, verse_id=number, text="old") for number in (2, 1)]
        await verse_crud.create_multi(db=db, redis=redis, instances=verses, chapter_id=chapter)

    async def listed() -> list[tuple[int, str]]:
        found = await verse_crud.get_multi(db=db, redis=redis, limit=20, page=1, order_by="verse_id", chapter_id=3)
        assert all(verse.chapter_id == 3 for verse in found)
        return [(verse.verse_id, verse.text) for verse in found]

    assert await listed() == await listed() == [(1, "old"), (2, "old")]
    new = VerseUpdate(text="new")
    await verse_crud.update(db=db, redis=redis, obj_in=new, chapter_id=3, verse_id=2)
    assert await listed() == [(1, "old"), (2, "new")]
    assert (await verse_crud.get(db=db, redis=redis, chapter_id=3, verse_id=2)).text == "new"


async def test_create_multi_gives_all_rows(db: AsyncSession, redis: Redis) -> None:
    """``create_multi`` gives the rows in the order of the instances."""
    people = [UserCreate(email=f"{name}@example.com", name=name) for name in ("john", "jane")]
    created = await user_crud.create_multi(db=db, redis=redis, instances=people)
    assert [(user.id, user.name) for user in created] == [(1, "john"), (2, "jane")]


async def test_delete_removes_it_everywhere(db: AsyncSession, redis: Redis) -> None:
    """After ``delete`` neither ``get`` nor a list finds the row, though both had it cached."""
    await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    assert len(await user_crud.get_multi(db=db, redis=redis)) == 1
    await user_crud.delete(db=db, redis=redis, email=JOHN.email)
    assert await user_crud.get_multi(db=db, redis=redis) == []
    with pytest.raises(NoResultFound):
        await user_crud.get(db=db, redis=redis, email=JOHN.email)


async def test_count_needs_no_redis(db: AsyncSession, redis: Redis) -> None:
    """``count`` counts what the filters find, with a client and without."""
    await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    assert await user_crud.count(db=db, email="john@example.com") == 1
    assert await user_crud.count(db=db, redis=redis, email="jane@example.com") == 0


async def test_paginate_wraps_a_list(db: AsyncSession, redis: Redis) -> None:
    """``paginate`` gives data, total, limit and page."""
    await user_crud.create(db=db, redis=redis, obj_in=JOHN, email=JOHN.email)
    users = await user_crud.get_multi(db=db, redis=redis, limit=10, page=1, order_by="id")
    page = user_crud.paginate(data=users, limit=10, page=1)
    assert (page.data, page.total, page.limit, page.page) == (users, 1, 10, 1)


# The app


async def use_it(client: AsyncClient) -> None:
    """One user's life, over HTTP."""
    created = await client.post("/users/", json=JOHN.model_dump())
    assert (created.status_code, created.json()["id"]) == (200, 1)
    assert (await client.get("/users/john@example.com")).json() == created.json()
    assert (await client.get("/users/jane@example.com")).status_code == 404
    changed = await client.patch("/users/john@example.com", json={"email": "jane@example.com"})
    assert changed.json()["email"] == "jane@example.com"
    assert (await client.get("/users/john@example.com")).status_code == 404
    listed = (await client.get("/users/")).json()
    assert (listed["total"], listed["data"]) == (1, [changed.json()])
    assert (await client.delete("/users/jane@example.com")).status_code == 204
    assert (await client.get("/users/")).json()["data"] == []


@pytest.mark.filterwarnings("ignore:.*deprecated close:DeprecationWarning")
async def test_app_on_handwritten_dependencies(factory: Factory, redis: Redis) -> None:
    """The app works on a session that commits before the handler, and a client that is closed after each request."""
    async with talking_to(session_per_request(factory), client_closed_after_each_request(redis)) as client:
        await use_it(client)


async def test_app_on_our_dependencies(factory: Factory, redis: Redis) -> None:
    """The app works on ``fastrdb.db.async_get_db`` and ``get_redis``."""
    async with talking_to(async_get_db(factory), get_redis(redis)) as client:
        await use_it(client)


async def test_without_an_app(factory: Factory, redis: Redis) -> None:
    """The same dependencies are used with ``async with`` outside of an app."""
    get_db, get_client = async_get_db(factory), get_redis(redis)
    async with get_client() as client, get_db() as db:
        created = await user_crud.create(db=db, redis=client, obj_in=JOHN, email=JOHN.email)
    async with get_client() as client, get_db() as db:
        assert await user_crud.get(db=db, redis=client, email=JOHN.email) == created


# Under load


async def crowd(client: AsyncClient, writing: bool) -> None:
    """Twenty rounds of sixty-four requests at once; each must succeed, and each caller must read its own writes."""

    async def call(caller: int, round_: int) -> None:
        email, others = f"user{caller}@example.com", f"user{(caller + round_) % CALLERS}@example.com"
        if not writing:
            answers: list[Response] = [await client.get(f"/users/{others}")]
        elif caller % 4 == 0:
            answers = [await client.patch(f"/users/{email}", json={"bio": str(round_)})]
            answers.append(await client.get(f"/users/{email}"))
            assert answers[-1].json()["bio"] == str(round_)
        elif caller % 4 == 1:
            answers = [await client.get("/users/", params={"limit": 5, "page": 1 + caller % 3})]
        else:
            answers = [await client.get(f"/users/{others}")]
        assert {answer.status_code for answer in answers} == {200}

    for round_ in range(ROUNDS):
        await asyncio.gather(*(call(caller, round_) for caller in range(CALLERS)))


async def populate(factory: Factory, redis: Redis) -> None:
    """A user for each caller."""
    people = [UserCreate(email=f"user{n}@example.com", name=f"user {n}") for n in range(CALLERS)]
    await user_crud.create_multi(db=factory, redis=redis, instances=people)


@pytest.mark.filterwarnings("ignore:.*deprecated close:DeprecationWarning")
async def test_crowd_of_readers_on_sqlite(factory: Factory, redis: Redis) -> None:
    """20 x 64 concurrent reads give no error, though every request closes the client that they share."""
    await populate(factory, redis)
    async with talking_to(session_per_request(factory), client_closed_after_each_request(redis)) as client:
        await crowd(client, writing=False)


@pytest.mark.filterwarnings("ignore:.*deprecated close:DeprecationWarning")
async def test_crowd_of_readers_and_writers_on_postgres(postgres_factory: Factory, redis: Redis) -> None:
    """20 x 64 concurrent requests, a quarter of them writes, give no error, though each closes the shared client."""
    await populate(postgres_factory, redis)
    dependencies = (session_per_request(postgres_factory), client_closed_after_each_request(redis))
    async with talking_to(*dependencies) as client:
        await crowd(client, writing=True)
