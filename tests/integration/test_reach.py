"""What a write changes beyond its own row, and what a value shows beyond it."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, create_model
from sqlalchemy import ColumnElement, ForeignKey, String, event, exists, func, literal_column, select, text
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, column_property, mapped_column
from sqlalchemy.util import await_only

from fastrdb import Cache, Crud


class Base(DeclarativeBase):
    """Teams, their members, the members' badges; and rooms, which have to do with nobody."""


class Team(Base):
    """Members follow it: they go with it, and take over its code."""

    __tablename__ = "teams"
    id: Mapped[int] = mapped_column(primary_key=True)
    code: Mapped[str] = mapped_column(String(10), unique=True)
    name: Mapped[str] = mapped_column(String(50), default="team")


class Badge(Base):
    """Stays when its member goes."""

    __tablename__ = "badges"
    id: Mapped[int] = mapped_column(primary_key=True)
    member_id: Mapped[int | None] = mapped_column(ForeignKey("members.id", ondelete="SET NULL"))
    label: Mapped[str] = mapped_column(String(50), default="badge")


class Pin(Base):
    """Goes with its badge."""

    __tablename__ = "pins"
    id: Mapped[int] = mapped_column(primary_key=True)
    badge_id: Mapped[int] = mapped_column(ForeignKey("badges.id", ondelete="CASCADE"))


class Member(Base):
    """Has a team and badges."""

    __tablename__ = "members"
    id: Mapped[int] = mapped_column(primary_key=True)
    team_id: Mapped[int] = mapped_column(ForeignKey("teams.id", ondelete="CASCADE"))
    team_code: Mapped[str | None] = mapped_column(ForeignKey("teams.code", onupdate="CASCADE", ondelete="CASCADE"))
    age: Mapped[int] = mapped_column(default=20)

    @hybrid_property
    def is_decorated(self) -> bool:
        """Whether the member has badges."""
        raise NotImplementedError

    @is_decorated.inplace.expression
    @classmethod
    def _is_decorated(cls) -> ColumnElement[bool]:
        return exists().where(Badge.member_id == cls.id)


class Room(Base):
    """Nobody's."""

    __tablename__ = "rooms"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(50), default="room")


Member.badge_count = column_property(  # type: ignore[attr-defined]  # as SQLAlchemy adds properties later
    select(func.count(Badge.id)).where(Badge.member_id == Member.id).correlate_except(Badge).scalar_subquery()
)


class Elsewhere(DeclarativeBase):
    """Tables that another part of a program defines."""


class Visit(Elsewhere):
    """Of a member."""

    __tablename__ = "visits"
    id: Mapped[int] = mapped_column(primary_key=True)
    member_id: Mapped[int]


class VisitOut(BaseModel):
    """A visit."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    member_id: int


Member.visit_count = column_property(  # type: ignore[attr-defined]  # as above
    select(func.count(Visit.id)).where(Visit.member_id == Member.id).correlate_except(Visit).scalar_subquery()
)
OlderMember = aliased(Member)
Member.is_oldest = column_property(  # type: ignore[attr-defined]  # as above
    ~exists(select(OlderMember.id).where(OlderMember.age > Member.age))
)


class Loose(BaseModel):
    """Any columns: what is written."""

    model_config = ConfigDict(extra="allow")


class TeamOut(BaseModel):
    """A team."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    code: str
    name: str


class MemberOut(BaseModel):
    """A member."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    team_id: int
    team_code: str | None
    age: int


class CountedOut(MemberOut):
    """A member with the number of its badges, which are rows of another table."""

    badge_count: int


class BadgeOut(BaseModel):
    """A badge."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    member_id: int | None
    label: str


class RoomOut(BaseModel):
    """A room."""

    model_config = ConfigDict(from_attributes=True)
    id: int
    name: str


def crud_of(model: type[Any], schema: type[Any], **options: Any) -> Crud[Any, Loose, Loose, Any]:
    """A crud with a row template, and lists of a team's members."""
    name = model.__name__.lower()
    lists = {"list_pattern": "member:team:{team_id}:page:{page}:limit:{limit}"} if model is Member else {}
    return Crud[model, Loose, Loose, schema](model, schema, pattern=f"{name}:{{id}}", **{**lists, **options})


