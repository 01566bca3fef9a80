"""Google: chat and embeddings as Gemini takes them, and its answers as OpenAI's clients read them."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest

from tests.routing.conftest import bearer
from tests.routing.provider_support import Cloud, cloud
from tests.support.fake_provider import FakeProvider, Script, google_answer, google_stream

__all__ = ["cloud"]
MODEL = "google:gemini-2.5-flash"
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "additionalProperties": False},
    },
}


@pytest.fixture
async def google(cloud: Cloud) -> FakeProvider:
    fake = await cloud.add("google")
    fake.script = Script(body=google_answer({"text": "Hello"}))
    return fake


async def ask(cloud: Cloud, **body: Any) -> dict[str, Any]:
    response = await cloud.fleet.post(model=MODEL, **body)
    assert response.status_code == 200, response.text
    document: dict[str, Any] = response.json()
    return document


async def stream(cloud: Cloud, **body: Any) -> list[dict[str, Any]]:
    events = await cloud.fleet.events(model=MODEL, **body)
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


async def test_where_it_is_asked(cloud: Cloud, google: FakeProvider) -> None:
    await ask(cloud)
    request = google.inferences[0]
    assert (request.path, request.query) == ("/v1beta/models/gemini-2.5-flash:generateContent", "")
    assert "authorization" not in request.headers
    google.script = Script(events=google_stream(google_answer({"text": "x"})))
    await stream(cloud)
    request = google.inferences[1]
    assert (request.path, request.query) == ("/v1beta/models/gemini-2.5-flash:streamGenerateContent", "alt=sse")


@pytest.mark.parametrize(
    ("model", "path"),
    [
        ("models/gemini-2.5-pro", "/v1beta/models/gemini-2.5-pro:generateContent"),
        ("tunedModels/mine", "/v1beta/tunedModels/mine:generateContent"),
        ("../../v1/x?y=z#a b\r\n", "/v1beta/models/..%2F..%2Fv1%2Fx%3Fy%3Dz%23a%20b%0D%0A:generateContent"),
    ],
)
async def test_no_name_leads_elsewhere(cloud: Cloud, google: FakeProvider, model: str, path: str) -> None:
    await cloud.fleet.post(model=f"google:{model}")
    assert google.inferences[0].path == path
    assert google.inferences[0].query == ""


async def test_roles_parts_and_settings(cloud: Cloud, google: FakeProvider) -> None:
    await ask(
        cloud,
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "In verse."}]},
            {"role": "user", "content": "Hello"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "What is this?"},
                    {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
                    {"type": "image_url", "image_url": {"url": "https://example.org/cat.webp?size=1"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "mp3"}},
                ],
            },
            {"role": "assistant", "content": "A pixel."},
            {"role": "user", "content": "More."},
        ],
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        max_tokens=99,
        stop="END",
        n=2,
        seed=7,
        presence_penalty=0.1,
        frequency_penalty=None,
        reasoning_effort="low",
        user="somebody",
    )
    assert google.asked == {
        "systemInstruction": {"parts": [{"text": "Be brief."}, {"text": "In verse."}]},
        "contents": [
            {
                "role": "user",
                "parts": [
                    {"text": "Hello"},
                    {"text": "What is this?"},
                    {"inlineData": {"mimeType": "image/png", "data": PIXEL}},
                    {"fileData": {"mimeType": "image/webp", "fileUri": "https://example.org/cat.webp?size=1"}},
                    {"inlineData": {"mimeType": "audio/mp3", "data": "AAAA"}},
                ],
            },
            {"role": "model", "parts": [{"text": "A pixel."}]},
            {"role": "user", "parts": [{"text": "More."}]},
        ],
        "generationConfig": {
            "temperature": 0.5,
            "topP": 0.9,
            "topK": 40,
            "maxOutputTokens": 99,
            "stopSequences": ["END"],
            "candidateCount": 2,
            "seed": 7,
            "presencePenalty": 0.1,
            "thinkingConfig": {"thinkingBudget": 1024},
        },
    }


async def test_tools_there_and_back(cloud: Cloud, google: FakeProvider) -> None:
    call = {"functionCall": {"name": "weather", "args": {"city": "Kyōto"}}, "thoughtSignature": "c2ln"}
    google.script = Script(body=google_answer(call, {"functionCall": {"name": "weather", "args": {}}}))
    question = {"role": "user", "content": "Weather?"}
    document = await ask(cloud, messages=[question], tools=[WEATHER], tool_choice="required")
    choice = document["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] is None
    first, second = choice["message"]["tool_calls"]
    assert first["type"] == "function"
    assert json.loads(first["function"]["arguments"]) == {"city": "Kyōto"}
    assert first["id"] != second["id"]
    declaration = {**WEATHER["function"]}
    declaration["parametersJsonSchema"] = declaration.pop("parameters")
    assert google.asked["tools"] == [{"functionDeclarations": [declaration]}]
    assert google.asked["toolConfig"] == {"functionCallingConfig": {"mode": "ANY"}}

    results = [
        {"role": "tool", "tool_call_id": first["id"], "content": '{"degrees": 21}'},
        {"role": "tool", "tool_call_id": second["id"], "content": "no idea"},
    ]
    chosen = {"type": "function", "function": {"name": "weather"}}
    await ask(cloud, messages=[question, choice["message"], *results], tools=[WEATHER], tool_choice=chosen)
    turns = google.asked["contents"]
    assert turns[1] == {"role": "model", "parts": [call, {"functionCall": {"name": "weather", "args": {}}}]}
    assert turns[2] == {
        "role": "user",
        "parts": [
            {"functionResponse": {"name": "weather", "response": {"degrees": 21}}},
            {"functionResponse": {"name": "weather", "response": {"result": "no idea"}}},
        ],
    }
    assert google.asked["toolConfig"]["functionCallingConfig"] == {"mode": "ANY", "allowedFunctionNames": ["weather"]}


async def test_a_lost_signature_is_made_up_for(cloud: Cloud, google: FakeProvider) -> None:
    """Gemini 3 refuses a history whose calls have none, and many clients keep to OpenAI's fields."""
    calls = [{"id": n, "type": "function", "function": {"name": "weather", "arguments": ""}} for n in ("a", "b")]
    messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": None, "tool_calls": calls}]
    await cloud.fleet.post(model="google:gemini-3-pro", messages=messages)
    first, second = google.asked["contents"][1]["parts"]
    assert first["thoughtSignature"] == "skip_thought_signature_validator"
    assert "thoughtSignature" not in second


