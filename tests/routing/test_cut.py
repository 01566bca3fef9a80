"""The server is leaving and its patience is over: what still runs is cut, told so, counted, and holds nothing."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from nodes.fake_node import Behaviour
from routing.core.errors import stopping
from tests.routing.conftest import Fleet, MakeFleet, eventually


@pytest.fixture(params=[False, True], ids=["our server", "plain ASGI"])
async def fleet(make_fleet: MakeFleet, request: pytest.FixtureRequest) -> Fleet:
    return await make_fleet(plain_asgi=request.param)


def cut() -> None:
    """As servers do at the end of the drain time: the task of every request is cancelled."""
    names = ("Cycle.run", "RequestResponseCycle.run_asgi")
    tasks = [task for task in asyncio.all_tasks() if getattr(task.get_coro(), "__qualname__", "") in names]
    assert tasks
    for task in tasks:
        task.cancel()


def is_told(answer: httpx.Response) -> bool:
    return (answer.status_code, answer.json()["error"]["code"]) == (503, stopping().code)


@pytest.mark.parametrize("stream", [False, True])
async def test_before_the_first_byte(fleet: Fleet, stream: bool) -> None:
    node = await fleet.add("model-a", behaviour=Behaviour(latency=30))
    key = await fleet.mint("limited", limits=[{"requests_per_minute": 10, "concurrent_requests": 1}])
    asking = asyncio.create_task(fleet.post(key=key, stream=stream))
    await eventually(lambda: node.in_flight == 1)
    cut()
    answer = await asking
    assert is_told(answer)
    assert answer.headers["retry-after"]
    (entry,) = await fleet.settled()
    assert (entry.outcome, entry.status, entry.error_code) == ("broken", 503, stopping().code)
    await eventually(lambda: node.inferences[0].aborted)
    assert not await fleet.excluded()
    (principal,) = [each for each in fleet.engine.principals.values() if each.name == "limited"]
    assert principal.limits is not None
    (reading,) = await fleet.engine.limits.read(principal.limits.all)
    assert (reading.running, reading.requests) == (0, 0)


async def test_in_the_queue(fleet: Fleet) -> None:
    node = await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=30))
    both = [asyncio.create_task(fleet.post()) for _ in range(2)]
    await eventually(lambda: node.in_flight == 1 and fleet.engine.state.stats().waiting == 1)
    cut()
    assert all(is_told(answer) for answer in await asyncio.gather(*both))
    assert [entry.status for entry in await fleet.settled(2)] == [503, 503]
    assert not fleet.engine.state.live.in_flight


async def test_in_the_middle_of_a_stream(fleet: Fleet) -> None:
    node = await fleet.add("model-a", behaviour=Behaviour(chunks=10_000, chunk_interval=0.01))
    asking = asyncio.create_task(fleet.post(stream=True))
    await eventually(lambda: node.in_flight == 1)
    await asyncio.sleep(0.1)
    cut()
    answer = await asking
    assert stopping().code in answer.text.splitlines()[-2]
    assert "[DONE]" not in answer.text
    (entry,) = await fleet.settled()
    assert (entry.outcome, entry.status, entry.error_code) == ("broken", 200, stopping().code)
    assert entry.completion_tokens
    await eventually(lambda: node.inferences[0].aborted)


async def test_whoever_does_not_read_is_not_waited_for(fleet: Fleet) -> None:
    node = await fleet.add("model-a", behaviour=Behaviour(chunks=200_000, chunk_interval=0))
    host, port = fleet.url.removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), limit=1)
    body = b'{"model": "model-a", "stream": true, "messages": [{"role": "user", "content": "hello"}]}'
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {fleet.key}\r\n"
    writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
    await eventually(lambda: node.in_flight == 1)
    await asyncio.sleep(1)
    assert node.in_flight == 1, "it cannot send any more"
    cut()
    async with asyncio.timeout(1.5):
        (entry,) = await fleet.settled()
    assert (entry.outcome, entry.status) == ("broken", 200)
    writer.transport.abort()
