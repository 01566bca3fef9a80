"""A client that hangs up: the node is told, the slot is free, the row says so."""

from __future__ import annotations

import asyncio
import time

import httpx
import pytest

from llmlb_site.serve.bounds import BoundedProtocol
from nodes.fake_node import Behaviour, FakeNode
from routing.gateway import choose
from routing.gateway.consumer import Gateway
from routing.protocols.base import Call
from tests.routing.conftest import Fleet, MakeFleet, bearer, eventually

CHAT = {"model": "model-a", "messages": [{"role": "user", "content": "hello"}]}


@pytest.fixture(params=[False, True], ids=["our server", "plain ASGI"])
async def fleet(make_fleet: MakeFleet, request: pytest.FixtureRequest) -> Fleet:
    """All of it twice: the short cuts of our own server must not be needed."""
    return await make_fleet(plain_asgi=request.param)


async def aborted_after(node: FakeNode, left: float) -> float:
    await eventually(lambda: node.inferences[0].aborted)
    aborted = node.inferences[0].aborted_at
    assert aborted is not None
    return aborted - left


@pytest.mark.parametrize("stream", [False, True])
async def test_before_the_first_byte(fleet: Fleet, stream: bool) -> None:
    node = await fleet.add("model-a", behaviour=Behaviour(latency=30))
    task = asyncio.create_task(fleet.post(stream=stream))
    await eventually(lambda: node.in_flight == 1)
    left = time.monotonic()
    task.cancel()
    assert await aborted_after(node, left) < 1
    (entry,) = await fleet.settled()
    assert (entry.outcome, entry.status) == ("cancelled", 499)
    assert not fleet.engine.state.live.in_flight
    assert not await fleet.excluded(), "a client that leaves is no fault of the node"


async def test_in_the_middle_of_a_stream(fleet: Fleet) -> None:
    node = await fleet.add("model-a", behaviour=Behaviour(chunks=10_000, chunk_interval=0.01))
    async with (
        httpx.AsyncClient(base_url=fleet.url, trust_env=False) as client,
        client.stream(
            "POST", "/v1/chat/completions", json={**CHAT, "stream": True}, headers=bearer(fleet.key)
        ) as response,
    ):
        async for _ in response.aiter_lines():
            break
        left = time.monotonic()
    assert await aborted_after(node, left) < 1
    (entry,) = await fleet.settled()
    assert (entry.outcome, entry.status) == ("cancelled", 200)
    assert entry.completion_tokens, "what was generated is counted all the same"
    assert not fleet.engine.state.live.in_flight


async def test_the_slot_goes_to_who_waits(fleet: Fleet) -> None:
    node = await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=30, times=1))
    leaving = asyncio.create_task(fleet.post())
    await eventually(lambda: node.in_flight == 1)
    waiting = asyncio.create_task(fleet.post())
    await eventually(lambda: fleet.engine.state.stats().waiting == 1)
    node.behaviour = Behaviour()
    leaving.cancel()
    assert (await asyncio.wait_for(waiting, 5)).status_code == 200


async def test_while_the_request_is_looked_at(make_fleet: MakeFleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = await make_fleet()
    node = await fleet.add("model-a")
    assert (await fleet.post()).status_code == 200  # there is a connection to the node that is used at once
    looking, gone = asyncio.Event(), asyncio.Event()
    lost = BoundedProtocol.connection_lost

    def connection_lost(protocol: BoundedProtocol, error: Exception | None) -> None:
        lost(protocol, error)
        gone.set()

    async def find_provider(gateway: Gateway, call: Call) -> None:
        looking.set()
        await asyncio.wait_for(gone.wait(), 5)

    monkeypatch.setattr(BoundedProtocol, "connection_lost", connection_lost)
    monkeypatch.setattr(choose, "find_way", lambda *_: None)
    monkeypatch.setattr(Gateway, "_find_provider", find_provider)
    leaving = asyncio.create_task(fleet.post())
    await asyncio.wait_for(looking.wait(), 5)
    leaving.cancel()
    _before, entry = await fleet.settled(2)
    assert (entry.outcome, entry.status) == ("cancelled", 499)
    assert not entry.attempts
    monkeypatch.undo()
    assert (await fleet.post()).status_code == 200
    assert len(node.inferences) == 2, "the first and the last"


async def test_half_a_request_body(fleet: Fleet) -> None:
    host, port = fleet.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fleet.key}\r\n"
    writer.write(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
    await writer.drain()
    await asyncio.sleep(0.05)
    writer.transport.abort()
    (entry,) = await fleet.settled()
    assert entry.outcome == "cancelled"


async def test_a_thousand_that_leave_hold_no_slot(fleet: Fleet) -> None:
    node = await fleet.add("model-a", limit=0, behaviour=Behaviour(latency=30))
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=fleet.url, limits=limits, trust_env=False, timeout=30) as client:
        for _ in range(4):
            tasks = [
                asyncio.create_task(client.post("/v1/chat/completions", json=CHAT, headers=bearer(fleet.key)))
                for _ in range(100)
            ]
            seen = len(node.inferences)
            await eventually(lambda: len(node.inferences) >= 50, timeout=20)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await eventually(lambda: not fleet.engine.state.live.in_flight, timeout=20)
            assert len(node.inferences) >= seen
    await eventually(lambda: node.in_flight == 0)
