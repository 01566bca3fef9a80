"""Limits that several gateway processes share: the counters are in Redis, each request asks once, in one round trip.

Each process counts its own requests too, and what Redis told it last of the budgets. So a Redis that is away, or has
lost everything, costs exactness between the processes and nothing else: a process goes on with its own counters, and
gives back to Redis what it knows. What a process that died was serving is free as soon as it counts as dead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import hiredis

from llmlb_site.lib import health
from routing.core.limits import DAY, SLOT, SLOTS, Limit, Period, Reading, period_of
from routing.state.limits import Hold, MemoryLimiter, Tokens, Verdict, denied, least_left, monotonic_ms, unix_ms
from routing.state.redis_link import LIVENESS, Argument, RedisDown, RedisLink, Script

PART: Final = "limits"  # its name in /readyz, beside the link's own

# A window is a hash: the amount of each slot, `u` the sum, `o` the oldest slot that may be there, `n` the newest.
# What processes hold is a hash: `c:<process>` requests running, `r:<process>` tokens that these may take at most.
# Budgets are plain numbers, of a day and of a month.
_COMMON: Final = (
    LIVENESS
    + f"""
local SLOT, SLOTS = {SLOT}, {SLOTS}
local DAYS_KEPT, MONTH_KEPT = 3, 70 -- days
local slot = math.floor(now / SLOT)
local function number(value) return value and tonumber(value) or 0 end
local function leaves(of) return (of + 1) * SLOT + SLOT * SLOTS - now end

-- What is used, without what has left the minute.
local function used_of(key)
  local head = redis.call('HMGET', key, 'u', 'o', 'n')
  local used, oldest, newest = number(head[1]), number(head[2]), number(head[3])
  if newest == 0 then return 0 end
  if newest > slot + 4 then -- the clock was put back: all of it counts from now on
    redis.call('DEL', key)
    if used > 0 then redis.call('HSET', key, 'u', used, 'o', slot, 'n', slot, slot, used) end
    return used
  end
  local gone = slot - SLOTS
  if newest < gone then redis.call('DEL', key) return 0 end
  if oldest >= gone then return used end
  while oldest < gone do
    local amount = redis.call('HGET', key, oldest)
    if amount then
      used = used - tonumber(amount)
      redis.call('HDEL', key, oldest)
    end
    oldest = oldest + 1
  end
  redis.call('HSET', key, 'u', used, 'o', oldest)
  return used
end

local function add(key, amount)
  redis.call('HINCRBY', key, slot, amount)
  redis.call('HINCRBY', key, 'u', amount)
  redis.call('HSETNX', key, 'o', slot)
  redis.call('HSET', key, 'n', slot)
  redis.call('PEXPIRE', key, 2 * SLOT * SLOTS)
end

