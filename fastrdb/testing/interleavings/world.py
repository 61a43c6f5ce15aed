"""One situation: the database, the cells, and where each process stands. Everything in it is hashable.

Processes know their next request and what they make of its reply; they do not know whether the reply comes from
``Command.apply`` on the cells of a ``World`` or from a real store.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

from fastrdb.cache.protocol import Cell, Parts, is_hold, parse_hold, stamp
from fastrdb.cache.store import Command, Reply

from .configurations import ALL, KEYS, SHORT, Configuration

NOW_MS, LIFE_MS = 1_000, 60_000
PASSED_MS = 1  # a deadline that lies behind NOW_MS

UNSEEN = b"not looked at yet"


class StaleRead(AssertionError):
    """A read was answered with an older version than was there before it began."""


class Look(NamedTuple):
    """Read an entry and the tokens of its scopes in one step, as ``Store.read`` does."""

    entry: bytes
    tokens: tuple[bytes, ...]


Request: TypeAlias = Command | Look | None
Answer: TypeAlias = Reply  # to a Look: the entry, then the tokens


def one(answer: Answer) -> Cell:
    """Give the cell that a command on one key answers with."""
    assert not isinstance(answer, tuple)
    return answer


def several(answer: Answer) -> tuple[Cell, ...]:
    """Give the cells that a look, or a command on two keys, answers with."""
    assert isinstance(answer, tuple)
    return answer


class Reader(NamedTuple):
    """Where a reader stands.

    Attributes:
        at: Its next step.
        tokens: The tokens it will stamp with, those of its scopes in their order.
        entry: What it saw in the entry, where it reads cell by cell.
        mark: Its claim.
        version: What it selected.
        floor: The version that must not be undercut.
        refused: It may not fill.
        confirmed: The ``all`` that it looked at confirmed its template.
        done: Its finished reads.
    """

    at: str = "look"
    tokens: tuple[Cell, ...] = ()
    entry: Cell = UNSEEN
    mark: bytes = b""
    version: int | None = None
    floor: int = 0
    refused: bool = False
    confirmed: bool = False
    done: int = 0


class Op(NamedTuple):
    """One step of a writer: a verb, and the key it is about."""

    verb: str
    key: bytes = b""


class Writer(NamedTuple):
    """Where a writer stands.

    Attributes:
        todo: The steps that are left.
        held: The cells it holds, in the order in which it held them.
        noted: The tokens of the value's scopes, noted or fresh; ``None`` as long as there is none.
        installs: It may write its value through.
        version: What it committed.
        renewable: Holds that it may still renew.
        fate: ``""`` alive, ``"gone"`` dead, ``"limbo"`` its COMMIT is on the way and nobody will hear of it.
    """

    todo: tuple[Op, ...]
    held: tuple[bytes, ...] = ()
    noted: tuple[Cell, ...] = ()
    installs: bool = False
    version: int = 0
    renewable: tuple[bytes, ...] = ()
    fate: str = ""


class World(NamedTuple):
    """Everything there is. *lock* is the writer that has the row's; *names* counts the random names given so far."""

    db: int
    returned: int
    lock: int | None
    cells: tuple[Cell, ...]
    readers: tuple[Reader, ...]
    writers: tuple[Writer, ...]
    evictions: int
    crashes: int
    names: int

    def reader(self, i: int, reader: Reader) -> World:
        """Give the world with another reader *i*."""
        return self._replace(readers=(*self.readers[:i], reader, *self.readers[i + 1 :]))

    def writer(self, i: int, writer: Writer) -> World:
        """Give the world with another writer *i*."""
        return self._replace(writers=(*self.writers[:i], writer, *self.writers[i + 1 :]))

    def cell(self, key: bytes) -> Cell:
        """Give the content of a cell."""
        return self.cells[KEYS.index(key)]

    def put(self, key: bytes, cell: Cell) -> World:
        """Give the world with another content of a cell."""
        at = KEYS.index(key)
        return self._replace(cells=(*self.cells[:at], cell, *self.cells[at + 1 :]))

    def new_name(self) -> bytes:
        """Give a name that nobody has; whoever keeps it adds 1 to *names*."""
        return b"n%d" % self.names


class Step(NamedTuple):
    """Something that may happen next.

    Attributes:
        label: Who does what; distinct among the steps of one world.
        request: What is asked of the store.
        then: The world after the reply, given the world with the cells as they are then, and a note on the outcome.
    """

    label: str
    request: Request
    then: Callable[[World, Answer], tuple[World, str]]


class Setup(NamedTuple):
    """What does not change during a run: who takes part, under which rules, and how values look."""

    configuration: Configuration
    parts: Parts
    header: Callable[[Sequence[Cell]], bytes]

    def value(self, tokens: Sequence[Cell], version: int) -> bytes:
        """Give the bytes of a version, stamped."""
        text = b"null" if self.configuration.creates and version == 0 else b"%d" % version
        return self.header(tokens) + text


def readable_header(tokens: Sequence[Cell]) -> bytes:
    """Stand in for the stamp with the tokens themselves, so that situations that differ by names compare equal."""
    return b"+".join(token_of(cell) for cell in tokens) + b" "


def stamped_header(tokens: Sequence[Cell]) -> bytes:
    """Give the protocol's own stamp."""
    return stamp([token_of(cell) for cell in tokens])


def token_of(cell: Cell) -> bytes:
    """Give the token without the templates that it lists."""
    return (cell or b"").split(b"\n", 1)[0]


def version_of(value: bytes) -> int:
    """Read the version that a value shows."""
    text = value.split()[-1]
    return 0 if text == b"null" else int(text)


def is_value(cell: Cell) -> bool:
    """Tell whether an entry has a value, and no claim or hold."""
    return cell is not None and not cell.startswith(b'"')


def writer_name(i: int) -> bytes:
    """Give the name of writer *i* in holds."""
    return b"W%d" % i


def short(key: bytes) -> str:
    """Give the word for a cell."""
    return SHORT[key]


def holders(cell: Cell) -> dict[bytes, int]:
    """Give the writers in a hold, and their deadlines."""
    return parse_hold(cell).writers if cell is not None and is_hold(cell) else {}


_NAME = re.compile(rb"n\d+")
_NOTHING = b"-"


def _order(reader: Reader) -> tuple[int, str, int, bool]:
    return reader.done, reader.at, reader.version or 0, reader.refused


def situation(world: World) -> tuple[object, ...]:
    """Give a key that is equal for worlds that differ only by random names, or by which of the readers is which."""
    readers = sorted(world.readers, key=_order)
    texts = [*world.cells]
    rest: list[object] = [world.db, world.returned, world.lock, world.evictions, world.crashes]
    for reader in readers:
        texts += reader.tokens
        texts += (reader.entry, reader.mark)
        rest += (reader.at, reader.version, reader.floor, reader.refused, reader.confirmed, reader.done)
        rest.append(len(reader.tokens))
    for writer in world.writers:
        texts += writer.noted
        rest += (writer.todo, writer.held, writer.installs, writer.version, writer.renewable, writer.fate)
        rest.append(len(writer.noted))
    seen: dict[bytes, bytes] = {}
    blob = b"\0".join([_NOTHING if text is None else text for text in texts])
    renamed = _NAME.sub(lambda found: seen.setdefault(found[0], b"n%d" % len(seen)), blob)
    return (renamed, *rest)


def has_listing(configuration: Configuration) -> bool:
    """Tell whether the value's template is listed in ``all``."""
    return ALL in configuration.scopes
