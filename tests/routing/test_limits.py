"""What limits admit, and how long they say to wait: rules that hold for any traffic."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from routing.core.limits import (
    DAY,
    SLOT,
    SOON,
    WINDOW,
    KeyLimits,
    Limit,
    Minute,
    Reading,
    duration,
    period_of,
    reset,
    slot_of,
    wait,
    why_not,
)

steps = st.lists(st.tuples(st.integers(0, 30_000), st.integers(1, 40)), min_size=1, max_size=80)


def unix(*moment: int) -> int:
    return int(datetime(*moment, tzinfo=UTC).timestamp() * 1000)  # type: ignore[misc, arg-type]  # a date's parts


# --- a minute --------------------------------------------------------------------------------------------------------


@given(steps, st.integers(1, 100))
def test_no_minute_has_more_than_the_limit(traffic: list[tuple[int, int]], limit: int) -> None:
    minute, admitted, now = Minute(), [], 0
    for pause, amount in traffic:
        now += pause
        minute.pass_to(slot_of(now))
        if amount <= limit and wait(minute.uses()[1], now, amount, limit) == 0:
            minute.tokens_left -= amount
            admitted.append((now, amount))
    for start, _ in admitted:
        assert sum(amount for at, amount in admitted if start <= at < start + WINDOW) <= limit


@given(steps, st.integers(1, 100), st.integers(1, 400))
def test_the_wait_is_true_to_the_millisecond(traffic: list[tuple[int, int]], limit: int, wanted: int) -> None:
    minute, now = Minute(), 0
    for pause, amount in traffic:
        now += pause
        minute.pass_to(slot_of(now))
        minute.tokens_left -= amount
    needed = wait(minute.uses()[1], now, wanted, limit)
    assert needed <= WINDOW + SLOT
    if needed:
        minute.pass_to(slot_of(now + needed - 1))
        assert wait(minute.uses()[1], now + needed - 1, wanted, limit) > 0
        minute.pass_to(slot_of(now + needed))
    assert wait(minute.uses()[1], now + needed, wanted, limit) == 0


@given(steps)
def test_what_is_used_is_what_came_within_the_minute_and_a_slot(traffic: list[tuple[int, int]]) -> None:
    minute, now, came = Minute(), 0, []
    for pause, amount in traffic:
        now += pause
        minute.pass_to(slot_of(now))
        minute.tokens_left -= amount
        came.append((now, amount))
    minute.pass_to(slot_of(now))
    assert sum(amount for at, amount in came if at > now - WINDOW) <= minute.used()[1]
    assert minute.used()[1] <= sum(amount for at, amount in came if at > now - WINDOW - SLOT)
    minute.pass_to(slot_of(now + reset(minute.uses()[1], now)))
    assert minute.used()[1] == 0


@given(st.integers(0, 100), st.integers(0, 200), st.integers(0, 2 * WINDOW))
def test_giving_back_never_makes_it_less_than_nothing(counted: int, given_back: int, later: int) -> None:
    minute = Minute()
    minute.tokens_left -= counted
    minute.pass_to(slot_of(later))
    minute.give_back(0, 0, given_back)
    assert 0 <= minute.used()[1] <= counted
    minute.pass_to(slot_of(2 * WINDOW + SLOT))
    assert minute.used()[1] == 0


def test_more_than_a_whole_minute_may_take_waits_for_an_empty_one() -> None:
    minute = Minute()
    assert wait(minute.uses()[1], 0, 5000, 1000) == 0
    minute.tokens_left -= 1
    assert wait(minute.uses()[1], 0, 5000, 1000) == WINDOW + SLOT


# --- budgets ---------------------------------------------------------------------------------------------------------


def denial(limit: Limit, reading: Reading, wanted: int = 10, at: int = unix(2026, 2, 28, 12)) -> tuple[str, int] | None:
    found = why_not([limit], [reading], wanted, wanted, period_of(at // DAY), at)
    return (found.kind, found.retry_after) if found is not None else None


def test_a_budget_lasts_to_the_end_of_the_day_or_of_the_month() -> None:
    noon = 12 * 3600 * 1000
    assert denial(Limit(1, day=100), Reading(day=100)) == ("day", noon)
    assert denial(Limit(1, month=100), Reading(month=100)) == ("month", noon)
    december = unix(2026, 12, 1)
    assert denial(Limit(1, month=100), Reading(month=100), at=december) == ("month", 31 * DAY)


def test_the_last_request_may_go_over_but_only_alone() -> None:
    limit = Limit(1, day=100)
    assert denial(limit, Reading(day=99), wanted=50) is None
    assert denial(limit, Reading(day=50, reserved=40), wanted=10) is None
    assert denial(limit, Reading(day=50, reserved=41), wanted=10) == ("reserved", SOON)


@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=60), st.integers(1, 200))
def test_a_budget_is_overshot_by_one_request_at_most(traffic: list[tuple[int, bool]], allowed: int) -> None:
    """Where no request takes more than it may at most."""
    limit, used = Limit(1, day=allowed), 0
    running: list[int] = []
    for size, ends in traffic:
        if why_not([limit], [Reading(day=used, reserved=sum(running))], 1, size, period_of(0), 0) is None:
            running.append(size)
        if ends and running:
            used += running.pop(0)
    total = used + sum(running)
    assert total - allowed < max([size for size, _ in traffic], default=1)


def test_the_longest_wait_of_all_limits_counts() -> None:
    limits = (Limit(1, requests=5, concurrent=1), Limit(1, "m", tokens=100))
    readings = (Reading(requests=5, requests_wait=700, running=1), Reading(tokens=100, tokens_wait=30_000))
    found = why_not(limits, readings, 10, 10, period_of(0), 0)
    assert found is not None
    assert (found.kind, found.limit.model, found.retry_after) == ("tokens", "m", 30_000)


@given(st.integers(0, 100_000))
def test_a_day_is_in_its_month_and_ends_before_the_next_begins(day: int) -> None:
    period = period_of(day)
    assert period_of(day + 1).month in (period.month, period.month + 1)
    assert day * DAY < period.next_day <= period.next_month
    assert period_of(period.next_month // DAY).month == period.month + 1
    assert period_of(period.next_month // DAY - 1).month == period.month


# --- which, and how they are told ------------------------------------------------------------------------------------


def test_a_limit_of_a_model_holds_under_each_of_its_names() -> None:
    overall, of_model, of_alias, other = Limit(1), Limit(1, "llama"), Limit(1, "chat"), Limit(1, "qwen")
    limits = KeyLimits.of([overall, of_model, of_alias, other])
    assert limits is not None
    found = limits.applying("llama", lambda name: {"chat": "llama"}.get(name, name))
    assert found == (overall, of_model, of_alias)
    assert KeyLimits.of([]) is None


def test_durations_are_written_as_openai_does() -> None:
    written = [duration(each) for each in (0, 1, 120, 999, 1000, 1001, 60_000, 360_000, 86_399_000)]
    assert written == ["0s", "1ms", "120ms", "999ms", "1s", "2s", "1m0s", "6m0s", "23h59m59s"]
