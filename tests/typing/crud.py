"""What checkers say of Crud's results. Nothing here runs: mypy and pyright read it (``nox -s types``)."""

from typing import Any, assert_type

from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import Cache, Crud, Explanation, FastRDB, PaginatedResponse, ReadOptions


class Base(DeclarativeBase):
    """Tables of this module."""


class User(Base):
    """A model."""

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    email: Mapped[str]


class UserCreate(BaseModel):
    """What is created."""

    email: str


class UserUpdate(BaseModel):
    """What is changed."""

    email: str | None = None


class UserResponse(BaseModel):
    """What is shown."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    email: str


users = Crud[User, UserCreate, UserUpdate, UserResponse](
    User, UserResponse, pattern="user:{email}", list_pattern="user:page:{page}:{limit}"
)
same = FastRDB[User, UserCreate, UserUpdate, UserResponse](User, UserResponse, pattern="user:{email}")
inferred = Crud(User, UserResponse, "user:{id}", create_schema=UserCreate, update_schema=UserUpdate)


async def results(session: AsyncSession, factory: async_sessionmaker[AsyncSession], redis: Redis, cache: Cache) -> None:
    """Each result has its exact type."""
    assert_type(await users.create(db=session, redis=redis, obj_in=UserCreate(email="a"), email="a"), UserResponse)
    assert_type(await users.get(db=session, redis=redis, email="a"), UserResponse)
    assert_type(await users.get(db=factory, redis=cache, email="a", where=User.id > 3), UserResponse)
    assert_type(await users.get_or_none(db=factory, redis=None, email="a"), UserResponse | None)
    assert_type(await users.get_json(db=factory, redis=cache, email="a"), bytes)
    assert_type(await users.update(db=factory, redis=cache, obj_in=UserUpdate(email="b"), email="a"), UserResponse)
    assert_type(await users.delete(db=factory, redis=cache, email="a"), None)
    assert_type(await users.exists(db=factory, redis=cache, email="a"), bool)
    assert_type(
        await users.create_multi(db=factory, redis=cache, instances=[UserCreate(email="a")]), list[UserResponse]
    )
    assert_type(await users.get_multi(db=factory, redis=cache, limit=3, page=2, order_by="id"), list[UserResponse])
    assert_type(await users.get_multi_json(db=factory, redis=cache), bytes)
    assert_type(await users.count(db=factory), int)
    assert_type(await users.page(db=factory, redis=cache), PaginatedResponse[UserResponse])
    assert_type(users.paginate(["a"], limit=1, page=1), PaginatedResponse[str])
    page = await users.page(db=factory, redis=cache, options=ReadOptions(search="ann", total="none"))
    assert_type(page.total, int)
    assert_type(page.has_next, bool)
    assert_type(await users.get_multi(db=factory, redis=cache, filters={"group.name": "a"}), list[UserResponse])
    assert_type(await users.distinct(factory, cache, "email", limit=3), list[Any])
    sums = await users.aggregate(
        factory, cache, {"n": "count", "top": ("max", "id")}, group_by="email", having={"n": 1}
    )
    assert_type(sums, list[dict[str, Any]])
    assert_type(await users.explain(cache, email="a"), Explanation)
    assert_type(await same.get(db=session, redis=redis, email="a"), UserResponse)
    assert_type(await inferred.get(db=session, redis=redis, id=3), UserResponse)
    assert_type(inferred, Crud[User, UserCreate, UserUpdate, UserResponse])


async def refusals(session: AsyncSession, redis: Redis) -> None:
    """What is wrong, checkers say."""
    await users.create(db=session, redis=redis, obj_in=UserUpdate(email="a"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await users.get(db="sqlite://", redis=redis, email="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await users.get_multi(db=session, redis=redis, limit="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ReadOptions(total="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
