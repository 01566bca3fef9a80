"""Several gateway processes that share slots and queue through Redis."""

from __future__ import annotations

import asyncio

import pytest

from routing.state.base import Lease
from routing.state.memory import MemoryLease
from routing.state.redis import RedisState
from routing.state.redis_link import BEAT_SECONDS
from tests.routing.state.support import (
    A,
    B,
    Processes,
    eventually,
    fleet,
    leave_with_the_answer,
    needs_redis,
    take,
    take_soon,
    wait_in_queue,
)

pytestmark = needs_redis


async def test_a_slot_is_taken_for_all(processes: Processes) -> None:
    one, two = await processes.two(2)
    first, second = await take(one), await take(two)
    assert await one.take("m", A) is None
    assert await two.take("m", A) is None
    first.release()
    (await take_soon(two)).release()
    second.release()


async def test_under_load_no_node_ever_has_more_than_its_limit(processes: Processes) -> None:
    both = await processes.two(2, 3, queue_max=1000)
    running = {1: 0, 2: 0}
    most = {1: 0, 2: 0}

    async def request(state: RedisState, key: int) -> None:
        lease = await state.take("m", key)
        if lease is None:
            place = await state.queue("m", key)
            assert place is not None
            lease = await place.wait(20)
        running[lease.node.id] += 1
        most[lease.node.id] = max(most[lease.node.id], running[lease.node.id])
        await asyncio.sleep(0.001)
        running[lease.node.id] -= 1
        lease.release()

    await asyncio.gather(*(request(both[i % 2], i % 7) for i in range(600)))
    assert most == {1: 2, 2: 3}


async def test_the_queue_is_fair_over_all(processes: Processes) -> None:
    one, two = await processes.two(1)
    lease = await take(one, A)
    served: list[object] = []
    tasks: list[asyncio.Task[Lease]] = []
    for state, name in ((one, "A1"), (one, "A2"), (two, "A3"), (two, "B1"), (one, "B2")):
        tasks.append(wait_in_queue(state, {"A": A, "B": B}[name[0]], served, name))
        await asyncio.sleep(0.02)
    lease.release()
    for task in (tasks[3], tasks[0], tasks[4], tasks[1], tasks[2]):
        (await task).release()
    assert served == ["B1", "A1", "B2", "A2", "A3"]


async def test_a_place_is_granted_wherever_it_waits(processes: Processes) -> None:
    one, two = await processes.two(1)
    held = await take(one)
    place = await two.queue("m", A)
    assert place is not None
    held.release()
    lease = await place.wait(5)
    assert two.in_flight_here() == {1: 1}
    assert await one.take("m", A) is None
    lease.release()


async def test_what_may_wait_is_counted_over_all(processes: Processes) -> None:
    one, two = await processes.two(1, queue_max=2)
    held = await take(one)
    places = [await one.queue("m", A), await two.queue("m", A)]
    assert await one.queue("m", B) is None
    assert one.stats().waiting == 2
    held.release()
    for place in places:
        assert place is not None
        (await place.wait(5)).release()


async def test_figures_are_of_all(processes: Processes) -> None:
    one, two = await processes.two(3, 0)
    leases = [await take(one) for _ in range(3)]
    await eventually(lambda: sum(two.live.in_flight.values()) == 3)
    assert two.stats().processing == 3
    assert two.in_flight_here() == {}
    for lease in leases:
        lease.release()
    await eventually(lambda: not two.live.in_flight)
    await eventually(lambda: two.stats().avg_process_ms > 0)


async def test_a_waiter_whose_process_died_is_passed_over(processes: Processes) -> None:
    one, two = await processes.two(1)
    held = await take(one)
    dead = asyncio.create_task(two.queue("m", A))
    await dead
    place = await one.queue("m", A)
    assert place is not None
    await processes.kill(two)
    held.release()
    (await place.wait(1)).release()


