"""The commands of ``store`` as Lua: what runs inside Redis, and the bytes that ask for it.

Each script is the twin of a command's ``apply``; a test drives both with the same random commands. A script
touches one key, or the two of one hash tag, and takes the time from Redis, so that all processes share a
clock. The life of a token that stays is only ever lengthened (``PEXPIRE … GT``); a hold's ends with its last
deadline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import sha1
from operator import attrgetter
from typing import Any, Final, TypeAlias, cast

from hiredis import pack_command

from .protocol import MAX_LISTED, Cell
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
    Release,
    ReleaseTable,
    RenewTable,
    Reply,
    Unclaim,
)

# What another program left under a key, a list or a hash perhaps, counts as nothing there, and is replaced.
_GET = """
local function get(key)
  local cell = redis.pcall('GET', key)
  return type(cell) == 'string' and cell
end
"""

_HOLDS = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)

local function held(cell)
  return cell and string.sub(cell, 1, 2) == '"!'
end

-- Most holds have one writer only, and need no tables.
local function sole(cell)
  return string.match(cell, '^"!0 (%w+)=(%d+)"$')
end

local function parse(cell)
  local names, deadlines = {}, {}
  for name, deadline in string.gmatch(cell, '(%w+)=(%d+)') do
    names[#names + 1] = name
    deadlines[name] = tonumber(deadline)
  end
  return string.sub(cell, 3, 3) == '1', names, deadlines
end

local function put(key, shared, names, deadlines)
  local parts, last = {shared and '"!1' or '"!0'}, 0
  for _, name in ipairs(names) do
    parts[#parts + 1] = string.format(' %s=%d', name, deadlines[name])
    last = math.max(last, deadlines[name])
  end
  local cell = table.concat(parts) .. '"'
  redis.call('SET', key, cell, 'PX', string.format('%d', last - now))
  return cell
end

local function hold(key, cell, writer, ttl, again)
  if not held(cell) then
    local sign = again and '"!1 ' or '"!0 '
    cell = string.format('%s%s=%d"', sign, writer, now + tonumber(ttl))
    redis.call('SET', key, cell, 'PX', ttl)
    return cell
  end
  local shared, names, deadlines = parse(cell)
  local live = {}
  for _, name in ipairs(names) do
    shared = shared or name ~= writer
    if name == writer or deadlines[name] > now then live[#live + 1] = name end
  end
  if not deadlines[writer] then
    shared = shared or again
    live[#live + 1] = writer
  end
  deadlines[writer] = now + tonumber(ttl)
  return put(key, shared, live, deadlines)
end
"""

_LISTS = f"""
local function list(any, key, fresh, life, waits, first)
  local cell = get(key)
  if held(cell) then return cell end
  if cell then
    local lines, all = cell .. '\\n', #ARGV >= first
    for i = first, #ARGV do
      all = all and string.find(lines, '\\n' .. ARGV[i] .. '\\t\\n', 1, true)
    end
    if all then -- as nearly always: each is listed, and confirmed
      redis.call('PEXPIRE', key, life, 'GT')
      return cell
    end
  end

  local holders, holding = {{}}, {{}}
  if waits == '1' and held(any) then
    local _, names, deadlines = parse(any)
    for _, name in ipairs(names) do
      if deadlines[name] > now then
        holders[#holders + 1] = name
        holding[name] = true
      end
    end
    table.sort(holders)
  end

  local token, order, waiting = fresh, {{}}, {{}}
  if cell then
    token = string.match(cell, '^[^\\n]*')
    for template, writers in string.gmatch(cell, '\\n([^\\t\\n]*)\\t([^\\n]*)') do
      order[#order + 1] = template
      waiting[template] = {{}}
      for name in string.gmatch(writers, '[^,]+') do table.insert(waiting[template], name) end
    end
  end

  local size, seen = #order, {{}}
  for i = first, #ARGV do
    if not waiting[ARGV[i]] and not seen[ARGV[i]] then size = size + 1 end
    seen[ARGV[i]] = true
  end
  if size > {MAX_LISTED} then token, order, waiting = fresh, {{}}, {{}} end

  for i = first, #ARGV do
    local template, left = ARGV[i], {{}}
    if not waiting[template] then order[#order + 1] = template end
    for _, name in ipairs(waiting[template] or holders) do
      if holding[name] then left[#left + 1] = name end
    end
    waiting[template] = left
  end

  local lines = {{token}}
  for _, template in ipairs(order) do
    lines[#lines + 1] = template .. '\\t' .. table.concat(waiting[template], ',')
  end
  local listed = table.concat(lines, '\\n')
  if not cell then
    redis.call('SET', key, listed, 'PX', life)
  else
    if listed ~= cell then redis.call('SET', key, listed, 'KEEPTTL') end
    redis.call('PEXPIRE', key, life, 'GT')
  end
  return listed
end
"""

_RELEASES = """
local function release(key, cell, writer, replacement, ttl, even_shared)
  if held(cell) and sole(cell) == writer then
    if replacement then
      redis.call('SET', key, replacement, 'PX', ttl)
      return 1
    end
  elseif held(cell) then
    local shared, names, deadlines = parse(cell)
    local rest = {}
    for _, name in ipairs(names) do
      if name ~= writer and deadlines[name] > now then rest[#rest + 1] = name end
    end
    if #rest > 0 then return put(key, true, rest, deadlines) end
    local alone = (not shared and #names == 1) or even_shared
    if deadlines[writer] and alone and replacement then
      redis.call('SET', key, replacement, 'PX', ttl)
      return 1
    end
  end
  redis.call('DEL', key)
  return false
end
"""

