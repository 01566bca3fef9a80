"""The official SDKs ask cloud providers through the gateway, and notice nothing but the prefix."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest

from tests.routing.provider_support import Cloud, cloud
from tests.routing.test_providers_google import WEATHER
from tests.support.fake_provider import (
    ERRORS,
    Script,
    anthropic_answer,
    anthropic_stream,
    google_answer,
    google_stream,
)

__all__ = ["cloud"]
GOOGLE, ANTHROPIC = "google:gemini-2.5-flash", "anthropic:claude-sonnet-4-5"
QUESTION: Any = [{"role": "user", "content": "Weather?"}]
TOOLS: Any = [WEATHER]
USE = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}}


@pytest.fixture
async def sdk(cloud: Cloud) -> AsyncIterator[openai.AsyncOpenAI]:
    client = openai.AsyncOpenAI(api_key=cloud.fleet.key, base_url=cloud.fleet.url + "/v1", max_retries=0)
    async with client:
        yield client


@pytest.fixture
async def claude(cloud: Cloud) -> AsyncIterator[anthropic.AsyncAnthropic]:
    client = anthropic.AsyncAnthropic(api_key=cloud.fleet.key, base_url=cloud.fleet.url, max_retries=0)
    async with client:
        yield client


async def set_up(cloud: Cloud, model: str, *, stream: bool) -> None:
    """The model calls the weather of Kyōto, after a word."""
    fake = await cloud.add(model.partition(":")[0])
    if model == GOOGLE:
        call = {"functionCall": {"name": "weather", "args": {"city": "Kyōto"}}}
        parts = [google_answer({"text": "Well"}, finish=None), google_answer(call)]
        whole = google_answer({"text": "Well"}, call)
        fake.script = Script(events=google_stream(*parts)) if stream else Script(body=whole)
        return
    pieces = [{"type": "input_json_delta", "partial_json": part} for part in ('{"city": ', '"Kyōto"}')]
    text = ({"type": "text", "text": ""}, [{"type": "text_delta", "text": "Well"}])
    said = {"type": "text", "text": "Well"}
    whole = anthropic_answer(said, {**USE, "input": {"city": "Kyōto"}}, stop="tool_use")
    events = anthropic_stream(text, (USE, pieces), stop="tool_use")
    fake.script = Script(events=events) if stream else Script(body=whole)


@pytest.mark.parametrize("model", [GOOGLE, ANTHROPIC])
async def test_tools(cloud: Cloud, sdk: openai.AsyncOpenAI, model: str) -> None:
    await set_up(cloud, model, stream=False)
    answer: Any = await sdk.chat.completions.create(model=model, messages=QUESTION, tools=TOOLS)
    choice = answer.choices[0]
    assert (answer.model, choice.message.content, choice.finish_reason) == (model, "Well", "tool_calls")
    assert choice.message.tool_calls[0].function.name == "weather"
    assert "Kyōto" in choice.message.tool_calls[0].function.arguments
    assert answer.usage.total_tokens > 0


@pytest.mark.parametrize("model", [GOOGLE, ANTHROPIC])
async def test_tools_streamed(cloud: Cloud, sdk: openai.AsyncOpenAI, model: str) -> None:
    await set_up(cloud, model, stream=True)
    async with sdk.chat.completions.stream(
        model=model,
        messages=QUESTION,
        tools=TOOLS,
        stream_options={"include_usage": True},
    ) as stream:
        async for _event in stream:
            pass
        answer = await stream.get_final_completion()
    message: Any = answer.choices[0].message
    assert answer.usage is not None
    assert (message.content, answer.choices[0].finish_reason) == ("Well", "tool_calls")
    assert message.tool_calls[0].function.arguments.replace(" ", "") == '{"city":"Kyōto"}'
    assert answer.usage.total_tokens > 0


async def test_embeddings(cloud: Cloud, sdk: openai.AsyncOpenAI) -> None:
    """The SDK asks for base64, and decodes it."""
    fake = await cloud.add("google")
    fake.script = Script(body={"embeddings": [{"values": [0.5, -1.0]}]})
    answer = await sdk.embeddings.create(model="google:gemini-embedding-001", input="one")
    assert answer.data[0].embedding == [0.5, -1.0]


async def test_models(cloud: Cloud, sdk: openai.AsyncOpenAI) -> None:
    await cloud.add("openai")
    assert {model.id: model.owned_by async for model in sdk.models.list()}["openai:gpt-4o"] == "openai"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, openai.BadRequestError), (429, openai.RateLimitError), (503, openai.InternalServerError)],
)
@pytest.mark.parametrize("model", ["openai:gpt-4o", GOOGLE, ANTHROPIC])
async def test_typed_errors(
    cloud: Cloud, sdk: openai.AsyncOpenAI, model: str, status: int, kind: type[openai.APIStatusError]
) -> None:
    name = model.partition(":")[0]
    with pytest.raises(openai.AuthenticationError):
        await sdk.chat.completions.create(model=model, messages=QUESTION)
    fake = await cloud.add(name)
    fake.script = Script(status=status, body=ERRORS[name](status, "No."))
    with pytest.raises(kind) as refused:
        await sdk.chat.completions.create(model=model, messages=QUESTION)
    assert "No." in refused.value.message


async def test_claude_natively(cloud: Cloud, claude: anthropic.AsyncAnthropic) -> None:
    await set_up(cloud, ANTHROPIC, stream=True)
    async with claude.messages.stream(model=ANTHROPIC, max_tokens=50, messages=QUESTION) as stream:
        message: Any = await stream.get_final_message()
    assert (message.model, message.stop_reason) == (ANTHROPIC, "tool_use")
    assert message.content[1].input == {"city": "Kyōto"}


async def test_gemini_for_a_client_of_claude(cloud: Cloud, claude: anthropic.AsyncAnthropic) -> None:
    await set_up(cloud, GOOGLE, stream=True)
    async with claude.messages.stream(model=GOOGLE, max_tokens=50, messages=QUESTION) as stream:
        message: Any = await stream.get_final_message()
    assert (message.model, message.stop_reason) == (GOOGLE, "tool_use")
    assert message.content[0].text == "Well"
    assert message.content[1].input == {"city": "Kyōto"}
    fake = cloud.providers["google"]
    fake.script = Script(status=429, body=ERRORS["google"](429, "Slow down."))
    with pytest.raises(anthropic.RateLimitError):
        await claude.messages.create(model=GOOGLE, max_tokens=50, messages=QUESTION)
