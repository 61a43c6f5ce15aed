"""The commands of ``store`` as Lua: what runs inside Redis, and the bytes that ask for it.

Each script is the twin of a command's ``apply``; a test drives both with the same random commands. A script
touches one key, or the two of one hash tag, and takes the time from Redis, so that all processes share a
clock. The life of a token that stays is only ever lengthened (``PEXPIRE … GT``); a hold's ends with its last
deadline.

A server that is out of memory (``maxmemory`` under ``noeviction``) refuses what makes it store more. Holds and their
releases are let through all the same: they are small, and end by themselves, and without them old values would stay.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha1
from operator import attrgetter
from typing import Any, Final, TypeAlias, cast

from hiredis import pack_command

from . import lua
from .protocol import Cell
from .store import (
    Claim,
    Command,
    Fill,
    Get,
    HoldCell,
    HoldTable,
    Life,
    ListTemplates,
    Mint,
    Put,
    Release,
    ReleaseTable,
    RenewTable,
    Reply,
    Unclaim,
)


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script: its text, and the name under which Redis keeps it."""

    text: bytes
    sha: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", sha1(self.text, usedforsecurity=False).hexdigest().encode())


_IN_ANY_CASE: Final = "#!lua flags=allow-oom\n"


def _script(*parts: str, in_any_case: bool = False) -> Script:
    first = (_IN_ANY_CASE, lua.GET) if in_any_case else (lua.GET,)
    return Script("".join((*first, *parts)).encode())


_MINT_SCRIPT: Final = _script(lua.MINT)
_CLAIM_SCRIPT: Final = _script(lua.STORES, lua.CLAIM)
_FILL_SCRIPT: Final = _script(lua.STORES, lua.FILL)
_PUT_SCRIPT: Final = _script(lua.STORES, lua.PUT)
_UNCLAIM_SCRIPT: Final = _script(lua.UNCLAIM)
_HOLD_CELL_SCRIPT: Final = _script(lua.HOLDS, lua.HOLD_CELL, in_any_case=True)
_HOLD_TABLE_SCRIPT: Final = _script(lua.HOLDS, lua.LISTS, lua.HOLD_TABLE, in_any_case=True)
_LIST_TEMPLATES_SCRIPT: Final = _script(lua.HOLDS, lua.LISTS, lua.LIST_TEMPLATES)
_RELEASE_SCRIPT: Final = _script(lua.HOLDS, lua.RELEASES, lua.RELEASE, in_any_case=True)
_RELEASE_INTO_SCRIPT: Final = _script(lua.HOLDS, lua.RELEASES, lua.RELEASE)  # puts a value, if there is memory for it
_RELEASE_TABLE_SCRIPT: Final = _script(lua.HOLDS, lua.RELEASES, lua.LOSSES, lua.RELEASE_TABLE, in_any_case=True)
_RENEW_TABLE_SCRIPT: Final = _script(lua.HOLDS, lua.RELEASES, lua.LOSSES, lua.RENEW_TABLE, in_any_case=True)

SCRIPTS: Final[tuple[Script, ...]] = (
    _MINT_SCRIPT,
    _CLAIM_SCRIPT,
    _FILL_SCRIPT,
    _PUT_SCRIPT,
    _UNCLAIM_SCRIPT,
    _HOLD_CELL_SCRIPT,
    _HOLD_TABLE_SCRIPT,
    _LIST_TEMPLATES_SCRIPT,
    _RELEASE_SCRIPT,
    _RELEASE_INTO_SCRIPT,
    _RELEASE_TABLE_SCRIPT,
    _RENEW_TABLE_SCRIPT,
)

Argument: TypeAlias = bytes | int
_STORED: Final = 1  # the reply in place of a value that the caller has at hand


def pack(arguments: Iterable[Argument]) -> bytes:
    """Give the bytes of one command in Redis's protocol."""
    packed: bytes = pack_command(cast("Any", tuple(arguments)))  # its stub asks for a tuple of one
    return packed


