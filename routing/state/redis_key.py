"""Whether all that share a Redis have the same secret key: one that has another refuses every API key, and opens none
of what the others encrypted."""

from __future__ import annotations

from typing import Any, Final

from llmlb_site.lib import health
from llmlb_site.lib.crypto import keyed_hash
from routing.state.redis_link import DEAD_SECONDS, LIVENESS, PROCESSES, RedisLink, Script

PART: Final = "secret key"  # its name in /readyz
WHY: Final = "another process of this Redis has another secret key: set LLMLB_SECRET_KEY, the same everywhere"
# KEYS: the mark, the processes that live. ARGV: a mark, from which the key cannot be guessed. Whoever comes first says
# which it is, for as long as a gateway lives.
IS_SAME: Final = Script(
    LIVENESS
    + f"""
local is = redis.call('GET', KEYS[1])
local lives = redis.call('ZCOUNT', KEYS[2], now - {DEAD_SECONDS * 1000:.0f}, '+inf') > 0
if is and is ~= ARGV[1] and lives then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', 86400)
return 1
"""
)
KEYS: Final = ("llmlb:secret-key", PROCESSES)


def mark() -> str:
    return keyed_hash("the same everywhere", "mark").hex()


class SameKey:
    """Asks with every sign of life; reports to `health`."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        link.load(IS_SAME)
        link.on_beat(self._ask)

    def _ask(self) -> None:
        self._link.tell_script(IS_SAME, KEYS, mark(), heard=_heard)


def _heard(answer: Any) -> None:
    if answer:
        health.forget(PART)
    else:
        health.report(PART, ok=False, detail=WHY)
