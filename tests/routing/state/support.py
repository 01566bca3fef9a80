"""What the tests of the state share: tables, requests that take slots and wait, and gateways that share a Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis

from routing.core.select import least_busy
from routing.core.table import NodeEntry, RoutingTable
from routing.state.base import Lease, State
from routing.state.redis import RedisState
from routing.state.redis_link import PROCESSES, RedisLink
from tests.support.private_redis import PrivateRedis

A, B, C = 1, 2, 3  # API keys
needs_redis = pytest.mark.skipif(not PrivateRedis.is_there(), reason="redis-server is not installed")
# The order of keys is remembered when nothing runs.
KEPT = {b"llmlb:slots:turns", b"llmlb:slots:number"}


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


async def leave_with_the_answer(link: RedisLink, asking: asyncio.Task[Any]) -> None:
    """The task is cancelled when Redis has answered it, and before it has gone on."""
    wire = link._wire
    assert wire is not None
    answered, asked = wire._answered, wire._asked[-1]

    def answered_and_left(reply: Any) -> None:
        is_it = wire._asked[0] is asked
        answered(reply)
        if is_it:
            asking.cancel()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire, "_answered", answered_and_left)
        await asyncio.wait([asking])
    assert asking.cancelled()


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
