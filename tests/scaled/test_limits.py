"""Limits that several processes share: exact together, fair to whoever is left, and never in the way."""

from __future__ import annotations

import asyncio
import multiprocessing
import multiprocessing.synchronize
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from llmlb_site.lib import health
from routing.core.limits import DAY, Limit, period_of
from routing.core.select import least_busy
from routing.state import redis_link
from routing.state.limits import Tokens, unix_ms
from routing.state.redis import RedisState
from routing.state.redis_limits import RedisLimiter
from routing.state.redis_link import RedisLink
from tests.blackbox.conftest import add_and_route, chat
from tests.scaled.conftest import MakeNode, MakeProduct
from tests.support.private_redis import PrivateRedis
from tests.support.product import wait_until

PROCESSES = 4


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


class Member:
    """One process of the installation, as far as limits are concerned."""

    def __init__(self, url: str) -> None:
        self.link = RedisLink(url)
        self.limiter = RedisLimiter(self.link)

    async def admitted(self, limit: Limit, tries: int, wanted: int = 10) -> int:
        verdicts = await asyncio.gather(*(self.limiter.reserve((limit,), wanted, wanted) for _ in range(tries)))
        return sum(verdict.hold is not None for verdict in verdicts)


@pytest.fixture
async def members(server: PrivateRedis) -> AsyncIterator[list[Member]]:
    pair = [Member(server.url) for _ in range(2)]
    for member in pair:
        await member.link.start()
    yield pair
    for member in pair:
        await member.link.aclose()


async def until(reached: Any, seconds: float) -> None:
    async with asyncio.timeout(seconds):
        while not reached():
            await asyncio.sleep(0.02)


# --- several processes -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What each process asks for, again and again: `wanted`, at most `most`; and what it `takes`. All are tokens."""

    numbers: dict[str, Any]
    wanted: int = 10
    most: int = 10
    takes: int = 10


def hammer(url: str, barrier: multiprocessing.synchronize.Barrier, counts: Any, asked: Asked) -> None:
    """A process that asks for as much as it can, and uses what it gets, until there is no more for a while."""

    async def run() -> int:
        member = Member(url)
        await member.link.start()
        limit = Limit(1, **asked.numbers)
        await asyncio.to_thread(barrier.wait, 30)
        admitted, used_up = 0, False
        async with asyncio.timeout(50):
            while not used_up:
                verdicts = await asyncio.gather(
                    *(member.limiter.reserve((limit,), asked.wanted, asked.most) for _ in range(16))
                )
                await asyncio.sleep(0.001)
                for verdict in verdicts:
                    if verdict.hold is not None:
                        admitted += 1
                        member.limiter.settle(verdict.hold, asked.takes)
                    elif verdict.denial is not None:
                        used_up = used_up or verdict.denial.kind != "reserved"
        await member.link.aclose()
        return admitted

    counts.put(asyncio.run(run()))


def admitted_together(server: PrivateRedis, asked: Asked) -> list[int]:
    """How many requests each of several processes got, all hammering at once."""
    context = multiprocessing.get_context("spawn")
    barrier, counts = context.Barrier(PROCESSES), context.Queue()
    running = [
        context.Process(target=hammer, args=(server.url, barrier, counts, asked), daemon=True) for _ in range(PROCESSES)
    ]
    for process in running:
        process.start()
    admitted = [counts.get(timeout=60) for _ in running]
    for process in running:
        process.join(10)
    return admitted


@pytest.mark.parametrize("numbers", [{"requests": 2000, "tokens": 10**9}, {"tokens": 20_000}, {"day": 20_000}])
def test_processes_together_admit_exactly_what_the_limit_is(server: PrivateRedis, numbers: dict[str, int]) -> None:
    admitted = admitted_together(server, Asked(numbers))
    assert sum(admitted) == 2000
    assert min(admitted) > 0, "each had some of it"


@pytest.mark.parametrize("period", ["day", "month"])
@pytest.mark.parametrize("most", [60, 100_000])
def test_processes_together_overshoot_a_budget_by_one_request_however_wrong_their_estimates(
    server: PrivateRedis, most: int, period: str
) -> None:
    budget = 20_010
    admitted = admitted_together(server, Asked({period: budget}, wanted=10, most=most, takes=50))
    assert budget <= 50 * sum(admitted) < budget + 50


# --- processes that die ----------------------------------------------------------------------------------------------


