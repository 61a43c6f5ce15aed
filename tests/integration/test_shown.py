"""What a value shows beyond its own row: conditions, orders and responses that look into other rows."""

from collections.abc import Callable

import pytest
from pydantic import create_model
from sqlalchemy import ColumnElement, exists, func, literal_column, select, text
from sqlalchemy.orm import aliased

from tests.teams import (
    Badge,
    CountedOut,
    Cruds,
    Loose,
    Member,
    MemberOut,
    Pin,
    Room,
    Visit,
    VisitOut,
    crud_of,
)

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
