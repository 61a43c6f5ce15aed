"""The app, over whatever gives sessions and clients."""

from collections.abc import AsyncGenerator, Callable
from typing import Any

from fastapi import Depends, FastAPI, HTTPException
from redis.asyncio import Redis
from sqlalchemy.exc import NoResultFound
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from fastrdb import PaginatedResponse

from .cruds import user_crud, verse_crud
from .schemas import UserCreate, UserResponse, UserUpdate, VerseRow


def session_per_request(
    factory: async_sessionmaker[AsyncSession],
) -> Callable[[], AsyncGenerator[AsyncSession, None]]:
    """Give the dependency that users of FastRDB write by hand: it commits before the handler, and then only closes."""

    async def async_get_db() -> AsyncGenerator[AsyncSession, None]:
        async with factory() as session:
            try:
                await session.commit()
                yield session
            finally:
                await session.close()

    return async_get_db


def client_closed_after_each_request(client: Redis) -> Callable[[], AsyncGenerator[Redis, None]]:
    """Give the dependency that users of FastRDB write by hand: it closes the client that all requests share."""

    async def get_redis() -> AsyncGenerator[Redis, None]:
        try:
            yield client
        finally:
            await client.close()

    return get_redis


def build_app(async_get_db: Any, get_redis: Any) -> FastAPI:
    """Give the app; the arguments are what ``Depends`` takes."""
    app = FastAPI()
    _add_users(app, Depends(async_get_db), Depends(get_redis))
    _add_verses(app, Depends(async_get_db), Depends(get_redis))
    return app


def _add_users(app: FastAPI, on_db: Any, on_redis: Any) -> None:
    @app.post("/users/", response_model=UserResponse)
    async def create_user(user: UserCreate, redis: Redis = on_redis, db: AsyncSession = on_db) -> UserResponse:
        return await user_crud.create(db=db, redis=redis, obj_in=user, email=user.email)

    @app.get("/users/{email}", response_model=UserResponse)
    async def read_user(email: str, redis: Redis = on_redis, db: AsyncSession = on_db) -> UserResponse:
        try:
            return await user_crud.get(db=db, redis=redis, email=email)
        except NoResultFound:
            raise HTTPException(404) from None

    @app.patch("/users/{email}", response_model=UserResponse)
    async def update_user(
        email: str, user: UserUpdate, redis: Redis = on_redis, db: AsyncSession = on_db
    ) -> UserResponse:
        return await user_crud.update(db=db, redis=redis, obj_in=user, email=email)

    @app.delete("/users/{email}", status_code=204)
    async def delete_user(email: str, redis: Redis = on_redis, db: AsyncSession = on_db) -> None:
        await user_crud.delete(db=db, redis=redis, email=email)

    @app.get("/users/")
    async def list_users(
        limit: int = 10, page: int = 1, redis: Redis = on_redis, db: AsyncSession = on_db
    ) -> PaginatedResponse[UserResponse]:
        return await user_crud.page(db=db, redis=redis, limit=limit, page=page, order_by="id")


def _add_verses(app: FastAPI, on_db: Any, on_redis: Any) -> None:
    @app.get("/chapters/{chapter_id}/verses")
    async def list_verses(
        chapter_id: int, limit: int = 20, page: int = 1, redis: Redis = on_redis, db: AsyncSession = on_db
    ) -> PaginatedResponse[VerseRow]:
        verses = await verse_crud.get_multi(
            db=db, redis=redis, limit=limit, page=page, order_by="verse_id", chapter_id=chapter_id
        )
        return verse_crud.paginate(data=verses, limit=limit, page=page)
