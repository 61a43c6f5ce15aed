"""Teams, members and badges that hang together by foreign keys, with a crud for each table."""

from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, ConfigDict
from sqlalchemy import ColumnElement, ForeignKey, String, event, exists, func, select
from sqlalchemy.ext.asyncio import AsyncEngine, async_sessionmaker
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, column_property, mapped_column

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
