"""Which node keeps which response, known to every gateway: each has what it made itself, Redis has it all."""

from __future__ import annotations

import asyncio
from typing import Final

import hiredis
import msgspec

from routing.state.redis_link import RedisDown, RedisLink, Script
from routing.state.stored import STORED_SECONDS, MemoryStored, Stored, is_id

MAX_SHARED: Final = 500_000
_KEY: Final = "llmlb:response:"
_BY_AGE: Final = "llmlb:responses"

# Keys: what is kept; all of them by age. Arguments: the value, seconds to keep it, how many are kept at most.
_REMEMBER: Final = Script(
    """
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
redis.call('ZADD', KEYS[2], redis.call('TIME')[1], KEYS[1])
redis.call('EXPIRE', KEYS[2], ARGV[2])
local too_many = redis.call('ZCARD', KEYS[2]) - ARGV[3]
if too_many > 0 then
  local oldest = redis.call('ZPOPMIN', KEYS[2], math.min(too_many, 100))
  for i = 1, #oldest, 2 do redis.call('UNLINK', oldest[i]) end
end
return 0
"""
)
_FORGET: Final = Script("redis.call('ZREM', KEYS[2], KEYS[1]) return redis.call('DEL', KEYS[1])")
_packed: Final = msgspec.json.Encoder().encode
_unpacked: Final = msgspec.json.Decoder(tuple[int, str, str, str]).decode


class RedisStored:
    """`StoredResponses` of all gateways. While Redis is away, each knows what it made itself."""

    def __init__(self, link: RedisLink, *, limit: int = MAX_SHARED) -> None:
        self._link = link
        self._limit = limit
        self._own = MemoryStored()
        self._loop: asyncio.AbstractEventLoop | None = None  # known once Redis has been there
        link.load(_REMEMBER, _FORGET)
        link.on_up(self._came_up)

    def remember(
        self, owner_id: int, response_id: str, *, node_id: int, model: str, asked_model: str, provider: str = ""
    ) -> None:
        self._own.remember(
            owner_id, response_id, node_id=node_id, model=model, asked_model=asked_model, provider=provider
        )
        if not is_id(response_id) or self._loop is None:
            return
        keys = (_key(owner_id, response_id), _BY_AGE)
        value = _packed((node_id, model, asked_model, provider))
        self._loop.call_soon_threadsafe(
            self._link.tell_script, _REMEMBER, keys, value, int(STORED_SECONDS), self._limit
        )

    async def find(self, owner_id: int, response_id: str) -> Stored | None:
        own = await self._own.find(owner_id, response_id)
        if own is not None or not is_id(response_id):
            return own
        try:
            found: bytes | None = await self._link.call("GET", _key(owner_id, response_id))
        except (RedisDown, hiredis.ReplyError):
            return None
        if found is None:
            return None
        node_id, model, asked_model, provider = _unpacked(found)
        return Stored(node_id, model, asked_model, provider=provider)

    def forget(self, owner_id: int, response_id: str) -> None:
        self._own.forget(owner_id, response_id)
        self._link.tell_script(_FORGET, (_key(owner_id, response_id), _BY_AGE))

    def _came_up(self) -> None:
        self._loop = asyncio.get_running_loop()


def _key(owner_id: int, response_id: str) -> str:
    return f"{_KEY}{owner_id}:{response_id}"