class Cruds:
    """A database with one team of two members, a badge and a pin, and a crud for each table."""

    def __init__(self, engine: AsyncEngine, cache: Cache) -> None:
        self.engine, self.cache = engine, cache
        self.factory = async_sessionmaker(engine)
        self.teams, self.badges, self.rooms = crud_of(Team, TeamOut), crud_of(Badge, BadgeOut), crud_of(Room, RoomOut)
        self.members = crud_of(Member, MemberOut)
        self.given = {"db": self.factory, "redis": cache}
        self.sent: list[str] = []
        event.listen(engine.sync_engine, "before_cursor_execute", lambda *args: self.sent.append(args[2]))

    async def is_hit(self, read: Callable[[], Any]) -> bool:
        """Whether a read needs no SQL."""
        before = len(self.sent)
        await read()
        return len(self.sent) == before

    async def cached(self, read: Callable[[], Any]) -> Any:
        """Read twice, the second time from the cache."""
        first = await read()
        assert await self.is_hit(read)
        return first


@pytest.fixture
async def cruds(database_url: str, valkey_url: str) -> AsyncIterator[Cruds]:
    """A team (1) with members (1, 2), a badge (1) of the first, a pin on it, a room."""
    engine = create_async_engine(database_url)
    if engine.dialect.name == "sqlite":
        event.listen(engine.sync_engine, "connect", lambda connection, _: connection.execute("PRAGMA foreign_keys=ON"))
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.run_sync(Elsewhere.metadata.create_all)
        for statement in (
            "INSERT INTO teams (code, name) VALUES ('red', 'Red'), ('blue', 'Blue')",
            "INSERT INTO members (team_id, team_code, age) VALUES (1, 'red', 20), (1, 'red', 30)",
            "INSERT INTO badges (member_id, label) VALUES (1, 'gold')",
            "INSERT INTO pins (badge_id) VALUES (1)",
            "INSERT INTO rooms (name) VALUES ('hall')",
        ):
            await connection.exec_driver_sql(statement)
    async with Cache.from_url(valkey_url) as cache:
        yield Cruds(engine, cache)
    await engine.dispose()


# Foreign keys.


async def test_cascading_delete_ages_rows_lists_and_counts(cruds: Cruds) -> None:
    """Deleting a team deletes its members, in the cache, too: rows, lists and counts."""
    members, given = cruds.members, cruds.given
    await cruds.cached(lambda: members.get(**given, id=1))
    await cruds.cached(lambda: members.get_multi(**given, team_id=1))
    await cruds.cached(lambda: members.count(**given, team_id=1))
    await cruds.teams.delete(**given, id=1)
    assert await members.get_or_none(**given, id=1) is None
    assert await members.get_multi(**given, team_id=1) == []
    assert await members.count(**given, team_id=1) == 0


async def test_cascades_are_followed_through_tables(cruds: Cruds) -> None:
    """What the deleted members leave behind changes, too: their badges are nobody's."""
    await cruds.cached(lambda: cruds.badges.get(**cruds.given, id=1))
    await cruds.teams.delete(**cruds.given, id=1)
    assert (await cruds.badges.get(**cruds.given, id=1)).member_id is None


async def test_set_null_ages_the_row(cruds: Cruds) -> None:
    """Deleting a member takes it off its badge."""
    await cruds.cached(lambda: cruds.badges.get(**cruds.given, id=1))
    await cruds.members.delete(**cruds.given, id=1)
    assert (await cruds.badges.get(**cruds.given, id=1)).member_id is None


async def test_cascading_update_ages_the_rows_that_follow(cruds: Cruds) -> None:
    """A team that gets another code gives it to its members."""
    await cruds.cached(lambda: cruds.members.get(**cruds.given, id=1))
    await cruds.teams.update(**cruds.given, obj_in=Loose(code="green"), id=1)
    assert (await cruds.members.get(**cruds.given, id=1)).team_code == "green"


async def test_other_changes_reach_nobody(cruds: Cruds) -> None:
    """A team that gets another name leaves its members cached, and rooms are cached whatever happens to teams."""
    member = lambda: cruds.members.get(**cruds.given, id=1)  # noqa: E731
    room = lambda: cruds.rooms.get(**cruds.given, id=1)  # noqa: E731
    await cruds.cached(member)
    await cruds.cached(room)
    await cruds.teams.update(**cruds.given, obj_in=Loose(name="Green"), id=1)
    assert await cruds.is_hit(member)
    await cruds.teams.delete(**cruds.given, id=2)
    assert await cruds.is_hit(room)


