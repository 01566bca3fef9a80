"""A fault of our own in any step of a request: 500, one row, and nothing is held afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from llmlb_site.lib.upstream.client import PooledClient
from nodes.fake_node import Behaviour
from routing.gateway import admit, attempt, choose, relay, replies
from routing.state.limits import MemoryLimiter
from routing.state.memory import MemoryState
from tests.routing.conftest import Fleet, eventually

RESPONSES = "/v1/responses"


def fails(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("a fault of ours")


@pytest.mark.parametrize(
    ("where", "what"),
    [
        (admit, "expected_tokens"),
        (admit, "headers_of"),
        (choose, "find_way"),
        (choose, "unfit_among"),
        (choose, "is_fit"),
        (attempt, "node_headers"),
        (relay, "relay"),
        (replies, "forwarded"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.__name__.rpartition(".")[2],
)
async def test_a_fault(fleet: Fleet, monkeypatch: pytest.MonkeyPatch, where: Any, what: str) -> None:
    await fleet.add("model-a", limit=1, apis=[RESPONSES], row={"native_apis": [RESPONSES]})
    key = await fleet.mint("limited", limits=[{"requests_per_minute": 10, "concurrent_requests": 1}])
    with monkeypatch.context() as patch:
        patch.setattr(where, what, fails)
        answer = await fleet.post(RESPONSES, key=key, input="hello")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    (entry,) = await fleet.settled()
    assert (entry.status, entry.error_code) == (500, "internal_error")
    await holds_nothing(fleet)
    assert (await fleet.post(RESPONSES, key=key, input="hello")).status_code == 200


async def test_a_fault_when_the_slot_is_there(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    await fleet.add("model-a", limit=1, apis=[RESPONSES], row={"native_apis": [RESPONSES]})
    with monkeypatch.context() as patch:
        patch.setattr(choose, "unfit_among", lambda *_: frozenset())
        patch.setattr(choose, "is_fit", fails)
        assert (await fleet.post(RESPONSES, input="hello")).status_code == 500
    await holds_nothing(fleet)


async def test_a_fault_on_the_way_into_the_queue(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    node = await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.3))
    running = asyncio.create_task(fleet.post())
    await eventually(lambda: node.in_flight == 1)
    with monkeypatch.context() as patch:
        patch.setattr(MemoryState, "estimated_wait", fails)
        assert (await fleet.post()).status_code == 500
    assert fleet.engine.state.stats().waiting == 0
    assert (await running).status_code == 200
    await holds_nothing(fleet)


async def holds_nothing(fleet: Fleet) -> None:
    state, upstream, limits = fleet.engine.state, fleet.engine.upstream, fleet.engine.limits
    assert isinstance(upstream, PooledClient)
    assert isinstance(limits, MemoryLimiter)
    await eventually(lambda: not state.live.in_flight and not state.stats().waiting)
    await eventually(lambda: not upstream._asking)
    assert not any(running for _, running, _ in limits.held())
