"""Who has used how much of their limits: one protocol, in this process's memory here, shared in `redis_limits`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Final, NamedTuple, Protocol

import msgspec

from routing.core.limits import (
    DAY,
    LONGEST,
    NO_LIMIT,
    SLOT,
    Denial,
    Limit,
    Minute,
    Period,
    Reading,
    period_of,
    reset,
    slot_of,
    wait,
    why_not,
)

PERIODS_KEPT: Final = 3
# Requests or tokens a minute: what is allowed (0: there is no limit), what is left of it, how long until all is.
Left = tuple[int, int, int]


class Tokens(NamedTuple):
    """Tokens that one limit's requests have used in a day, and in its month, as far as the history knows."""

    id: str
    period: Period
    day: int
    month: int


class Hold(msgspec.Struct):
    """What one admitted request has reserved. To be settled once, however the request ends.

    Of the minute these are the tokens `wanted`, of budgets the `most` that it may take.
    `shared_slot` is the one that it was counted in elsewhere; 0 where only this process knows of it.
    """

    limits: tuple[Limit, ...]
    counters: tuple[Counters, ...]
    wanted: int
    most: int
    slot: int
    period: Period
    shared_slot: int = 0


class Verdict(msgspec.Struct):
    """`hold` where the request is admitted, else `denial`.

    `requests` and `tokens` are of the limit that has the least left, with this request counted if it is admitted.
    """

    hold: Hold | None
    requests: Left
    tokens: Left
    denial: Denial | None = None


class Limiter(Protocol):
    """Belongs to one event loop. `limits` are those that apply to one request."""

    async def reserve(self, limits: tuple[Limit, ...], wanted: int, most: int) -> Verdict:
        """Count a request that takes `wanted` tokens as a rule, and `most` at most, on all of `limits` or on none."""

    def settle(self, hold: Hold, used: int, *, counts: bool = True) -> None:
        """The request is over: it has taken `used` tokens. One that does not count is taken back altogether."""

    def at_least(self, tokens: Iterable[Tokens]) -> None:
        """So much is used already: after a start, or where others' use did not get here. Never lowers a count."""

    def keep_only(self, ids: Iterable[str]) -> None:
        """Forget the counters of limits that there are no more."""

    async def read(self, limits: Sequence[Limit]) -> Sequence[Reading]:
        """What is used now, for people to see."""


