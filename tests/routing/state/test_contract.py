"""The contract of slots and queue, of one process (memory) and of several that share them (Redis): the same tests."""

from __future__ import annotations

import asyncio

import pytest

from routing.core.errors import Refusal
from routing.state.base import State
from tests.routing.state.support import A, B, C, eventually, fleet, take, take_soon, wait_in_queue


async def test_a_node_is_given_what_it_can_take_and_no_more(state: State) -> None:
    state.install(fleet(2))
    first, second = await take(state), await take(state)
    assert await state.take("m", A) is None
    first.release()
    first.release()
    third = await take(state)
    assert await state.take("m", A) is None
    second.release()
    third.release()
    assert not state.in_flight_here()


async def test_many_at_once_get_each_a_slot_and_none_too_much(state: State) -> None:
    state.install(fleet(3, 3))
    leases = [lease for lease in await asyncio.gather(*(state.take("m", A) for _ in range(20))) if lease is not None]
    assert sorted(lease.node.id for lease in leases) == [1, 1, 1, 2, 2, 2]
    for lease in leases:
        lease.release()


async def test_a_node_without_a_limit_always_has_room(state: State) -> None:
    state.install(fleet(1, 0))
    leases = [await take(state) for _ in range(20)]
    assert sum(lease.node.id == 2 for lease in leases) >= 19
    for lease in leases:
        lease.release()


async def test_nodes_that_were_tried_and_models_that_none_has_get_no_slot(state: State) -> None:
    state.install(fleet(1, 1))
    lease = await state.take("m", A, {1})
    assert lease is not None
    assert lease.node.id == 2
    assert await state.take("m", A, {1}) is None
    assert await state.take("other", A) is None
    lease.release()


async def test_who_waits_is_served_when_a_slot_is_free(state: State) -> None:
    state.install(fleet(1))
    held = await take(state)
    served: list[object] = []
    waiting = wait_in_queue(state, A, served)
    await eventually(lambda: state.stats().waiting == 1)
    held.release()
    lease = await waiting
    assert state.stats().waiting == 0
    assert await state.take("m", A) is None
    lease.release()


async def test_keys_are_served_in_turn_and_each_in_its_own_order(state: State) -> None:
    """A×5 then B×2, with A served first without waiting: A B A B A A A."""
    state.install(fleet(1))
    lease = await take(state, A)
    served: list[object] = ["A1"]
    tasks = []
    for name in ("A2", "A3", "A4", "A5", "B1", "B2"):
        tasks.append(wait_in_queue(state, {"A": A, "B": B}[name[0]], served, name))
        await eventually(lambda: state.stats().waiting == len(tasks))
    waiting = set(tasks)
    while waiting:
        lease.release()
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        (lease,) = (task.result() for task in done)
    lease.release()
    assert served == ["A1", "B1", "A2", "B2", "A3", "A4", "A5"]


async def test_a_key_never_served_comes_before_one_that_was(state: State) -> None:
    state.install(fleet(1))
    (await take(state, B)).release()
    lease = await take(state, A)
    served: list[object] = []
    tasks = []
    for key in (A, B, C):
        tasks.append(wait_in_queue(state, key, served))
        await eventually(lambda: state.stats().waiting == len(tasks))
    lease.release()
    for task in (tasks[2], tasks[1], tasks[0]):
        (await task).release()
    assert served == [C, B, A]


async def test_one_more_than_may_wait_is_told_so(state: State) -> None:
    state.install(fleet(1))
    held = await take(state)
    served: list[object] = []
    tasks = [wait_in_queue(state, A, served) for _ in range(10)]
    await eventually(lambda: state.stats().waiting == 10)
    assert await state.queue("m", B) is None
    stats = state.stats()
    assert (stats.waiting, stats.rejected) == (10, 1)
    tasks.pop().cancel()
    await eventually(lambda: state.stats().waiting == 9)
    tasks.append(wait_in_queue(state, B, served))
    held.release()
    while tasks:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            tasks.remove(task)
            task.result().release()


async def test_positions_count_from_one(state: State) -> None:
    state.install(fleet(1))
    held = await take(state)
    places = [await state.queue("m", A) for _ in range(3)]
    assert [place.position for place in places if place is not None] == [1, 2, 3]
    held.release()
    for place in places:
        assert place is not None
        (await place.wait(5)).release()


