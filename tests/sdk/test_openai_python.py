"""The official Python SDK of OpenAI, unchanged but for its base URL: it notices nothing."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionToolParam
from openai.types.responses import FunctionToolParam, ResponseInputItemParam
from pydantic import BaseModel

from access.permissions import Permission
from nodes.fake_node import Behaviour
from tests.routing.conftest import Fleet, MakeFleet, eventually

TEXT = "fake-0 fake-1 fake-2 fake-3 fake-4 "
PARAMETERS: dict[str, object] = {
    "type": "object",
    "properties": {"place": {"type": "string"}},
    "required": ["place"],
    "additionalProperties": False,
}
CHAT_TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": PARAMETERS, "strict": True},
}
TOOL: FunctionToolParam = {"type": "function", "name": "weather", "parameters": PARAMETERS, "strict": True}
CALLS = [
    {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place": "Oslo"}'}},
    {"id": "c2", "type": "function", "function": {"name": "weather", "arguments": '{"place": "東京"}'}},
]
RESPONSES = "/v1/responses"


class Place(BaseModel):
    """What structured output is read into."""

    name: str
    people: int


PLACE = '{"name": "Oslo", "people": 700000}'


def client_of(fleet: Fleet, key: str | None = None) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{fleet.url}/v1", api_key=key or fleet.key, max_retries=0)


@pytest.fixture
async def client(fleet: Fleet) -> AsyncIterator[AsyncOpenAI]:
    async with client_of(fleet) as opened:
        yield opened


def says(**message: Any) -> Behaviour:
    return Behaviour(says={"role": "assistant", "content": None, **message})


# --- chat ------------------------------------------------------------------------------------------------------------


async def test_chat(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a")
    raw = await client.chat.completions.with_raw_response.create(
        model="model-a", messages=[{"role": "user", "content": "hello"}], temperature=0.5
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == TEXT
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert raw.headers["x-llmlb-node"] == "node-1"
    assert raw.request_id == raw.headers["x-request-id"]


async def test_chat_streamed(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a")
    stream = await client.chat.completions.create(
        model="model-a",
        messages=[{"role": "user", "content": "hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == TEXT
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 5


async def test_tools(fleet: Fleet, client: AsyncOpenAI) -> None:
    node = await fleet.add("model-a", behaviour=says(tool_calls=CALLS))
    answer = await client.chat.completions.create(
        model="model-a", messages=[{"role": "user", "content": "?"}], tools=[CHAT_TOOL], tool_choice="auto"
    )
    assert answer.choices[0].finish_reason == "tool_calls"
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [call.id for call in calls] == ["c1", "c2"]
    assert b'"strict":true' in node.inferences[0].body


async def test_tools_streamed(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a", behaviour=says(tool_calls=CALLS))
    async with client.chat.completions.stream(
        model="model-a", messages=[{"role": "user", "content": "?"}], tools=[CHAT_TOOL]
    ) as stream:
        done = [event async for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = await stream.get_final_completion()
    assert [event.parsed_arguments for event in done] == [{"place": "Oslo"}, {"place": "東京"}]
    assert final.choices[0].finish_reason == "tool_calls"


async def test_structured_output(fleet: Fleet, client: AsyncOpenAI) -> None:
    node = await fleet.add("model-a", behaviour=says(content=PLACE))
    answer = await client.chat.completions.parse(
        model="model-a", messages=[{"role": "user", "content": "?"}], response_format=Place
    )
    assert answer.choices[0].message.parsed == Place(name="Oslo", people=700000)
    assert b'"json_schema"' in node.inferences[0].body


async def test_completions(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a")
    answer = await client.completions.create(model="model-a", prompt="hello")
    assert answer.choices[0].text == TEXT


# --- embeddings and models -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", ["float", "base64"])
async def test_embeddings_by_default(fleet: Fleet, client: AsyncOpenAI, known: str) -> None:
    """The SDK asks for base64 without saying so, and decodes what comes as such."""
    node = await fleet.add("model-a", behaviour=Behaviour(encoding=known))
    answer = await client.embeddings.create(model="model-a", input=["a", "b"])
    assert b'"base64"' in node.inferences[0].body
    plain = await client.embeddings.create(model="model-a", input=["a", "b"], encoding_format="float")
    assert [len(entry.embedding) for entry in answer.data] == [8, 8]
    for entry, reference in zip(answer.data, plain.data, strict=True):
        assert entry.embedding == pytest.approx(reference.embedding)
    assert struct.calcsize("<8f") == 32


async def test_models(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a", "org/model-b:latest")
    names = [model.id async for model in client.models.list()]
    assert names == ["model-a", "org/model-b:latest"]
    assert (await client.models.retrieve("org/model-b:latest")).id == "org/model-b:latest"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nothing")


# --- responses -------------------------------------------------------------------------------------------------------


async def speaker(fleet: Fleet, native: bool, behaviour: Behaviour | None = None) -> None:
    own = {"apis": [RESPONSES], "row": {"native_apis": [RESPONSES]}} if native else {}
    await fleet.add("model-a", behaviour=behaviour, **own)


@pytest.mark.parametrize("native", [True, False], ids=["native", "translated"])
async def test_responses(fleet: Fleet, client: AsyncOpenAI, native: bool) -> None:
    await speaker(fleet, native)
    answer = await client.responses.create(model="model-a", input="hello", instructions="Be brief.")
    assert answer.output_text == TEXT
    assert (answer.status, answer.error) == ("completed", None)
    assert answer.usage is not None
    assert answer.usage.output_tokens == 5
    assert answer.usage.output_tokens_details.reasoning_tokens == 0


@pytest.mark.parametrize("native", [True, False], ids=["native", "translated"])
async def test_responses_streamed(fleet: Fleet, client: AsyncOpenAI, native: bool) -> None:
    await speaker(fleet, native)
    async with client.responses.stream(model="model-a", input="hello") as stream:
        events = [event async for event in stream]
        final = await stream.get_final_response()
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == TEXT
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert final.output_text == TEXT


async def test_responses_go_on_from_one_another(fleet: Fleet, client: AsyncOpenAI) -> None:
    await speaker(fleet, native=True)
    first = await client.responses.create(model="model-a", input="hello")
    second = await client.responses.create(model="model-a", input="more", previous_response_id=first.id)
    assert second.previous_response_id == first.id
    assert (await client.responses.retrieve(first.id)).output_text == TEXT
    assert (await client.responses.input_items.list(first.id)).data
    await client.responses.delete(first.id)
    with pytest.raises(openai.NotFoundError):
        await client.responses.retrieve(first.id)


async def test_responses_with_tools_through_chat(fleet: Fleet, client: AsyncOpenAI) -> None:
    node = await fleet.add("model-a", behaviour=says(reasoning_content="hm", tool_calls=CALLS))
    first = await client.responses.create(model="model-a", input="?", tools=[TOOL])
    calls = [item for item in first.output if item.type == "function_call"]
    assert [(call.call_id, call.name) for call in calls] == [("c1", "weather"), ("c2", "weather")]
    node.behaviour = Behaviour()
    history: list[ResponseInputItemParam] = [{"role": "user", "content": "?"}]
    history += [item.to_dict() for item in first.output]  # type: ignore[misc]
    history += [{"type": "function_call_output", "call_id": call.call_id, "output": "sun"} for call in calls]
    second = await client.responses.create(model="model-a", input=history, tools=[TOOL])
    assert second.output_text == TEXT
    assert b'"tool_call_id":"c2"' in node.inferences[1].body


async def test_responses_with_tools_through_chat_streamed(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a", behaviour=says(content="I look.", tool_calls=CALLS))
    async with client.responses.stream(model="model-a", input="?", tools=[TOOL]) as stream:
        done = [event async for event in stream if event.type == "response.function_call_arguments.done"]
        final = await stream.get_final_response()
    assert [event.arguments for event in done] == ['{"place": "Oslo"}', '{"place": "東京"}']
    assert [item.type for item in final.output] == ["message", "function_call", "function_call"]


async def test_responses_with_structured_output_through_chat(fleet: Fleet, client: AsyncOpenAI) -> None:
    node = await fleet.add("model-a", behaviour=says(content=PLACE))
    answer = await client.responses.parse(model="model-a", input="?", text_format=Place)
    assert answer.output_parsed == Place(name="Oslo", people=700000)
    assert b'"response_format"' in node.inferences[0].body


# --- errors ----------------------------------------------------------------------------------------------------------


async def ask(client: AsyncOpenAI, model: str = "model-a", **values: Any) -> Any:
    return await client.chat.completions.create(model=model, messages=[{"role": "user", "content": "hello"}], **values)


async def test_errors_have_their_types(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a", "whisper-large")
    async with client_of(fleet, "sk_wrong") as stranger:
        with pytest.raises(openai.AuthenticationError) as refused:
            await ask(stranger)
    assert refused.value.code == "invalid_api_key"
    async with client_of(fleet, await fleet.mint("reader", Permission.MODELS_READ)) as reader:
        with pytest.raises(openai.PermissionDeniedError):
            await ask(reader)
    with pytest.raises(openai.NotFoundError) as unknown:
        await ask(client, "nothing")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as wrong:
        await ask(client, temperature=5)
    assert wrong.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as mismatch:
        await ask(client, "whisper-large")
    assert mismatch.value.code == "model_capability_mismatch"
    with pytest.raises(openai.NotFoundError) as gone:
        await client.responses.create(model="model-a", input="x", previous_response_id="resp_x")
    assert gone.value.code == "previous_response_not_found"


async def test_a_broken_node_is_an_internal_server_error(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a", behaviour=Behaviour(status=500))
    with pytest.raises(openai.InternalServerError):
        await ask(client)


async def test_what_cannot_be_translated_is_said(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a")
    with pytest.raises(openai.InternalServerError) as refused:
        await client.responses.create(model="model-a", input="x", tools=[{"type": "web_search"}])
    assert (refused.value.status_code, refused.value.code) == (501, "responses_not_supported")


async def test_a_full_queue_is_a_rate_limit(make_fleet: MakeFleet) -> None:
    fleet = await make_fleet(queue_max=1)
    node = await fleet.add("model-a", limit=1, behaviour=Behaviour(latency=0.5))
    async with client_of(fleet) as client:
        running = [asyncio.create_task(ask(client))]
        await eventually(lambda: node.in_flight == 1)
        running.append(asyncio.create_task(ask(client)))
        await eventually(lambda: fleet.engine.state.stats().waiting == 1)
        with pytest.raises(openai.RateLimitError) as refused:
            await ask(client)
        assert refused.value.code == "queue_full"
        assert int(refused.value.response.headers["retry-after"]) >= 1
        await asyncio.gather(*running)


async def test_a_stream_that_breaks_is_an_error(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a", behaviour=Behaviour(mode="cut_mid_stream", cut_after=2))
    with pytest.raises(openai.APIError):
        async for _ in await ask(client, stream=True):
            pass


async def test_a_response_that_breaks_says_so_in_its_stream(fleet: Fleet, client: AsyncOpenAI) -> None:
    await fleet.add("model-a", behaviour=Behaviour(mode="cut_mid_stream", cut_after=3))
    stream = await client.responses.create(model="model-a", input="x", stream=True)
    events = [event async for event in stream]
    assert events[-1].type == "response.failed"
    assert events[-1].response.error is not None
    assert events[-1].response.error.code == "server_error"