-- How long until `wanted` more fit, and until nothing is used.
local function waits(key, used, wanted, limit)
  local excess = used + math.min(wanted, limit) - limit
  local amounts, slots = {{}}, {{}}
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    local at = tonumber(flat[i])
    if at then
      amounts[at] = tonumber(flat[i + 1])
      if amounts[at] > 0 then slots[#slots + 1] = at end
    end
  end
  table.sort(slots)
  local wait = 0
  for _, at in ipairs(slots) do
    if excess > 0 then
      excess = excess - amounts[at]
      if excess <= 0 then wait = leaves(at) end
    end
  end
  return wait, #slots > 0 and leaves(slots[#slots]) or 0
end

-- Requests running and tokens reserved; `exactly`: without what processes hold that have died.
local function held(key, exactly)
  local running, reserved = 0, 0
  local flat = redis.call('HGETALL', key)
  for i = 1, #flat, 2 do
    if exactly and not is_alive(string.sub(flat[i], 3)) then
      redis.call('HDEL', key, flat[i])
    elseif string.sub(flat[i], 1, 1) == 'c' then
      running = running + tonumber(flat[i + 1])
    else
      reserved = reserved + tonumber(flat[i + 1])
    end
  end
  return running, reserved
end

-- What is used of a budget, which may be less than a process knows: then something was lost here.
local function budget(key, days, known)
  local used = number(redis.call('GET', key))
  known = tonumber(known)
  if known > used then
    redis.call('SET', key, known, 'EX', days * 86400)
    return known
  end
  return used
end
local function affords(used, limit, reserved, most)
  return limit == 0 or (used < limit and (reserved == 0 or used + reserved + most <= limit))
end
"""
)

# KEYS: of each limit requests, tokens, held, day, month. ARGV: process, wanted (-1: only look), most, and of each limit
# requests, tokens, concurrent, day, month, and what this process knows of the day and the month.
# Answers 1 or 0 (not admitted), and a Reading of each limit; of the waits and resets only where it is 0.
_RESERVE: Final = Script(
    _COMMON
    + """
local process, wanted, most = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local looks = wanted < 0
if looks then wanted = 0 end
local count, admitted, readings = #KEYS / 5, true, {}
for i = 0, count - 1 do
  local key, arg = i * 5, 3 + i * 7
  local requests, tokens, concurrent = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]), tonumber(ARGV[arg + 3])
  local of_day, of_month = tonumber(ARGV[arg + 4]), tonumber(ARGV[arg + 5])
  local r = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
  if requests > 0 then
    r[1] = used_of(KEYS[key + 1])
    if r[1] >= requests then admitted = false end
  end
  if tokens > 0 then
    r[4] = used_of(KEYS[key + 2])
    if r[4] + math.min(wanted, tokens) > tokens then admitted = false end
  end
  r[9] = budget(KEYS[key + 4], DAYS_KEPT, ARGV[arg + 6])
  r[10] = budget(KEYS[key + 5], MONTH_KEPT, ARGV[arg + 7])
  r[7], r[8] = held(KEYS[key + 3], false)
  local function fit()
    return (concurrent == 0 or r[7] < concurrent)
      and affords(r[9], of_day, r[8], most) and affords(r[10], of_month, r[8], most)
  end
  if not fit() then
    r[7], r[8] = held(KEYS[key + 3], true)
    if not fit() then admitted = false end
  end
  readings[i + 1] = r
end
if looks then admitted = false end
for i = 0, count - 1 do
  local key, arg = i * 5, 3 + i * 7
  local requests, tokens, r = tonumber(ARGV[arg + 1]), tonumber(ARGV[arg + 2]), readings[i + 1]
  if not admitted then
    if requests > 0 then r[2], r[3] = waits(KEYS[key + 1], r[1], 1, requests) end
    if tokens > 0 then r[5], r[6] = waits(KEYS[key + 2], r[4], wanted, tokens) end
  else
    if requests > 0 then add(KEYS[key + 1], 1) end
    if tokens > 0 then add(KEYS[key + 2], wanted) end
    redis.call('HINCRBY', KEYS[key + 3], 'c:' .. process, 1)
    redis.call('HINCRBY', KEYS[key + 3], 'r:' .. process, most)
    redis.call('EXPIRE', KEYS[key + 3], 86400)
  end
end
return {admitted and 1 or 0, slot, leaves(slot), readings}
"""
)

# KEYS as above. ARGV: process, slot, wanted, most, used, 1 if the request counts, and of each limit tokens.
_SETTLE: Final = Script(
    _COMMON
    + """
local process, at, wanted, most, used = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local function give_back(key, amount)
  local less = math.min(amount, number(redis.call('HGET', key, at)))
  if less > 0 then
    redis.call('HINCRBY', key, at, -less)
    redis.call('HINCRBY', key, 'u', -less)
  end
end
local function let_go(key, field, amount)
  if redis.call('HEXISTS', key, field) == 1 and redis.call('HINCRBY', key, field, -amount) <= 0 then
    redis.call('HDEL', key, field)
  end
