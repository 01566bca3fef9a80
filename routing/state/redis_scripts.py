"""What happens in Redis to slots and the queue, each script in one atomic step.

A session is one connection of one process: a new connection joins as a new session with the counts and the waiters
that the process has then, and takes the place of all that it had. So nothing that went wrong before matters after, not
even a join that was never heard of.

    llmlb:slots:sessions        hash  session → process
    llmlb:slots:held:SESSION    hash  node → requests of this session that are on it
    llmlb:slots:totals          hash  node → the sum over all sessions
    llmlb:slots:figures         hash  session → what its process counted in the last hour (the process's own format)
    llmlb:slots:turns           zset  key → when a request of it was served last (a number that only grows)
    llmlb:slots:waiting         how many wait, over all lines
    llmlb:slots:lines           hash  line → number of its first ticket; a line is one key's requests for one wish
    llmlb:slots:line:LINE       list  of tickets: "NUMBER SESSION PLACE"
    llmlb:slots:wishes          hash  wish → "NODE:LIMIT NODE:LIMIT …": which nodes would do; a wish is a model less the
                                      nodes that were tried
    llmlb:slots:number          the last turn or ticket number
    channel llmlb:slots:SESSION "PLACE NODE ELSEWHERE": the place has got a slot on the node

`elsewhere` is always how many requests of other sessions are on a node.
"""

from __future__ import annotations

from typing import Final

from routing.core.queue import REMEMBERED_KEYS
from routing.state.redis_link import LIVENESS, Script

CHANNEL: Final = "llmlb:slots:"
GONE: Final = -1  # Redis does not know the session (any more): join anew
FULL: Final = -2

_LIBRARY: Final = """
local P = 'llmlb:slots:'
local call = redis.call

local function known(session) return call('HEXISTS', P .. 'sessions', session) == 1 end

local function add(session, node, n)
  local held = call('HINCRBY', P .. 'held:' .. session, node, n)
  if held < 0 then n, held = n - held, 0 end
  local total = call('HINCRBY', P .. 'totals', node, n)
  if held == 0 then call('HDEL', P .. 'held:' .. session, node) end
  if total <= 0 then call('HDEL', P .. 'totals', node) end
  return total - held
end

local function took_turn(key)
  call('ZADD', P .. 'turns', call('INCR', P .. 'number'), key)
  if call('ZCARD', P .. 'turns') > REMEMBERED then call('ZREMRANGEBYRANK', P .. 'turns', 0, 0) end
end

local function first_changed(line)
  local head = call('LINDEX', P .. 'line:' .. line, 0)
  if head then
    call('HSET', P .. 'lines', line, head:match('^%d+'))
  else
    call('HDEL', P .. 'lines', line)
  end
end

local function push(session, key, wish, place)
  local line = key .. '|' .. wish
  local number = call('INCR', P .. 'number')
  call('RPUSH', P .. 'line:' .. line, number .. ' ' .. session .. ' ' .. place)
  call('HSETNX', P .. 'lines', line, number)
  return number, call('INCR', P .. 'waiting')
end

local function left_one()
  if call('DECR', P .. 'waiting') <= 0 then call('DEL', P .. 'waiting', P .. 'wishes') end
end

-- Whoever waits under this session and, where it is given, at this place, no longer does.
local function unqueue(line, session, place)
  for _, ticket in ipairs(call('LRANGE', P .. 'line:' .. line, 0, -1)) do
    local of, at = ticket:match('^%d+ (%S+) (%S+)$')
    if of == session and (at == place or not place) then
      call('LREM', P .. 'line:' .. line, 1, ticket)
      left_one()
    end
  end
  first_changed(line)
end

-- Lines in the order in which they are served: the key served longest ago first, then who came first.
local function lines_in_order()
  local flat = call('HGETALL', P .. 'lines')
  local found = {}
  for i = 1, #flat, 2 do
    local key, wish = flat[i]:match('^([^|]*)|(.*)$')
    local turn = tonumber(call('ZSCORE', P .. 'turns', key) or 0)
    found[#found + 1] = {name = flat[i], key = key, wish = wish, turn = turn, first = tonumber(flat[i + 1])}
  end
  table.sort(found, function(a, b)
    if a.turn ~= b.turn then return a.turn < b.turn end
    return a.first < b.first
  end)
  return found
end

-- The node of a wish that has room and the fewest requests, if any has; `freed`: look at this one alone.
local function room_for(wish, freed)
  local best, least
  local nodes = ' ' .. (call('HGET', P .. 'wishes', wish) or '')
  for node, limit in nodes:gmatch(' (' .. (freed or '%d+') .. '):(%d+)') do
    local total = tonumber(call('HGET', P .. 'totals', node) or 0)
    if total < tonumber(limit) and (not least or total < least) then best, least = node, total end
  end
  return best
end

-- The first of a line gets the node. False where its process is no longer there to hear of it.
local function grant(line, node)
  local ticket = call('LPOP', P .. 'line:' .. line.name)
  first_changed(line.name)
  left_one()
  local session, place = ticket:match('^%d+ (%S+) (%S+)$')
  local elsewhere = add(session, node, 1)
  if call('PUBLISH', P .. session, place .. ' ' .. node .. ' ' .. elsewhere) == 0 then
    add(session, node, -1)
    return
  end
  took_turn(line.key)
end

-- `freed`: only this node has got room; `only`: only this wish is new. All else had its chance before.
local function serve(freed, only)
  local hopeless = {}
  local again = call('EXISTS', P .. 'lines') == 1
  while again do
    again = false
    for _, line in ipairs(lines_in_order()) do
      if not hopeless[line.wish] and (not only or line.wish == only) then
        local node = room_for(line.wish, freed)
        if node then
          grant(line, node)
          again = true
          break
        end
        hopeless[line.wish] = true
      end
    end
  end
end

local function forget(session)
  local held = call('HGETALL', P .. 'held:' .. session)
  for i = 1, #held, 2 do add(session, held[i], -tonumber(held[i + 1])) end
  call('DEL', P .. 'held:' .. session)
  call('HDEL', P .. 'sessions', session)
  call('HDEL', P .. 'figures', session)
  for _, line in ipairs(call('HKEYS', P .. 'lines')) do unqueue(line, session) end
end
""".replace("REMEMBERED", str(REMEMBERED_KEYS))