async def test_what_a_dead_process_held_is_free(processes: Processes) -> None:
    one, two = await processes.two(1)
    await take(two)
    place = await one.queue("m", A)
    assert place is not None
    await processes.kill(two)
    processes.time_passes(two)
    (await place.wait(BEAT_SECONDS + 1)).release()


async def test_one_taken_for_dead_in_error_counts_again(processes: Processes) -> None:
    one, two = await processes.two(2)
    held = [await take(two), await take(two)]
    processes.time_passes(two)
    one._sync(look_for_dead=True)
    await eventually(lambda: one.live.in_flight == {})
    held.pop().release()  # Redis says that it does not know it
    await eventually(lambda: one.live.in_flight == {1: 1})
    last = await take(one)
    assert await one.take("m", A) is None
    assert await two.take("m", A) is None
    last.release()
    held.pop().release()
    await eventually(lambda: one.live.in_flight == {})


async def test_whoever_leaves_when_the_slot_comes_does_not_keep_it(processes: Processes) -> None:
    one, two = await processes.two(1)
    leaving = asyncio.create_task(one.take("m", A))
    await asyncio.sleep(0)
    await leave_with_the_answer(processes.links[0], leaving)
    (await take_soon(two)).release()


async def test_whoever_leaves_when_any_slot_comes_does_not_keep_it(processes: Processes) -> None:
    one, two = await processes.two(1, 1)
    held = [await take(two), await take(two)]
    one._sync()
    await eventually(lambda: one.live.in_flight == {1: 1, 2: 1})
    held.pop().release()
    await processes.links[1].call("PING")
    leaving = asyncio.create_task(one.take("m", A))  # it knows of no room, and asks for any
    await asyncio.sleep(0)
    await leave_with_the_answer(processes.links[0], leaving)
    (await take_soon(two)).release()
    held.pop().release()


@pytest.mark.parametrize("free", [0, 1])
@pytest.mark.parametrize("leaves", [False, True])
async def test_what_is_asked_while_a_process_joins_anew_is_counted_once(
    processes: Processes, free: int, leaves: bool
) -> None:
    one, two = await processes.two(1 + free)
    held = await take(two)
    asking = asyncio.create_task(one.take("m", A))
    await asyncio.sleep(0)
    one._join()  # it says that one request is there: the one that asks
    if leaves:
        asking.cancel()
    (lease,) = await asyncio.gather(asking, return_exceptions=True)
    assert isinstance(lease, MemoryLease) == (free and not leaves)
    if isinstance(lease, MemoryLease):
        assert await two.take("m", A) is None
        lease.release()
    held.release()
    await eventually(lambda: not processes.client.exists("llmlb:slots:totals"))


async def test_who_is_served_here_while_redis_has_no_place_for_it_keeps_what_it_got(processes: Processes) -> None:
    one, two = await processes.two(1, queue_max=1)
    held = await take(two)
    waiting = await two.queue("m", A)
    assert waiting is not None
    asking = asyncio.create_task(one.queue("m", B))
    await asyncio.sleep(0)
    one.install(fleet(1, 0))  # a node that always has room
    place = await asking
    assert place is not None
    lease = await place.wait(1)
    assert lease.node.id == 2
    lease.release()
    assert not one.in_flight_here()
    held.release()
    (await waiting.wait(5)).release()


async def test_a_node_that_went_while_redis_was_asked_is_not_taken(processes: Processes) -> None:
    one, two = await processes.two(1, 0)
    held = await take(two)
    assert held.node.id == 1
    asking = asyncio.create_task(one.take("m", A))  # the first node has no room, as Redis will say; the second has
    await asyncio.sleep(0)
    one.install(fleet(1, 0, leave_out=(2,)))
    assert await asking is None
    held.release()


async def test_who_leaves_frees_all_at_once(processes: Processes) -> None:
    one, two = await processes.two(1)
    await take(two)
    place = await one.queue("m", A)
    assert place is not None
    two.leave()
    (await place.wait(1)).release()
