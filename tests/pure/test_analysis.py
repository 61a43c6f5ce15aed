"""What is read by an expression that a caller gives as ``where=``."""

from __future__ import annotations

import datetime as dt
import enum
import subprocess
import sys
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql
from sqlalchemy.engine.default import StrCompileDialect
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, aliased, column_property, mapped_column, relationship

from fastrdb.errors import InputError
from fastrdb.filters import Analysis, analyse


class Base(DeclarativeBase):
    pass


class Mood(enum.Enum):
    GOOD = "g"


MEMBERSHIP = sa.Table(
    "membership",
    Base.metadata,
    sa.Column("user_id", sa.ForeignKey("app.user.id")),
    sa.Column("team_id", sa.ForeignKey("team.id")),
)


class Team(Base):
    __tablename__ = "team"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Order(Base):
    __tablename__ = "order"
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("app.user.id"))
    total: Mapped[Decimal]


class User(Base):
    __tablename__ = "user"
    __table_args__ = {"schema": "app"}
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    age: Mapped[int | None]
    active: Mapped[bool]
    mood: Mapped[Mood]
    born: Mapped[dt.datetime]
    seen: Mapped[dt.datetime] = mapped_column(sa.DateTime(timezone=True))
    extra: Mapped[dict[str, Any]] = mapped_column(postgresql.JSONB)
    teams: Mapped[list[Team]] = relationship(secondary=MEMBERSHIP)
    orders: Mapped[list[Order]] = relationship()

    @hybrid_property
    def spent(self) -> Decimal:
        raise NotImplementedError

    @spent.inplace.expression
    @classmethod
    def _spent(cls) -> sa.ColumnElement[Decimal]:
        total = sa.select(sa.func.sum(Order.total)).where(Order.user_id == cls.id)
        return sa.func.coalesce(total.scalar_subquery(), 0)


User.order_count = column_property(  # type: ignore[attr-defined]
    sa.select(sa.func.count(Order.id)).where(Order.user_id == User.id).scalar_subquery()
)


class Own(sa.ColumnElement[bool]):
    inherit_cache = True


@compiles(Own)
def _own(element: Own, compiler: Any, **options: Any) -> str:
    return "exists (select * from hidden)"


class lower(sa.sql.functions.GenericFunction[str]):
    """A user's function under an innocent name."""

    name = "lower"
    identifier = "own_lower"
    inherit_cache = True


def analysed(expression: Any) -> Analysis:
    return analyse(expression, StrCompileDialect())


ORDERS = sa.select(Order.user_id).where(Order.total > 5)
COUNTED = sa.select(Order.user_id, sa.func.count().label("n")).group_by(Order.user_id)
NUMBERS = sa.select(sa.literal(1).label("n")).cte("numbers", recursive=True)
NUMBERS = NUMBERS.union_all(
    sa.select(NUMBERS.c.n + 1).where(NUMBERS.c.n < sa.select(sa.func.max(Team.id)).scalar_subquery())
)
OTHER = aliased(User)

READS: dict[str, tuple[Any, set[str]]] = {
    "a column": (User.age > 18, {"app.user"}),
    "a bare truth value": (User.active, {"app.user"}),
    "negation": (~User.active, {"app.user"}),
    "and, or": ((User.age > 18) | User.name.in_(["a", "b"]) & User.age.is_(None), {"app.user"}),
    "nothing": (sa.true(), set()),
    "exists": (sa.exists().where(Order.user_id == User.id), {"app.user", "order"}),
    "in a select": (User.id.in_(ORDERS), {"app.user", "order"}),
    "any()": (User.orders.any(Order.total > 5), {"app.user", "order"}),
    "any() through a table": (User.teams.any(Team.name == "x"), {"app.user", "membership", "team"}),
    "a join along a relationship": (
        User.id.in_(sa.select(OTHER.id).join(OTHER.teams).where(Team.name == "x")),
        {"app.user", "membership", "team"},
    ),
    "select_from a join": (
        User.id.in_(sa.select(sa.literal(1)).select_from(sa.join(Order, Team, Order.id == Team.id))),
        {"app.user", "order", "team"},
    ),
    "an alias": (User.id == sa.select(sa.func.max(OTHER.id)).scalar_subquery(), {"app.user"}),
    "a subquery": (User.id.in_(sa.select(COUNTED.subquery().c.user_id)), {"app.user", "order"}),
    "a column of a subquery": (User.id == COUNTED.subquery().c.user_id, {"app.user", "order"}),
    "a cte": (User.id.in_(sa.select(COUNTED.cte().c.user_id)), {"app.user", "order"}),
    "a recursive cte": (User.id.in_(sa.select(NUMBERS.c.n)), {"app.user", "team"}),
    "a union": (User.id.in_(sa.union(ORDERS, sa.select(Team.id))), {"app.user", "order", "team"}),
    "a hybrid": (User.spent > 5, {"app.user", "order"}),
    "a column_property": (User.order_count > 5, {"app.user", "order"}),  # type: ignore[attr-defined]
    "a light table": (sa.table("light", sa.column("x"), schema="s").c.x == 1, {"s.light"}),
    "pure functions": (sa.func.lower(sa.func.trim(User.name)) == sa.func.coalesce(User.name, "x"), {"app.user"}),
    "a window": (
        User.id.in_(sa.select(sa.func.count(Order.id).over(partition_by=Order.user_id))),
        {"app.user", "order"},
    ),
    "arithmetic, case, cast": (
        sa.case((User.age > 3, 1), else_=2) + sa.cast(User.name, sa.Integer) * 2 == 7,
        {"app.user"},
    ),
    "a part of a local time": (sa.extract("year", User.born) == 2024, {"app.user"}),
    "a part of JSON": (User.extra["a"]["b"].astext == "x", {"app.user"}),
    "an operator of PostgreSQL": (User.extra.contains({"a": 1}), {"app.user"}),
    "a regular expression": (User.name.regexp_match("^a"), {"app.user"}),
    "like": (User.name.startswith("a%", autoescape=True), {"app.user"}),
    "a collation": (User.name.collate("C") == "a", {"app.user"}),
    "an Enum": (User.mood == Mood.GOOD, {"app.user"}),
    "a tuple": (sa.tuple_(User.id, User.age).in_([(1, 2)]), {"app.user"}),
}