_LOSSES = """
local function drop_if_lost(any, all, writer)
  if held(any) then
    local name, deadline = sole(any)
    if name == writer and tonumber(deadline) > now then return end
    local _, _, deadlines = parse(any)
    if deadlines[writer] and deadlines[writer] > now then return end
  end
  release(all, get(all), writer)
end
"""

_MINT = """
local cell = get(KEYS[1])
if not cell then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]
end
if string.sub(cell, 1, 2) ~= '"!' then redis.call('PEXPIRE', KEYS[1], ARGV[2], 'GT') end
return cell
"""

# GETRANGE: what is claimed is often a list that has just become stale, and need not be copied to be replaced.
_CLAIM = """
local head = redis.pcall('GETRANGE', KEYS[1], 0, 1)
if head == '"!' or head == '"?' then
  local cell = get(KEYS[1])
  if cell ~= ARGV[1] then return cell end
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return ARGV[1]
"""

_FILL = """
local cell = get(KEYS[1])
if cell == ARGV[1] or cell == ARGV[2] or ARGV[4] == '0' then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
return cell
"""

_UNCLAIM = """
local cell = get(KEYS[1])
if cell ~= ARGV[1] then return cell end
redis.call('DEL', KEYS[1])
return false
"""

_HOLD_CELL = """
return hold(KEYS[1], get(KEYS[1]), ARGV[1], ARGV[2], ARGV[3] == '1')
"""

_HOLD_TABLE = """
local any = get(KEYS[1])
local listed = list(any, KEYS[2], ARGV[3], ARGV[4], ARGV[5], 6)
return {hold(KEYS[1], any, ARGV[1], ARGV[2], false), listed}
"""

_LIST_TEMPLATES = """
return list(get(KEYS[1]), KEYS[2], ARGV[1], ARGV[2], ARGV[3], 4)
"""

_RELEASE = """
return release(KEYS[1], get(KEYS[1]), ARGV[1], ARGV[4], ARGV[2], ARGV[3] == '0')
"""

_RELEASE_TABLE = """
local any = get(KEYS[1])
drop_if_lost(any, KEYS[2], ARGV[1])
return release(KEYS[1], any, ARGV[1])
"""

_RENEW_TABLE = """
local any = get(KEYS[1])
drop_if_lost(any, KEYS[2], ARGV[1])
return hold(KEYS[1], any, ARGV[1], ARGV[2], true)
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script: its text, and the name under which Redis keeps it."""

    text: bytes
    sha: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sha", sha1(self.text, usedforsecurity=False).hexdigest().encode())


def _script(*parts: str) -> Script:
    return Script("".join((_GET, *parts)).encode())


_MINT_SCRIPT: Final = _script(_MINT)
_CLAIM_SCRIPT: Final = _script(_CLAIM)
_FILL_SCRIPT: Final = _script(_FILL)
_UNCLAIM_SCRIPT: Final = _script(_UNCLAIM)
_HOLD_CELL_SCRIPT: Final = _script(_HOLDS, _HOLD_CELL)
_HOLD_TABLE_SCRIPT: Final = _script(_HOLDS, _LISTS, _HOLD_TABLE)
_LIST_TEMPLATES_SCRIPT: Final = _script(_HOLDS, _LISTS, _LIST_TEMPLATES)
_RELEASE_SCRIPT: Final = _script(_HOLDS, _RELEASES, _RELEASE)
_RELEASE_TABLE_SCRIPT: Final = _script(_HOLDS, _RELEASES, _LOSSES, _RELEASE_TABLE)
_RENEW_TABLE_SCRIPT: Final = _script(_HOLDS, _RELEASES, _LOSSES, _RENEW_TABLE)

SCRIPTS: Final[tuple[Script, ...]] = (
    _MINT_SCRIPT,
    _CLAIM_SCRIPT,
    _FILL_SCRIPT,
    _UNCLAIM_SCRIPT,
    _HOLD_CELL_SCRIPT,
    _HOLD_TABLE_SCRIPT,
    _LIST_TEMPLATES_SCRIPT,
    _RELEASE_SCRIPT,
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
    last = () if replacement is None else (replacement,)
    return _BY_NAME, _RELEASE_SCRIPT.sha, 1, key, writer, ttl_ms, int(parts.sole_holder_installs), *last


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
    Unclaim: _of_cell(_UNCLAIM_SCRIPT, "mark"),
    HoldCell: lambda c: (_BY_NAME, _HOLD_CELL_SCRIPT.sha, 1, c.key, c.writer, c.ttl_ms, int(c.again)),
    HoldTable: _hold_table,
    ListTemplates: _list_templates,
    Release: _release,
    ReleaseTable: _of_table(_RELEASE_TABLE_SCRIPT, "writer"),
    RenewTable: _of_table(_RENEW_TABLE_SCRIPT, "writer", "ttl_ms"),
}
