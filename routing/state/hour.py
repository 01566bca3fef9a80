"""What one process counted of its requests in the last hour: small enough to be told to the others."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from routing.core.rolling import Rolling


class Hour(NamedTuple):
    """Times are seconds, and sums, so that hours of several processes add up."""

    waits: int = 0
    processed: int = 0
    timeouts: int = 0
    rejections: int = 0
    waited: float = 0.0
    processing: float = 0.0

    @property
    def mean_wait(self) -> float:
        return self.waited / self.waits if self.waits else 0.0

    @property
    def mean_processing(self) -> float:
        return self.processing / self.processed if self.processed else 0.0

    def packed(self) -> str:
        return " ".join(f"{value:.6g}" for value in self)

    @classmethod
    def unpack(cls, packed: bytes) -> Hour:
        waits, processed, timeouts, rejections, waited, processing = map(float, packed.split())
        return cls(int(waits), int(processed), int(timeouts), int(rejections), waited, processing)

    @classmethod
    def sum(cls, hours: Iterable[Hour]) -> Hour:
        return cls(*map(sum, zip(*hours, strict=True)))


class Counters:
    """The last hour of this process, as it goes on. `now` is as of `Rolling`."""

    def __init__(self) -> None:
        self.waits = Rolling()
        self.processing = Rolling()
        self.timeouts = Rolling()
        self.rejections = Rolling()

    def hour(self, now: float) -> Hour:
        return Hour(
            self.waits.count(now),
            self.processing.count(now),
            self.timeouts.count(now),
            self.rejections.count(now),
            self.waits.total(now),
            self.processing.total(now),
        )