# session, process, number of nodes, (node, count)…, (key, wish, nodes, place)… of those who wait
JOIN: Final = Script(
    _LIBRARY
    + """
local sessions = call('HGETALL', P .. 'sessions')
for i = 1, #sessions, 2 do
  if sessions[i + 1] == ARGV[2] then forget(sessions[i]) end
end
call('HSET', P .. 'sessions', ARGV[1], ARGV[2])
local places = 4 + 2 * tonumber(ARGV[3])
for i = 4, places - 1, 2 do add(ARGV[1], ARGV[i], tonumber(ARGV[i + 1])) end
for i = places, #ARGV, 4 do
  call('HSET', P .. 'wishes', ARGV[i + 1], ARGV[i + 2])
  push(ARGV[1], ARGV[i], ARGV[i + 1], ARGV[i + 3])
end
serve()
return 0
"""
)

# session: it ends, and what it holds is free.
LEAVE: Final = Script(_LIBRARY + "forget(ARGV[1]) serve() return 0")

# session, key, (node, limit)… in order of preference → {index of the node that was taken or 0, elsewhere of each}
TAKE: Final = Script(
    _LIBRARY
    + """
if not known(ARGV[1]) then return -1 end
local taken, elsewhere = 0, {}
for i = 3, #ARGV, 2 do
  local total = tonumber(call('HGET', P .. 'totals', ARGV[i]) or 0)
  if taken == 0 and total < tonumber(ARGV[i + 1]) then
    taken = (i - 1) / 2
    elsewhere[taken] = add(ARGV[1], ARGV[i], 1)
    took_turn(ARGV[2])
  else
    elsewhere[(i - 1) / 2] = total - tonumber(call('HGET', P .. 'held:' .. ARGV[1], ARGV[i]) or 0)
  end
end
return {taken, elsewhere}
"""
)

# session, node → elsewhere
RELEASE: Final = Script(
    _LIBRARY
    + """
if not known(ARGV[1]) then return -1 end
local elsewhere = add(ARGV[1], ARGV[2], -1)
serve(ARGV[2])
return elsewhere
"""
)

# session, key, wish, nodes, place, most that may wait → {its number or FULL, how many wait}
QUEUE: Final = Script(
    _LIBRARY
    + """
if not known(ARGV[1]) then return -1 end
local waiting = tonumber(call('GET', P .. 'waiting') or 0)
if waiting >= tonumber(ARGV[6]) then return {-2, waiting} end
call('HSET', P .. 'wishes', ARGV[3], ARGV[4])
local number, position = push(ARGV[1], ARGV[2], ARGV[3], ARGV[5])
serve(nil, ARGV[3])
return {number, position}
"""
)

# session, key, wish, place: it no longer waits
UNQUEUE: Final = Script(_LIBRARY + "unqueue(ARGV[2] .. '|' .. ARGV[3], ARGV[1], ARGV[4]) return 0")

# (wish, nodes)…: the fleet has changed
RESTATE: Final = Script(
    _LIBRARY
    + """
for i = 1, #ARGV, 2 do
  if call('HEXISTS', P .. 'wishes', ARGV[i]) == 1 then call('HSET', P .. 'wishes', ARGV[i], ARGV[i + 1]) end
end
serve()
return 0
"""
)

# session, figures, '1' to look for the dead, (node, count)… of nodes without a limit → {waiting, totals, held, figures}
SYNC: Final = Script(
    LIVENESS
    + _LIBRARY
    + """
if not known(ARGV[1]) then return -1 end
if ARGV[3] == '1' then
  local sessions, dead = call('HGETALL', P .. 'sessions'), false
  for i = 1, #sessions, 2 do
    if sessions[i] ~= ARGV[1] and not is_alive(sessions[i + 1]) then
      forget(sessions[i])
      dead = true
    end
  end
  if dead then serve() end
end
call('HSET', P .. 'figures', ARGV[1], ARGV[2])
for i = 4, #ARGV, 2 do
  add(ARGV[1], ARGV[i], tonumber(ARGV[i + 1]) - tonumber(call('HGET', P .. 'held:' .. ARGV[1], ARGV[i]) or 0))
end
return {
  tonumber(call('GET', P .. 'waiting') or 0), call('HGETALL', P .. 'totals'), call('HGETALL', P .. 'held:' .. ARGV[1]),
  call('HGETALL', P .. 'figures'),
}
"""
)
ALL: Final = (JOIN, LEAVE, TAKE, RELEASE, QUEUE, UNQUEUE, RESTATE, SYNC)
