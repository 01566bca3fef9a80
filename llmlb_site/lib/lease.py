"""One holder at a time over all hosts: a key in Redis that dies with its holder."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, Final

import redis

log = logging.getLogger("llmlb.lease")

# How soon another takes over when the holder is gone without a word.
LEASE_SECONDS: Final = 10.0
RENEW_SECONDS: Final = 3.0
# The holder stops believing in its lease this long before Redis does: clocks do not run alike.
MARGIN_SECONDS: Final = 1.0

_RENEW: Final = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return 1 end
return 0
"""
_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Lease:
    """Ask `held` as often as you like, before each thing that only one may do. Of one thread."""

    def __init__(self, url: str, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._client: Any = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
        self._key = f"llmlb:lease:{name}"
        self._holder = uuid.uuid4().hex
        self._clock = clock
        self._until = 0.0
        self._ask_at = 0.0

    def held(self) -> bool:
        """Whether it is ours now; asks Redis where that is not certain, at most every `RENEW_SECONDS`."""
        now = self._clock()
        if now >= self._ask_at:
            self._ask_at = now + RENEW_SECONDS
            self._ask(now)
        return self._clock() < self._until

    def release(self) -> None:
        self._until = 0.0
        try:
            self._client.eval(_RELEASE, 1, self._key, self._holder)
        except redis.RedisError as error:
            log.warning("a lease is left to run out: %s", type(error).__name__)

    def close(self) -> None:
        self._client.close()

    def _ask(self, now: float) -> None:
        had = now < self._until
        try:
            has = bool(self._client.eval(_RENEW, 1, self._key, self._holder, int(LEASE_SECONDS * 1000)))
        except redis.RedisError as error:
            log.warning("a lease cannot be renewed: %s", type(error).__name__)
            return
        self._until = now + LEASE_SECONDS - MARGIN_SECONDS if has else 0.0
        if has != had:
            log.info("lease %s", "taken" if has else "lost to another")
