"""The contract of slots and queue, of one process (memory) and of several that share them (Redis): the same tests."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import redis

from routing.core.errors import Refusal
from routing.core.select import least_busy
from routing.core.table import NodeEntry, RoutingTable
from routing.state.base import Lease, State
from routing.state.memory import MemoryState
from routing.state.redis import RedisState
from routing.state.redis_link import AGAIN_SECONDS, BEAT_SECONDS, PROCESSES, RedisLink
from tests.support.private_redis import PrivateRedis

A, B, C = 1, 2, 3  # API keys
needs_redis = pytest.mark.skipif(not PrivateRedis.is_there(), reason="redis-server is not installed")


def fleet(*limits: int, models: tuple[str, ...] = ("m",), leave_out: tuple[int, ...] = ()) -> RoutingTable:
    """Nodes 1, 2, … with these limits, each with all the models."""
    ids = [id for id in range(1, len(limits) + 1) if id not in leave_out]
    nodes = [NodeEntry(id, f"node-{id}", f"http://node-{id}", limit=limits[id - 1]) for id in ids]
    return RoutingTable.build(nodes, [(id, model) for id in ids for model in models])


async def eventually(reached: Callable[[], object], timeout: float = 5) -> None:
    async with asyncio.timeout(timeout):
        while not reached():
            await asyncio.sleep(0.01)


async def take(state: State, key: int = A, model: str = "m") -> Lease:
    lease = await state.take(model, key)
    assert lease is not None
    return lease


async def take_soon(state: State) -> Lease:
    async with asyncio.timeout(5):
        while (lease := await state.take("m", A)) is None:
            await asyncio.sleep(0.01)
    return lease


def wait_in_queue(state: State, key: int, served: list[object], name: object = None) -> asyncio.Task[Lease]:
    """A request that queues, notes its name (or its key) when it is served, and holds what it got."""

    async def wait() -> Lease:
        place = await state.queue("m", key)
        assert place is not None
        lease = await place.wait(10)
        served.append(name or key)
        return lease

    return asyncio.create_task(wait())


@pytest.fixture(scope="module")
def server() -> Iterator[PrivateRedis]:
    with PrivateRedis() as server:
        yield server


class Processes:
    """Gateways that share a Redis, each with its own connection, as if they were processes."""

    def __init__(self, server: PrivateRedis) -> None:
        self.server = server
        self.client = redis.Redis.from_url(server.url)
        self.links: list[RedisLink] = []
        self.states: list[RedisState] = []
        self.killed: list[RedisState] = []

    async def start(self, queue_max: int = 10) -> RedisState:
        link = RedisLink(self.server.url)
        state = RedisState(link, strategy=least_busy, queue_max=queue_max)
        await link.start()
        self.links.append(link)
        self.states.append(state)
        return state

    async def two(self, *limits: int, queue_max: int = 10) -> tuple[RedisState, RedisState]:
        both = await self.start(queue_max), await self.start(queue_max)
        for each in both:
            each.install(fleet(*limits))
        return both

    async def kill(self, state: RedisState) -> None:
        """As kill -9 does: nothing is said, the connection is gone."""
        link = self.links[self.states.index(state)]
        assert link._keeper is not None
        link._keeper.cancel()
        link.renew()
        self.killed.append(state)
        await eventually(lambda: len(self.client.client_list(_type="pubsub")) < len(self.links))

    def time_passes(self, state: RedisState) -> None:
        """The process has not been heard of for long enough to be dead."""
        self.client.zadd(PROCESSES, {self.links[self.states.index(state)].process: 0})

    async def end(self) -> None:
        for state in self.killed:
            self.time_passes(state)
        for state, link in zip(self.states, self.links, strict=True):
            state._sync(look_for_dead=True)
            state.leave()
            await link.aclose()
        left = [key for key in self.client.scan_iter("llmlb:slots:*") if key not in KEPT]
        self.client.flushdb()
        self.client.close()
        assert not left, f"left behind: {left}"


# The order of keys is remembered when nothing runs.
KEPT = {b"llmlb:slots:turns", b"llmlb:slots:number"}


@pytest.fixture
async def processes(server: PrivateRedis) -> AsyncIterator[Processes]:
    processes = Processes(server)
    yield processes
    await processes.end()


@pytest.fixture(params=["memory", pytest.param("redis", marks=needs_redis)])
async def state(request: pytest.FixtureRequest) -> AsyncIterator[State]:
    if request.param == "memory":
        yield MemoryState(strategy=least_busy, queue_max=10)
        return
    processes = Processes(request.getfixturevalue("server"))
    yield await processes.start()
    await processes.end()


# --- the contract ------------------------------------------------------------------------------------------------


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


# --- several processes -------------------------------------------------------------------------------------------


@needs_redis
class TestSeveralProcesses:
    async def test_a_slot_is_taken_for_all(self, processes: Processes) -> None:
        one, two = await processes.two(2)
        first, second = await take(one), await take(two)
        assert await one.take("m", A) is None
        assert await two.take("m", A) is None
        first.release()
        (await take_soon(two)).release()
        second.release()

    async def test_under_load_no_node_ever_has_more_than_its_limit(self, processes: Processes) -> None:
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

    async def test_the_queue_is_fair_over_all(self, processes: Processes) -> None:
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

    async def test_a_place_is_granted_wherever_it_waits(self, processes: Processes) -> None:
        one, two = await processes.two(1)
        held = await take(one)
        place = await two.queue("m", A)
        assert place is not None
        held.release()
        lease = await place.wait(5)
        assert two.in_flight_here() == {1: 1}
        assert await one.take("m", A) is None
        lease.release()

    async def test_what_may_wait_is_counted_over_all(self, processes: Processes) -> None:
        one, two = await processes.two(1, queue_max=2)
        held = await take(one)
        places = [await one.queue("m", A), await two.queue("m", A)]
        assert await one.queue("m", B) is None
        assert one.stats().waiting == 2
        held.release()
        for place in places:
            assert place is not None
            (await place.wait(5)).release()

    async def test_figures_are_of_all(self, processes: Processes) -> None:
        one, two = await processes.two(3, 0)
        leases = [await take(one) for _ in range(3)]
        await eventually(lambda: sum(two.live.in_flight.values()) == 3)
        assert two.stats().processing == 3
        assert two.in_flight_here() == {}
        for lease in leases:
            lease.release()
        await eventually(lambda: not two.live.in_flight)
        await eventually(lambda: two.stats().avg_process_ms > 0)

    async def test_a_waiter_whose_process_died_is_passed_over(self, processes: Processes) -> None:
        one, two = await processes.two(1)
        held = await take(one)
        dead = asyncio.create_task(two.queue("m", A))
        await dead
        place = await one.queue("m", A)
        assert place is not None
        await processes.kill(two)
        held.release()
        (await place.wait(1)).release()

    async def test_what_a_dead_process_held_is_free(self, processes: Processes) -> None:
        one, two = await processes.two(1)
        await take(two)
        place = await one.queue("m", A)
        assert place is not None
        await processes.kill(two)
        processes.time_passes(two)
        (await place.wait(BEAT_SECONDS + 1)).release()

    async def test_one_taken_for_dead_in_error_counts_again(self, processes: Processes) -> None:
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

    async def test_who_leaves_frees_all_at_once(self, processes: Processes) -> None:
        one, two = await processes.two(1)
        await take(two)
        place = await one.queue("m", A)
        assert place is not None
        two.leave()
        (await place.wait(1)).release()


@needs_redis
class TestRedisIsAway:
    @pytest.fixture
    def server(self) -> Iterator[PrivateRedis]:
        """One that may be killed."""
        with PrivateRedis() as server:
            yield server

    async def test_without_a_limit_nobody_is_asked(self, processes: Processes) -> None:
        state = await processes.start()
        state.install(fleet(0))
        processes.server.hang()
        async with asyncio.timeout(0.05):
            for _ in range(100):
                (await take(state)).release()
        processes.server.go_on()

    async def test_each_goes_on_by_itself_at_once(self, processes: Processes) -> None:
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

    async def test_who_waited_is_served_here(self, processes: Processes) -> None:
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

    async def test_when_it_is_back_all_is_counted_as_it_is(self, processes: Processes) -> None:
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
    async def test_whatever_is_lost_on_the_way_nothing_stays_counted(self, processes: Processes, seed: int) -> None:
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

    async def test_who_waits_keeps_a_place_when_it_is_back(self, processes: Processes) -> None:
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
