"""Redis is away, or connections to it break: each process goes on by itself, and later all is counted as it is."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator

import pytest

from routing.core.errors import Refusal
from routing.state.base import Lease
from routing.state.redis import RedisState
from routing.state.redis_link import AGAIN_SECONDS
from tests.routing.state.support import A, B, Processes, eventually, fleet, needs_redis, take, wait_in_queue
from tests.support.private_redis import PrivateRedis

pytestmark = needs_redis


@pytest.fixture
def server() -> Iterator[PrivateRedis]:
    """One that may be killed."""
    with PrivateRedis() as server:
        yield server


async def test_without_a_limit_nobody_is_asked(processes: Processes) -> None:
    state = await processes.start()
    state.install(fleet(0))
    processes.server.hang()
    async with asyncio.timeout(0.05):
        for _ in range(100):
            (await take(state)).release()
    processes.server.go_on()


async def test_each_goes_on_by_itself_at_once(processes: Processes) -> None:
    one, two = await processes.two(2)
    first = await take(one)
    processes.server.hang()
    began = asyncio.get_running_loop().time()
    more = [await take(one), await take(two), await take(two)]
    assert await one.take("m", A) is None, "the limit holds for this process"
    assert await two.take("m", A) is None
    assert asyncio.get_running_loop().time() - began < 1
    processes.server.go_on()
    for lease in (first, *more):
        lease.release()
    await eventually(lambda: all(link.up for link in processes.links))


async def test_what_is_left_of_a_join_that_nobody_heard_of_is_void_at_the_next(processes: Processes) -> None:
    state = await processes.start()
    state.install(fleet(1))
    (await take(state)).release()
    await eventually(lambda: not processes.client.exists("llmlb:slots:totals"))
    process = processes.links[0].process
    lost = f"{process}:lost"
    processes.client.hset("llmlb:slots:sessions", lost, process)
    processes.client.hset(f"llmlb:slots:held:{lost}", "1", "1")
    processes.client.hset("llmlb:slots:totals", "1", "1")
    assert await state.take("m", A) is None, "Redis counts it, as long as the process lives"
    processes.links[0].renew()
    await eventually(lambda: not processes.client.hexists("llmlb:slots:sessions", lost))
    await eventually(lambda: not processes.client.exists("llmlb:slots:totals"))
    (await take(state)).release()


async def test_who_waited_is_served_here(processes: Processes) -> None:
    one, two = await processes.two(1)
    held = await take(one)
    served: list[object] = []
    tasks = [wait_in_queue(one, A, served), wait_in_queue(two, B, served)]
    await eventually(lambda: one.stats().waiting == 2)
    processes.server.kill()
    (await tasks[1]).release()
    held.release()
    (await tasks[0]).release()
    assert served == [B, A], "the other one waited for a slot that nobody there can see any more"
    processes.server.start()


async def test_a_slot_whose_asker_leaves_as_the_connection_breaks_goes_to_who_waits(processes: Processes) -> None:
    state = await processes.start()
    state.install(fleet(1))
    processes.server.hang()
    served: list[object] = []
    leaving = asyncio.create_task(state.take("m", A))
    waiting = wait_in_queue(state, B, served)
    await asyncio.sleep(0.05)
    processes.links[0].renew()
    leaving.cancel()
    async with asyncio.timeout(2):
        (await waiting).release()
    processes.server.go_on()
    await eventually(lambda: processes.links[0].up)


async def test_when_it_is_back_all_is_counted_as_it_is(processes: Processes) -> None:
    one, two = await processes.two(3)
    before = [await take(one), await take(two)]
    processes.server.kill()
    await eventually(lambda: not any(link.up for link in processes.links))
    before.pop().release()
    alone = [await take(two), await take(two)]
    processes.server.start()
    await eventually(lambda: all(link.up for link in processes.links), AGAIN_SECONDS + 5)
    assert await one.take("m", A) is None, "one here and two there"
    alone.pop().release()
    place = await one.queue("m", A)
    assert place is not None
    lease = await place.wait(5)
    for each in (*before, *alone, lease):
        each.release()
    await eventually(lambda: one.live.in_flight == two.live.in_flight == {})


@pytest.mark.parametrize("seed", [1, 2])
async def test_whatever_is_lost_on_the_way_nothing_stays_counted(processes: Processes, seed: int) -> None:
    """Requests come, wait, leave and are served while connections break: in the end all is free, here and there."""
    chance = random.Random(seed)
    await processes.two(2, 3, 0, queue_max=1000)
    await processes.start(queue_max=1000)
    processes.states[2].install(fleet(2, 3, 0))
    tables = [fleet(2, 3, 0), fleet(2, 3, 0, leave_out=(3,)), fleet(1, 0, 2, leave_out=(3,)), fleet(2, 3)]
    running: set[asyncio.Task[None]] = set()

    async def request(state: RedisState) -> None:
        lease: Lease | None = await state.take("m", chance.randint(1, 4))
        if lease is None:
            place = await state.queue("m", chance.randint(1, 4))
            assert place is not None
            lease = await place.wait(10)
        try:
            await asyncio.sleep(chance.random() * 0.03)
        finally:
            lease.release()

    for step in range(300):
        running |= {asyncio.create_task(request(chance.choice(processes.states))) for _ in range(3)}
        await asyncio.sleep(0.005)
        if step % 20 == 0:
            chance.choice(processes.links).renew()
        if step % 30 == 0:
            chance.choice(processes.states).install(chance.choice(tables))
        if step % 25 == 0:
            processes.time_passes(chance.choice(processes.states))
        if step % 3 == 0:
            chance.choice(sorted(running, key=id)).cancel()
    await eventually(lambda: all(link.up for link in processes.links))
    for state in processes.states:
        state.install(fleet(2))
    for _ in range(200):  # what leaves now is not put right by a connection that breaks later
        running |= {asyncio.create_task(request(chance.choice(processes.states))) for _ in range(2)}
        await asyncio.sleep(chance.choice((0, 0.001)))
        chance.choice([task for task in running if not task.done()]).cancel()
    results = await asyncio.gather(*running, return_exceptions=True)
    odd = [each for each in results if each is not None and not isinstance(each, asyncio.CancelledError | Refusal)]
    assert not odd
    assert [state.in_flight_here() for state in processes.states] == [{}, {}, {}]
    await eventually(lambda: all(link.up for link in processes.links))
    await eventually(lambda: not processes.client.exists("llmlb:slots:totals"))
    assert not processes.client.exists("llmlb:slots:lines", "llmlb:slots:waiting", "llmlb:slots:wishes")
    await eventually(lambda: all(not state.live.in_flight for state in processes.states))


async def test_who_waits_keeps_a_place_when_it_is_back(processes: Processes) -> None:
    one, two = await processes.two(1)
    held = await take(one)
    served: list[object] = []
    waiting = wait_in_queue(one, A, served)
    await eventually(lambda: one.stats().waiting == 1)
    for link in processes.links:
        link.renew()
    await eventually(lambda: all(link.up for link in processes.links), AGAIN_SECONDS + 5)
    await eventually(lambda: two.stats().waiting == 1)
    assert await two.take("m", A) is None
    held.release()
    (await waiting).release()
