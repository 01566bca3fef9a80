"""The official `anthropic` SDK, unchanged, against nodes that speak its API and nodes that only speak chat."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic
from pydantic import BaseModel

from access.permissions import Permission
from nodes.fake.messages import PATHS
from nodes.fake_node import Behaviour, FakeNode
from tests.routing.conftest import Fleet

ASK: Any = {
    "model": "model-a",
    "max_tokens": 64,
    "messages": [{"role": "user", "content": "What is the weather?"}],
}
TOOL: Any = {
    "name": "weather",
    "description": "Looks outside",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
SAYS = {
    "reasoning_content": "They want the weather.",
    "content": "Let me look.",
    "tool_calls": [
        {"id": f"call_{city}", "type": "function", "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'}}
        for city in ("Tokyo", "東京")
    ],
}
INPUTS = [{"city": "Tokyo"}, {"city": "東京"}]


class Weather(BaseModel):
    """What structured output is read into."""

    city: str
    degrees: int


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[AsyncAnthropic]:
    async with AsyncAnthropic(base_url=fleet.url, api_key=fleet.key, max_retries=0) as client:
        yield client


@pytest.fixture(params=["native", "translated"])
async def node(request: pytest.FixtureRequest, fleet: Fleet) -> FakeNode:
    if request.param == "native":
        return await fleet.add("model-a", apis=PATHS, row={"native_apis": sorted(PATHS)})
    return await fleet.add("model-a")


async def test_a_message(client: AsyncAnthropic, node: FakeNode) -> None:
    message: Any = await client.messages.create(**ASK, system=[{"type": "text", "text": "Be brief."}])
    assert message.content[0].type == "text"
    assert message.content[0].text == "fake-0 fake-1 fake-2 fake-3 fake-4 "
    assert (message.role, message.model, message.stop_reason) == ("assistant", "model-a", "end_turn")
    assert message.usage.input_tokens > 0
    assert message.usage.output_tokens == 5
    assert message._request_id


async def test_a_stream(client: AsyncAnthropic, node: FakeNode) -> None:
    texts = []
    async with client.messages.stream(**ASK) as stream:
        async for text in stream.text_stream:
            texts.append(text)
        final: Any = await stream.get_final_message()
    assert "".join(texts) == "fake-0 fake-1 fake-2 fake-3 fake-4 "
    assert len(texts) > 1
    assert (final.stop_reason, final.usage.output_tokens) == ("end_turn", 5)


async def test_raw_events(client: AsyncAnthropic, node: FakeNode) -> None:
    stream = await client.messages.create(**ASK, stream=True)
    order = [event.type async for event in stream]
    assert order[0] == "message_start"
    assert order[-2:] == ["message_delta", "message_stop"]
    assert order.count("content_block_start") == order.count("content_block_stop") == 1


async def test_tools(client: AsyncAnthropic, node: FakeNode) -> None:
    node.behaviour = Behaviour(says=SAYS)
    message: Any = await client.messages.create(**ASK, tools=[TOOL], tool_choice={"type": "any"})
    calls = [block for block in message.content if block.type == "tool_use"]
    assert message.stop_reason == "tool_use"
    assert [call.input for call in calls] == INPUTS
    results: Any = [{"type": "tool_result", "tool_use_id": call.id, "content": "sunny"} for call in calls]
    turns: Any = [
        *ASK["messages"],
        {"role": "assistant", "content": message.content},
        {"role": "user", "content": results},
    ]
    node.behaviour = Behaviour()
    answer: Any = await client.messages.create(**{**ASK, "messages": turns}, tools=[TOOL])
    assert answer.stop_reason == "end_turn"
    sent = json.loads(node.inferences[-1].body)
    if node.inferences[-1].path == "/v1/chat/completions":
        assert [turn["role"] for turn in sent["messages"]] == ["user", "assistant", "tool", "tool"]
        assert [turn["tool_call_id"] for turn in sent["messages"][2:]] == [call.id for call in calls]


async def test_tools_in_a_stream(client: AsyncAnthropic, node: FakeNode) -> None:
    node.behaviour = Behaviour(says=SAYS)
    pieces = 0
    async with client.messages.stream(**ASK, tools=[TOOL]) as stream:
        async for event in stream:
            pieces += event.type == "input_json"
        final: Any = await stream.get_final_message()
    assert pieces > 2
    assert [block.input for block in final.content if block.type == "tool_use"] == INPUTS
    assert final.stop_reason == "tool_use"


async def test_thinking(client: AsyncAnthropic, node: FakeNode) -> None:
    node.behaviour = Behaviour(says=SAYS)
    asked: Any = {**ASK, "max_tokens": 2048, "thinking": {"type": "enabled", "budget_tokens": 1024}}
    message: Any = await client.messages.create(**asked)
    async with client.messages.stream(**asked) as stream:
        streamed: Any = await stream.get_final_message()
    for known in (message, streamed):
        assert known.content[0].type == "thinking"
        assert known.content[0].thinking == SAYS["reasoning_content"]


async def test_structured_output(client: AsyncAnthropic, node: FakeNode) -> None:
    node.behaviour = Behaviour(says={"content": '{"city": "東京", "degrees": 21}'})
    message: Any = await client.messages.parse(**ASK, output_format=Weather)
    assert message.parsed_output == Weather(city="東京", degrees=21)
    sent = json.loads(node.inferences[0].body)
    assert "json_schema" in json.dumps(sent.get("output_config") or sent.get("response_format"))


async def test_models(client: AsyncAnthropic, node: FakeNode) -> None:
    assert [model.id async for model in client.models.list()] == ["model-a"]
    assert (await client.models.retrieve("model-a")).id == "model-a"
    with pytest.raises(anthropic.NotFoundError):
        await client.models.retrieve("nothing")


async def test_counting(client: AsyncAnthropic, node: FakeNode) -> None:
    counted = await client.messages.count_tokens(model="model-a", messages=ASK["messages"], tools=[TOOL])
    assert counted.input_tokens > 0


async def test_typed_errors(client: AsyncAnthropic, node: FakeNode, fleet: Fleet) -> None:
    with pytest.raises(anthropic.NotFoundError) as unknown:
        await client.messages.create(**{**ASK, "model": "never-heard-of"})
    assert unknown.value.type == "not_found_error"
    assert unknown.value.request_id
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        await client.messages.create(**{**ASK, "max_tokens": 0})
    with pytest.raises(anthropic.AuthenticationError):
        await client.with_options(api_key="sk_nonsense").messages.create(**ASK)
    reader = await fleet.mint("reader", Permission.MODELS_READ)
    with pytest.raises(anthropic.PermissionDeniedError):
        await client.with_options(api_key=reader).messages.create(**ASK)
    for status, expected in ((400, anthropic.BadRequestError), (429, anthropic.RateLimitError)):
        node.behaviour = Behaviour(status=status)
        with pytest.raises(expected, match=f"fake error {status}"):
            await client.messages.create(**ASK)
    node.behaviour = Behaviour(status=500)
    with pytest.raises(anthropic.InternalServerError):
        await client.messages.create(**ASK)


async def test_a_stream_that_breaks_is_an_error(client: AsyncAnthropic, node: FakeNode) -> None:
    node.behaviour = Behaviour(mode="cut_mid_stream", cut_after=4, chunks=9)
    with pytest.raises(anthropic.APIStatusError) as broken:
        async with client.messages.stream(**ASK) as stream:
            await stream.get_final_message()
    assert broken.value.type == "api_error"


async def test_nowhere_to_go_is_overloaded(client: AsyncAnthropic) -> None:
    with pytest.raises(anthropic.APIStatusError) as nowhere:
        await client.messages.create(**ASK)
    assert (nowhere.value.status_code, nowhere.value.type) == (503, "overloaded_error")