@pytest.mark.parametrize(
    ("wanted", "config"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"responseMimeType": "application/json"}),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": {"type": "object"}}},
            {"responseMimeType": "application/json", "responseJsonSchema": {"type": "object"}},
        ),
    ],
)
async def test_structured_output(cloud: Cloud, google: FakeProvider, wanted: Any, config: Any) -> None:
    await ask(cloud, response_format=wanted)
    assert google.asked.get("generationConfig") == config


@pytest.mark.parametrize(
    ("reason", "finish"),
    [("STOP", "stop"), ("MAX_TOKENS", "length"), ("SAFETY", "content_filter"), ("RECITATION", "content_filter")],
)
async def test_finish_reasons(cloud: Cloud, google: FakeProvider, reason: str, finish: str) -> None:
    google.script = Script(body=google_answer({"text": "Hel"}, finish=reason))
    assert (await ask(cloud))["choices"][0]["finish_reason"] == finish
    google.script = Script(events=google_stream(google_answer({"text": "Hel"}, finish=reason)))
    assert (await stream(cloud))[-1]["choices"][0]["finish_reason"] == finish


async def test_thoughts_are_reasoning_and_usage_is_whole(cloud: Cloud, google: FakeProvider) -> None:
    google.script = Script(body=google_answer({"text": "Hm.", "thought": True}, {"text": "Hel"}, {"text": "lo"}))
    document = await ask(cloud)
    message = document["choices"][0]["message"]
    assert (message["content"], message["reasoning_content"]) == ("Hello", "Hm.")
    assert document["usage"] == {
        "prompt_tokens": 9,
        "completion_tokens": 8,
        "total_tokens": 17,
        "completion_tokens_details": {"reasoning_tokens": 5},
    }
    assert document["id"] == "chatcmpl-r-1"
    assert document["object"] == "chat.completion"
    assert document["created"] > 1_700_000_000


async def test_a_blocked_prompt(cloud: Cloud, google: FakeProvider) -> None:
    blocked = {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 4}}
    google.script = Script(body=blocked)
    choice = (await ask(cloud))["choices"][0]
    assert choice["finish_reason"] == "content_filter"
    assert "SAFETY" in choice["message"]["refusal"]
    google.script = Script(events=google_stream(blocked))
    chunks = await stream(cloud)
    assert "SAFETY" in chunks[0]["choices"][0]["delta"]["refusal"]
    assert chunks[-1]["choices"][0]["finish_reason"] == "content_filter"