class Counters(Minute):
    """What is counted of one limit: by the minute, and by days and months."""

    __slots__ = ("_days", "_months", "budget", "concurrent", "limit", "period", "running", "spent", "taken")

    def __init__(self) -> None:
        super().__init__()
        self.limit: Limit | None = None  # whose numbers are in force
        self.concurrent = NO_LIMIT
        self.running = 0
        self.period = period_of(0)
        # Tokens that the day and the month had left when that was found out; since then so many were spent, and so many
        # are spent or may yet be taken by running requests.
        self.budget = NO_LIMIT
        self.spent = 0
        self.taken = 0
        self._days: dict[int, int] = {}
        self._months: dict[int, int] = {}

    @property
    def reserved(self) -> int:
        return self.taken - self.spent

    def enforce(self, limit: Limit) -> None:
        self.limit = limit
        self.allow(limit.requests, limit.tokens)
        self.concurrent = limit.concurrent or NO_LIMIT
        self._find_budget()

    def begin(self, period: Period) -> None:
        """What is spent from now on is of this day and month."""
        self._book()
        self.period = period
        self._find_budget()

    def admits(self, wanted: int, most: int) -> bool:
        """What `why_not` says of the reading, without the reading. After `pass_to` and `begin`."""
        left, reserved = self.budget - self.spent, self.reserved
        return (
            self.requests_left > 0
            and self.tokens_left >= min(wanted, self.tokens_allowed)
            and self.running < self.concurrent
            and left > 0
            and (not reserved or reserved + most <= left)
        )

    def exceed(self, tokens: int) -> None:
        """So many were used beyond what was reserved, as is known only now."""
        self.pass_to(slot_of(monotonic_ms()))
        self.tokens_left -= tokens

    def spend(self, period: Period, tokens: int) -> None:
        _add(self._days, period.day, tokens)
        _add(self._months, period.month, tokens)
        self._find_budget()

    def at_least(self, period: Period, day: int, month: int) -> None:
        known_day, known_month = self.spent_in(period)
        if day > known_day or month > known_month:
            _add(self._days, period.day, max(0, day - known_day))
            _add(self._months, period.month, max(0, month - known_month))
            self._find_budget()

    def spent_in(self, period: Period) -> tuple[int, int]:
        """Tokens of the day, and of the month."""
        self._book()
        return self._days.get(period.day, 0), self._months.get(period.month, 0)

    def reading(self, limit: Limit, wanted: int, now: int, period: Period) -> Reading:
        self.pass_to(slot_of(now))
        used, (requests, tokens) = self.used(), self.uses()
        return Reading(
            used[0] if limit.requests else 0,
            wait(requests, now, 1, limit.requests) if limit.requests else 0,
            reset(requests, now) if limit.requests else 0,
            used[1] if limit.tokens else 0,
            wait(tokens, now, wanted, limit.tokens) if limit.tokens else 0,
            reset(tokens, now) if limit.tokens else 0,
            self.running,
            self.reserved,
            *self.spent_in(period),
        )

    def _book(self) -> None:
        if self.spent:
            spent, self.spent = self.spent, 0
            self.budget -= spent
            self.taken -= spent
            _add(self._days, self.period.day, spent)
            _add(self._months, self.period.month, spent)

    def _find_budget(self) -> None:
        day, month = self.spent_in(self.period)
        limit = self.limit
        self.budget = NO_LIMIT
        if limit is not None and limit.day:
            self.budget = limit.day - day
        if limit is not None and limit.month:
            self.budget = min(self.budget, limit.month - month)


def _add(periods: dict[int, int], period: int, amount: int) -> None:
    periods[period] = periods.get(period, 0) + amount
    if len(periods) > PERIODS_KEPT:
        del periods[min(periods)]


_UNLIMITED: Final = Minute()  # nothing is counted here


