"""Streams: every byte, in order, at once, whoever else is streaming."""

from __future__ import annotations

import asyncio
import json
import time

import httpx
import pytest
from asgiref.sync import sync_to_async

from llmlb_site.lib.events import publish
from models_catalog.models import ModelAlias
from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet, MakeFleet, bearer, eventually
from tests.routing.support import chat_body

CHAT = "/v1/chat/completions"


@pytest.fixture(params=[False, True], ids=["our server", "plain ASGI"])
async def fleet(make_fleet: MakeFleet, request: pytest.FixtureRequest) -> Fleet:
    """All of it twice: the short cuts of our own server must not be needed."""
    return await make_fleet(plain_asgi=request.param)


async def test_what_the_client_gets_is_what_the_node_sent(fleet: Fleet) -> None:
    node = await fleet.add("model-a", behaviour=Behaviour(chunks=20))
    body = chat_body(stream=True, stream_options={"include_usage": True})
    async with httpx.AsyncClient(trust_env=False) as client:
        direct = await client.post(node.url + CHAT, content=body, headers={"Content-Type": "application/json"})
    through = await fleet.client.post(CHAT, content=body, headers=bearer(fleet.key))
    assert without_ids(through.text) == without_ids(direct.text)
    assert through.headers["content-type"] == direct.headers["content-type"]
    assert through.headers["x-accel-buffering"] == "no"
    assert node.inferences[0].body == node.inferences[1].body == body, "nothing to add: nothing is touched"


def without_ids(text: str) -> list[object]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n")]
    return [{**json.loads(line), "id": "", "created": 0} if line.startswith("{") else line for line in lines]


async def test_the_count_is_asked_for_and_the_rest_of_the_body_left_alone(fleet: Fleet) -> None:
    node = await fleet.add("model-a")
    body = '{ "model":"model-a",\n "stream" : true, "messages":[{"role":"user","content":"天気 \\u00e9"}] , "x":1.0}'
    await fleet.client.post(CHAT, content=body.encode(), headers=bearer(fleet.key))
    assert node.inferences[0].body == body.replace("{", '{"stream_options":{"include_usage":true},', 1).encode()
    for options in (None, {}, {"include_usage": False}):
        await fleet.post(stream=True, stream_options=options)
        assert json.loads(node.inferences[-1].body)["stream_options"] == {"include_usage": True}
        assert node.inferences[-1].body.count(b"stream_options") == 1


async def test_chunks_arrive_as_they_are_sent(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(chunks=5, chunk_interval=0.2))
    arrivals = []
    async with fleet.client.stream("POST", CHAT, content=chat_body(stream=True), headers=bearer(fleet.key)) as response:
        async for line in response.aiter_lines():
            if line.startswith("data: {"):
                arrivals.append(time.monotonic())
    assert arrivals[-1] - arrivals[0] > 0.7, "not held back to the end"


async def test_two_hundred_streams_lose_and_mix_nothing(fleet: Fleet) -> None:
    await fleet.add("model-a", "model-b", limit=0, behaviour=Behaviour(chunks=40, chunk_interval=0.01))

    async def one(number: int) -> list[str]:
        return await fleet.events(model="model-a" if number % 2 else "model-b", user=str(number))

    results = await asyncio.gather(*[one(number) for number in range(200)])
    contents = {number % 2: contents_of(events) for number, events in enumerate(results)}
    for number, events in enumerate(results):
        assert events[-1] == "[DONE]"
        assert contents_of(events) == contents[number % 2]
    assert all(entry.completion_tokens for entry in await fleet.settled(200))


def contents_of(events: list[str]) -> list[str]:
    chunks = [json.loads(event) for event in events[:-1]]
    return [f"{chunk['model']} {chunk['choices'][0]['delta'].get('content', '')}" for chunk in chunks]


async def test_a_slow_reader_slows_only_itself(fleet: Fleet) -> None:
    await fleet.add("model-a", limit=0, behaviour=Behaviour(chunks=200))
    request = httpx.Request("POST", fleet.url + CHAT, content=chat_body(stream=True), headers=bearer(fleet.key))
    slow = await fleet.client.send(request, stream=True)
    responses = await asyncio.gather(*[fleet.post() for _ in range(20)])
    assert {response.status_code for response in responses} == {200}
    assert (await slow.aread()).endswith(b"data: [DONE]\n\n")
    await slow.aclose()


async def test_tokens_are_estimated_where_no_usage_comes(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(chunks=30, tells_usage=False))
    await fleet.post(stream=True)
    await fleet.post()
    for entry in await fleet.settled(2):
        assert entry.token_source == "estimated"
        assert entry.prompt_tokens
        assert entry.completion_tokens
        assert 25 <= entry.completion_tokens <= 75


async def test_an_alias_in_a_stream_of_many_events_in_one_piece(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(chunks=50))

    def name_it() -> None:
        ModelAlias.objects.create(alias="the-alias", model_id="model-a")
        publish("models")

    await sync_to_async(name_it)()
    events = await fleet.events(model="the-alias")
    assert {json.loads(event)["model"] for event in events[:-1]} == {"the-alias"}


async def test_drain_lets_running_streams_end(fleet: Fleet) -> None:
    from nodes.models import Node

    node = await fleet.add("model-a", behaviour=Behaviour(chunks=20, chunk_interval=0.05))
    running = asyncio.create_task(fleet.events())
    await eventually(lambda: node.in_flight == 1)

    def drain() -> None:
        Node.objects.update(draining=True)
        publish("nodes")

    await sync_to_async(drain)()
    assert (await fleet.post()).status_code == 503
    assert (await running)[-1] == "[DONE]"
