"""What every keeper of limits does, in memory and in Redis: one contract."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from routing.core.limits import DAY, SLOT, WINDOW, Limit, period_of
from routing.state import limits, redis_limits
from routing.state.limits import Limiter, MemoryLimiter, Tokens, Verdict
from routing.state.redis_limits import RedisLimiter
from routing.state.redis_link import RedisLink, Script
from tests.routing.state.support import leave_with_the_answer
from tests.support.private_redis import PrivateRedis


class Clock:
    """Both clocks of the limiter under test."""

    def __init__(self, unix: int, tell: Callable[[int], Awaitable[None]]) -> None:
        self.unix = unix
        self.monotonic = 5_000_000
        self._tell = tell

    async def forward(self, milliseconds: int) -> None:
        self.monotonic += milliseconds
        await self.step(milliseconds)

    async def step(self, milliseconds: int) -> None:
        """Somebody sets the calendar's clock; no time has passed."""
        self.unix += milliseconds
        await self._tell(self.unix)


class Case:
    """A limiter, its clock, and a second of the same installation (in memory: the same)."""

    def __init__(self, limiter: Limiter, clock: Clock, other: Limiter) -> None:
        self.limiter, self.clock, self.other = limiter, clock, other

    async def take(self, *of: Limit, wanted: int = 10, most: int | None = None, by: Limiter | None = None) -> Verdict:
        return await (by or self.limiter).reserve(of, wanted, wanted if most is None else most)

    async def admitted(self, *of: Limit, wanted: int = 10, most: int | None = None, tries: int = 20) -> int:
        verdicts = [await self.take(*of, wanted=wanted, most=most) for _ in range(tries)]
        return sum(verdict.hold is not None for verdict in verdicts)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    if not PrivateRedis.is_there():
        pytest.skip("no redis-server on this machine")
    with PrivateRedis() as server:
        yield server.url


@pytest.fixture(params=["memory", "redis"])
async def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    noon = 20_000 * DAY + DAY // 2
    prefix = f"llmlb:test:{uuid.uuid4().hex}:"
    links = [RedisLink(request.getfixturevalue("redis_url")) for _ in range(2)] if request.param == "redis" else []

    async def tell(unix: int) -> None:
        if links:
            await links[0].call("SET", f"{prefix}clock", unix)

    clock = Clock(noon, tell)
    monkeypatch.setattr(limits, "unix_ms", lambda: clock.unix)
    monkeypatch.setattr(redis_limits, "unix_ms", lambda: clock.unix)
    monkeypatch.setattr(limits, "monotonic_ms", lambda: clock.monotonic)
    monkeypatch.setattr(redis_limits, "monotonic_ms", lambda: clock.monotonic)
    if not links:
        memory = MemoryLimiter()
        yield Case(memory, clock, memory)
        return
    for name in ("_RESERVE", "_SETTLE"):
        monkeypatch.setattr(redis_limits, name, on_clock(getattr(redis_limits, name), f"{prefix}clock"))
    shared = [RedisLimiter(link, prefix=prefix) for link in links]
    for link in links:
        await link.start()
        assert link.up
    await clock.step(0)
    yield Case(shared[0], clock, shared[1])
    for link in links:
        await link.aclose()


def on_clock(script: Script, key: str) -> Script:
    """The script on a clock that the test sets; who is alive is still told by the real one."""
    ours = f"local now = tonumber(redis.call('GET', '{key}'))"
    text, count = re.subn(r"local now = .*", "local real = clock[1] * 1000\n" + ours, script.text)
    assert count == 1
    return Script(text.replace("now - tonumber(seen)", "real - tonumber(seen)"))


async def test_requests_of_a_minute_and_not_one_more(case: Case) -> None:
    limit = Limit(1, requests=5)
    assert await case.admitted(limit) == 5
    denial = (await case.take(limit)).denial
    assert denial is not None
    assert denial.kind == "requests"
    await case.clock.forward(denial.retry_after - 1)
    assert (await case.take(limit)).hold is None
    await case.clock.forward(1)
    assert await case.admitted(limit) == 5


async def test_retry_after_is_of_the_oldest_that_makes_room(case: Case) -> None:
    limit = Limit(1, tokens=100)
    await case.take(limit, wanted=60)
    await case.clock.forward(20_000)
    await case.take(limit, wanted=40)
    small, large = (await case.take(limit, wanted=60)).denial, (await case.take(limit, wanted=61)).denial
    assert small is not None
    assert large is not None
    assert abs(small.retry_after - 40_000) <= SLOT
    assert abs(large.retry_after - 60_000) <= SLOT


