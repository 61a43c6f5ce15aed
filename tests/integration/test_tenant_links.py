"""Rows of one tenant neither come to refer to rows of another, nor show those that other programs have linked."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel as Schema
from pydantic import ConfigDict
from sqlalchemy import ForeignKey, ForeignKeyConstraint, MetaData, String, UniqueConstraint, event, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from fastrdb import Cache, Crud, ForeignKeyViolation, InputError, NotFound, UnsupportedModel
from fastrdb.context import tenant
from fastrdb.db import SoftDeleteMixin, TenantAwareMixin, naming_convention


class Base(DeclarativeBase):
    """The tables of these tests."""

    metadata = MetaData(naming_convention=naming_convention())


class Kind(Base):
    """Nobody's: tenants share it."""

    __tablename__ = "kinds"
    id: Mapped[int] = mapped_column(primary_key=True)
    tasks: Mapped[list["Task"]] = relationship(viewonly=True)


class Project(Base, TenantAwareMixin, SoftDeleteMixin):
    """A tenant's project; its code is a key, too, in words."""

    __tablename__ = "projects"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(20), unique=True)
    tasks: Mapped[list["Task"]] = relationship(back_populates="project", foreign_keys="Task.project_id")
    __table_args__ = (UniqueConstraint("tenant_id", "id"), UniqueConstraint("id", "code"))


class Task(Base, TenantAwareMixin):
    """A tenant's task."""

    __tablename__ = "tasks"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(20), default="t")
    kind_id: Mapped[int | None] = mapped_column(ForeignKey("kinds.id"))
    project_id: Mapped[int | None] = mapped_column(ForeignKey("projects.id"))
    code: Mapped[str | None] = mapped_column(String(20), ForeignKey("projects.code"))
    safe_id: Mapped[int | None] = mapped_column()
    both_id: Mapped[int | None] = mapped_column()
    both_code: Mapped[str | None] = mapped_column(String(20))
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("tasks.id"))
    kind: Mapped[Kind | None] = relationship(viewonly=True)
    project: Mapped[Project | None] = relationship(back_populates="tasks", foreign_keys=[project_id])
    parts: Mapped[list["Task"]] = relationship()
    __table_args__ = (
        ForeignKeyConstraint(["tenant_id", "safe_id"], ["projects.tenant_id", "projects.id"]),
        ForeignKeyConstraint(["both_id", "both_code"], ["projects.id", "projects.code"]),
    )


class Loose(Schema):
    """What writes take: any column."""

    model_config = ConfigDict(extra="allow")


class Out(Schema):
    """A base of responses."""

    model_config = ConfigDict(from_attributes=True)
    id: int


class TaskOut(Out):
    """A task, and what it refers to."""

    tenant_id: str
    title: str
    kind_id: int | None
    project_id: int | None
    parent_id: int | None


class ProjectOut(Out):
    """A project by itself."""

    tenant_id: str


class WholeTask(Out):
    """A task with its project and its parts."""

    project: ProjectOut | None
    parts: list[TaskOut]


class WholeProject(Out):
    """A project with its tasks, and their parts."""

    tasks: list[WholeTask]


class World:
    """A database in which two tenants have a project each, and what is used on it."""

    def __init__(self, engine: AsyncEngine, cache: Cache) -> None:
        self.engine, self.sent = engine, list[str]()
        self.factory = async_sessionmaker(engine, expire_on_commit=False)
        self.given: dict[str, Any] = {"db": self.factory, "redis": cache}
        self.tasks = Crud[Task, Loose, Loose, TaskOut](
            Task, TaskOut, pattern="task:{id}", list_pattern="tasks:page:{page}:limit:{limit}"
        )
        record = lambda *args: self.sent.append(args[2])  # noqa: E731
        event.listen(engine.sync_engine, "before_cursor_execute", record)

    async def rows(self) -> list[Any]:
        """What the tasks are."""
        async with self.factory() as session:
            return list((await session.execute(select(Task.__table__).order_by(Task.__table__.c.id))).all())

    async def insert(self, model: type[Any], **values: Any) -> None:
        """Insert a row as another program does."""
        async with self.engine.begin() as connection:
            await connection.execute(insert(model.__table__).values(**values))


@pytest.fixture
async def world(database_url: str) -> AsyncIterator[World]:
    """Project 1 and task 1 of ``acme``, project 2 and task 2 of ``other``, on each database."""
    engine = create_async_engine(database_url)
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with Cache.from_url("memory://") as cache:
        world = World(engine, cache)
        await world.insert(Kind, id=1)
        for id, name in ((1, "acme"), (2, "other")):
            await world.insert(Project, id=id, tenant_id=name, code=f"{name}s")
            await world.insert(Task, id=id, tenant_id=name)
        with tenant("other"):
            yield world
    await engine.dispose()


