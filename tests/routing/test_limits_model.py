"""The counters of limits beside a model of them that keeps every single use, for any traffic."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TypeVar
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from routing.core.limits import (
    DAY,
    NO_LIMIT,
    SLOT,
    SLOTS,
    WINDOW,
    Limit,
    Minute,
    Reading,
    period_of,
    reset,
    slot_of,
    wait,
    why_not,
)
from routing.state import limits as state
from routing.state.limits import Hold, MemoryLimiter, Tokens, Verdict

Answer = TypeVar("Answer")
Uses = list[tuple[int, int]]  # slot and amount; given back: a negative amount


def of_minute(uses: Uses, now: int) -> dict[int, int]:
    """What each slot of the minute until now has used."""
    amounts: dict[int, int] = defaultdict(int)
    for slot, amount in uses:
        if slot >= slot_of(now) - SLOTS:
            amounts[slot] += amount
    return dict(sorted(amounts.items()))


def leaves(slot: int) -> int:
    return (slot + 1) * SLOT + WINDOW


def waits(amounts: dict[int, int], now: int, wanted: int, limit: int) -> int:
    moments = [now, *(leaves(slot) for slot in amounts)]
    for moment in moments if limit else ():
        if sum(amount for slot, amount in amounts.items() if leaves(slot) > moment) + min(wanted, limit) <= limit:
            return moment - now
    return 0


def until_free(amounts: dict[int, int], now: int) -> int:
    return max((leaves(slot) - now for slot, amount in amounts.items() if amount), default=0)


# --- a minute --------------------------------------------------------------------------------------------------------

pauses = st.sampled_from([0, 0, 1, SLOT - 1, SLOT, 3_000, 30_000, WINDOW, WINDOW + SLOT, 3 * WINDOW])
changes = st.tuples(
    st.sampled_from(["use", "use", "use", "give", "allow", "look"]), pauses, st.integers(0, 3), st.integers(0, 60)
)


@given(st.lists(changes, max_size=60))
def test_a_minute_is_what_its_uses_are(script: list[tuple[str, int, int, int]]) -> None:
    minute, requests, tokens, now = Minute(), Uses(), Uses(), 1_000_000
    allowed = (0, 0)
    for what, pause, small, large in script:
        now += pause
        minute.pass_to(slot_of(now))
        if what == "use":
            minute.requests_left -= small
            minute.tokens_left -= large
            requests.append((slot_of(now), small))
            tokens.append((slot_of(now), large))
        elif what == "give" and requests:
            slot = requests[large % len(requests)][0]
            minute.give_back(slot, small, large)
            for uses, number in ((requests, small), (tokens, large)):
                uses.append((slot, -min(number, of_minute(uses, now).get(slot, 0))))
        elif what == "allow":
            allowed = (small, large)
            minute.allow(*allowed)
        elif what == "look":
            for uses, found in zip((requests, tokens), minute.uses(), strict=True):
                amounts, limit = of_minute(uses, now), large or 40
                assert wait(found, now, small, limit) == waits(amounts, now, small, limit)
                assert reset(found, now) == until_free(amounts, now)
        assert minute.used() == (sum(of_minute(requests, now).values()), sum(of_minute(tokens, now).values()))
        left = tuple((of or NO_LIMIT) - used for of, used in zip(allowed, minute.used(), strict=True))
        assert (minute.requests_left, minute.tokens_left) == left


# --- a limiter -------------------------------------------------------------------------------------------------------


@dataclass
class Model:
    """What is used of one limit."""

    requests: Uses = field(default_factory=Uses)
    tokens: Uses = field(default_factory=Uses)
    running: int = 0
    reserved: int = 0
    days: dict[int, int] = field(default_factory=lambda: defaultdict(int))
    months: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def reading(self, limit: Limit, wanted: int, now: int, unix: int) -> Reading:
        requests = of_minute(self.requests, now) if limit.requests else {}
        tokens = of_minute(self.tokens, now) if limit.tokens else {}
        period = period_of(unix // DAY)
        return Reading(
            sum(requests.values()),
            waits(requests, now, 1, limit.requests),
            until_free(requests, now),
            sum(tokens.values()),
            waits(tokens, now, wanted, limit.tokens),
            until_free(tokens, now),
            self.running,
            self.reserved,
            self.days[period.day],
            self.months[period.month],
        )


class World:
    """A limiter and the models of what it counts, on the same clocks."""

    def __init__(self) -> None:
        self.limiter = MemoryLimiter()
        self.models: dict[str, Model] = defaultdict(Model)
        self.holds: list[Hold] = []
        self.now, self.unix = 5_000_000, 20_000 * DAY + DAY // 2
        self.ahead = False

    def readings(self, limits: Sequence[Limit], wanted: int) -> list[Reading]:
        return [self.models[limit.id].reading(limit, wanted, self.now, self.unix) for limit in limits]

    def reserve(self, limits: tuple[Limit, ...], wanted: int, most: int) -> None:
        period = period_of(self.unix // DAY)
        denial = why_not(limits, self.readings(limits, wanted), wanted, most, period, self.unix)
        verdict = at_once(self.limiter.reserve(limits, wanted, most))
        assert verdict.denial == denial
        assert (verdict.hold is None) == (denial is not None)
        if verdict.hold is not None:
            self.holds.append(verdict.hold)
            for limit in limits:
                model = self.models[limit.id]
                model.running, model.reserved = model.running + 1, model.reserved + most
                model.requests.append((slot_of(self.now), 1))
                model.tokens.append((slot_of(self.now), wanted))
        self.check_told(limits, verdict, wanted)

    def check_told(self, limits: tuple[Limit, ...], verdict: Verdict, wanted: int) -> None:
        after = self.readings(limits, wanted)
        left = [limit.requests - of.requests for limit, of in zip(limits, after, strict=True) if limit.requests]
        assert verdict.requests[1] == min(left, default=0) or not verdict.requests[0]
        assert bool(left) == bool(verdict.requests[0])
        left = [limit.tokens - of.tokens for limit, of in zip(limits, after, strict=True) if limit.tokens]
        assert verdict.tokens[1] == min(left, default=0) or not verdict.tokens[0]
        assert bool(left) == bool(verdict.tokens[0])
        if verdict.hold is not None and left:
            assert verdict.tokens[2] == leaves(slot_of(self.now)) - self.now

    def settle(self, number: int, used: int, *, counts: bool) -> None:
        hold = self.holds.pop(number % len(self.holds))
        self.limiter.settle(hold, used, counts=counts)
        for limit in hold.limits:
            model = self.models[limit.id]
            model.running, model.reserved = model.running - 1, model.reserved - hold.most
            if not counts:
                model.requests.append((hold.slot, -1))
            if used <= hold.wanted:
                model.tokens.append((hold.slot, used - hold.wanted))
            else:
                model.tokens.append((slot_of(self.now), used - hold.wanted))
            model.days[hold.period.day] += used
            model.months[hold.period.month] += used

    def keep_only(self, ids: set[str]) -> None:
        self.limiter.keep_only(ids)
        for id in [id for id, model in self.models.items() if id not in ids and not model.running]:
            del self.models[id]

    def set_calendar(self) -> None:
        """Somebody sets it a day ahead, and back."""
        self.ahead = not self.ahead
        self.unix += DAY if self.ahead else -DAY

    def hear(self, limit: Limit, day: int, month: int) -> None:
        period = period_of(self.unix // DAY)
        self.limiter.at_least([Tokens(limit.id, period, day, month)])
        model = self.models[limit.id]
        model.days[period.day] = max(day, model.days[period.day])
        model.months[period.month] = max(month, model.months[period.month])


def at_once(asking: Coroutine[None, None, Answer]) -> Answer:
    """In memory nothing is waited for."""
    try:
        asking.send(None)
    except StopIteration as done:
        answer: Answer = done.value
        return answer
    raise AssertionError("it waits")


numbers = st.sampled_from([0, 0, 3, 50, 400])


@st.composite
def any_limits(draw: st.DrawFn) -> list[tuple[Limit, ...]]:
    """Two versions of each of a key's limits, as requests come with them."""
    versions = []
    for _ in range(2):
        overall, of_model = (
            Limit(1, model, draw(numbers), draw(numbers), draw(numbers), draw(numbers), draw(numbers))
            for model in ("", "m")
        )
        versions += [(overall,), (overall, of_model)]
    return versions


