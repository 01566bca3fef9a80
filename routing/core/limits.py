"""How much a key may use: requests and tokens a minute, requests at once, tokens a day and a month.

    Limit      the numbers that somebody set, for a key or for a key and a model; 0 = none
    Reading    what is used of one of them at a moment, and how long until it is less
    Denial     why a request is not admitted, and after how long it would be
    Minute     what was used in the last minute, and what is left of it

A request is counted before it is served, with an estimate of its tokens, and corrected after it. Of a budget it holds
the most that it may take: requests that run together do not go over, one that runs alone may. Every state asks the same
questions here; what it reads it keeps in its own way (`routing.state.limits`). Times are whole milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from functools import lru_cache
from typing import Final, Literal, NamedTuple

SLOT: Final = 250  # what comes within so long leaves the minute together
WINDOW: Final = 60_000
SLOTS: Final = WINDOW // SLOT
LONGEST: Final = WINDOW + SLOT  # what is used when a slot begins is in the way for so long
DAY: Final = 86_400_000
NO_LIMIT: Final = 1 << 62  # more than is ever counted
# What waits for running requests to end cannot know when they will.
SOON: Final = 1_000
_EPOCH: Final = date(1970, 1, 1).toordinal()

# Slots, and how much each used; the oldest first.
Uses = Sequence[tuple[int, int]]
Kind = Literal["requests", "tokens", "concurrent", "day", "month", "reserved"]


@dataclass(frozen=True, slots=True, eq=False)
class Limit:
    """Numbers of one key (`model` empty: over all models), 0 where there is none. `id` names its counters.

    Each is itself alone, like `KeyLimits`: as the keys of a dict they cost next to nothing.
    """

    key_id: int
    model: str = ""
    requests: int = 0  # a minute
    tokens: int = 0  # a minute
    concurrent: int = 0
    day: int = 0  # tokens
    month: int = 0  # tokens
    id: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "id", f"{self.key_id}:{self.model}")

    @property
    def has_budget(self) -> bool:
        return bool(self.day or self.month)


@dataclass(frozen=True, slots=True, eq=False)
class KeyLimits:
    """All limits of one key."""

    overall: tuple[Limit, ...]  # one or none
    models: tuple[Limit, ...] = ()

    @classmethod
    def of(cls, limits: Iterable[Limit]) -> KeyLimits | None:
        """None for a key without any: it is served as if there were no limits at all."""
        found = tuple(limits)
        if not found:
            return None
        return cls(
            overall=tuple(limit for limit in found if not limit.model),
            models=tuple(limit for limit in found if limit.model),
        )

    def applying(self, model: str, resolve: Callable[[str], str]) -> tuple[Limit, ...]:
        """Those that a request for `model` counts on. A limit for an alias is one for the model behind it."""
        of_model = tuple(limit for limit in self.models if limit.model == model or resolve(limit.model) == model)
        return self.overall + of_model if of_model else self.overall

    @property
    def all(self) -> tuple[Limit, ...]:
        return self.overall + self.models


class Period(NamedTuple):
    """A day and its month, as calendars count them (UTC): the two that a request's tokens count on."""

    day: int  # since 1970-01-01
    month: int  # since year 0

    @property
    def next_day(self) -> int:
        """When the next day begins: Unix time."""
        return (self.day + 1) * DAY

    @property
    def next_month(self) -> int:
        first = date((self.month + 1) // 12, (self.month + 1) % 12 + 1, 1)
        return (first.toordinal() - _EPOCH) * DAY


@lru_cache(maxsize=64)
def period_of(day: int) -> Period:
    """The period of a day that is `day` days after 1970-01-01: `period_of(unix_time // DAY)`."""
    on = date.fromordinal(_EPOCH + day)
    return Period(day, on.year * 12 + on.month - 1)


class Reading(NamedTuple):
    """What is used of one limit, and how long until the request that asks would fit (0: it does) or all is free."""

    requests: int = 0
    requests_wait: int = 0
    requests_reset: int = 0
    tokens: int = 0
    tokens_wait: int = 0
    tokens_reset: int = 0
    running: int = 0
    reserved: int = 0  # tokens that running requests may take at most
    day: int = 0
    month: int = 0


@dataclass(frozen=True, slots=True)
class Denial:
    """The limit that would hold the request back longest. `retry_after`: milliseconds until it would be admitted."""

    kind: Kind
    limit: Limit
    retry_after: int
    used: int
    allowed: int
    wanted: int


def why_not(
    limits: Iterable[Limit], readings: Iterable[Reading], wanted: int, most: int, period: Period, unix: int
) -> Denial | None:
    """Why a request that takes `wanted` tokens as a rule, and `most` at most, is not admitted now; None if it is."""
    worst: Denial | None = None
    for limit, reading in zip(limits, readings, strict=True):
        for denial in _denials(limit, reading, wanted, most, period, unix):
            if worst is None or denial.retry_after > worst.retry_after:
                worst = denial
    return worst


def _denials(limit: Limit, reading: Reading, wanted: int, most: int, period: Period, unix: int) -> Iterable[Denial]:
    if reading.requests_wait:
        yield Denial("requests", limit, reading.requests_wait, reading.requests, limit.requests, 1)
    if reading.tokens_wait:
        yield Denial("tokens", limit, reading.tokens_wait, reading.tokens, limit.tokens, wanted)
    if limit.concurrent and reading.running >= limit.concurrent:
        yield Denial("concurrent", limit, SOON, reading.running, limit.concurrent, 1)
    if limit.day and reading.day >= limit.day:
        yield Denial("day", limit, max(SOON, period.next_day - unix), reading.day, limit.day, wanted)
    if limit.month and reading.month >= limit.month:
        yield Denial("month", limit, max(SOON, period.next_month - unix), reading.month, limit.month, wanted)
    for used, allowed in ((reading.day, limit.day), (reading.month, limit.month)):
        # What does not fit may still be the last one, but only when no other is under way: then at most one goes over.
        if allowed and reading.reserved and used < allowed < used + reading.reserved + most:
            yield Denial("reserved", limit, SOON, min(used + reading.reserved, allowed), allowed, most)


class Minute:
    """What is left of a minute: never more than its numbers in any 60 seconds, and at most one slot late.

    Slots are numbers of quarters of a second, on any clock that does not go back: `slot_of(now)`. Whoever uses some
    lowers `requests_left` and `tokens_left` after `pass_to(slot)`; it counts in that slot, as long as no other has been
    passed to.
    """

    __slots__ = (
        "_requests_known",
        "_tokens_known",
        "_uses",
        "requests_allowed",
        "requests_left",
        "slot",
        "tokens_allowed",
        "tokens_left",
    )

    def __init__(self) -> None:
        self.slot = 0  # the last that was passed to
        self.requests_allowed = self.tokens_allowed = 0
        self.requests_left = self.tokens_left = NO_LIMIT
        # What each slot used, the oldest first; and what was left when that was written.
        self._uses: dict[int, tuple[int, int]] = {}
        self._requests_known = self._tokens_known = NO_LIMIT

    def allow(self, requests: int, tokens: int) -> None:
        """Other numbers from now on, 0 for none; what has been used stays used."""
        requests_used, tokens_used = self.used()
        self._write_down()
        self.requests_allowed, self.tokens_allowed = requests, tokens
        self.requests_left = self._requests_known = (requests or NO_LIMIT) - requests_used
        self.tokens_left = self._tokens_known = (tokens or NO_LIMIT) - tokens_used

    def used(self) -> tuple[int, int]:
        """Requests and tokens."""
        return (
            (self.requests_allowed or NO_LIMIT) - self.requests_left,
            (self.tokens_allowed or NO_LIMIT) - self.tokens_left,
        )

    def pass_to(self, slot: int) -> None:
        """Forget what has left the minute until `slot`."""
        if slot <= self.slot:
            return
        self._write_down()
        self.slot = slot
        uses, gone = self._uses, slot - SLOTS
        while uses and (oldest := next(iter(uses))) < gone:
            requests, tokens = uses.pop(oldest)
            self.requests_left += requests
            self.tokens_left += tokens
        self._requests_known, self._tokens_known = self.requests_left, self.tokens_left

    def give_back(self, slot: int, requests: int, tokens: int) -> None:
        """What was counted in `slot` and not used after all. Nothing, if that has left the minute by itself."""
        if slot == self.slot:
            self._write_down()
        if slot in self._uses:
            requests_used, tokens_used = self._uses[slot]
            requests, tokens = min(requests, requests_used), min(tokens, tokens_used)
            self._uses[slot] = requests_used - requests, tokens_used - tokens
            self.requests_left += requests
            self.tokens_left += tokens
            self._requests_known += requests
            self._tokens_known += tokens

    def uses(self) -> tuple[Uses, Uses]:
        """Of requests, and of tokens."""
        self._write_down()
        found = self._uses.items()
        return [(slot, requests) for slot, (requests, _) in found], [(slot, tokens) for slot, (_, tokens) in found]

    def _write_down(self) -> None:
        requests, tokens = self._requests_known - self.requests_left, self._tokens_known - self.tokens_left
        if requests or tokens:
            before = self._uses.get(self.slot, (0, 0))
            self._uses[self.slot] = before[0] + requests, before[1] + tokens
            self._requests_known, self._tokens_known = self.requests_left, self.tokens_left


def wait(uses: Uses, now: int, wanted: int, limit: int) -> int:
    """How long until `wanted` more fit into `limit`; 0 if they do. More than the limit waits until all is free."""
    excess = sum(amount for _, amount in uses) + min(wanted, limit) - limit
    if excess <= 0:
        return 0
    for slot, amount in uses:
        excess -= amount
        if excess <= 0:
            return _leaves(slot) - now
    return 0


def reset(uses: Uses, now: int) -> int:
    """How long until nothing is used."""
    return next((_leaves(slot) - now for slot, amount in reversed(uses) if amount), 0)


def slot_of(now: int) -> int:
    return now // SLOT


def _leaves(slot: int) -> int:
    """When a slot is out of the minute."""
    return (slot + 1) * SLOT + WINDOW


def duration(milliseconds: int) -> str:
    """As OpenAI writes it: `120ms`, `1s`, `6m0s`, `23h59m59s`. Seconds are rounded up, so it is never too short."""
    if milliseconds < 1000:
        return f"{milliseconds}ms" if milliseconds > 0 else "0s"
    seconds = -(-milliseconds // 1000)
    if seconds < 60:
        return f"{seconds}s"
    minutes, seconds = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes}m{seconds}s"
    return f"{minutes // 60}h{minutes % 60}m{seconds}s"