FOREIGN = [{"project_id": 1}, {"code": "acmes"}, {"both_id": 1, "both_code": "acmes"}, {"parent_id": 1}]
OWN = [{"project_id": 2}, {"code": "others"}, {"both_id": 2, "both_code": "others"}, {"parent_id": 2}]


def writes(world: World, values: dict[str, Any]) -> dict[str, Any]:
    """Every way to write these values to a task."""
    tasks, given, obj_in = world.tasks, world.given, Loose(**values)
    new, old = Loose(id=9, **values), Loose(id=2, **values)
    return {
        "create": lambda: tasks.create(**given, obj_in=new),
        "create by keyword": lambda: tasks.create(**given, obj_in=Loose(id=9), **values),
        "create_multi": lambda: tasks.create_multi(**given, instances=[Loose(id=8), new]),
        "create_multi bare": lambda: tasks.create_multi(**given, instances=[new], returning=False),
        "upsert new": lambda: tasks.upsert(**given, obj_in=new),
        "upsert old": lambda: tasks.upsert(**given, obj_in=old),
        "get_or_create": lambda: tasks.get_or_create(**given, obj_in=new),
        "upsert_multi": lambda: tasks.upsert_multi(**given, instances=[old, Loose(id=9)]),
        "update": lambda: tasks.update(**given, obj_in=obj_in, id=2),
        "patch": lambda: tasks.patch(**given, obj_in=obj_in, id=2),
        "update_multi": lambda: tasks.update_multi(**given, items=[(2, obj_in)]),
        "update_where": lambda: tasks.update_where(**given, obj_in=obj_in, id=2),
        "children": lambda: tasks.create_by_foreign_key(
            **given, fk_field="kind_id", fk_value=1, data=[{"id": 9, **values}]
        ),
    }


WRITES = [
    "create", "create by keyword", "create_multi", "create_multi bare", "upsert new", "upsert old", "get_or_create",
    "upsert_multi", "update", "patch", "update_multi", "update_where", "children",
]  # fmt: skip


@pytest.mark.parametrize("write", WRITES)
async def test_no_write_links_to_another_tenants_row(world: World, write: str) -> None:
    """By whatever foreign key, another tenant's row does not exist: NotFound, nothing is written; its own do."""
    before = await world.rows()
    for values in FOREIGN:
        with pytest.raises(NotFound):
            await writes(world, values)[write]()
        assert await world.rows() == before
    for values in OWN:
        await writes(world, values)[write]()
        async with world.factory() as session:
            await session.execute(Task.__table__.delete().where(Task.__table__.c.id > 2))
            await session.commit()


async def test_a_row_that_nobody_has_is_the_same_error(world: World) -> None:
    """What does not exist and what is another's cannot be told apart."""
    said = []
    for id in (1, 77):
        with pytest.raises(NotFound) as raised:
            await world.tasks.create(**world.given, obj_in=Loose(project_id=id))
        said.append(str(raised.value).replace(str(id), "…"))
    assert said[0] == said[1]


async def test_rows_of_one_call_may_refer_to_each_other(world: World) -> None:
    """A tree comes in one call: what is inserted with a row is there for it."""
    await world.tasks.create_multi(**world.given, instances=[Loose(id=5), Loose(id=6, parent_id=5)])
    tree = [Loose(id=7, parent_id=None), Loose(id=8, parent_id=7)]
    await world.tasks.upsert_multi(**world.given, instances=tree)
    assert [row.parent_id for row in await world.tasks.get_multi(**world.given)] == [None, None, 5, None, 7]


async def test_a_key_is_set_whole(world: World) -> None:
    """Half of a foreign key says nothing of whose row it will be: refused, and nothing is written."""
    before = await world.rows()
    with pytest.raises(InputError, match="together"):
        await world.tasks.update(**world.given, obj_in=Loose(both_id=2), id=2)
    assert await world.rows() == before


async def test_other_keys_cost_nothing(world: World) -> None:
    """A key that has the tenant in it, one to shared rows, and none at all: the database looks at them alone."""
    await world.tasks.update(**world.given, obj_in=Loose(title="warm"), id=2)
    del world.sent[:]
    await world.tasks.update(**world.given, obj_in=Loose(safe_id=2, kind_id=1), id=2)
    assert not [each for each in world.sent if "FROM projects" in each or "FROM kinds" in each]
    await world.tasks.update(**world.given, obj_in=Loose(project_id=2), id=2)
    assert len([each for each in world.sent if "FROM projects" in each]) == 1


