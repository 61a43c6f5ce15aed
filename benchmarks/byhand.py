"""What one would write without fastrdb, well: the code that is measured beside it.

Core statements are built once, a session is opened only when SQL is needed, and rows are validated from a dict of
their values, which is the fastest way that pydantic has. Nothing here keeps a reader from storing an old row
after a writer's delete: that is what fastrdb's part of the work is for.
"""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import TypeAdapter
from redis.asyncio import Redis
from sqlalchemy import Executable, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from .users import UserCreate, UserResponse, Users, UserUpdate

_EXP_S = 600
_NAMES = tuple(UserResponse.model_fields)
_LIST: TypeAdapter[list[UserResponse]] = TypeAdapter(list[UserResponse])


class ByHand:
    """Users by hand: ``redis.get`` and pydantic, else SQLAlchemy Core.

    Args:
        users: The table of single users and lists.
        bulk: The table that many users are created in.
        redis: A client on a BlockingConnectionPool.
        prefix: Leads every key.
    """

    def __init__(
        self, users: Users, bulk: Users, sessions: async_sessionmaker[AsyncSession], redis: Redis, prefix: str
    ) -> None:
        self._sessions, self._redis, self.prefix = sessions, redis, prefix
        columns = [users.table.c[name] for name in _NAMES]
        by_id = users.table.c.id == bindparam("user_id")
        self._select = select(*columns).where(by_id)
        self._page = select(*columns).order_by(users.table.c.id).limit(bindparam("limit")).offset(bindparam("offset"))
        self._update = update(users.table).where(by_id).values(name=bindparam("new_name")).returning(*columns)
        created = [bulk.table.c[name] for name in _NAMES]
        self._insert = insert(bulk.table).returning(*created)
        self._insert_in_order = insert(bulk.table).returning(*created, sort_by_parameter_order=True)

    def key(self, user_id: int) -> str:
        """Give the key of one user."""
        return f"{self.prefix}user:id:{user_id}"

    async def get(self, user_id: int) -> UserResponse | None:
        """Give one user."""
        key = self.key(user_id)
        if (raw := await self._redis.get(key)) is not None:
            return UserResponse.model_validate_json(raw)
        async with self._sessions() as session:
            row = (await session.execute(self._select, {"user_id": user_id})).one_or_none()
        if row is None:
            return None
        user = _user(row)
        await self._redis.set(key, user.model_dump_json(), ex=_EXP_S)
        return user

    async def mget(self, user_ids: Sequence[int]) -> list[UserResponse]:
        """Give users who are all cached."""
        found = await self._redis.mget([self.key(user_id) for user_id in user_ids])
        return [UserResponse.model_validate_json(raw) for raw in found]

    async def get_multi(self, limit: int, page: int) -> list[UserResponse]:
        """Give one page of users."""
        key = f"{self.prefix}user:page:{page}:limit:{limit}"
        if (raw := await self._redis.get(key)) is not None:
            return _LIST.validate_json(raw)
        async with self._sessions() as session:
            rows = (await session.execute(self._page, {"limit": limit, "offset": (page - 1) * limit})).all()
        users = [_user(row) for row in rows]
        await self._redis.set(key, _LIST.dump_json(users), ex=_EXP_S)
        return users

    async def update(self, user_id: int, obj_in: UserUpdate) -> UserResponse:
        """Give one user another name."""
        async with self._sessions() as session:
            row = (await session.execute(self._update, {"user_id": user_id, "new_name": obj_in.name})).one()
            await session.commit()
        await self._redis.delete(self.key(user_id))
        return _user(row)

    async def create_multi(self, instances: Sequence[UserCreate]) -> list[UserResponse]:
        """Create users; the order in which they come back is the server's."""
        return await self._create(self._insert, instances)

    async def create_multi_in_order(self, instances: Sequence[UserCreate]) -> list[UserResponse]:
        """Create users, and give them in the order of *instances*, as ``Crud.create_multi`` does."""
        return await self._create(self._insert_in_order, instances)

    async def _create(self, statement: Executable, instances: Sequence[UserCreate]) -> list[UserResponse]:
        async with self._sessions() as session:
            rows = (await session.execute(statement, [instance.model_dump() for instance in instances])).all()
            await session.commit()
        return [_user(row) for row in rows]

    def listed(self, answer: object) -> object:
        """Give a list of users, whether it is one already or its JSON."""
        return _LIST.validate_json(answer) if isinstance(answer, bytes) else answer


def _user(row: Sequence[object]) -> UserResponse:
    return UserResponse.model_validate(dict(zip(_NAMES, row, strict=True)))