async def test_what_a_dead_process_held_is_free_in_time(members: list[Member]) -> None:
    dying, left = members
    limit = Limit(1, concurrent=2, day=100)
    assert await dying.admitted(limit, 2, wanted=50) == 2
    assert dying.link._keeper is not None
    dying.link._keeper.cancel()  # it tells no more that it lives, and lets nothing go
    last_heard = unix_ms() - round((redis_link.DEAD_SECONDS - 1.5) * 1000)
    await left.link.call("ZADD", redis_link.PROCESSES, last_heard, dying.link.process)
    assert await left.admitted(limit, 2, wanted=50) == 0
    began = time.monotonic()
    while await left.admitted(limit, 2, wanted=50) != 2:
        await asyncio.sleep(0.1)
    assert time.monotonic() - began < 5
    assert redis_link.BEAT_SECONDS + redis_link.DEAD_SECONDS < 15


# --- Redis in trouble ------------------------------------------------------------------------------------------------


async def test_without_redis_a_process_counts_for_itself_and_says_so(
    members: list[Member], server: PrivateRedis
) -> None:
    one, other = members
    limit = Limit(1, requests=10)
    assert await one.admitted(limit, 4) == 4
    server.hang()
    began = time.monotonic()
    assert await one.admitted(limit, 20) == 6, "what it knows to be used stays used"
    assert time.monotonic() - began < 1
    began = time.monotonic()
    assert await other.admitted(limit, 20) == 10
    assert time.monotonic() - began < 1
    assert "shared state" in [part.name for part in health.failing()]
    server.go_on()
    await until(lambda: one.link.up and other.link.up, 10)
    assert not health.failing()


async def test_requests_that_run_through_an_outage_are_counted_again_after_it(
    members: list[Member], server: PrivateRedis
) -> None:
    one, other = members
    limit = Limit(1, concurrent=3)
    before = await one.limiter.reserve((limit,), 10, 10)
    server.kill()
    await until(lambda: not one.link.up and not other.link.up, 5)
    during = await one.limiter.reserve((limit,), 10, 10)
    assert during.hold is not None
    server.start()
    await until(lambda: one.link.up and other.link.up, 10)
    (reading,) = await other.limiter.read([limit])
    assert reading.running == 2
    for verdict in (before, during):
        assert verdict.hold is not None
        one.limiter.settle(verdict.hold, 0)
    await one.limiter.read([limit])
    (reading,) = await other.limiter.read([limit])
    assert (reading.running, reading.reserved) == (0, 0)


@pytest.mark.parametrize("lost_on_the_way", [False, True])
async def test_a_request_that_ended_in_an_outage_does_not_count_after_it(
    members: list[Member], lost_on_the_way: bool
) -> None:
    one, other = members
    limit = Limit(1, concurrent=1, day=1000)
    verdict = await one.limiter.reserve((limit,), 10, 10)
    assert verdict.hold is not None
    if lost_on_the_way:
        one.limiter.settle(verdict.hold, 5)  # said, but the connection ends before it is sent
        one.link.renew()
    else:
        one.link.renew()
        one.limiter.settle(verdict.hold, 5)
    await until(lambda: one.link.up, 5)
    (reading,) = await other.limiter.read([limit])
    assert (reading.running, reading.reserved) == (0, 0)
    assert await one.admitted(limit, 1) == 1


async def test_what_ended_while_the_connection_was_gone_is_no_longer_counted(members: list[Member]) -> None:
    one, other = members
    limit = Limit(1, concurrent=3)
    verdict = await one.limiter.reserve((limit,), 10, 10)
    assert verdict.hold is not None
    one.link.renew()
    one.limiter.settle(verdict.hold, 0)
    await until(lambda: one.link.up, 5)
    await one.limiter.read([limit])
    (reading,) = await other.limiter.read([limit])
    assert (reading.running, reading.reserved) == (0, 0)


async def test_a_process_that_redis_forgot_tells_it_again_what_runs(members: list[Member]) -> None:
    one, other = members
    state = RedisState(one.link, strategy=least_busy, queue_max=10)
    one.link.renew()
    await until(lambda: one.link.up, 5)
    limit = Limit(1, concurrent=3)
    assert await one.admitted(limit, 2) == 2
    await other.link.call("FLUSHALL")
    asked = asyncio.create_task(one.limiter.reserve((limit,), 10, 10))
    await asyncio.sleep(0)
    state._sync()  # Redis says that it does not know it
    assert (await asked).hold is not None
    async with asyncio.timeout(3):
        while (await other.limiter.read([limit]))[0].running != 3:
            await asyncio.sleep(0.02)
    assert await other.admitted(limit, 1) == 0
    state.leave()


async def test_what_is_asked_while_all_is_told_again_is_counted_once(members: list[Member]) -> None:
    one, other = members
    limit = Limit(1, concurrent=5)
    stays = asyncio.create_task(one.limiter.reserve((limit,), 10, 10))
    leaves = asyncio.create_task(one.limiter.reserve((limit,), 10, 10))
    await asyncio.sleep(0)
    one.link.rejoin()
    leaves.cancel()
    hold = (await stays).hold
    assert hold is not None
    await one.limiter.read([limit])
    (reading,) = await other.limiter.read([limit])
    assert (reading.running, reading.reserved) == (1, 10)
    one.limiter.settle(hold, 0)
    await one.limiter.read([limit])
    (reading,) = await other.limiter.read([limit])
    assert (reading.running, reading.reserved) == (0, 0)


