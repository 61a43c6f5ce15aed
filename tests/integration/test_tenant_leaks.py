"""A thousand requests of ten tenants over three connections: none sees what is another's."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from fastrdb import NotFound
from fastrdb.context import current_tenant, tenant
from fastrdb.tenancy import (
    clear_rls_context,
    copy_schema_structure,
    create_tenant_schema,
    get_rls_context,
    set_rls_context,
    set_schema_search_path,
)
from tests.tenants import Base, Note, NoteChange, NoteIn, Tenants, note_crud, opened

TENANTS = [f"t{number}" for number in range(10)]
REQUESTS = 1_000
AT_ONCE = 40
UNNAMED = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}
POOL: dict[str, Any] = {"pool_size": 3, "max_overflow": 0, "pool_timeout": 60}


@pytest.fixture(params=["directly", "through PgBouncer"])
async def tenants(request: pytest.FixtureRequest, postgres_url: str, valkey_url: str) -> AsyncIterator[Tenants]:
    """Ten tenants with notes under a policy, and with a schema each that has notes of its own; three connections."""
    options, through = dict(POOL), None
    if request.param != "directly":
        through = request.getfixturevalue("pgbouncer_url")
        names = {"prepared_statement_name_func": lambda: f"__asyncpg_{uuid4()}__"}
        options["connect_args"] = {**UNNAMED, **names}
    async with opened(postgres_url, valkey_url, through, **options) as tenants:
        await fill(tenants)
        yield tenants


async def fill(tenants: Tenants) -> None:
    """Give each tenant two notes under the policy, and two in its own schema, whose ids all schemas have."""
    async with tenants.factory() as session:
        await create_tenant_schema(session, "template", "a_")
        await set_schema_search_path(session, "template", "a_", include_public=False)
        await (await session.connection()).run_sync(Base.metadata.create_all, checkfirst=False)
        await session.commit()
    async with tenants.factory() as session:
        for name in TENANTS:
            await copy_schema_structure(session, "a_template", await create_tenant_schema(session, name))
        await session.commit()
    for name in TENANTS:
        async with tenants.factory() as session:
            await set_rls_context(session, name)
            session.add_all([Note(tenant_id=name, folder=1, text=name) for _ in range(2)])
            await session.commit()
            await set_schema_search_path(session, name)
            session.add_all([Note(tenant_id=name, folder=1, text=name) for _ in range(2)])
            await session.commit()


class Requests:
    """What handlers do, each for one tenant, and what they must see: rows of that tenant, and its settings."""

    def __init__(self, tenants: Tenants, ids: dict[str, list[int]], seed: int) -> None:
        self.tenants, self.ids, self.random = tenants, ids, random.Random(seed)
        self.policy, self.schema = note_crud(), note_crud()
        self.seen = 0
        self.kinds: list[Callable[[str], Awaitable[None]]] = [
            self.by_factory,
            self.by_session,
            self.by_schema,
            self.without_tenant,
            self.failing,
            self.written_by_factory,
        ]

    def own(self, name: str, notes: list[Any]) -> None:
        """Each of these notes is the tenant's."""
        assert {note.tenant_id for note in notes} <= {name}
        self.seen += len(notes)

    def others(self, name: str) -> int:
        """The id of a note of another tenant."""
        other = self.random.choice([o for o in TENANTS if o != name])
        return self.random.choice(self.ids[other])

    async def settings(self, session: AsyncSession, name: str | None, path: str) -> None:
        """The session's transaction has the tenant's settings, and no others."""
        found = (await get_rls_context(session))["tenant_id"]
        assert found == name
        assert await session.scalar(select(func.current_setting("search_path"))) == path

    async def reads(self, db: Any, name: str) -> None:
        """Rows, lists and counts through the cache are the tenant's."""
        cache, id = self.tenants.cache, self.random.choice(self.ids[name])
        self.own(name, [await self.policy.get(db, cache, id=id)])
        assert await self.policy.get_or_none(db, cache, id=self.others(name)) is None
        self.own(name, await self.policy.get_multi(db, cache, limit=100, folder=1))
        assert await self.policy.count(db, cache, folder=1) >= 2

    async def by_factory(self, name: str) -> None:
        """A tenant in the context variable."""
        with tenant(name):
            await self.reads(self.tenants.factory, name)
            assert current_tenant() == name

    async def written_by_factory(self, name: str) -> None:
        """The same, writing: its own note is changed and made, another's is not there."""
        cache, factory, id = self.tenants.cache, self.tenants.factory, self.random.choice(self.ids[name])
        with tenant(name):
            changed = await self.policy.update(factory, cache, NoteChange(text=f"{name} {uuid4()}"), id=id)
            self.own(name, [changed])
            with pytest.raises(NotFound):
                await self.policy.update(factory, cache, NoteChange(text="forged"), id=self.others(name))
            assert (await self.policy.get(factory, cache, id=id)).text.startswith(name)

    async def by_session(self, name: str) -> None:
        """A session with a context, over several transactions, some of them rolled back."""
        async with self.tenants.factory() as session:
            await set_rls_context(session, name, user_id=self.random.choice([None, 7]))
            for _ in range(3):
                await self.settings(session, name, '"$user", public')
                self.own(name, list((await session.execute(select(Note.tenant_id))).all()))
                await self.reads(session, name)
                if self.random.random() < 0.5:
                    await self.policy.create(session, self.tenants.cache, NoteIn(tenant_id=name, text=name, folder=2))
                await self.random.choice([session.commit, session.rollback])()
            await clear_rls_context(session)
            assert list((await session.execute(select(Note.tenant_id))).all()) == []

    async def by_schema(self, name: str) -> None:
        """A session that looks in the tenant's schema, where every tenant's notes have the same ids."""
        cache = self.tenants.cache
        async with self.tenants.factory() as session:
            await set_schema_search_path(session, name)
            for _ in range(2):
                self.own(name, [await self.schema.get(session, cache, id=self.random.choice([1, 2]))])
                self.own(name, await self.schema.get_multi(session, cache, folder=1))
                await self.settings(session, None, f'"tenant_{name}", "public"')
                change = NoteChange(text=f"{name} {uuid4()}")
                self.own(name, [await self.schema.update(session, cache, change, id=1)])
                await self.random.choice([session.commit, session.rollback])()

    async def without_tenant(self, name: str) -> None:
        """Nobody's session is shown nothing, through SQL and through the cache, and has no settings."""
        cache, id = self.tenants.cache, self.random.choice(self.ids[name])
        async with self.tenants.factory() as session:
            await self.settings(session, None, '"$user", public')
            assert (await session.execute(select(Note.id))).all() == []
            assert await self.policy.get_or_none(session, cache, id=id) is None
        assert await self.policy.get_multi(self.tenants.factory, cache, folder=1) == []
        assert await self.schema.get_or_none(self.tenants.factory, cache, id=id) is None

    async def failing(self, name: str) -> None:
        """Statements that fail, with a context and with a search path, and a session that is left as it is."""
        async with self.tenants.factory() as session:
            if self.random.random() < 0.5:
                await set_rls_context(session, name)
            else:
                await set_schema_search_path(session, name)
            self.own(name, list((await session.execute(select(Note.tenant_id))).all()))
            with suppress(DBAPIError):
                async with session.begin_nested():
                    await session.execute(text("SELECT 1 / 0"))
            self.own(name, list((await session.execute(select(Note.tenant_id))).all()))
            with pytest.raises(DBAPIError, match="division"):
                await session.execute(text("SELECT 1 / 0"))

    async def one(self) -> None:
        """One request, which is cancelled at some moment, as when a client goes away, every fourth time."""
        task = asyncio.ensure_future(self.random.choice(self.kinds)(self.random.choice(TENANTS)))
        if self.random.random() < 0.25:
            for _ in range(self.random.randrange(60)):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        else:
            await task


@pytest.mark.may_block("forty requests at once on a busy machine")
async def test_no_request_sees_what_is_anothers(tenants: Tenants) -> None:
    """Rows, lists, counts, settings and search paths are each tenant's own, whoever fails or is cancelled beside it."""
    async with tenants.admin() as session:
        rows = (await session.execute(text("SELECT tenant_id, id FROM notes"))).all()
    ids = {name: [id for owner, id in rows if owner == name] for name in TENANTS}
    requests = Requests(tenants, ids, seed=20)
    left = iter(range(REQUESTS))

    async def handle() -> None:
        for _ in left:
            await requests.one()

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(handle())
    assert requests.seen > REQUESTS
    assert tenants.cache.stats.hits > REQUESTS / 10, tenants.cache.stats
    assert tenants.engine.pool.checkedout() == 0  # type: ignore[attr-defined]  # a QueuePool