async def test_cascade_in_a_callers_transaction_waits_for_its_commit(cruds: Cruds) -> None:
    """Others get the member from the cache until the caller commits the team's deletion; after a rollback they do."""
    member = lambda: cruds.members.get_or_none(**cruds.given, id=1)  # noqa: E731
    await cruds.cached(member)
    async with cruds.factory() as session:
        await session.begin()
        await cruds.teams.delete(db=session, redis=cruds.cache, id=1)
        assert await cruds.is_hit(member)
        assert await cruds.members.get_or_none(db=session, redis=cruds.cache, id=1) is None
        await session.rollback()
        assert await cruds.is_hit(member)
        await session.begin()
        await cruds.teams.delete(db=session, redis=cruds.cache, id=1)
        await session.commit()
    assert await member() is None


async def test_cascade_of_an_autocommit_statement_is_held_before_it(cruds: Cruds) -> None:
    """With AUTOCOMMIT the members are held when the team's deletion is sent."""
    engine = cruds.engine.execution_options(isolation_level="AUTOCOMMIT")
    await cruds.cached(lambda: cruds.members.get(**cruds.given, id=1))
    states: list[str] = []

    def look(*args: Any) -> None:
        if args[2].startswith("DELETE"):
            states.append(await_only(cruds.members.explain(cruds.cache, cruds.factory, id=1)).state)

    event.listen(engine.sync_engine, "before_cursor_execute", look)
    async with AsyncSession(engine) as session:
        await cruds.teams.delete(db=session, redis=cruds.cache, id=1)
    assert states == ["bypass: a token is held"]
    assert await cruds.members.get_or_none(**cruds.given, id=1) is None


# Other tables in a condition.

WITH_BADGE = exists(select(Badge.id).where(Badge.member_id == Member.id))


async def test_condition_on_another_table_depends_on_it(cruds: Cruds) -> None:
    """Rows, lists and counts under a condition on badges are cached, and aged by any write of a badge."""
    members, given = cruds.members, cruds.given
    row = lambda: members.get_or_none(**given, id=2, where=WITH_BADGE)  # noqa: E731
    page = lambda: members.get_multi(**given, team_id=1, where=WITH_BADGE)  # noqa: E731
    count = lambda: members.count(**given, team_id=1, where=WITH_BADGE)  # noqa: E731
    assert await cruds.cached(row) is None
    assert [member.id for member in await cruds.cached(page)] == [1]
    assert await cruds.cached(count) == 1
    await cruds.badges.create(**given, obj_in=Loose(member_id=2))
    assert (await row()).id == 2
    assert [member.id for member in await page()] == [1, 2]
    assert await count() == 2


async def test_condition_on_another_table_ends_with_a_cascade(cruds: Cruds) -> None:
    """A cascade that reaches the other table ages such lists, too."""
    pinned = exists(select(Pin.id).where(Pin.badge_id == Badge.id))
    page = lambda: cruds.badges.exists(**cruds.given, id=1, where=pinned)  # noqa: E731
    assert await cruds.cached(page) is True
    await cruds.badges.delete(**cruds.given, id=1)
    assert await page() is False


async def test_table_of_other_metadata_is_followed(cruds: Cruds) -> None:
    """A condition may name a table that was defined elsewhere: it is known by its name."""
    where = exists(select(Visit.id).where(Visit.member_id == Member.id))
    page = lambda: cruds.members.get_multi(**cruds.given, team_id=1, where=where)  # noqa: E731
    assert await cruds.cached(page) == []
    await crud_of(Visit, VisitOut).create(**cruds.given, obj_in=Loose(member_id=2))
    assert [member.id for member in await page()] == [2]


async def test_response_with_a_table_of_other_metadata_is_followed(cruds: Cruds) -> None:
    """So may a response."""
    members = crud_of(Member, create_model("Visited", __base__=MemberOut, visit_count=(int, ...)))
    row = lambda: members.get(**cruds.given, id=1)  # noqa: E731
    assert (await cruds.cached(row)).visit_count == 0
    await crud_of(Visit, VisitOut).create(**cruds.given, obj_in=Loose(member_id=1))
    assert (await row()).visit_count == 1


async def test_correlated_condition_leaves_other_lists_alone(cruds: Cruds) -> None:
    """A condition that looks into another table from each row is not aged by rows of other directories."""
    page = lambda: cruds.members.get_multi(**cruds.given, team_id=1, where=WITH_BADGE)  # noqa: E731
    await cruds.cached(page)
    await cruds.members.create(**cruds.given, obj_in=Loose(team_id=2))
    assert await cruds.is_hit(page)