end
for i = 0, #KEYS / 5 - 1 do
  local key = i * 5
  if ARGV[6] == '0' then give_back(KEYS[key + 1], 1) end
  if used < wanted then
    give_back(KEYS[key + 2], wanted - used)
  elseif used > wanted and ARGV[7 + i] ~= '0' then
    used_of(KEYS[key + 2])
    add(KEYS[key + 2], used - wanted)
  end
  let_go(KEYS[key + 3], 'c:' .. process, 1)
  let_go(KEYS[key + 3], 'r:' .. process, most)
  if used > 0 then
    redis.call('INCRBY', KEYS[key + 4], used)
    redis.call('EXPIRE', KEYS[key + 4], DAYS_KEPT * 86400)
    redis.call('INCRBY', KEYS[key + 5], used)
    redis.call('EXPIRE', KEYS[key + 5], MONTH_KEPT * 86400)
  end
end
"""
)

# KEYS: held, of each limit. ARGV: process, and of each limit requests running and tokens that they may take at most.
_RESTATE: Final = Script(
    """
for i = 1, #KEYS do
  local requests, tokens = ARGV[i * 2], ARGV[i * 2 + 1]
  redis.call('HDEL', KEYS[i], 'c:' .. ARGV[1], 'r:' .. ARGV[1])
  if requests ~= '0' then redis.call('HSET', KEYS[i], 'c:' .. ARGV[1], requests, 'r:' .. ARGV[1], tokens) end
end
"""
)

# KEYS: held, of each limit. ARGV: process, and the tokens that one request may take at most. It runs.
_COUNT: Final = Script(
    """
for i = 1, #KEYS do
  redis.call('HINCRBY', KEYS[i], 'c:' .. ARGV[1], 1)
  redis.call('HINCRBY', KEYS[i], 'r:' .. ARGV[1], ARGV[2])
  redis.call('EXPIRE', KEYS[i], 86400)