async def test_what_leaves_the_minute_leaves_it_bit_by_bit(case: Case) -> None:
    limit = Limit(1, requests=5)
    assert await case.admitted(limit, tries=3) == 3
    await case.clock.forward(30_000)
    assert await case.admitted(limit) == 2
    await case.clock.forward(30_000 + SLOT)
    assert await case.admitted(limit) == 3
    await case.clock.forward(30_000)
    assert await case.admitted(limit) == 2
    await case.clock.forward(10 * WINDOW)
    assert await case.admitted(limit) == 5


async def test_what_a_request_did_not_take_is_free_at_once(case: Case) -> None:
    limit = Limit(1, tokens=100)
    verdict = await case.take(limit, wanted=100)
    assert (await case.take(limit, wanted=1)).hold is None
    assert verdict.hold is not None
    case.limiter.settle(verdict.hold, 30)
    assert (await case.take(limit, wanted=71)).hold is None
    assert (await case.take(limit, wanted=70)).hold is not None


async def test_what_a_request_took_beyond_counts_from_when_it_is_known(case: Case) -> None:
    limit = Limit(1, tokens=100)
    verdict = await case.take(limit, wanted=10)
    assert verdict.hold is not None
    await case.clock.forward(90_000)
    case.limiter.settle(verdict.hold, 110)
    denial = (await case.take(limit, wanted=1)).denial
    assert denial is not None
    assert denial.used == 100
    assert abs(denial.retry_after - WINDOW) <= SLOT


async def test_a_request_that_came_to_nothing_is_taken_back(case: Case) -> None:
    limit = Limit(1, requests=1, tokens=100, concurrent=1, day=100, month=100)
    for _ in range(5):
        verdict = await case.take(limit, wanted=100)
        assert verdict.hold is not None
        case.limiter.settle(verdict.hold, 0, counts=False)
    (reading,) = await case.limiter.read([limit])
    assert set(reading) == {0}


async def test_requests_at_once(case: Case) -> None:
    limit = Limit(1, concurrent=3)
    holds = [(await case.take(limit)).hold for _ in range(3)]
    denial = (await case.take(limit)).denial
    assert denial is not None
    assert (denial.kind, denial.used) == ("concurrent", 3)
    assert holds[0] is not None
    case.limiter.settle(holds[0], 10)
    assert (await case.take(limit)).hold is not None
    assert (await case.take(limit)).hold is None


