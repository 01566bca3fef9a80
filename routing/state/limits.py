"""Who has used how much of their limits: one protocol, in this process's memory here, shared in `redis_limits`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from routing.core.limits import (
    DAY,
    Denial,
    Limit,
    Minute,
    Period,
    Reading,
    Window,
    period_of,
    slot_of,
    until_free,
    why_not,
)

PERIODS_KEPT: Final = 3


class Tokens(NamedTuple):
    """Tokens that one limit's requests have used in a day, and in its month, as far as the history knows."""

    id: str
    period: Period
    day: int
    month: int


@dataclass(slots=True)
class Hold:
    """What one admitted request has reserved. To be settled once, however the request ends.

    `shared_slot` is the one that it was counted in elsewhere; 0 where only this process knows of it.
    """

    limits: Sequence[Limit]
    wanted: int
    slot: int
    period: Period
    shared_slot: int = 0


class Verdict(NamedTuple):
    """`hold` where the request is admitted, else `denial`. `minutes` are of each limit, this request included."""

    hold: Hold | None
    minutes: Sequence[Minute]
    denial: Denial | None = None


class Limiter(Protocol):
    """Belongs to one event loop. `limits` are those that apply to one request."""

    async def reserve(self, limits: Sequence[Limit], wanted: int) -> Verdict:
        """Count a request that may take `wanted` tokens on all of `limits`, or on none of them."""

    def settle(self, hold: Hold, used: int, *, counts: bool = True) -> None:
        """The request is over: it has taken `used` tokens. One that does not count is taken back altogether."""

    def at_least(self, tokens: Iterable[Tokens]) -> None:
        """So much is used already: after a start, or where others' use did not get here. Never lowers a count."""

    def keep_only(self, ids: Iterable[str]) -> None:
        """Forget the counters of limits that there are no more."""

    async def read(self, limits: Sequence[Limit]) -> Sequence[Reading]:
        """What is used now, for people to see."""


@dataclass(slots=True)
class Used:
    """The counters of one limit."""

    requests: Window = field(default_factory=Window)
    tokens: Window = field(default_factory=Window)
    running: int = 0
    reserved: int = 0
    days: dict[int, int] = field(default_factory=dict)
    months: dict[int, int] = field(default_factory=dict)

    def admits(self, limit: Limit, wanted: int, slot: int, period: Period) -> bool:
        """What `why_not` says of the reading, without the reading: on the way of every request."""
        if limit.requests and self.requests.pass_to(slot) >= limit.requests:
            return False
        if limit.tokens and self.tokens.pass_to(slot) + min(wanted, limit.tokens) > limit.tokens:
            return False
        if limit.concurrent and self.running >= limit.concurrent:
            return False
        return not (
            (limit.day and not self._affords(self.days.get(period.day, 0), limit.day, wanted))
            or (limit.month and not self._affords(self.months.get(period.month, 0), limit.month, wanted))
        )

    def _affords(self, used: int, allowed: int, wanted: int) -> bool:
        return used < allowed and (not self.reserved or used + self.reserved + wanted <= allowed)

    def count(self, limit: Limit, wanted: int, slot: int) -> tuple[int, int]:
        """Returns requests and tokens of the minute."""
        self.running += 1
        self.reserved += wanted
        if limit.requests:
            self.requests.add(slot, 1)
        if limit.tokens:
            self.tokens.add(slot, wanted)
        return self.requests.used, self.tokens.used

    def settle(self, limit: Limit, hold: Hold, used: int, slot: int, *, counts: bool) -> None:
        wanted = hold.wanted
        self.running -= 1
        self.reserved -= wanted
        if not counts:
            self.requests.give_back(hold.slot, 1)
        if used < wanted:
            self.tokens.give_back(hold.slot, wanted - used)
        elif limit.tokens and used > wanted:
            self.tokens.pass_to(slot)
            self.tokens.add(slot, used - wanted)
        if used:
            _add(self.days, hold.period.day, used)
            _add(self.months, hold.period.month, used)

    def reading(self, limit: Limit, wanted: int, now: int, period: Period) -> Reading:
        requests, tokens, slot = self.requests, self.tokens, slot_of(now)
        return Reading(
            requests.pass_to(slot),
            requests.wait(now, 1, limit.requests) if limit.requests else 0,
            requests.reset(now),
            tokens.pass_to(slot),
            tokens.wait(now, wanted, limit.tokens) if limit.tokens else 0,
            tokens.reset(now),
            self.running,
            self.reserved,
            self.days.get(period.day, 0),
            self.months.get(period.month, 0),
        )

    def at_least(self, period: Period, day: int, month: int) -> None:
        _add(self.days, period.day, max(0, day - self.days.get(period.day, 0)))
        _add(self.months, period.month, max(0, month - self.months.get(period.month, 0)))


