"""What checkers say of Crud's results. Nothing here runs: mypy and pyright read it (``nox -s types``)."""

from collections.abc import AsyncGenerator
from typing import Any, assert_type

from pydantic import BaseModel, ConfigDict
from redis.asyncio import Redis
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from fastrdb import (
    Cache,
    ChildrenChange,
    Committed,
    Crud,
    CursorPage,
    Explanation,
    FastRDB,
    Order,
    PaginatedResponse,
    ReadOptions,
    Updated,
    Upserted,
    Warmed,
)


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


@users.after_commit
async def tell(committed: Committed) -> None:
    """A hook keeps its type."""


async def results(session: AsyncSession, factory: async_sessionmaker[AsyncSession], redis: Redis, cache: Cache) -> None:
    """Each result has its exact type."""
    assert_type(await users.create(db=session, redis=redis, obj_in=UserCreate(email="a"), email="a"), UserResponse)
    assert_type(await users.get(db=session, redis=redis, email="a"), UserResponse)
    assert_type(await users.get(db=factory, redis=cache, email="a", where=User.id > 3), UserResponse)
    assert_type(await users.get_or_none(db=factory, redis=None, email="a"), UserResponse | None)
    assert_type(await users.get_json(db=factory, redis=cache, email="a"), bytes)
    assert_type(await users.update(db=factory, redis=cache, obj_in=UserUpdate(email="b"), email="a"), UserResponse)
    assert_type(await users.delete(db=factory, redis=cache, email="a"), None)
    assert_type(await users.restore(db=factory, redis=cache, email="a"), UserResponse)
    assert_type(await users.purge(db=factory, redis=cache, email="a"), None)
    assert_type(users.all_tenants(), Crud[User, UserCreate, UserUpdate, UserResponse])
    assert_type(await users.exists(db=factory, redis=cache, email="a", options=ReadOptions(only_deleted=True)), bool)
    assert_type(
        await users.create_multi(db=factory, redis=cache, instances=[UserCreate(email="a")]), list[UserResponse]
    )
    upserted = await users.upsert(db=session, redis=redis, obj_in=UserCreate(email="a"), conflict_fields=["email"])
    assert_type(upserted, Upserted[UserResponse])
    row, created = upserted
    assert_type(row, UserResponse)
    assert_type(created, bool)
    assert_type(
        await users.upsert_multi(factory, cache, [UserCreate(email="a")], update_fields=[]),
        list[Upserted[UserResponse]],
    )
    assert_type(await users.get_or_create(factory, None, UserCreate(email="a")), Upserted[UserResponse])
    assert_type(await users.update_where(factory, cache, UserUpdate(email="b"), where=User.id > 3, batch=10), int)
    assert_type(await users.delete_where(factory, cache, all_rows=True, progress=print), int)
    rows = [UserCreate(email="a")]
    assert_type(await users.create_multi(db=factory, redis=cache, instances=rows, returning=True), list[UserResponse])
    assert_type(await users.create_multi(db=factory, redis=cache, instances=rows, returning=False), int)
    items = [(1, UserUpdate(email="b"))]
    assert_type(await users.update_multi(db=factory, redis=cache, items=items), list[UserResponse])
    assert_type(await users.update_multi(db=factory, redis=cache, items=items, returning=False), int)
    assert_type(
        await users.update_multi(factory, cache, {"a": UserUpdate()}.items(), where_field="email"), list[UserResponse]
    )
    assert_type(await users.delete_multi(db=factory, redis=cache, keys=[1, 2], missing="skip"), list[int])
    assert_type(await users.delete_multi(db=factory, redis=cache, keys={"a"}, where_field="email"), list[str])
    assert_type(await users.get_multi(db=factory, redis=cache, limit=3, page=2, order_by="id"), list[UserResponse])
    assert_type(await users.get_multi_json(db=factory, redis=cache), bytes)
    assert_type(await users.count(db=factory), int)
    assert_type(await users.page(db=factory, redis=cache), PaginatedResponse[UserResponse])
    assert_type(
        await users.get_multi(db=factory, redis=cache, order_by=["-email", Order("id", nulls="last")]),
        list[UserResponse],
    )
    walked = await users.cursor_page(db=factory, limit=3, cursor=None, order_by="-email")
    assert_type(walked, CursorPage[UserResponse])
    assert_type(walked.next, str | None)
    streamed = users.stream(db=factory, order_by=Order("email", ascending=False), batch=10)
    assert_type(streamed, AsyncGenerator[UserResponse, None])
    async for each in streamed:
        assert_type(each, UserResponse)
    assert_type(users.paginate(["a"], limit=1, page=1), PaginatedResponse[str])
    assert_type(
        await users.create_by_foreign_key(factory, cache, "group_id", 1, [UserCreate(email="a"), {"email": "b"}]),
        list[UserResponse],
    )
    assert_type(
        await users.update_by_foreign_key(factory, cache, "group_id", 1, [UserUpdate(email="a"), {"id": -2}]),
        ChildrenChange[UserResponse],
    )
    assert_type(await users.delete_by_foreign_key(factory, cache, fk_field="group_id", fk_value=1), int)
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
    assert_type(await users.get_by_keys(db=session, redis=redis, keys=["a"]), list[UserResponse])
    assert_type(await users.get_by_keys(session, redis, [{"id": 1}], missing="raise"), list[UserResponse])
    assert_type(await users.get_by_keys(session, redis, ["a"], missing="none"), list[UserResponse | None])
    assert_type(await users.warm(db=factory, redis=cache, limit=10, progress=print), Warmed)
    assert_type(await users.patch(session, redis, UserUpdate(email="b"), email="a"), Updated[UserResponse])
    assert_type((await users.patch(session, redis, UserUpdate(email="b"), email="a")).changed, frozenset[str])
    assert_type(await users.get(session, redis, email="a", options=ReadOptions(for_update="nowait")), UserResponse)
    assert_type(await tell(Committed(User, frozenset(), None)), None)
    assert_type(await same.get(db=session, redis=redis, email="a"), UserResponse)
    assert_type(await inferred.get(db=session, redis=redis, id=3), UserResponse)
    assert_type(inferred, Crud[User, UserCreate, UserUpdate, UserResponse])


async def refusals(session: AsyncSession, redis: Redis) -> None:
    """What is wrong, checkers say."""
    await users.create(db=session, redis=redis, obj_in=UserUpdate(email="a"))  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await users.get(db="sqlite://", redis=redis, email="a")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await users.update_multi(db=session, redis=redis, items=[(1, UserCreate(email="a"))])  # type: ignore[list-item]  # pyright: ignore[reportArgumentType, reportCallIssue]
    await users.delete_multi(db=session, redis=redis, keys=[1], missing="x")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await users.get_multi(db=session, redis=redis, limit="10")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    ReadOptions(total="all")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