async def test_budgets_survive_a_redis_that_lost_everything(members: list[Member], server: PrivateRedis) -> None:
    one, other = members
    limit = Limit(1, day=1000, month=5000)
    verdict = await one.limiter.reserve((limit,), 600, 600)
    assert verdict.hold is not None
    one.limiter.settle(verdict.hold, 600)
    server.kill()
    await until(lambda: not one.link.up and not other.link.up, 5)
    server.start()
    await until(lambda: one.link.up and other.link.up, 10)
    await one.limiter.reserve((limit,), 10, 10)
    (reading,) = await other.limiter.read([limit])
    assert (reading.day, reading.month) == (600, 600)
    # And whoever knows nothing is told by the history.
    period = period_of(unix_ms() // DAY)
    other.limiter.at_least([Tokens(limit.id, period, 900, 4900)])
    await other.limiter.reserve((limit,), 10, 10)
    (reading,) = await one.limiter.read([limit])
    assert (reading.day, reading.month) == (900, 4900)


async def test_a_redis_that_refuses_is_as_good_as_none(members: list[Member], server: PrivateRedis) -> None:
    one, _ = members
    limit = Limit(1, requests=5)
    await one.link.call("CONFIG", "SET", "maxmemory", "1")
    assert await one.admitted(limit, 10) == 5
    assert "limits" in [part.name for part in health.failing()]
    await one.link.call("CONFIG", "SET", "maxmemory", "0")
    await one.admitted(Limit(2, requests=5), 1)
    assert not health.failing()


async def test_what_was_refused_is_counted_when_redis_takes_it_again_and_nothing_is_uncounted(
    members: list[Member],
) -> None:
    one, other = members
    limit = Limit(1, concurrent=20)
    await one.link.call("CONFIG", "SET", "maxmemory", "1")
    refused = [await one.limiter.reserve((limit,), 10, 10) for _ in range(2)]
    await one.link.call("CONFIG", "SET", "maxmemory", "0")
    at_once = await asyncio.gather(*(one.limiter.reserve((limit,), 10, 10) for _ in range(5)))
    (reading,) = await one.limiter.read([limit])
    assert (reading.running, reading.reserved) == (7, 70)
    for number, verdict in enumerate([*refused, *at_once], start=1):
        assert verdict.hold is not None
        one.limiter.settle(verdict.hold, 0)
        (reading,) = await one.limiter.read([limit])
        assert (reading.running, reading.reserved) == (7 - number, 70 - 10 * number)
    assert other.link.up


async def test_a_refusal_is_over_with_the_next_connection_though_nobody_asks(members: list[Member]) -> None:
    one, _ = members
    await one.link.call("CONFIG", "SET", "maxmemory", "1")
    assert await one.admitted(Limit(1, requests=5), 10) == 5
    await one.link.call("CONFIG", "SET", "maxmemory", "0")
    one.link.renew()
    await until(lambda: one.link.up, 5)
    assert not health.failing()


# --- the product -----------------------------------------------------------------------------------------------------


def test_two_gateways_share_a_limit_and_hear_of_its_change(gateway: MakeProduct, node: MakeNode) -> None:
    first, second = gateway().start(), gateway().start()
    add_and_route(first, node())
    wait_until(lambda: second.get("/v1/models").json()["data"], seconds=2, what="the other gateway knows the model")
    values = {"name": "limited", "permissions": ["openai.inference"], "limits": [{"requests_per_minute": 50}]}
    minted = first.post("/api/api-keys", json=values).json()
    key = {"Authorization": f"Bearer {minted['key']}"}
    with httpx.Client(trust_env=False) as client:

        def ask(product: Any) -> int:
            return client.post(**{**chat(product), "headers": key}).status_code

        wait_until(lambda: ask(second) != 401, seconds=2, what="the key is known")
        with ThreadPoolExecutor(16) as clients:
            statuses = list(clients.map(ask, [first, second] * 50))
        assert statuses.count(200) == 49, "one has been used"
        usage = second.get(f"/api/api-keys/{minted['id']}/usage").json()
        assert usage["limits"][0]["requests_per_minute"] == {"limit": 50, "used": 50}
        changed = first.request(
            "PATCH", f"/api/api-keys/{minted['id']}", json={"limits": [{"requests_per_minute": 60}]}
        )
        assert changed.status_code == 200, changed.text
        wait_until(lambda: ask(second) == 200, seconds=2, what="the other gateway has the new limit")