class MemoryLimiter:
    """`Limiter` of one process: exact, and gone with it but for the token budgets, which the history gives back."""

    def __init__(self) -> None:
        self._counters: dict[str, Counters] = {}
        # The same for limits that a request came with, once these are in force, in this period.
        self._enforced: dict[tuple[Limit, ...], tuple[Counters, ...]] = {}
        self._period = period_of(0)

    async def reserve(self, limits: tuple[Limit, ...], wanted: int, most: int) -> Verdict:
        now, unix = monotonic_ms(), unix_ms()
        slot, period = now // SLOT, period_of(unix // DAY)
        if period is not self._period:
            self._begin(period)
        counters = self._enforced.get(limits) or self._enforce(limits)
        for each in counters:
            if each.slot != slot:
                each.pass_to(slot)
            # What fits so is admitted; what does not is looked at closely.
            if (
                each.requests_left < 1
                or each.tokens_left < wanted
                or each.running >= each.concurrent
                or each.taken + most >= each.budget
            ) and not each.admits(wanted, most):
                return self._denied(limits, wanted, most, now, unix)
        return _count(Hold(limits, counters, wanted, most, slot, period), now)

    def count(self, limits: tuple[Limit, ...], wanted: int, most: int, now: int, period: Period) -> Verdict:
        """Count a request that was admitted elsewhere."""
        if period is not self._period:
            self._begin(period)
        slot, counters = slot_of(now), self._enforced.get(limits) or self._enforce(limits)
        for each in counters:
            each.pass_to(slot)
        return _count(Hold(limits, counters, wanted, most, slot, period), now)

    def settle(self, hold: Hold, used: int, *, counts: bool = True) -> None:
        slot, period, back, unused = hold.slot, hold.period, hold.wanted - used, hold.most - used
        for each in hold.counters:
            each.running -= 1
            each.taken -= unused
            if back < 0:
                each.exceed(-back)
            elif each.slot == slot:
                each.tokens_left += back
            else:
                each.give_back(slot, 0, back)
            if each.period is period:
                each.spent += used
            else:
                each.taken -= used
                each.spend(period, used)
        if not counts:
            for each in hold.counters:
                each.give_back(slot, 1, 0)

    def at_least(self, tokens: Iterable[Tokens]) -> None:
        for id, period, day, month in tokens:
            self._of(id).at_least(period, day, month)

    def keep_only(self, ids: Iterable[str]) -> None:
        wanted = set(ids)
        self._counters = {id: each for id, each in self._counters.items() if id in wanted or each.running}
        self._enforced = {}
        for each in self._counters.values():
            each.limit = None

    async def read(self, limits: Sequence[Limit]) -> Sequence[Reading]:
        now, period = monotonic_ms(), period_of(unix_ms() // DAY)
        return [self._of(limit.id).reading(limit, 0, now, period) for limit in limits]

    def held(self) -> list[tuple[str, int, int]]:
        """Limits that count requests now: how many, and the tokens that these may take at most."""
        return [(id, each.running, each.reserved) for id, each in self._counters.items() if each.running]

    def spent_in(self, period: Period, limit: Limit) -> tuple[int, int]:
        """Tokens of the day, and of the month, as far as this process knows."""
        return self._of(limit.id).spent_in(period)

    def _begin(self, period: Period) -> None:
        self._period = period
        self._enforced = {}

    def _enforce(self, limits: tuple[Limit, ...]) -> tuple[Counters, ...]:
        counters = tuple([self._of(limit.id) for limit in limits])
        for each, limit in zip(counters, limits, strict=True):
            if each.limit is not limit:
                if each.limit is not None:
                    self._enforced.clear()  # requests that come with other numbers have those enforced again
                each.enforce(limit)
            if each.period is not self._period:
                each.begin(self._period)
        self._enforced[limits] = counters
        return counters

    def _of(self, id: str) -> Counters:
        counters = self._counters.get(id)
        if counters is None:
            counters = self._counters[id] = Counters()
        return counters

    def _denied(self, limits: Sequence[Limit], wanted: int, most: int, now: int, unix: int) -> Verdict:
        period = period_of(unix // DAY)
        readings = [self._of(limit.id).reading(limit, wanted, now, period) for limit in limits]
        return denied(limits, readings, wanted, most, unix)


def _count(hold: Hold, now: int) -> Verdict:
    wanted, most = hold.wanted, hold.most
    fewest_requests: Minute = _UNLIMITED
    fewest_tokens: Minute = _UNLIMITED
    for each in hold.counters:
        each.running += 1
        each.taken += most
        left = each.requests_left = each.requests_left - 1
        if left < fewest_requests.requests_left:
            fewest_requests = each
        left = each.tokens_left = each.tokens_left - wanted
        if left < fewest_tokens.tokens_left:
            fewest_tokens = each
    until_free = LONGEST - now % SLOT
    return Verdict(
        hold,
        (fewest_requests.requests_allowed, fewest_requests.requests_left, until_free),
        (fewest_tokens.tokens_allowed, fewest_tokens.tokens_left, until_free),
    )


def denied(limits: Sequence[Limit], readings: Sequence[Reading], wanted: int, most: int, unix: int) -> Verdict:
    """A verdict that says why not; by then there must be a reason."""
    requests = [(of.requests, each.requests, each.requests_reset) for of, each in zip(limits, readings, strict=True)]
    tokens = [(of.tokens, each.tokens, each.tokens_reset) for of, each in zip(limits, readings, strict=True)]
    denial = why_not(limits, readings, wanted, most, period_of(unix // DAY), unix)
    return Verdict(None, least_left(requests), least_left(tokens), denial)


def least_left(minutes: Iterable[tuple[int, int, int]]) -> Left:
    """Of minutes in which so much is allowed, so much used, and so long until nothing is: that with the least left."""
    left = [(allowed, allowed - used, reset) for allowed, used, reset in minutes if allowed]
    return min(left, key=itemgetter(1), default=(0, 0, 0))


def monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def unix_ms() -> int:
    return time.time_ns() // 1_000_000