async def test_all_tenants_may_link(world: World) -> None:
    """The operator's crud links what it likes."""
    await world.tasks.all_tenants().update(**world.given, obj_in=Loose(project_id=1), id=2)
    assert (await world.tasks.get(**world.given, id=2)).project_id == 1


async def test_children_of_a_hidden_parent(world: World) -> None:
    """A parent that is another tenant's, or deleted, is not there for new children."""
    projects = Crud[Project, Loose, Loose, ProjectOut](Project, ProjectOut)
    await projects.delete(**world.given, id=2)
    for parent in (1, 2):
        for call in (world.tasks.create_by_foreign_key, world.tasks.update_by_foreign_key):
            with pytest.raises(NotFound):
                await call(**world.given, fk_field="project_id", fk_value=parent, data=[{"title": "child"}])
    assert len(await world.rows()) == 2


async def test_nested_rows_of_another_tenant_are_not_shown(world: World) -> None:
    """What other programs have linked is not shown at any level, to neither of them; the operator sees no mixture."""
    await world.insert(Task, id=3, tenant_id="other", project_id=1, parent_id=1)
    await world.insert(Task, id=4, tenant_id="acme", project_id=2, parent_id=2)
    await world.insert(Task, id=5, tenant_id="other", project_id=2, parent_id=2)
    projects = Crud[Project, Loose, Loose, WholeProject](Project, WholeProject, pattern="project:{id}")
    tasks = Crud[Task, Loose, Loose, WholeTask](
        Task, WholeTask, pattern="whole:{id}", list_pattern="wholes:{page}:{limit}"
    )
    for redis in (None, world.given["redis"], world.given["redis"]):
        given = {"db": world.factory, "redis": redis}
        found = await projects.get(**given, id=2)
        assert [task.id for task in found.tasks] == [5]
        listed = {task.id: task for task in await tasks.get_multi(**given)}
        assert [part.id for part in listed[2].parts] == [5]
        assert listed[3].project is None
        assert listed[5].project is not None
    with tenant("acme"):
        assert (await projects.get(**world.given, id=1)).tasks == []
        assert (await tasks.get(**world.given, id=1)).parts == []
    every = await projects.all_tenants().get_multi(db=world.factory, redis=None)
    assert [(project.id, [task.id for task in project.tasks]) for project in every] == [(1, []), (2, [5])]
    changed = await tasks.update(**world.given, obj_in=Loose(title="new"), id=2)
    assert [part.id for part in changed.parts] == [5]
    assert await tasks.get(**world.given, id=2) == changed


async def test_names_that_collations_take_for_one(world: World) -> None:
    """A tenant whose name differs in case only is another: for links, filters on related rows and nested responses."""
    await world.insert(Project, id=3, tenant_id="OTHER", code="shout")
    with pytest.raises(NotFound):
        await world.tasks.update(**world.given, obj_in=Loose(project_id=3), id=2)
    await world.insert(Task, id=3, tenant_id="other", project_id=3)
    tasks = Crud[Task, Loose, Loose, WholeTask](Task, WholeTask)
    assert await world.tasks.get_multi(**world.given, filters={"project.code": "shout"}) == []
    assert (await tasks.get(db=world.factory, redis=None, id=3)).project is None


async def test_rows_of_tenants_by_way_of_shared_ones_are_refused() -> None:
    """A task that shows its kind with all of its tasks would show those of others: refused when the crud is built."""

    class KindOut(Out):
        tasks: list[TaskOut]

    class Leaking(Out):
        kind: KindOut | None

    with pytest.raises(UnsupportedModel, match="by way of Kind"):
        Crud(Task, Leaking)
    assert Crud(Kind, KindOut).model is Kind


async def test_without_tenants_the_database_alone_decides(world: World) -> None:
    """A crud without tenants sends no statement more."""
    loose = Crud[Task, Loose, Loose, TaskOut](Task, TaskOut, tenant=False)
    await loose.update(**world.given, obj_in=Loose(project_id=1), id=2)
    assert not [each for each in world.sent if "FROM projects" in each]
    assert (await loose.get(**world.given, id=2)).project_id == 1
    if world.engine.dialect.name != "sqlite":
        with pytest.raises(ForeignKeyViolation):
            await loose.update(**world.given, obj_in=Loose(project_id=77), id=2)
