"""Means over the last hour in constant memory: one bucket a minute."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

MINUTES: Final = 60


@dataclass(slots=True)
class _Bucket:
    minute: int
    count: int = 0
    total: float = 0.0


class Rolling:
    """Counts values and their mean over the last 60 minutes. `now` is any clock in seconds that only goes forward."""

    def __init__(self) -> None:
        self._buckets: deque[_Bucket] = deque()
        self._current = _Bucket(-1)
        self._current_until = 0.0

    def add(self, now: float, value: float = 0.0) -> None:
        if now >= self._current_until:
            self._begin_bucket(int(now // 60))
        bucket = self._current
        bucket.count += 1
        bucket.total += value

    def count(self, now: float) -> int:
        self._drop_old(int(now // 60))
        return sum(bucket.count for bucket in self._buckets)

    def mean(self, now: float) -> float:
        """0.0 where there was nothing."""
        count = self.count(now)
        return self.total(now) / count if count else 0.0

    def total(self, now: float) -> float:
        self._drop_old(int(now // 60))
        return sum(bucket.total for bucket in self._buckets)

    def _begin_bucket(self, minute: int) -> None:
        self._drop_old(minute)
        self._current = _Bucket(minute)
        self._current_until = (minute + 1) * 60
        self._buckets.append(self._current)

    def _drop_old(self, minute: int) -> None:
        while self._buckets and self._buckets[0].minute <= minute - MINUTES:
            self._buckets.popleft()