def _add(periods: dict[int, int], period: int, amount: int) -> None:
    periods[period] = periods.get(period, 0) + amount
    if len(periods) > PERIODS_KEPT:
        del periods[min(periods)]


class MemoryLimiter:
    """`Limiter` of one process: exact, and gone with it but for the token budgets, which the history gives back."""

    def __init__(self) -> None:
        self._used: dict[str, Used] = {}

    async def reserve(self, limits: Sequence[Limit], wanted: int) -> Verdict:
        now, unix = monotonic_ms(), unix_ms()
        slot, period = slot_of(now), period_of(unix // DAY)
        for limit in limits:
            if not self.of(limit).admits(limit, wanted, slot, period):
                return self._denied(limits, wanted, now, unix)
        return self.count(limits, wanted, now, period)

    def count(self, limits: Sequence[Limit], wanted: int, now: int, period: Period) -> Verdict:
        """Count a request that is admitted, here or elsewhere."""
        slot, reset = slot_of(now), until_free(now)
        minutes = []
        for limit in limits:
            requests, tokens = self.of(limit).count(limit, wanted, slot)
            minutes.append(Minute(requests, reset, tokens, reset))
        return Verdict(Hold(limits, wanted, slot, period), minutes)

    def _denied(self, limits: Sequence[Limit], wanted: int, now: int, unix: int) -> Verdict:
        period = period_of(unix // DAY)
        readings = [self.of(limit).reading(limit, wanted, now, period) for limit in limits]
        return denied(limits, readings, wanted, unix)

    def settle(self, hold: Hold, used: int, *, counts: bool = True) -> None:
        slot = slot_of(monotonic_ms())
        for limit in hold.limits:
            self.of(limit).settle(limit, hold, used, slot, counts=counts)

    def at_least(self, tokens: Iterable[Tokens]) -> None:
        for id, period, day, month in tokens:
            self._used.setdefault(id, Used()).at_least(period, day, month)

    def keep_only(self, ids: Iterable[str]) -> None:
        wanted = set(ids)
        gone = [id for id, used in self._used.items() if id not in wanted and not used.running]
        for id in gone:
            del self._used[id]

    async def read(self, limits: Sequence[Limit]) -> Sequence[Reading]:
        now, period = monotonic_ms(), period_of(unix_ms() // DAY)
        return [self.of(limit).reading(limit, 0, now, period) for limit in limits]

    def held(self) -> list[tuple[str, int, int]]:
        """Limits that count requests now: how many, and the tokens that these have reserved."""
        return [(id, used.running, used.reserved) for id, used in self._used.items() if used.running]

    def of(self, limit: Limit) -> Used:
        used = self._used.get(limit.id)
        if used is None:
            used = self._used[limit.id] = Used()
        return used


def denied(limits: Sequence[Limit], readings: Sequence[Reading], wanted: int, unix: int) -> Verdict:
    """A verdict that says why not; by then there must be a reason."""
    denial = why_not(limits, readings, wanted, period_of(unix // DAY), unix)
    minutes = [Minute(of.requests, of.requests_reset, of.tokens, of.tokens_reset) for of in readings]
    return Verdict(None, minutes, denial)


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def unix_ms() -> int:
    return time.time_ns() // 1_000_000
