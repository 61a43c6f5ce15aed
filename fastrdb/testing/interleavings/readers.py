"""A reader: look; then a hit, a bypass, or a miss that mints, lists, claims, selects and fills."""

from __future__ import annotations

from collections.abc import Iterator

from fastrdb.cache.protocol import Cell, claim_mark, is_hold, parse_listing
from fastrdb.cache.store import Claim, Fill, Get, ListTemplates, Mint, Unclaim

from .configurations import ALL, ANY, ENTRY, TEMPLATE
from .world import (
    LIFE_MS,
    UNSEEN,
    Answer,
    Look,
    Reader,
    Setup,
    StaleRead,
    Step,
    World,
    has_listing,
    is_value,
    one,
    several,
    short,
    token_of,
    version_of,
)


def reader_steps(setup: Setup, world: World, i: int) -> Iterator[Step]:
    """Give what reader *i* may do next."""
    reader = world.readers[i]
    if reader.done == setup.configuration.reads:
        return
    if reader.at == "look" and setup.configuration.split:
        yield from _split_looks(setup, reader, i)
    elif reader.at == "look":
        yield _look(setup, i)
    elif reader.at == "token":
        yield _token(setup, world, reader, i)
    elif reader.at == "claim":
        yield _claim(setup, world, i)
    elif reader.at == "select":
        yield _select(setup, i)
    elif reader.at == "fill":
        yield _fill(setup, reader, i)
    elif reader.at == "unclaim":
        yield _unclaim(reader, i, "takes its claim back")
    if setup.configuration.cancels and reader.at in ("select", "fill"):
        yield _unclaim(reader, i, "is cancelled, takes its claim back")


def _floor(setup: Setup, world: World) -> int:
    return world.db if setup.configuration.fresh == "commit" else world.returned


def _idle(reader: Reader) -> Reader:
    return Reader(done=reader.done + 1)


def _look(setup: Setup, i: int) -> Step:
    def then(world: World, answer: Answer) -> tuple[World, str]:
        entry, *tokens = several(answer)
        return _judge(setup, world, i, entry, tuple(tokens), _floor(setup, world))

    return Step(f"R{i} looks", Look(ENTRY, setup.configuration.scopes), then)


def _split_looks(setup: Setup, reader: Reader, i: int) -> Iterator[Step]:
    """Read the cells one by one, in any order."""
    scopes = setup.configuration.scopes
    seen = reader.tokens or (UNSEEN,) * len(scopes)
    first = not reader.tokens

    def got(key: bytes) -> Step:
        def then(world: World, answer: Answer) -> tuple[World, str]:
            cell = one(answer)
            entry = cell if key == ENTRY else reader.entry
            tokens = tuple(cell if k == key else t for k, t in zip(scopes, seen, strict=True))
            floor = _floor(setup, world) if first else reader.floor
            if UNSEEN in (entry, *tokens):
                return world.reader(i, reader._replace(entry=entry, tokens=tokens, floor=floor)), ""
            return _judge(setup, world, i, entry, tokens, floor)

        return Step(f"R{i} gets {short(key)}", Get(key), then)

    for key, cell in zip((ENTRY, *scopes), (reader.entry, *seen), strict=True):
        if cell == UNSEEN:
            yield got(key)


def _judge(setup: Setup, world: World, i: int, entry: Cell, tokens: tuple[Cell, ...], floor: int) -> tuple[World, str]:
    reader = world.readers[i]
    if is_hold(entry) or any(is_hold(token) for token in tokens):
        return world.reader(i, _idle(reader)), "bypasses"
    valid = None not in tokens or not setup.parts.tokens_minted
    if entry is not None and is_value(entry) and valid and entry.startswith(setup.header(tokens)):
        version = version_of(entry)
        if version < floor:
            raise StaleRead(f"R{i} was served version {version} although {floor} was there before it began")
        return world.reader(i, _idle(reader)), f"hit v{version}"
    version_seen = None if setup.parts.fresh_snapshot else world.db
    confirmed = has_listing(setup.configuration) and _confirmed(tokens[setup.configuration.scopes.index(ALL)])
    missing = Reader("token", version=version_seen, confirmed=confirmed, done=reader.done)
    if setup.configuration.remembers and None not in tokens and (confirmed or not has_listing(setup.configuration)):
        missing = missing._replace(at="claim", tokens=tuple(map(token_of, tokens)))
    return world.reader(i, missing), "misses"


