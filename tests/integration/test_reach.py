"""What a write changes beyond its own row: by foreign keys, and by triggers."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.util import await_only

from fastrdb import Committed
from tests.shelves import Shelves, shelves_in
from tests.teams import (
    Cruds,
    Loose,
    Room,
    Team,
    TeamOut,
    crud_of,
)


@pytest.fixture
async def shelves(database_url: str) -> AsyncIterator[Shelves]:
    """A tree of topics among them: 2 and 3 are below 1, 4 and 5 below 2."""
    async with shelves_in(database_url, "memory://") as shelves:
        yield shelves


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


async def test_rows_that_go_with_each_other_are_deleted_together(shelves: Shelves) -> None:
    """A row of a tree and those below it are all deleted by one call, which gives or counts each of them."""
    everything = [1, 2, 3, 4, 5]
    await shelves.cached(lambda: shelves.topics.get_multi(**shelves.given))
    assert await shelves.topics.delete_multi(**shelves.given, keys=everything, missing="raise") == everything
    assert await shelves.topics.get_multi(**shelves.given) == []


@pytest.mark.parametrize("hooked", [False, True])
async def test_rows_that_go_with_each_other_are_counted(shelves: Shelves, hooked: bool) -> None:
    """All rows that match are counted and told, those that went with others among them."""
    told: list[Committed] = []

    async def tell(committed: Committed) -> None:
        told.append(committed)

    if hooked:
        shelves.topics.after_commit(tell)
    assert await shelves.topics.delete_where(**shelves.given, id=[1, 2, 4]) == 3
    assert await shelves.topics.count(**shelves.given) == 0
    rows = [row.before["id"] for each in told for row in each.rows or () if row.before]
    assert rows == ([1, 2, 4] if hooked else [])


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
    "mysql": [
        """
        CREATE TRIGGER touch BEFORE UPDATE ON teams FOR EACH ROW BEGIN
            UPDATE rooms SET name = NEW.name; SET NEW.name = upper(NEW.name);
        END
        """
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
