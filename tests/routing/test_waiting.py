"""When every capable node is busy: the queue, its fairness, its limits, and leaving it (SPEC-da253baa)."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from llmlb_site.lib.events import publish
from nodes.fake_node import Behaviour
from nodes.models import Node
from routing.core.table import RoutingTable
from routing.state.memory import MemoryState
from tests.routing.conftest import Fleet, MakeFleet, eventually


async def test_five_at_once_on_a_node_of_one_are_served_one_by_one(fleet: Fleet) -> None:
    node = await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.05))
    responses = await asyncio.gather(*[fleet.post() for _ in range(5)])
    assert {response.status_code for response in responses} == {200}
    assert node.max_in_flight == 1
    waited = [response for response in responses if "x-queue-position" in response.headers]
    assert len(waited) == 4
    assert all(int(response.headers["x-llmlb-queue-wait-ms"]) >= 40 for response in waited)
    assert max(entry.queue_ms for entry in await fleet.settled(5)) >= 150


async def test_no_queue_while_another_node_is_idle(fleet: Fleet) -> None:
    await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.2))
    await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.2))
    responses = await asyncio.gather(*[fleet.post() for _ in range(2)])
    assert {response.headers["x-llmlb-node"] for response in responses} == {"node-1", "node-2"}
    assert not any("x-queue-position" in response.headers for response in responses)


async def test_fairness_is_round_robin_over_the_keys(fleet: Fleet) -> None:
    node = await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.3))
    alice, bob = await fleet.mint("alice"), await fleet.mint("bob")
    stats = fleet.engine.state.stats
    tasks = [asyncio.create_task(fleet.post(key=alice, user="A"))]
    await eventually(lambda: node.in_flight == 1)
    for waiting, (owner, key) in enumerate([("A", alice)] * 4 + [("B", bob)] * 2, 1):
        tasks.append(asyncio.create_task(fleet.post(key=key, user=owner)))
        await eventually(partial(lambda count: stats().waiting == count, waiting))
    await asyncio.gather(*tasks)
    order = [json.loads(request.body)["user"] for request in node.inferences]
    assert "".join(order) == "ABABAAA"


async def test_a_full_queue_refuses_at_once(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(queue_max=1)
    await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.5))
    running = asyncio.create_task(fleet.post())
    await eventually(lambda: fleet.engine.state.stats().processing == 1)
    waiting = asyncio.create_task(fleet.post())
    await eventually(lambda: fleet.engine.state.stats().waiting == 1)
    began = time.monotonic()
    response = await fleet.post()
    assert time.monotonic() - began < 1
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (429, "queue_full", "queue_full")
    assert int(response.headers["retry-after"]) == error["retry_after"] >= 1
    assert response.headers["x-queue-position"] == "2"
    await asyncio.gather(running, waiting)


async def test_waiting_too_long_is_504(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(queue_timeout=0.3)
    await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=1))
    running = asyncio.create_task(fleet.post())
    await eventually(lambda: fleet.engine.state.stats().processing == 1)
    response = await fleet.post()
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["type"]) == (504, "queue_timeout", "queue_timeout")
    assert "waited_secs" in error
    assert response.headers["x-queue-position"] == "1"
    assert fleet.engine.state.stats().timeouts == 1
    assert not await fleet.excluded(), "our own time-out is no node's fault"
    await running


async def test_a_node_that_is_removed_as_it_is_given_to_who_waits_still_answers(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.3))
    running = asyncio.create_task(fleet.post())
    await eventually(lambda: fleet.engine.state.stats().processing == 1)
    waiting = asyncio.create_task(fleet.post())
    await eventually(lambda: fleet.engine.state.stats().waiting == 1)
    released = MemoryState._released

    def released_and_removed(state: MemoryState, *args: Any) -> None:
        released(state, *args)
        fleet.engine._install(RoutingTable.build([], []))

    monkeypatch.setattr(MemoryState, "_released", released_and_removed)
    assert {response.status_code for response in await asyncio.gather(running, waiting)} == {200}


async def test_the_estimate_is_mean_time_times_position(fleet: Fleet) -> None:
    state = fleet.engine.state
    assert isinstance(state, MemoryState)
    for _ in range(4):
        state._counters.processing.add(time.monotonic(), 10.0)
    assert state.estimated_wait(3) == 30


async def test_who_hangs_up_in_the_queue_never_reaches_the_node(fleet: Fleet) -> None:
    node = await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.5))
    running = asyncio.create_task(fleet.post())
    await eventually(lambda: node.in_flight == 1)
    waiting = asyncio.create_task(fleet.post(user="gone"))
    await eventually(lambda: fleet.engine.state.stats().waiting == 1)
    waiting.cancel()
    await eventually(lambda: fleet.engine.state.stats().waiting == 0)
    await running
    assert len(node.inferences) == 1
    entry = next(entry for entry in await fleet.settled(2) if entry.outcome == "cancelled")
    assert entry.status == 499
    assert entry.queue_ms > 0


async def test_a_new_node_serves_who_waits(fleet: Fleet) -> None:
    await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=1))
    running = asyncio.create_task(fleet.post())
    await eventually(lambda: fleet.engine.state.stats().processing == 1)
    waiting = asyncio.create_task(fleet.post())
    await eventually(lambda: fleet.engine.state.stats().waiting == 1)
    await fleet.add("model-a")
    assert (await waiting).headers["x-llmlb-node"] == "node-2"
    await running


async def test_when_the_last_holder_goes_who_waits_is_told(fleet: Fleet) -> None:
    await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.5))
    await fleet.add("model-b")
    running = asyncio.create_task(fleet.post())
    await eventually(lambda: fleet.engine.state.stats().processing == 1)
    waiting = asyncio.create_task(fleet.post())
    await eventually(lambda: fleet.engine.state.stats().waiting == 1)

    def drain() -> None:
        Node.objects.filter(name="node-1").update(draining=True)
        publish("nodes")

    await sync_to_async(drain)()
    response = await waiting
    assert (response.status_code, response.json()["error"]["code"]) == (503, "no_capable_nodes")
    assert (await running).status_code == 200, "what runs goes on"


async def test_a_busy_model_holds_up_no_other(fleet: Fleet) -> None:
    await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.5))
    await fleet.add("model-b", limit=1)
    running = [asyncio.create_task(fleet.post()) for _ in range(3)]
    await eventually(lambda: fleet.engine.state.stats().waiting == 2)
    response = await fleet.post(model="model-b")
    assert response.status_code == 200
    assert "x-queue-position" not in response.headers
    await asyncio.gather(*running)
