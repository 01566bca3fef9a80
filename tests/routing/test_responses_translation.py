"""The Responses API through the gateway, from nodes that know only chat."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet, eventually


async def ask(fleet: Fleet, **body: Any) -> httpx.Response:
    return await fleet.post("/v1/responses", **{"input": "hello", **body})


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_node_that_knows_only_chat(fleet: Fleet, stream: bool) -> None:
    node = await fleet.add("model-a")
    response = await ask(fleet, stream=stream)
    assert response.headers["x-llmlb-translated"] == "chat_completions"
    final = events_of(response)[-1]["response"] if stream else response.json()
    assert final["status"] == "completed"
    assert final["output"][0]["content"][0]["text"] == "fake-0 fake-1 fake-2 fake-3 fake-4 "
    assert node.inferences[0].path == "/v1/chat/completions"
    (entry,) = await fleet.settled()
    assert (entry.kind, entry.completion_tokens, entry.token_source) == ("responses", 5, "usage")
    gone = await fleet.client.get(f"/v1/responses/{final['id']}", headers={"X-API-Key": fleet.key})
    assert gone.status_code == 404, "nothing is kept of it"


@pytest.mark.parametrize("mode", ["cut_mid_stream", "no_finish"])
async def test_a_translated_stream_that_breaks_fails_with_what_came(fleet: Fleet, mode: Any) -> None:
    await fleet.add("model-a", behaviour=Behaviour(mode=mode, cut_after=3))
    events = events_of(await ask(fleet, stream=True))
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["response"]["output"][0]["content"][0]["text"].startswith("fake-0 ")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    await eventually(fleet.excluded)


async def test_a_node_that_breaks_before_its_first_event_is_replaced(fleet: Fleet) -> None:
    await fleet.add("model-a", behaviour=Behaviour(mode="cut_mid_stream", cut_after=0))
    await fleet.add("model-a")
    for _ in range(2):
        assert events_of(await ask(fleet, stream=True))[-1]["type"] == "response.completed"


async def test_a_hundred_translated_streams_lose_and_mix_nothing(fleet: Fleet) -> None:
    await fleet.add("model-a", "model-b", limit=0, behaviour=Behaviour(chunks=30, chunk_interval=0.01))
    asked = [ask(fleet, model=f"model-{'ab'[number % 2]}", stream=True) for number in range(100)]
    for number, response in enumerate(await asyncio.gather(*asked)):
        events = events_of(response)
        final = events[-1]["response"]
        assert final["model"] == f"model-{'ab'[number % 2]}"
        text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        assert text == final["output"][0]["content"][0]["text"] == "".join(f"fake-{index} " for index in range(30))
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
