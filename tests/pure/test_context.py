"""Who acts, and for which tenant."""

import asyncio
from contextlib import suppress
from contextvars import copy_context
from dataclasses import FrozenInstanceError
from typing import Any
from uuid import UUID

import pytest

from fastrdb import InputError
from fastrdb.context import Actor, actor, current_actor, current_tenant, tenant


def test_nobody_acts_outside_of_a_block() -> None:
    """Without a block there is no actor and no tenant."""
    assert (current_actor(), current_tenant()) == (None, None)


def test_blocks_nest_and_restore() -> None:
    """An inner block hides the outer one, which holds again after it, also after an exception."""
    with actor("ann", request_id="r1") as ann, tenant("acme"):
        with suppress(ZeroDivisionError), actor("bob"), tenant("other"):
            assert (current_actor(), current_tenant()) == (Actor("bob"), "other")
            raise ZeroDivisionError
        assert current_actor() is ann
        assert (ann, current_tenant()) == (Actor("ann", "r1"), "acme")
    assert (current_actor(), current_tenant()) == (None, None)


async def test_async_with_does_the_same() -> None:
    """The same blocks work with ``async with``."""
    async with actor("ann"), tenant("acme"):
        assert (current_actor(), current_tenant()) == (Actor("ann"), "acme")
    assert (current_actor(), current_tenant()) == (None, None)


async def test_tasks_do_not_see_each_other() -> None:
    """Tasks inherit what holds where they are started, and change nothing for anybody else."""
    meet = asyncio.Barrier(10)

    async def work(name: str) -> list[Actor | None]:
        seen = [current_actor()]
        async with actor(name):
            await meet.wait()
            seen.append(current_actor())
        await meet.wait()
        return [*seen, current_actor()]

    async with actor("outer") as outer:
        seen = await asyncio.gather(*(work(str(number)) for number in range(10)))
        assert current_actor() == outer
    assert seen == [[outer, Actor(str(number)), outer] for number in range(10)]


def test_one_block_may_be_entered_again() -> None:
    """The object of a block may be kept, and entered inside itself."""
    ann = actor("ann")
    with ann, ann, actor("bob"):
        pass
    assert current_actor() is None


def test_block_left_in_another_context_ends_there_without_harm() -> None:
    """A block that a generator leaves in a context it did not enter it in leaves that context as it is."""
    ann = actor("ann")
    copy_context().run(ann.__enter__)
    with actor("bob") as bob:
        ann.__exit__(None, None, None)
        assert current_actor() == bob


def test_ids_become_text() -> None:
    """Whole numbers and UUIDs are taken, and are text from then on."""
    key = UUID("00000000-0000-4000-8000-000000000001")
    with actor(7, request_id=key), tenant(key):
        assert current_actor() == Actor("7", str(key))
        assert current_tenant() == str(key)


@pytest.mark.parametrize("given", [None, "", "  ", True, b"ann", object()])
def test_missing_ids_are_refused(given: Any) -> None:
    """What names nobody is refused at once: it must not mean everybody."""
    for make in (actor, tenant):
        with pytest.raises(InputError, match="_id"):
            make(given)


def test_actor_cannot_be_changed() -> None:
    """An actor is a value."""
    with pytest.raises(FrozenInstanceError):
        Actor("ann").user_id = "bob"  # type: ignore[misc]  # the mistake
