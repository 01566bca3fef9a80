"""Anthropic: chat as its Messages API takes it, its answers as OpenAI's clients read them, and natively."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.routing.conftest import bearer
from tests.routing.provider_support import Cloud, cloud
from tests.routing.test_providers_google import PIXEL, WEATHER
from tests.support.fake_provider import (
    FakeProvider,
    Script,
    anthropic_answer,
    anthropic_error,
    anthropic_stream,
    google_answer,
    google_stream,
    openai_answer,
    sse,
)

__all__ = ["cloud"]
MODEL = "anthropic:claude-sonnet-4-5"
TEXT = {"type": "text", "text": "Hello"}


@pytest.fixture
async def anthropic(cloud: Cloud) -> FakeProvider:
    fake = await cloud.add("anthropic")
    fake.script = Script(body=anthropic_answer(TEXT))
    return fake


async def ask(cloud: Cloud, **body: Any) -> dict[str, Any]:
    response = await cloud.fleet.post(model=MODEL, **body)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def messages(cloud: Cloud, **body: Any) -> httpx.Response:
    body = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "hello"}], **body}
    headers = {**bearer(cloud.fleet.key), "anthropic-version": "2023-06-01"}
    return await cloud.fleet.client.post("/v1/messages", json=body, headers=headers)


async def test_where_it_is_asked(cloud: Cloud, anthropic: FakeProvider) -> None:
    await ask(cloud)
    request = anthropic.inferences[0]
    assert request.path == "/v1/messages"
    assert request.headers["anthropic-version"] == "2023-06-01"
    assert "authorization" not in request.headers
    assert anthropic.asked == {
        "model": "claude-sonnet-4-5",
        "max_tokens": 4096,
        "stream": False,
        "messages": [{"role": "user", "content": [{"type": "text", "text": "hello"}]}],
    }


async def test_roles_parts_and_settings(cloud: Cloud, anthropic: FakeProvider) -> None:
    await ask(
        cloud,
        messages=[
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}},
                    {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA"}},
                ],
            },
            {"role": "assistant", "content": "A pixel."},
        ],
        temperature=1.5,
        top_p=0.9,
        max_completion_tokens=99,
        stop=["END"],
        user="somebody",
        reasoning_effort="high",
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        seed=7,
    )
    image = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    document = {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}
    assert anthropic.asked == {
        "model": "claude-sonnet-4-5",
        "stream": False,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?", "cache_control": {"type": "ephemeral"}},
                    {"type": "image", "source": image},
                    {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}},
                    {"type": "document", "source": document},
                ],
            },
            {"role": "assistant", "content": [{"type": "text", "text": "A pixel."}]},
        ],
        "temperature": 1,
        "top_p": 0.9,
        "max_tokens": 99,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "somebody"},
        "output_config": {"effort": "high", "format": {"type": "json_schema", "schema": {"type": "object"}}},
    }


async def test_tools_there_and_back(cloud: Cloud, anthropic: FakeProvider) -> None:
    use = {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Kyōto"}}
    anthropic.script = Script(body=anthropic_answer(TEXT, use, {**use, "id": "toolu_2"}, stop="tool_use"))
    question = {"role": "user", "content": "Weather?"}
    choice = (await ask(cloud, messages=[question], tools=[WEATHER], parallel_tool_calls=False))["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Hello"
    assert [call["id"] for call in choice["message"]["tool_calls"]] == ["toolu_1", "toolu_2"]
    assert json.loads(choice["message"]["tool_calls"][0]["function"]["arguments"]) == {"city": "Kyōto"}
    function = WEATHER["function"]
    tool = {
        "name": "weather",
        "description": function["description"],
        "input_schema": function["parameters"],
    }
    assert anthropic.asked["tools"] == [tool]
    assert anthropic.asked["tool_choice"] == {"type": "auto", "disable_parallel_tool_use": True}

    results = [{"role": "tool", "tool_call_id": id, "content": "21"} for id in ("toolu_1", "toolu_2")]
    await ask(cloud, messages=[question, choice["message"], *results, question], tools=[WEATHER])
    turns = anthropic.asked["messages"]
    assert turns[1] == {"role": "assistant", "content": [TEXT, use, {**use, "id": "toolu_2"}]}
    result = {"type": "tool_result", "content": [{"type": "text", "text": "21"}]}
    assert turns[2] == {
        "role": "user",
        "content": [
            {**result, "tool_use_id": "toolu_1"},
            {**result, "tool_use_id": "toolu_2"},
            {"type": "text", "text": "Weather?"},
        ],
    }


@pytest.mark.parametrize(
    ("choice", "theirs"),
    [
        ("auto", {"type": "auto"}),
        ("none", {"type": "none"}),
        ("required", {"type": "any"}),
        ({"type": "function", "function": {"name": "weather"}}, {"type": "tool", "name": "weather"}),
    ],
)
async def test_tool_choice(cloud: Cloud, anthropic: FakeProvider, choice: Any, theirs: Any) -> None:
    await ask(cloud, tools=[WEATHER], tool_choice=choice)
    assert anthropic.asked["tool_choice"] == theirs


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("refusal", "content_filter"),
        ("tool_use", "tool_calls"),
    ],
)
async def test_finish_reasons(cloud: Cloud, anthropic: FakeProvider, reason: str, finish: str) -> None:
    anthropic.script = Script(body=anthropic_answer(TEXT, stop=reason))
    assert (await ask(cloud))["choices"][0]["finish_reason"] == finish
    anthropic.script = Script(events=anthropic_stream((TEXT, []), stop=reason))
    events = await cloud.fleet.events(model=MODEL)
    assert json.loads(events[-2])["choices"][0]["finish_reason"] == finish


async def test_thinking_is_reasoning_and_the_cache_counts(cloud: Cloud, anthropic: FakeProvider) -> None:
    thinking = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    anthropic.script = Script(body=anthropic_answer(thinking, TEXT))
    document = await ask(cloud)
    assert document["choices"][0]["message"]["reasoning_content"] == "Hm."
    assert document["usage"] == {
        "prompt_tokens": 13,
        "completion_tokens": 3,
        "total_tokens": 16,
        "prompt_tokens_details": {"cached_tokens": 4},
    }


async def test_a_stream_in_openais_events(cloud: Cloud, anthropic: FakeProvider) -> None:
    anthropic.script = Script(
        events=anthropic_stream(
            ({"type": "thinking", "thinking": ""}, [{"type": "thinking_delta", "thinking": "Hm."}]),
            ({"type": "text", "text": ""}, [{"type": "text_delta", "text": text} for text in ("Hel", "lo")]),
            (
                {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {}},
                [{"type": "input_json_delta", "partial_json": part} for part in ("", '{"city":', '"x"}')],
            ),
            ({"type": "tool_use", "id": "toolu_2", "name": "weather", "input": {}}, []),
            stop="tool_use",
        )
    )
    events = await cloud.fleet.events(model=MODEL, stream_options={"include_usage": True})
    assert events[-1] == "[DONE]"
    chunks = [json.loads(event) for event in events[:-1]]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[1] == {"reasoning_content": "Hm."}
    assert [delta["content"] for delta in deltas[2:4]] == ["Hel", "lo"]
    calls = [delta["tool_calls"][0] for delta in deltas[4:-1]]
    assert (calls[0]["index"], calls[0]["id"], calls[0]["function"]["name"]) == (0, "toolu_1", "weather")
    assert "".join(call["function"]["arguments"] for call in calls[:-1]) == '{"city":"x"}'
    assert (calls[-1]["index"], calls[-1]["id"]) == (1, "toolu_2")
    assert chunks[-2]["choices"][0]["finish_reason"] == "tool_calls"
    assert chunks[-1]["usage"] == {"prompt_tokens": 9, "completion_tokens": 3, "total_tokens": 12}
    assert {chunk["model"] for chunk in chunks} == {MODEL}
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-msg_013"}
    entry = (await cloud.fleet.settled())[0]
    assert (entry.prompt_tokens, entry.completion_tokens, entry.token_source) == (9, 3, "usage")


async def test_a_stream_without_message_stop_is_broken(cloud: Cloud, anthropic: FakeProvider) -> None:
    events = anthropic_stream(({"type": "text", "text": ""}, [{"type": "text_delta", "text": "Hel"}]))
    overloaded = sse(anthropic_error(529, "Overloaded"), "error")
    for broken in (events[:-1], [*events[:4], overloaded]):
        anthropic.script = Script(events=broken)
        told = await cloud.fleet.events(model=MODEL)
        assert "[DONE]" not in told
        assert json.loads(told[-1])["error"]["provider"] == "anthropic"
    anthropic.script = Script(events=[overloaded])
    assert (await cloud.fleet.post(model=MODEL, stream=True)).status_code == 502


async def test_one_answer_at_a_time(cloud: Cloud, anthropic: FakeProvider) -> None:
    response = await cloud.fleet.post(model=MODEL, n=2)
    assert (response.status_code, response.json()["error"]["param"]) == (400, "n")


# --- /v1/messages -----------------------------------------------------------------------------------------------------


async def test_natively(cloud: Cloud, anthropic: FakeProvider) -> None:
    response = await messages(cloud, top_k=3)
    assert response.status_code == 200, response.text
    assert response.json() == {**anthropic_answer(TEXT), "model": MODEL}
    sent = anthropic.asked
    assert (sent["model"], sent["top_k"], sent["max_tokens"]) == ("claude-sonnet-4-5", 3, 50)
    entry = (await cloud.fleet.settled())[0]
    assert (entry.node_name, entry.token_source) == ("anthropic", "usage")


async def test_natively_streamed(cloud: Cloud, anthropic: FakeProvider) -> None:
    anthropic.script = Script(events=anthropic_stream((TEXT, [{"type": "text_delta", "text": "Hello"}])))
    response = await messages(cloud, stream=True)
    assert response.text.count("event: ") == len(anthropic.script.events)
    assert f'"model":"{MODEL}"' in response.text.replace(": ", ":")
    assert response.text.rstrip().endswith('{"type": "message_stop"}')


async def test_errors_in_anthropics_shape(cloud: Cloud, anthropic: FakeProvider) -> None:
    anthropic.script = Script(status=429, body=anthropic_error(429, "Slow down."), headers={"retry-after": "3"})
    response = await messages(cloud)
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    document = response.json()
    assert document["type"] == "error"
    assert (document["error"]["type"], document["error"]["message"]) == ("rate_limit_error", "Slow down.")
    assert document["error"]["provider"] == "anthropic"
    unset = await messages(cloud, model="google:gemini-2.5-flash")
    assert (unset.status_code, unset.json()["error"]["type"]) == (401, "authentication_error")


async def test_other_providers_through_chat(cloud: Cloud) -> None:
    openai, google = await cloud.add("openai"), await cloud.add("google")
    openai.script = Script(body=openai_answer("gpt-4o", "Hello"))
    google.script = Script(body=google_answer({"text": "Hello"}))
    for model, fake in (("openai:gpt-4o", openai), ("google:gemini-2.5-flash", google)):
        response = await messages(cloud, model=model, system="Be brief.")
        assert response.status_code == 200, response.text
        document = response.json()
        assert (document["type"], document["model"], document["stop_reason"]) == ("message", model, "end_turn")
        assert document["content"][0]["text"] == "Hello"
        assert "Be brief." in str(fake.asked)
    assert google.asked["generationConfig"]["maxOutputTokens"] == 50


async def test_google_streamed_as_messages(cloud: Cloud) -> None:
    google = await cloud.add("google")
    answers = [google_answer({"text": text}, finish=None) for text in ("Hel", "lo")]
    google.script = Script(events=google_stream(*answers, google_answer(finish="STOP")))
    response = await messages(cloud, model="google:gemini-2.5-flash", stream=True)
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]
    kinds = [event["type"] for event in events]
    assert kinds[0] == "message_start"
    assert kinds[-2:] == ["message_delta", "message_stop"]
    texts = [event["delta"]["text"] for event in events if event["type"] == "content_block_delta"]
    assert "".join(texts) == "Hello"


async def test_responses_through_chat(cloud: Cloud, anthropic: FakeProvider) -> None:
    response = await cloud.fleet.post("/v1/responses", model=MODEL, input="hello")
    assert response.status_code == 200, response.text
    document = response.json()
    assert (document["object"], document["model"]) == ("response", MODEL)
    assert document["output"][-1]["content"][0]["text"] == "Hello"


async def test_openais_own_responses_pass_through(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    output = [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Hello"}]}]
    usage = {"input_tokens": 9, "output_tokens": 3, "total_tokens": 12}
    answer = {"id": "resp_1", "object": "response", "status": "completed", "model": "gpt-4o", "output": output}
    fake.script = Script(body={**answer, "usage": usage})
    response = await cloud.fleet.post("/v1/responses", model="openai:gpt-4o", input="hello", tomorrow=1)
    assert response.json() == {**answer, "usage": usage, "model": "openai:gpt-4o"}
    assert (fake.inferences[0].path, fake.asked["tomorrow"]) == ("/v1/responses", 1)


async def test_tokens_are_counted_where_there_is_a_counter(cloud: Cloud, anthropic: FakeProvider) -> None:
    anthropic.script = Script(body={"input_tokens": 14})
    headers = {**bearer(cloud.fleet.key), "anthropic-version": "2023-06-01"}
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    counted = await cloud.fleet.client.post("/v1/messages/count_tokens", json=body, headers=headers)
    assert (counted.json(), anthropic.inferences[0].path) == ({"input_tokens": 14}, "/v1/messages/count_tokens")
    google = await cloud.add("google")
    body["model"] = "google:gemini-2.5-flash"
    counted = await cloud.fleet.client.post("/v1/messages/count_tokens", json=body, headers=headers)
    assert counted.json()["input_tokens"] > 0
    assert not google.inferences


async def test_a_picture_and_speech_go_to_openai(cloud: Cloud) -> None:
    fake = await cloud.add("openai")
    fake.script = Script(body={"created": 1, "data": [{"b64_json": "AAAA"}]})
    made = await cloud.fleet.post("/v1/images/generations", model="openai:gpt-image-1", prompt="a cat")
    assert (made.status_code, fake.asked["model"]) == (200, "gpt-image-1"), made.text
    fake.script = Script(body=b"RIFF....", headers={})
    spoken = await cloud.fleet.post("/v1/audio/speech", model="openai:tts-1", input="hello", voice="nova")
    assert (spoken.status_code, spoken.content) == (200, b"RIFF....")
    fake.script = Script(body={"text": "hello"})
    sound = {"file": ("a.wav", b"RIFF\x24\x00\x00\x00WAVEfmt ", "audio/wav")}
    heard = await cloud.fleet.client.post(
        "/v1/audio/transcriptions",
        data={"model": "openai:whisper-1"},
        files=sound,
        headers=bearer(cloud.fleet.key),
    )
    assert (heard.status_code, heard.json()) == (200, {"text": "hello"}), heard.text
    assert b"whisper-1" in fake.inferences[-1].body
    assert b"openai:" not in fake.inferences[-1].body