async def test_who_hangs_up_leaves_and_the_next_is_served(state: State) -> None:
    state.install(fleet(1))
    held = await take(state)
    served: list[object] = []
    leaving, staying = wait_in_queue(state, A, served), wait_in_queue(state, A, served)
    await eventually(lambda: state.stats().waiting == 2)
    leaving.cancel()
    held.release()
    (await staying).release()
    assert served == [A]


async def test_a_slot_granted_to_one_who_has_just_left_goes_on(state: State) -> None:
    state.install(fleet(1))
    held = await take(state)
    served: list[object] = []
    leaving = wait_in_queue(state, A, served)
    await eventually(lambda: state.stats().waiting == 1)
    held.release()
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    await eventually(lambda: not state.in_flight_here())
    (await take_soon(state)).release()


async def test_who_left_before_the_answer_holds_no_slot(state: State) -> None:
    state.install(fleet(1))
    leaving = asyncio.create_task(state.take("m", A))
    await asyncio.sleep(0)
    leaving.cancel()
    if isinstance(left := (await asyncio.gather(leaving, return_exceptions=True))[0], BaseException):
        assert isinstance(left, asyncio.CancelledError)
    elif left is not None:  # where nobody is asked there is no moment to leave in
        left.release()
    (await take_soon(state)).release()


async def test_a_wait_that_is_too_long_ends(state: State) -> None:
    state.install(fleet(1))
    held = await take(state)
    place = await state.queue("m", A)
    assert place is not None
    with pytest.raises(TimeoutError):
        await place.wait(0.05)
    stats = state.stats()
    assert (stats.waiting, stats.timeouts) == (0, 1)
    held.release()
    (await take(state)).release()


async def test_who_waits_for_a_model_that_no_node_has_any_more_is_told(state: State) -> None:
    state.install(fleet(1))
    held = await take(state)
    place = await state.queue("m", A)
    assert place is not None
    state.install(fleet(1, models=("other",)))
    with pytest.raises(Refusal, match="m"):
        await place.wait(5)
    held.release()


async def test_who_comes_to_wait_when_the_last_node_has_just_gone_is_told_at_once(state: State) -> None:
    state.install(fleet(1))
    held = await take(state)
    assert await state.take("m", A) is None
    state.install(fleet(1, models=("other",)))
    place = await state.queue("m", A)
    assert place is not None
    with pytest.raises(Refusal, match="m"):
        await place.wait(0.5)
    assert state.stats().waiting == 0
    held.release()


@pytest.mark.parametrize("limit", [1, 0])
async def test_a_node_that_comes_serves_who_waits(state: State, limit: int) -> None:
    state.install(fleet(1))
    held = await take(state)
    place = await state.queue("m", A)
    assert place is not None
    state.install(fleet(1, limit))
    lease = await place.wait(5)
    assert lease.node.id == 2
    lease.release()
    held.release()


async def test_a_node_that_went_is_not_given_to_who_waits(state: State) -> None:
    state.install(fleet(1, 1))
    one, two = await take(state), await take(state)
    place = await state.queue("m", A)
    assert place is not None
    gone, stays = (one, two) if one.node.id == 1 else (two, one)
    state.install(fleet(1, 1, leave_out=(1,)))
    gone.release()
    with pytest.raises(TimeoutError):
        await place.wait(0.2)
    place = await state.queue("m", A)
    assert place is not None
    stays.release()
    (await place.wait(5)).release()


async def test_a_limit_that_comes_or_goes_while_requests_run_is_kept(state: State) -> None:
    state.install(fleet(0))
    three = [await take(state) for _ in range(3)]
    state.install(fleet(2))
    assert await state.take("m", A) is None
    for lease in three[:2]:
        lease.release()
    fourth = await take(state)
    assert await state.take("m", A) is None
    state.install(fleet(0))
    fifth = await take(state)
    state.install(fleet(1))
    for lease in (three[2], fourth, fifth):
        assert await state.take("m", A) is None
        lease.release()
    (await take(state)).release()


async def test_the_last_hour_is_counted(state: State) -> None:
    state.install(fleet(1))
    held = await take(state)
    place = await state.queue("m", A)
    assert place is not None
    await asyncio.sleep(0.05)
    held.release()
    (await place.wait(5)).release()
    stats = state.stats()
    assert stats.avg_wait_ms >= 40
    assert stats.avg_process_ms >= 20
    assert state.estimated_wait(2) == pytest.approx(stats.avg_process_ms * 2 / 1000, rel=0.1)