def _token(setup: Setup, world: World, reader: Reader, i: int) -> Step:
    """Mint the next token, or list the template where that is ``all``. All in one pipeline with the claim."""
    key, fresh = setup.configuration.scopes[len(reader.tokens)], world.new_name()
    needs_list = key == ALL and setup.parts.lists and not reader.confirmed

    def then(world: World, answer: Answer) -> tuple[World, str]:
        cell = one(answer)
        looks_again = needs_list or (key == ALL and setup.parts.lists and setup.configuration.rechecks)
        refused = is_hold(cell) or (looks_again and not _confirmed(cell))
        token = None if is_hold(cell) or cell is None else token_of(cell)
        tokens = (*reader.tokens, token)
        at = "token" if len(tokens) < len(setup.configuration.scopes) else "claim"
        after = reader._replace(at=at, tokens=tokens, refused=reader.refused or refused)
        used = 1 if token == fresh else 0
        note = "may not store" if refused else ""
        return world._replace(names=world.names + used).reader(i, after), note

    if needs_list:
        command = ListTemplates(ANY, ALL, (TEMPLATE,), fresh, LIFE_MS, setup.parts)
        return Step(f"R{i} lists its template", command, then)
    if not setup.parts.tokens_minted:
        return Step(f"R{i} gets {short(key)}", Get(key), then)
    return Step(f"R{i} mints {short(key)}", Mint(key, fresh, LIFE_MS), then)


def _confirmed(cell: Cell) -> bool:
    return cell is not None and not is_hold(cell) and parse_listing(cell).confirmed(TEMPLATE)


def _claim(setup: Setup, world: World, i: int) -> Step:
    mark = claim_mark(world.new_name())

    def then(world: World, answer: Answer) -> tuple[World, str]:
        reader = world.readers[i]
        if answer != mark:
            return world.reader(i, _idle(reader)), "may not"
        # What it selects without the right to fill does not matter.
        at = "unclaim" if reader.refused else "select"
        tokens = () if reader.refused else reader.tokens
        after = reader._replace(at=at, mark=mark, tokens=tokens, confirmed=False)
        return world._replace(names=world.names + 1).reader(i, after), ""

    return Step(f"R{i} claims", Claim(ENTRY, mark, LIFE_MS), then)


def _select(setup: Setup, i: int) -> Step:
    def then(world: World, answer: Answer) -> tuple[World, str]:
        reader = world.readers[i]
        version = world.db if reader.version is None else reader.version
        return world.reader(i, reader._replace(at="fill", version=version)), f"v{version}"

    return Step(f"R{i} selects", None, then)


def _fill(setup: Setup, reader: Reader, i: int) -> Step:
    assert reader.version is not None
    value = setup.value(reader.tokens, reader.version)

    def then(world: World, answer: Answer) -> tuple[World, str]:
        return world.reader(i, _idle(reader)), "" if answer == value else "may not"

    return Step(f"R{i} fills v{reader.version}", Fill(ENTRY, reader.mark, value, LIFE_MS, setup.parts), then)


def _unclaim(reader: Reader, i: int, verb: str) -> Step:
    def then(world: World, answer: Answer) -> tuple[World, str]:
        return world.reader(i, _idle(reader)), ""

    return Step(f"R{i} {verb}", Unclaim(ENTRY, reader.mark), then)
