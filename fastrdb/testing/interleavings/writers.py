"""A writer: update, hold, note, COMMIT, release; and how far it may get when it is killed, or hears nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from fastrdb.cache.protocol import Cell, is_hold, parse_listing
from fastrdb.cache.store import Command, Get, HoldCell, HoldTable, Mint, Release, ReleaseTable, RenewTable

from .configurations import ALL, ANY, ENTRY, TEMPLATE, Plan
from .world import (
    LIFE_MS,
    Answer,
    Op,
    Setup,
    Step,
    World,
    Writer,
    one,
    several,
    short,
    token_of,
    writer_name,
)


def first_steps(setup: Setup, plan: Plan) -> Writer:
    """Give a writer that has not begun."""
    noted: tuple[Cell, ...] = (None,) * len(setup.configuration.scopes)
    todo = [Op("updates")]
    if not plan.table or not setup.parts.holds:
        own = (ANY, *plan.holds) if plan.table else plan.holds
        todo += _program(setup, plan, own, ())
        return Writer(tuple(todo), own, noted, plan.through, renewable=own if plan.renews else ())
    if not setup.parts.hold_first:
        todo.append(Op("reads", ALL))
    return Writer((*todo, Op("holds the table")), noted=noted)


def _program(setup: Setup, plan: Plan, own: tuple[bytes, ...], listed: tuple[bytes, ...]) -> list[Op]:
    """Give the steps after the table is held: one pipeline, a second one for what others listed, COMMIT, release."""
    held = (*own, *listed)
    notes = [Op("notes", key) for key in setup.configuration.scopes if key not in (*held, ALL) and plan.through]
    holds = [Op("holds", key) for key in own if not (key == ANY and plan.table)]
    early, late = (notes, []) if setup.parts.stamp_before_commit else ([], notes)
    before = [*holds, *early, *(Op("holds", key) for key in listed)] if setup.parts.holds else []
    return [*before, Op("commits"), *late, *_releases(held, plan.through)]


def _releases(held: Iterable[bytes], through: bool) -> list[Op]:
    """Release in the order of holding, and an entry that is written through after the tokens it is stamped with."""
    return [Op("releases", key) for key in sorted(held, key=lambda key: through and key == ENTRY)]


def writer_steps(setup: Setup, world: World, i: int) -> Iterator[Step]:
    """Give what writer *i* may do next."""
    writer = world.writers[i]
    if not writer.todo or writer.fate == "gone":
        return
    op = writer.todo[0]
    if op.verb == "updates":
        if world.lock is None:
            yield _updates(setup, i)
    elif op.verb == "reads":
        yield _reads(setup, i)
    elif op.verb == "holds the table":
        yield _holds_table(setup, world, i)
    elif op.verb == "holds":
        yield _asks(i, f"W{i} holds {short(op.key)}", HoldCell(op.key, writer_name(i), LIFE_MS))
    elif op.verb == "notes":
        yield _notes(setup, world, i, op.key)
    elif op.verb == "commits":
        yield _commits(i)
    elif op.verb == "releases":
        yield _releases_cell(setup, world, i, op.key)


def _next(world: World, i: int) -> Writer:
    writer = world.writers[i]
    return writer._replace(todo=writer.todo[1:])


def _asks(i: int, label: str, command: Command) -> Step:
    return Step(label, command, lambda world, answer: (world.writer(i, _next(world, i)), ""))


def _updates(setup: Setup, i: int) -> Step:
    def then(world: World, answer: Answer) -> tuple[World, str]:
        locked = world._replace(lock=i) if setup.configuration.locked else world
        return locked.writer(i, _next(world, i)), ""

    return Step(f"W{i} updates", None, then)


def _reads(setup: Setup, i: int) -> Step:
    """Read ``all`` before ``any`` is held: the wrong order, for a BREAKS row."""

    def then(world: World, answer: Answer) -> tuple[World, str]:
        all_cell = one(answer)
        return world.writer(i, _after_listing(setup, i, _next(world, i), all_cell)), _names(setup, i, all_cell)

    return Step(f"W{i} reads all", Get(ALL), then)


def _holds_table(setup: Setup, world: World, i: int) -> Step:
    plan, fresh = setup.configuration.writers[i], world.new_name()
    ours = (TEMPLATE,) if plan.lists and setup.parts.lists and setup.parts.through_listed else ()
    command = HoldTable(ANY, ALL, writer_name(i), LIFE_MS, ours, fresh, LIFE_MS, setup.parts)

    def then(world: World, answer: Answer) -> tuple[World, str]:
        _, all_cell = several(answer)
        used = 1 if token_of(all_cell) == fresh else 0
        world = world._replace(names=world.names + used)
        if not setup.parts.hold_first:
            return world.writer(i, _next(world, i)), ""
        return world.writer(i, _after_listing(setup, i, _next(world, i), all_cell)), _names(setup, i, all_cell)

    return Step(f"W{i} holds the table", command, then)


def _names(setup: Setup, i: int, all_cell: Cell) -> str:
    return "finds " + (", ".join(map(short, _listed(setup, i, all_cell))) or "nothing") + " to hold"


def _listed(setup: Setup, i: int, all_cell: Cell) -> tuple[bytes, ...]:
    """Give what the templates in ``all`` make a writer hold, beside what its own code names."""
    plan = setup.configuration.writers[i]
    if all_cell is None or not setup.parts.lists or ALL in plan.holds:
        return ()
    if is_hold(all_cell):
        return (ALL,)
    listing = parse_listing(all_cell)
    waits_for = listing.templates.get(TEMPLATE)
    if waits_for is None or (waits_for and not setup.parts.pending_counts):
        return ()
    if not plan.formats:
        return (ALL,)
    return (plan.names,) if plan.names is not None and plan.names not in plan.holds else ()


def _after_listing(setup: Setup, i: int, writer: Writer, all_cell: Cell) -> Writer:
    plan, listed = setup.configuration.writers[i], _listed(setup, i, all_cell)
    own = (ANY, *plan.holds)
    free = all_cell is not None and not is_hold(all_cell) and ALL not in (*own, *listed)
    confirmed = free and all_cell is not None and parse_listing(all_cell).confirmed(TEMPLATE)
    noted = tuple(
        token_of(all_cell) if key == ALL and free and plan.through else cell
        for key, cell in zip(setup.configuration.scopes, writer.noted, strict=True)
    )
    return writer._replace(
        todo=(*writer.todo, *_program(setup, plan, own, listed)),
        held=(*own, *listed),
        noted=noted,
        installs=plan.through and free and (confirmed or not setup.parts.through_listed),
        renewable=(*own, *listed) if plan.renews else (),
    )


def _notes(setup: Setup, world: World, i: int, key: bytes) -> Step:
    """Note a token that the value will be stamped with."""
    fresh = world.new_name()

    def then(world: World, answer: Answer) -> tuple[World, str]:
        token = None if is_hold(one(answer)) else one(answer)
        used = 1 if token == fresh else 0
        writer = _keep(setup, _next(world, i), key, token)
        return world._replace(names=world.names + used).writer(i, writer), ""

    return Step(f"W{i} notes {short(key)}", Mint(key, fresh, LIFE_MS), then)


def _keep(setup: Setup, writer: Writer, key: bytes, token: Cell) -> Writer:
    scopes = setup.configuration.scopes
    return writer._replace(noted=tuple(token if k == key else t for k, t in zip(scopes, writer.noted, strict=True)))


def _commits(i: int) -> Step:
    def then(world: World, answer: Answer) -> tuple[World, str]:
        writer = _next(world, i)._replace(version=world.db + 1)
        return _unlocked(world, i)._replace(db=world.db + 1).writer(i, writer), f"v{world.db + 1}"

    return Step(f"W{i} commits", None, then)


def _unlocked(world: World, i: int) -> World:
    return world._replace(lock=None) if world.lock == i else world


def _releases_cell(setup: Setup, world: World, i: int, key: bytes) -> Step:
    writer, plan = world.writers[i], setup.configuration.writers[i]
    replacement: Cell = None
    fresh = key in setup.configuration.scopes and plan.through and bool(writer.version) and key not in (ANY, ALL)
    if fresh:
        replacement = world.new_name()
    elif key == ENTRY and writer.version and writer.installs and None not in writer.noted:
        replacement = setup.value(writer.noted, writer.version)

    def then(world: World, answer: Answer) -> tuple[World, str]:
        after = _next(world, i)._replace(renewable=())
        if fresh:  # releases share a pipeline: the value is stamped before the reply is known
            after = _keep(setup, after, key, replacement)
        world = world._replace(names=world.names + fresh)
        if not after.todo:
            world = world._replace(returned=max(world.returned, after.version))
            after = Writer((), version=after.version, fate=after.fate)
        note = (
            ""
            if replacement is None or fresh
            else f"v{after.version} stays"
            if answer == replacement
            else "without its value"
        )
        return world.writer(i, after), note

    command: Command = Release(key, writer_name(i), replacement, LIFE_MS if replacement else 0, setup.parts)
    if key == ANY and plan.releases_table:
        command = ReleaseTable(ANY, ALL, writer_name(i))
    return Step(f"W{i} releases {short(key)}", command, then)


def fates(setup: Setup, world: World, i: int) -> Iterator[Step]:
    """Give what may happen to writer *i*: killed, its COMMIT refused or unheard of, its holds renewed."""
    writer, plan = world.writers[i], setup.configuration.writers[i]
    begun = bool(writer.todo) and writer.todo[0].verb != "updates"
    if writer.fate == "limbo":
        yield Step(f"W{i}'s lost COMMIT takes effect", None, lambda world, _: (_landed(world, i, world.db + 1), ""))
        yield Step(f"W{i}'s lost COMMIT is rolled back", None, lambda world, _: (_landed(world, i, world.db), ""))
    elif begun and writer.fate == "":
        if world.crashes:
            yield Step(f"W{i} is killed", None, lambda world, _: (_killed(world, i), ""))
        if writer.todo[0].verb == "commits":
            yield from _endings(world, i, plan)
        yield from _renewals(writer, plan, i)


def _killed(world: World, i: int) -> World:
    world = _unlocked(world, i)._replace(crashes=world.crashes - 1)
    return world.writer(i, Writer((), fate="gone"))


def _landed(world: World, i: int, version: int) -> World:
    writer = world.writers[i]
    after = writer._replace(fate="" if writer.todo else "gone")
    return _unlocked(world, i)._replace(db=version).writer(i, after)


def _endings(world: World, i: int, plan: Plan) -> Iterator[Step]:
    """How a COMMIT may end other than well."""
    writer = world.writers[i]
    releases = tuple(_releases(writer.held, through=False))
    if plan.may_fail:
        failed = writer._replace(todo=releases)
        yield Step(f"W{i}'s COMMIT is refused", None, lambda world, _: (_unlocked(world, i).writer(i, failed), ""))
    if plan.outcome_lost:
        lost = writer._replace(todo=releases if plan.trusts_lost else (), fate="limbo", renewable=())
        yield Step(f"W{i} loses its connection at COMMIT", None, lambda world, _: (world.writer(i, lost), ""))


def _renewals(writer: Writer, plan: Plan, i: int) -> Iterator[Step]:
    """A timer renews the holds from the last one on until the first release, whether COMMIT has happened or not."""
    if writer.todo[0].verb not in ("commits", "releases"):
        return
    for key in writer.renewable:
        command: Command = HoldCell(key, writer_name(i), LIFE_MS, again=plan.renews_as_shared)
        if key == ANY and plan.renews_table:
            command = RenewTable(ANY, ALL, writer_name(i), LIFE_MS)
        yield _renews(i, key, command)


def _renews(i: int, key: bytes, command: Command) -> Step:
    def then(world: World, answer: Answer) -> tuple[World, str]:
        writer = world.writers[i]
        return world.writer(i, writer._replace(renewable=tuple(k for k in writer.renewable if k != key))), ""

    return Step(f"W{i} renews {short(key)}", command, then)