async def test_response_that_shows_other_rows_of_the_table_is_aged_by_them(cruds: Cruds) -> None:
    """A row that says whether it is the oldest one is aged by every other."""
    members = crud_of(Member, create_model("Ranked", __base__=MemberOut, is_oldest=(bool, ...)))
    row = lambda: members.get(**cruds.given, id=2)  # noqa: E731
    assert (await cruds.cached(row)).is_oldest
    await cruds.members.create(**cruds.given, obj_in=Loose(team_id=2, age=99))
    assert not (await row()).is_oldest


async def test_condition_on_other_rows_of_the_table_depends_on_them(cruds: Cruds) -> None:
    """A condition that compares a row with others of its table is aged by a write of those."""
    await cruds.members.create(**cruds.given, obj_in=Loose(team_id=2, age=25))
    other = aliased(Member)
    oldest = ~exists(select(other.id).where(other.age > Member.age))
    row = lambda: cruds.members.get_or_none(**cruds.given, id=2, where=oldest)  # noqa: E731
    page = lambda: cruds.members.get_multi(**cruds.given, team_id=1, where=oldest)  # noqa: E731
    assert (await cruds.cached(row)).id == 2
    assert [member.id for member in await cruds.cached(page)] == [2]
    await cruds.members.update(**cruds.given, obj_in=Loose(age=99), id=3)
    assert await row() is None
    assert await page() == []


async def test_condition_with_an_aggregate_of_the_table_depends_on_it(cruds: Cruds) -> None:
    """So is one with an average over the whole table."""
    above = Member.age > select(func.avg(Member.age)).scalar_subquery()
    page = lambda: cruds.members.get_multi(**cruds.given, team_id=1, where=above)  # noqa: E731
    assert [member.id for member in await cruds.cached(page)] == [2]
    await cruds.members.create(**cruds.given, obj_in=Loose(team_id=2, age=90))
    assert await page() == []


async def test_filter_on_a_hybrid_depends_on_its_tables(cruds: Cruds) -> None:
    """A keyword filter on a hybrid that looks into another table is aged by that table."""
    page = lambda: cruds.members.get_multi(**cruds.given, team_id=1, is_decorated=True)  # noqa: E731
    assert [member.id for member in await cruds.cached(page)] == [1]
    await cruds.badges.create(**cruds.given, obj_in=Loose(member_id=2))
    assert [member.id for member in await page()] == [1, 2]


async def test_order_by_another_table_depends_on_it(cruds: Cruds) -> None:
    """So is a list that is ordered by what another table has."""
    page = lambda: cruds.members.get_multi(  # noqa: E731
        **cruds.given, team_id=1, order_by="badge_count", ascending=False
    )
    assert [member.id for member in await cruds.cached(page)] == [1, 2]
    for _ in range(2):
        await cruds.badges.create(**cruds.given, obj_in=Loose(member_id=2))
    assert [member.id for member in await page()] == [2, 1]


# Other tables in a response.


async def test_response_with_another_tables_count_depends_on_it(cruds: Cruds) -> None:
    """A row that shows how many badges it has is aged by a badge, as are lists of such rows."""
    members = crud_of(Member, CountedOut)
    row = lambda: members.get(**cruds.given, id=1)  # noqa: E731
    page = lambda: members.get_multi(**cruds.given, team_id=1)  # noqa: E731
    assert (await cruds.cached(row)).badge_count == 1
    assert [member.badge_count for member in await cruds.cached(page)] == [1, 0]
    await cruds.badges.create(**cruds.given, obj_in=Loose(member_id=1))
    assert (await row()).badge_count == 2
    assert [member.badge_count for member in await page()] == [2, 0]


async def test_response_with_another_tables_count_is_not_written_through(cruds: Cruds) -> None:
    """Nor is it put in place by its own write: the other table may change meanwhile."""
    members = crud_of(Member, CountedOut)
    await cruds.cached(lambda: members.get(**cruds.given, id=1))
    assert (await members.update(**cruds.given, obj_in=Loose(age=21), id=1)).badge_count == 1
    assert (await members.explain(**cruds.given, id=1)).state == "miss: absent"