def request(command: Command, *, by_text: bool = False) -> bytes:
    """Give the bytes that ask Redis for a command.

    Args:
        by_text: Send the script itself, for a server that has forgotten it; it knows it from then on.
    """
    called = _CALLS[type(command)](command)
    if by_text and called[0] == _BY_NAME:
        called = (b"EVAL", _TEXTS[cast("bytes", called[1])], *called[2:])
    return pack(called)


def reply(command: Command, answer: Any) -> Reply:
    """Bring an answer of Redis, which is no error, to what the command promises."""
    told = _REPLIES.get(type(command))
    return told(command, answer) if told is not None else cast("Cell", answer)


_REPLIES: Final[Mapping[type[Command], Callable[[Any, Any], Reply]]] = {
    Fill: lambda command, answer: command.value if answer == _STORED else answer,
    Release: lambda command, answer: command.replacement if answer == _STORED else answer,
    HoldTable: lambda command, answer: tuple(answer),
    Life: lambda command, answer: b"%d" % answer,
}


Called: TypeAlias = tuple[Argument, ...]


def _of_cell(script: Script, *names: str) -> Callable[[Any], Called]:
    """Give what makes the call of a script on a command's one key, with these attributes."""
    sha, attributes = script.sha, attrgetter("key", *names)
    return lambda command: (_BY_NAME, sha, 1, *attributes(command))


def _of_table(script: Script, *names: str) -> Callable[[Any], Called]:
    sha, attributes = script.sha, attrgetter("any_key", "all_key", *names)
    return lambda command: (_BY_NAME, sha, 2, *attributes(command))


def _fill(command: Fill) -> Called:
    key, mark, value, ttl_ms, parts = command
    return _BY_NAME, _FILL_SCRIPT.sha, 1, key, mark, value, ttl_ms, int(parts.claims)


def _release(command: Release) -> Called:
    key, writer, replacement, ttl_ms, parts = command
    arguments = key, writer, ttl_ms, int(parts.sole_holder_installs)
    if replacement is None:
        return _BY_NAME, _RELEASE_SCRIPT.sha, 1, *arguments
    return _BY_NAME, _RELEASE_INTO_SCRIPT.sha, 1, *arguments, replacement


def _hold_table(command: HoldTable) -> Called:
    any_key, all_key, writer, ttl_ms, templates, fresh, life_ms, parts = command
    arguments = writer, ttl_ms, fresh, life_ms, int(parts.waits)
    return _BY_NAME, _HOLD_TABLE_SCRIPT.sha, 2, any_key, all_key, *arguments, *templates


def _list_templates(command: ListTemplates) -> Called:
    any_key, all_key, templates, fresh, life_ms, parts = command
    return _BY_NAME, _LIST_TEMPLATES_SCRIPT.sha, 2, any_key, all_key, fresh, life_ms, int(parts.waits), *templates


_BY_NAME: Final = b"EVALSHA"
_TEXTS: Final = {script.sha: script.text for script in SCRIPTS}
_CALLS: Final[Mapping[type[Command], Callable[[Any], Called]]] = {
    Get: lambda command: (b"GET", command.key),
    Life: lambda command: (b"PTTL", command.key),
    Mint: _of_cell(_MINT_SCRIPT, "fresh", "ttl_ms"),
    Claim: _of_cell(_CLAIM_SCRIPT, "mark", "ttl_ms"),
    Fill: _fill,
    Put: lambda c: (_BY_NAME, _PUT_SCRIPT.sha, 1, c.key, c.value, c.ttl_ms, int(c.only_if_empty)),
    Unclaim: _of_cell(_UNCLAIM_SCRIPT, "mark"),
    HoldCell: lambda c: (_BY_NAME, _HOLD_CELL_SCRIPT.sha, 1, c.key, c.writer, c.ttl_ms, int(c.again)),
    HoldTable: _hold_table,
    ListTemplates: _list_templates,
    Release: _release,
    ReleaseTable: _of_table(_RELEASE_TABLE_SCRIPT, "writer"),
    RenewTable: _of_table(_RENEW_TABLE_SCRIPT, "writer", "ttl_ms"),
}