@pytest.mark.parametrize("name", READS)
def test_every_table_that_is_read_is_named(name: str) -> None:
    """An expression that depends on its tables alone can be cached, and all of them are found."""
    expression, tables = READS[name]
    analysis = analysed(expression)
    assert analysis.uncacheable is None
    assert analysis.tables == tables


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (sa.text("age > 18"), "text()"),
        (User.name == sa.text("'x'"), "text()"),
        (sa.literal_column("(select max(x) from hidden)") == 1, "literal_column()"),
        (User.id.in_(sa.text("select id from hidden").columns(sa.column("id"))), "text()"),
        (User.seen < sa.func.now(), "function now()"),
        (User.born < sa.func.current_timestamp(), "function current_timestamp()"),
        (sa.func.random() < 0.5, "function random()"),
        (sa.func.hidden(User.id) == 1, "function hidden()"),
        (sa.func.app.lower(User.name) == "a", "function lower()"),
        (sa.func.own_lower(User.name) == "a", "lower writes SQL of its own"),
        (User.id.in_(sa.select(sa.func.unnest(sa.literal([1])))), "function unnest()"),
        (User.id == sa.Sequence("s").next_value(), "function next_value()"),
        (User.name.op("= (select 1) or ")("x"), "operator"),
        (Own(), "Own writes SQL of its own"),
        (sa.and_(User.id == 1, sa.or_(User.id == 2, Own())), "Own writes SQL of its own"),
        (sa.extract("year", User.seen) == 2024, "time zone"),
        (sa.cast(User.seen, sa.Date) == dt.date(2024, 1, 1), "time zone"),
        (sa.cast(User.name, sa.DateTime(timezone=True)) > dt.datetime(2024, 1, 1), "time zone"),
        (User.id.in_(sa.select(sa.tablesample(Order, 10).c.user_id)), "TableSample"),
        (User.teams.contains(Team(id=1)), "computed"),
        (User.age == sa.bindparam("x", callable_=lambda: 5), "computed"),
        (User.age == sa.literal(object()), "no text"),
    ],
)
def test_what_may_change_by_itself_is_not_cacheable(expression: Any, reason: str) -> None:
    """What hides its tables, or depends on more than tables, is named as the reason."""
    analysis = analysed(expression)
    assert analysis.uncacheable is not None
    assert reason in analysis.uncacheable
    assert analysis.text == ""


@pytest.mark.parametrize("expression", [True, False, None, 5, "age > 18", [], User, lambda: User.age > 1, object()])
def test_what_is_no_sql_is_refused(expression: Any) -> None:
    """A comparison that Python already made, a string or a model is no condition."""
    with pytest.raises(InputError, match="where= takes"):
        analysed(expression)


@pytest.mark.parametrize(
    "expression", [sa.select(User.id), User.__table__, sa.insert(User), sa.select(User).subquery()]
)
def test_a_whole_statement_is_no_condition(expression: Any) -> None:
    """A SELECT or a table is refused, and says what to write instead."""
    with pytest.raises(InputError, match="not a whole"):
        analysed(expression)


def test_a_function_is_a_condition() -> None:
    """A function that gives a truth value is no table, though SQLAlchemy could select from it."""
    found = analysed(sa.func.coalesce(User.active, sa.false()))
    assert (found.tables, found.uncacheable) == ({"app.user"}, None)


def test_a_parameter_without_a_value_is_refused() -> None:
    """``where=`` has no place for the values of named parameters."""
    with pytest.raises(InputError, match="'least'"):
        analysed(User.age > sa.bindparam("least"))


@pytest.mark.parametrize("name", READS)
def test_the_text_is_that_of_no_other_expression(name: str) -> None:
    """Each expression has its own text, which does not change from call to call."""
    texts = {other: analysed(expression).text for other, (expression, _) in READS.items()}
    assert texts[name] == analysed(READS[name][0]).text
    assert [other for other, text in texts.items() if text == texts[name]] == [name]


@pytest.mark.parametrize(
    ("one", "two"),
    [(1, 2), (1, "1"), (1, True), (1, Decimal(1)), ("a", b"a"), ([1, 2], [1]), (None, "None"), (Mood.GOOD, "GOOD")],
)
def test_values_tell_texts_apart(one: object, two: object) -> None:
    """Two expressions that differ in a value, or in its type only, have two texts."""

    def text(value: object) -> str:
        return analysed(sa.column("x") == sa.bindparam("p", value, type_=sa.types.NullType())).text

    assert text(one) != text(two)
    assert text(one) == text(one)


def test_the_text_is_the_same_in_every_process() -> None:
    """Neither identities nor hash seeds show in the text."""
    code = (
        "import sqlalchemy as sa; from sqlalchemy.engine.default import StrCompileDialect;"
        "from fastrdb.filters import analyse; t = sa.table('t', sa.column('a'), sa.column('b'));"
        "s = sa.select(t.c.a).where(t.c.b.in_(['x', 'y'])).subquery();"
        "print(analyse(t.c.a.in_(sa.select(s.c.a)) & (t.c.b == 'z'), StrCompileDialect()).text)"
    )
    texts = {
        subprocess.run([sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1
    assert b"SELECT t.a" in texts.pop()