async def test_a_stream_in_openais_events(cloud: Cloud, google: FakeProvider) -> None:
    google.script = Script(
        events=google_stream(
            google_answer({"text": "Hm.", "thought": True}, finish=None),
            google_answer({"text": "Hel"}, finish=None),
            google_answer({"text": "lo"}, {"functionCall": {"name": "weather", "args": {"city": "x"}}}, finish=None),
            google_answer({"text": ""}, finish="STOP"),
        )
    )
    chunks = await stream(cloud, stream_options={"include_usage": True})
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert deltas[1] == {"reasoning_content": "Hm."}
    assert [delta["content"] for delta in deltas[2:4]] == ["Hel", "lo"]
    call = deltas[4]["tool_calls"][0]
    assert (call["index"], call["function"]) == (0, {"name": "weather", "arguments": '{"city":"x"}'})
    assert (deltas[5], chunks[-2]["choices"][0]["finish_reason"]) == ({}, "tool_calls")
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 8)
    assert len({chunk["id"] for chunk in chunks}) == 1
    assert {chunk["model"] for chunk in chunks} == {MODEL}
    entry = (await cloud.fleet.settled())[0]
    assert (entry.prompt_tokens, entry.completion_tokens, entry.token_source) == (9, 8, "usage")


async def test_usage_is_told_only_to_who_asks(cloud: Cloud, google: FakeProvider) -> None:
    google.script = Script(events=google_stream(google_answer({"text": "x"})))
    assert all("usage" not in chunk for chunk in await stream(cloud))
    assert (await cloud.fleet.settled())[0].completion_tokens == 8


async def test_a_stream_without_its_end_is_broken(cloud: Cloud, google: FakeProvider) -> None:
    google.script = Script(events=google_stream(google_answer({"text": "Hel"}, finish=None)))
    events = await cloud.fleet.events(model=MODEL)
    assert "[DONE]" not in events
    assert json.loads(events[-1])["error"]["provider"] == "google"
    google.script = Script(events=google_stream({"error": {"code": 503, "message": "overloaded"}}))
    response = await cloud.fleet.post(model=MODEL, stream=True)
    assert response.status_code == 502


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": "hello"},
        {"messages": ["hello"]},
        {"messages": [{"content": "x"}]},
        {"messages": [{"role": "user", "content": 7}]},
        {"messages": [{"role": "user", "content": [{"type": "hologram"}]}]},
        {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "x", "arguments": "{"}}]}]},
        {"tools": [{"type": "web_search"}]},
        {"tools": "all"},
    ],
)
async def test_what_cannot_be_said_is_400(cloud: Cloud, google: FakeProvider, body: dict[str, Any]) -> None:
    response = await cloud.fleet.post(model=MODEL, **body)
    assert (response.status_code, response.json()["error"]["type"]) == (400, "invalid_request_error"), response.text
    assert not google.inferences


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings(cloud: Cloud, google: FakeProvider, encoding: str) -> None:
    google.script = Script(body={"embeddings": [{"values": [0.5, -1.0]}, {"values": [0.25, 2.0]}]})
    response = await cloud.fleet.post(
        "/v1/embeddings",
        model="google:gemini-embedding-001",
        input=["one", "two"],
        dimensions=2,
        encoding_format=encoding,
    )
    document = response.json()
    vectors = [item["embedding"] for item in document["data"]]
    if encoding == "base64":
        vectors = [list(struct.unpack("<2f", base64.b64decode(vector))) for vector in vectors]
    assert vectors == [[0.5, -1.0], [0.25, 2.0]]
    assert (document["object"], document["model"]) == ("list", "google:gemini-embedding-001")
    assert document["usage"]["prompt_tokens"] > 0
    assert google.inferences[0].path == "/v1beta/models/gemini-embedding-001:batchEmbedContents"
    asked = google.asked["requests"][1]
    assert asked == {
        "model": "models/gemini-embedding-001",
        "content": {"parts": [{"text": "two"}]},
        "outputDimensionality": 2,
    }
    assert (await cloud.fleet.settled())[0].token_source == "estimated"


async def test_embeddings_that_do_not_fit(cloud: Cloud, google: FakeProvider) -> None:
    google.script = Script(body={"embeddings": [{"values": [0.5]}]})
    for body, status in (({"input": [1, 2]}, 400), ({}, 400), ({"input": ["a", "b"]}, 502)):
        response = await cloud.fleet.client.post(
            "/v1/embeddings", json={"model": "google:e", **body}, headers=bearer(cloud.fleet.key)
        )
        assert response.status_code == status