async def test_declared_dependency_is_followed(cruds: Cruds) -> None:
    """``depends_on=`` names what fastrdb cannot see."""
    members = crud_of(Member, MemberOut, depends_on=(Room,))
    row = lambda: members.get(**cruds.given, id=1)  # noqa: E731
    await cruds.cached(row)
    await cruds.rooms.update(**cruds.given, obj_in=Loose(name="cellar"), id=1)
    assert not await cruds.is_hit(row)


# What changes by itself.

UNCACHEABLE: dict[str, Callable[[], ColumnElement[bool]]] = {
    "text": lambda: text("members.age > 1"),
    "clock": lambda: func.now().is_not(None),
    "random": lambda: func.random() < 2**63 - 1,
    "literal column": lambda: literal_column("members.age") > 1,
}


@pytest.mark.parametrize("kind", UNCACHEABLE)
async def test_condition_that_changes_by_itself_is_not_cached(cruds: Cruds, kind: str) -> None:
    """Its result is right each time, comes from SQL each time, and the reason is counted."""
    where = UNCACHEABLE[kind]()
    for read in (
        lambda: cruds.members.get_or_none(**cruds.given, id=1, where=where),
        lambda: cruds.members.get_multi(**cruds.given, team_id=1, where=where),
        lambda: cruds.members.count(**cruds.given, team_id=1, where=where),
    ):
        assert await read()
        assert not await cruds.is_hit(read)
    reasons = cruds.cache.stats.reasons
    assert sum(reasons.values()) == 6, reasons
    assert all(reason.startswith("bypass: ") for reason in reasons)


# Triggers.

TRIGGERS = {
    "postgresql": [
        """
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            UPDATE rooms SET name = NEW.name; NEW.name := upper(NEW.name); RETURN NEW;
        END $$
        """,
        "CREATE TRIGGER touch BEFORE UPDATE ON teams FOR EACH ROW EXECUTE FUNCTION touch()",
    ],
    "sqlite": [
        """
        CREATE TRIGGER touch AFTER UPDATE OF name ON teams WHEN NEW.name <> upper(NEW.name) BEGIN
            UPDATE rooms SET name = NEW.name;
            UPDATE teams SET name = upper(NEW.name) WHERE id = NEW.id;
        END
        """
    ],
}


@pytest.fixture
async def triggered(cruds: Cruds) -> Cruds:
    """A trigger of teams writes their names into rooms, and makes them upper case."""
    async with cruds.engine.begin() as connection:
        for statement in TRIGGERS[cruds.engine.dialect.name]:
            await connection.exec_driver_sql(statement)
    return cruds


async def test_touched_tables_are_aged(triggered: Cruds) -> None:
    """``touches=`` names the models whose rows triggers change: they are aged by each write."""
    teams = crud_of(Team, TeamOut, touches=(Room,), triggers=True)
    await triggered.cached(lambda: triggered.rooms.get(**triggered.given, id=1))
    await teams.update(**triggered.given, obj_in=Loose(name="green"), id=1)
    assert (await triggered.rooms.get(**triggered.given, id=1)).name == "green"


async def test_touched_tables_are_aged_under_autocommit(triggered: Cruds) -> None:
    """Under AUTOCOMMIT, too."""
    teams = crud_of(Team, TeamOut, touches=(Room,), triggers=True)
    engine = triggered.engine.execution_options(isolation_level="AUTOCOMMIT")
    await triggered.cached(lambda: triggered.rooms.get(**triggered.given, id=1))
    async with AsyncSession(engine) as session:
        await teams.update(db=session, redis=triggered.cache, obj_in=Loose(name="green"), id=1)
    assert (await triggered.rooms.get(**triggered.given, id=1)).name == "green"


async def test_triggers_forbid_writing_through(triggered: Cruds) -> None:
    """With ``triggers=True`` no written value is put in place: readers get what the trigger made of it."""
    teams = crud_of(Team, TeamOut, triggers=True)
    await triggered.cached(lambda: teams.get(**triggered.given, id=1))
    await teams.update(**triggered.given, obj_in=Loose(name="green"), id=1)
    assert (await teams.explain(**triggered.given, id=1)).state == "miss: absent"
    assert (await teams.get(**triggered.given, id=1)).name == "GREEN"


async def test_without_triggers_values_are_written_through(cruds: Cruds) -> None:
    """Without it, they are: the same crud, the same write."""
    await cruds.cached(lambda: cruds.teams.get(**cruds.given, id=1))
    await cruds.teams.update(**cruds.given, obj_in=Loose(name="green"), id=1)
    assert (await cruds.teams.explain(**cruds.given, id=1)).state == "hit"