async def test_budgets_of_day_and_month(case: Case) -> None:
    limit = Limit(1, day=100, month=150)
    for used in (60, 40):
        verdict = await case.take(limit, wanted=used)
        assert verdict.hold is not None
        case.limiter.settle(verdict.hold, used)
    denial = (await case.take(limit)).denial
    assert denial is not None
    assert (denial.kind, denial.retry_after) == ("day", DAY // 2)
    await case.clock.forward(DAY // 2)
    verdict = await case.take(limit, wanted=50)
    assert verdict.hold is not None
    case.limiter.settle(verdict.hold, 50)
    denial = (await case.take(limit)).denial
    assert denial is not None
    assert denial.kind == "month"


async def test_of_requests_that_run_only_one_may_go_over_a_budget(case: Case) -> None:
    limit = Limit(1, day=100)
    assert await case.admitted(limit, wanted=40) == 2
    denial = (await case.take(limit, wanted=40)).denial
    assert denial is not None
    assert denial.kind == "reserved"


async def test_a_budget_reserves_the_most_that_a_request_may_take_and_a_minute_what_it_is_expected_to(
    case: Case,
) -> None:
    limit = Limit(1, tokens=100, day=100)
    holds = [(await case.take(limit, wanted=10, most=50)).hold for _ in range(2)]
    denial = (await case.take(limit, wanted=1, most=1, by=case.other)).denial
    assert denial is not None
    assert (denial.kind, denial.used, denial.allowed, denial.wanted) == ("reserved", 100, 100, 1)
    (reading,) = await case.limiter.read([limit])
    assert (reading.tokens, reading.reserved) == (20, 100)
    for hold in holds:
        assert hold is not None
        case.limiter.settle(hold, 25)
    (reading,) = await case.limiter.read([limit])
    assert (reading.tokens, reading.reserved, reading.day) == (50, 0, 50)


async def test_what_may_take_more_than_is_left_runs_alone(case: Case) -> None:
    limit = Limit(1, day=100, month=1000)
    alone = (await case.take(limit, most=5000)).hold
    assert alone is not None
    for by in (case.limiter, case.other):
        assert (await case.take(limit, wanted=1, most=1, by=by)).hold is None
    case.limiter.settle(alone, 60)
    assert (await case.take(limit, most=5000)).hold is not None


async def test_all_limits_or_none(case: Case) -> None:
    overall, of_model = Limit(1, requests=10), Limit(1, "m", requests=2)
    assert await case.admitted(overall, of_model) == 2
    assert await case.admitted(overall) == 8, "what the model's limit refused is not counted on the other"


async def test_keys_and_models_do_not_share(case: Case) -> None:
    for limit in (Limit(1, requests=2), Limit(2, requests=2), Limit(1, "m", requests=2), Limit(1, "n", requests=2)):
        assert await case.admitted(limit) == 2


async def test_a_burst_at_once_is_admitted_exactly(case: Case) -> None:
    limit = Limit(1, requests=50, tokens=1_000_000)
    takers = [case.take(limit, by=case.limiter if number % 2 else case.other) for number in range(200)]
    verdicts = await asyncio.gather(*takers)
    assert sum(verdict.hold is not None for verdict in verdicts) == 50


async def test_the_minute_is_told_with_the_request_in_it(case: Case) -> None:
    limit = Limit(1, requests=5, tokens=100)
    verdict = await case.take(limit, wanted=30)
    assert (verdict.requests[:2], verdict.tokens[:2]) == ((5, 4), (100, 70))
    assert WINDOW < verdict.requests[2] <= WINDOW + SLOT
    verdict = await case.take(limit, wanted=80)
    assert (verdict.requests[:2], verdict.tokens[:2]) == ((5, 4), (100, 70)), "one that is refused is not in it"


async def test_what_the_history_knows_is_not_given_out_again(case: Case) -> None:
    limit = Limit(1, day=100, month=1000)
    period = period_of(case.clock.unix // DAY)
    case.limiter.at_least([Tokens(limit.id, period, 90, 500)])
    case.limiter.at_least([Tokens(limit.id, period, 20, 20)])
    verdict = await case.take(limit, wanted=10)
    assert verdict.hold is not None
    case.limiter.settle(verdict.hold, 10)
    assert (await case.take(limit)).denial is not None
    (reading,) = await case.other.read([limit])
    assert (reading.day, reading.month) == (100, 510)


@pytest.mark.parametrize("hours", [-30, -1, 1, 30])
async def test_a_clock_that_is_set_stops_nobody_for_longer_than_a_minute(case: Case, hours: int) -> None:
    limit = Limit(1, requests=5)
    assert await case.admitted(limit) == 5
    await case.clock.step(hours * 3_600_000)
    await case.admitted(limit)
    await case.clock.forward(WINDOW + SLOT)
    assert await case.admitted(limit) == 5


async def test_a_clock_set_back_over_midnight_finds_yesterdays_budget(case: Case) -> None:
    limit = Limit(1, day=100)
    verdict = await case.take(limit, wanted=100)
    assert verdict.hold is not None
    case.limiter.settle(verdict.hold, 100)
    await case.clock.step(DAY)
    assert (await case.take(limit)).hold is not None
    await case.clock.step(-DAY)
    assert (await case.take(limit)).hold is None


async def test_limits_that_are_gone_are_forgotten_but_not_while_they_count(case: Case) -> None:
    running, idle = Limit(1, concurrent=1), Limit(2, day=100)
    verdict = await case.take(running)
    case.limiter.at_least([Tokens(idle.id, period_of(case.clock.unix // DAY), 50, 50)])
    case.limiter.keep_only([])
    assert (await case.take(running)).hold is None
    assert verdict.hold is not None
    case.limiter.settle(verdict.hold, 0)
    assert (await case.take(running)).hold is not None


async def test_reading_counts_nothing(case: Case) -> None:
    limit = Limit(1, requests=1, tokens=10, concurrent=1, day=10, month=10)
    for _ in range(3):
        (reading,) = await case.limiter.read([limit])
    assert set(reading) == {0}
    assert (await case.take(limit)).hold is not None
    (reading,) = await case.other.read([limit])
    assert (reading.requests, reading.tokens, reading.running, reading.reserved) == (1, 10, 1, 10)


async def test_whoever_leaves_before_the_answer_holds_nothing(case: Case) -> None:
    limit = Limit(1, requests=1, tokens=10, concurrent=1, day=10)
    leaving: asyncio.Task[Any] = asyncio.create_task(case.take(limit))
    await asyncio.sleep(0)
    if leaving.done():
        return  # in memory nothing is waited for
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    async with asyncio.timeout(10):  # what was reserved is given back when the answer comes, whoever asks before
        while set((await case.limiter.read([limit]))[0]) != {0}:
            await asyncio.sleep(0.01)


async def test_whoever_leaves_when_the_answer_comes_holds_nothing(redis_url: str) -> None:
    link = RedisLink(redis_url)
    limiter = RedisLimiter(link, prefix=f"llmlb:test:{uuid.uuid4().hex}:")
    await link.start()
    limit = Limit(1, requests=1, tokens=10, concurrent=1, day=10)
    leaving = asyncio.create_task(limiter.reserve((limit,), 10, 10))
    await asyncio.sleep(0)
    await leave_with_the_answer(link, leaving)
    (reading,) = await limiter.read([limit])
    await link.aclose()
    assert set(reading) == {0}
