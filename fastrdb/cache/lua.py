"""The texts of the Lua scripts that run inside Redis; ``scripts`` says which parts make up which."""

from __future__ import annotations

from .protocol import MAX_LISTED

# What another program left under a key, a list or a hash perhaps, counts as nothing there, and is replaced. Any other
# error ends the script: a user who may not call GET must not take holds for nothing.
GET = """
local function text(reply)
  if type(reply) == 'string' then return reply end
  if reply and not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply.err) end
  return false
end

local function get(key)
  return text(redis.pcall('GET', key))
end
"""

# A server that is out of memory refuses a SET, and lets DEL through. A value that it does not take leaves nothing
# behind: neither the claim, for which others would wait, nor the hold, nor an older value.
STORES = """
local function store(key, value, ttl)
  local stored = redis.pcall('SET', key, value, 'PX', ttl)
  if not stored.err then return 1 end
  redis.pcall('DEL', key)
  return stored
end
"""

HOLDS = """
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

LISTS = f"""
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

RELEASES = f"""{STORES}
local function release(key, cell, writer, replacement, ttl, even_shared)
  if held(cell) and sole(cell) == writer then
    if replacement then return store(key, replacement, ttl) end
  elseif held(cell) then
    local shared, names, deadlines = parse(cell)
    local rest = {{}}
    for _, name in ipairs(names) do
      if name ~= writer and deadlines[name] > now then rest[#rest + 1] = name end
    end
    if #rest > 0 then
      -- A script that has written once is not stopped for want of memory; this one may be refused its first SET.
      if replacement then redis.call('PEXPIRE', key, ttl) end
      return put(key, true, rest, deadlines)
    end
    local alone = (not shared and #names == 1) or even_shared
    if deadlines[writer] and alone and replacement then return store(key, replacement, ttl) end
  end
  redis.call('DEL', key)
  return false
end
"""

LOSSES = """
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

MINT = """
local cell = get(KEYS[1])
if not cell then
  redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
  return ARGV[1]
end
if string.sub(cell, 1, 2) ~= '"!' then redis.call('PEXPIRE', KEYS[1], ARGV[2], 'GT') end
return cell
"""

# GETRANGE: what is claimed is often a list that has just become stale, and need not be copied to be replaced.
CLAIM = """
local head = text(redis.pcall('GETRANGE', KEYS[1], 0, 1))
if head == '"!' or head == '"?' then
  local cell = get(KEYS[1])
  if cell ~= ARGV[1] then return cell end
end
local stored = store(KEYS[1], ARGV[1], ARGV[2])
return stored == 1 and ARGV[1] or stored
"""

FILL = """
local cell = get(KEYS[1])
if cell == ARGV[1] or cell == ARGV[2] or ARGV[4] == '0' then return store(KEYS[1], ARGV[2], ARGV[3]) end
return cell
"""

UNCLAIM = """
local cell = get(KEYS[1])
if cell ~= ARGV[1] then return cell end
redis.call('DEL', KEYS[1])
return false
"""

HOLD_CELL = """
return hold(KEYS[1], get(KEYS[1]), ARGV[1], ARGV[2], ARGV[3] == '1')
"""

HOLD_TABLE = """
local any = get(KEYS[1])
local listed = list(any, KEYS[2], ARGV[3], ARGV[4], ARGV[5], 6)
return {hold(KEYS[1], any, ARGV[1], ARGV[2], false), listed}
"""

LIST_TEMPLATES = """
return list(get(KEYS[1]), KEYS[2], ARGV[1], ARGV[2], ARGV[3], 4)
"""

RELEASE = """
return release(KEYS[1], get(KEYS[1]), ARGV[1], ARGV[4], ARGV[2], ARGV[3] == '0')
"""

RELEASE_TABLE = """
local any = get(KEYS[1])
drop_if_lost(any, KEYS[2], ARGV[1])
return release(KEYS[1], any, ARGV[1])
"""

RENEW_TABLE = """
local any = get(KEYS[1])
drop_if_lost(any, KEYS[2], ARGV[1])
return hold(KEYS[1], any, ARGV[1], ARGV[2], true)
"""

# Nothing comes back for what was put: its bytes are at the caller's hand.
PUT = """
local cell = get(KEYS[1])
if cell and (ARGV[3] == '1' or string.sub(cell, 1, 2) == '"!') then return cell end
local stored = store(KEYS[1], ARGV[1], ARGV[2])
return stored ~= 1 and stored
"""