steps = st.tuples(
    st.sampled_from(["reserve"] * 4 + ["settle"] * 3 + ["look", "look", "fail", "hear", "day", "keep"]),
    pauses,
    st.integers(0, 90),
    st.integers(0, 50),
)


@settings(max_examples=600)
@given(any_limits(), st.lists(steps, max_size=60))
def test_a_limiter_admits_and_tells_what_its_model_does(
    versions: list[tuple[Limit, ...]], script: list[tuple[str, int, int, int]]
) -> None:
    world = World()
    with (
        patch.object(state, "monotonic_ms", lambda: world.now),
        patch.object(state, "unix_ms", lambda: world.unix),
    ):
        for what, pause, number, other in script:
            world.now, world.unix = world.now + pause, world.unix + pause
            limits = versions[other % len(versions)]
            match what:
                case "reserve":
                    world.reserve(limits, number, number * (1 + other % 3))
                case "settle" | "fail" if world.holds:
                    world.settle(other, number, counts=what == "settle")
                case "look":
                    assert at_once(world.limiter.read(limits)) == world.readings(limits, 0)
                case "hear":
                    world.hear(limits[-1], number, 2 * number)
                case "day":
                    world.set_calendar()
                case "keep":
                    world.keep_only({limit.id for limit in limits})