end
"""
)


class RedisLimiter:
    """`Limiter` of one of several processes. The link is somebody else's to start, after this is made, and to close."""

    def __init__(self, link: RedisLink, *, prefix: str = "llmlb:limits:") -> None:
        self._link = link
        self._prefix = prefix
        self._own = MemoryLimiter()
        self._refusing = False
        self._counted: set[str] = set()  # limits on which Redis may count requests of this process
        self._restated = 0
        link.on_up(self._restate)

    async def reserve(self, limits: tuple[Limit, ...], wanted: int, most: int) -> Verdict:
        unix = unix_ms()
        restated = self._restated
        if not self._link.up:
            return await self._own.reserve(limits, wanted, most)
        try:
            answer = await self._ask(limits, wanted, most, unix)
        except RedisDown:
            return await self._own.reserve(limits, wanted, most)
        except hiredis.ReplyError as error:
            self._refused(error)
            return await self._own.reserve(limits, wanted, most)
        if self._refusing:
            self._restate()
        admitted, slot, reset, found = answer
        if admitted and restated != self._restated:
            self._count(limits, most)
        readings = [Reading._make(each) for each in found]
        period = period_of(unix // DAY)
        self._own.at_least(
            Tokens(limit.id, period, of.day, of.month)
            for limit, of in zip(limits, readings, strict=True)
            if limit.has_budget
        )
        if not admitted:
            return denied(limits, readings, wanted, most, unix)
        hold = self._own.count(limits, wanted, most, monotonic_ms(), period).hold
        assert hold is not None
        hold.shared_slot = slot
        requests = [(of.requests, each.requests + 1, reset) for of, each in zip(limits, readings, strict=True)]
        tokens = [(of.tokens, each.tokens + wanted, reset) for of, each in zip(limits, readings, strict=True)]
        return Verdict(hold, least_left(requests), least_left(tokens))

    def settle(self, hold: Hold, used: int, *, counts: bool = True) -> None:
        """Also where Redis was away when the request came: by now it has been told that it runs."""
        self._own.settle(hold, used, counts=counts)
        self._settle(hold.limits, hold.shared_slot, hold.wanted, hold.most, used, hold.period, counts=counts)

    def at_least(self, tokens: Iterable[Tokens]) -> None:
        """Redis is told with the next request that asks there."""
        self._own.at_least(tokens)

    def keep_only(self, ids: Iterable[str]) -> None:
        self._own.keep_only(ids)

    async def read(self, limits: Sequence[Limit]) -> Sequence[Reading]:
        if self._link.up and limits:
            try:
                return [Reading._make(each) for each in (await self._ask(limits, -1, 0, unix_ms()))[3]]
            except (RedisDown, hiredis.ReplyError):
                pass  # as if it were down from the beginning
        return await self._own.read(limits)

    # --- inside ---------------------------------------------------------------------------------------------------

    async def _ask(self, limits: Sequence[Limit], wanted: int, most: int, unix: int) -> Any:
        period = period_of(unix // DAY)
        restated = self._restated
        self._counted.update(limit.id for limit in limits)
        arguments: list[Argument] = [self._link.process, wanted, most]
        for limit in limits:
            arguments += (limit.requests, limit.tokens, limit.concurrent, limit.day, limit.month)
            arguments += self._own.spent_in(period, limit)

        def take_back(answer: Any) -> None:
            """Whoever asked has left before the answer came."""
            if answer[0]:
                if restated != self._restated:
                    self._count(limits, most)
                self._settle(limits, answer[1], wanted, most, 0, period, counts=False)

        return await self._link.run(_RESERVE, self._keys(limits, period), *arguments, unwanted=take_back)

    def _settle(
        self, limits: Sequence[Limit], slot: int, wanted: int, most: int, used: int, period: Period, *, counts: bool
    ) -> None:
        of_each = [limit.tokens for limit in limits]
        self._link.tell_script(
            _SETTLE,
            self._keys(limits, period),
            *(self._link.process, slot, wanted, most, used, int(counts)),
            *of_each,
        )

    def _count(self, limits: Sequence[Limit], most: int) -> None:
        """What was asked before all was told again, and answered after it, was not told."""
        self._counted.update(limit.id for limit in limits)
        keys = tuple(self._held_key(limit.id) for limit in limits)
        self._link.tell_script(_COUNT, keys, self._link.process, most)

    def _refused(self, error: hiredis.ReplyError) -> None:
        """Redis answers, but does not do it: it has no memory left, or has become a replica."""
        self._refusing = True
        health.report(PART, ok=False, detail=f"Redis refuses ({error}); this process counts for itself"[:200])

    def _restate(self) -> None:
        """A new connection: what this process holds is what it knows, whatever became of what it said before.

        So a limit on which nothing runs any more is told, too: its last request may have ended without a connection.
        """
        if self._refusing:
            self._refusing = False
            health.report(PART, ok=True)
        for script in (_RESERVE, _SETTLE, _RESTATE, _COUNT):
            self._link.tell("SCRIPT", "LOAD", script.text)  # a script sent anew would come after what was sent next
        self._restated += 1
        held = {id: numbers for id, *numbers in self._own.held()}
        if told := sorted(self._counted | held.keys()):
            numbers = [number for id in told for number in held.get(id, (0, 0))]
            keys = tuple(self._held_key(id) for id in told)
            self._link.tell_script(_RESTATE, keys, self._link.process, *numbers)
        self._counted = set(held)

    def _held_key(self, id: str) -> str:
        return f"{self._prefix}{id}:h"

    def _keys(self, limits: Sequence[Limit], period: Period) -> tuple[str, ...]:
        parts = ("r", "t", "h", f"d{period.day}", f"m{period.month}")
        return tuple(f"{self._prefix}{limit.id}:{part}" for limit in limits for part in parts)
