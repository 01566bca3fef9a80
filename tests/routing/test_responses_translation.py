"""A Responses request said in chat's words, and chat's answers told as responses. Pure, but for the last part."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodes.fake_node import Behaviour
from routing.core.errors import MalformedFault, Refusal
from routing.protocols.responses.answer import read_completion
from routing.protocols.responses.request import to_chat
from routing.protocols.responses.stream import TranslatedStream
from tests.routing.conftest import Fleet, eventually

WEATHER = {
    "type": "function",
    "name": "weather",
    "description": "of a place",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": True,
}
SCHEMA = {"type": "object", "properties": {"x": {"type": "integer"}}}


def chat_of(**request: Any) -> dict[str, Any]:
    return to_chat({"model": "asked", **request}, "model-a")


def messages_of(given: Any, **request: Any) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = chat_of(input=given, **request)["messages"]
    return messages


def refusal_of(**request: Any) -> tuple[int, str | None]:
    with pytest.raises(Refusal) as refused:
        chat_of(**request)
    return refused.value.status, refused.value.param


# --- requests --------------------------------------------------------------------------------------------------------


def test_the_simplest_request() -> None:
    assert chat_of(input="hi") == {"model": "model-a", "messages": [{"role": "user", "content": "hi"}]}


def test_parameters_by_their_names_in_chat() -> None:
    chat = chat_of(
        input="hi",
        instructions="Be brief.",
        temperature=0.5,
        top_p=0.9,
        max_output_tokens=7,
        reasoning={"effort": "low", "summary": "auto"},
        top_logprobs=3,
        stream=True,
        store=True,
        metadata={"a": "b"},
        include=["reasoning.encrypted_content"],
        truncation="auto",
        min_p=0.1,
        seed=None,
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]
    assert chat == {
        "model": "model-a",
        "messages": messages,
        "temperature": 0.5,
        "top_p": 0.9,
        "max_tokens": 7,
        "reasoning_effort": "low",
        "logprobs": True,
        "top_logprobs": 3,
        "stream": True,
        "stream_options": {"include_usage": True},
        "min_p": 0.1,
    }


def test_messages_in_every_form() -> None:
    messages = messages_of(
        [
            {"role": "developer", "content": "D"},
            {"role": "user", "content": [{"type": "input_text", "text": "one"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "two"}]},
            {"role": "user", "content": [{"type": "input_text", "text": "a"}, {"type": "input_text", "text": "b"}]},
        ],
        instructions="I",
    )
    assert messages == [
        {"role": "system", "content": "I\n\nD"},
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "two"},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
    ]


def test_pictures_files_and_sound() -> None:
    parts = [
        {"type": "input_image", "image_url": "data:image/png;base64,AA", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ]
    (message,) = messages_of([{"role": "user", "content": parts}])
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA"}},
        {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
    ]


def test_a_turn_of_thinking_speaking_and_calling_is_one_message() -> None:
    messages = messages_of(
        [
            {"role": "user", "content": "weather?"},
            {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
            {"role": "assistant", "content": "I look."},
            {"type": "function_call", "call_id": "c1", "name": "weather", "arguments": "{}"},
            {"type": "function_call", "call_id": "c2", "name": "weather", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "sun"},
            {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "rain"}]},
            {"role": "assistant", "content": "Both."},
        ]
    )
    calls = [
        {"id": name, "type": "function", "function": {"name": "weather", "arguments": "{}"}} for name in ("c1", "c2")
    ]
    assert messages[1:] == [
        {"role": "assistant", "content": "I look.", "reasoning_content": "hm", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": "sun"},
        {"role": "tool", "tool_call_id": "c2", "content": "rain"},
        {"role": "assistant", "content": "Both."},
    ]


def test_tools_and_their_choice() -> None:
    function = {key: value for key, value in WEATHER.items() if key != "type"}
    asked = {"input": "hi", "tools": [WEATHER], "parallel_tool_calls": False}
    assert chat_of(**asked)["tools"] == [{"type": "function", "function": function}]
    assert chat_of(**asked)["parallel_tool_calls"] is False
    for choice in ("none", "auto", "required"):
        assert chat_of(**asked, tool_choice=choice)["tool_choice"] == choice
    forced = chat_of(**asked, tool_choice={"type": "function", "name": "weather"})
    assert forced["tool_choice"] == {"type": "function", "function": {"name": "weather"}}
    other = {**WEATHER, "name": "other"}
    allowed = {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "other"}]}
    limited = chat_of(input="hi", tools=[WEATHER, other], tool_choice=allowed)
    assert [tool["function"]["name"] for tool in limited["tools"]] == ["other"]
    assert limited["tool_choice"] == "required"
    bare = chat_of(input="hi", tools=[], tool_choice="auto", parallel_tool_calls=True)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & bare.keys()


def test_structured_output() -> None:
    format = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
    assert chat_of(input="hi", text={"format": format, "verbosity": "low"})["response_format"] == wanted
    assert chat_of(input="hi", text={"format": {"type": "json_object"}})["response_format"] == {"type": "json_object"}
    assert "response_format" not in chat_of(input="hi", text={"format": {"type": "text"}})


@pytest.mark.parametrize(
    "request_",
    [
        {"previous_response_id": "resp_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"background": True},
        {"tools": [{"type": "file_search"}]},
        {"tools": [{"type": "custom", "name": "x"}]},
        {"tool_choice": {"type": "mcp", "server_label": "x"}},
        {"text": {"format": {"type": "grammar"}}},
        {"input": [{"type": "computer_call", "id": "x"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file_1"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_file", "file_url": "https://x"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_video"}]}]},
    ],
)
def test_what_chat_has_no_words_for(request_: dict[str, Any]) -> None:
    assert refusal_of(**{"input": "hi", **request_})[0] == 501


@pytest.mark.parametrize(
    ("request_", "param"),
    [
        ({}, "input"),
        ({"input": 7}, "input"),
        ({"input": ["hi"]}, "input[0]"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": ["user"], "content": "x"}]}, "input[0].role"),
        ({"input": [{"role": "user", "content": 7}]}, "input[0].content"),
        ({"input": [{"role": "user", "content": [{"type": "input_text"}]}]}, "input[0].content[0].text"),
        ({"input": [{"role": "user", "content": ["x"]}]}, "input[0].content[0]"),
        ({"input": [{"type": "function_call", "name": "x"}]}, "input[0].call_id"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"input": "hi", "tools": {}}, "tools"),
        ({"input": "hi", "tools": ["x"]}, "tools[0]"),
        ({"input": "hi", "text": "json"}, "text"),
    ],
)
def test_what_is_no_responses_request(request_: dict[str, Any], param: str) -> None:
    assert refusal_of(**request_) == (400, param)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["user", "message", "function_call", "input_text"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["type", "role", "content", "text", "call_id", "name", "arguments", "output", "format"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)
NAMES = ["input", "tools", "tool_choice", "text", "reasoning", "include", "instructions", "stream", "prompt"]


@given(st.dictionaries(st.sampled_from(NAMES), values, max_size=6))
def test_no_request_is_answered_otherwise_than_by_a_chat_or_a_refusal(request_: dict[str, Any]) -> None:
    try:
        json.dumps(to_chat(request_, "m"))
    except Refusal as refusal:
        assert_refused(refusal)


items = st.fixed_dictionaries(
    {"type": st.sampled_from(["message", "function_call", "function_call_output", "reasoning"]) | values},
    optional=dict.fromkeys(("content", "call_id", "name", "arguments", "output"), values)
    | {"role": st.sampled_from(["user", "assistant", "system"]) | values},
)


@given(st.lists(items, max_size=5), values)
def test_no_conversation_either(given_: list[dict[str, Any]], choice: Any) -> None:
    try:
        json.dumps(to_chat({"input": given_, "tools": [WEATHER], "tool_choice": choice}, "m"))
    except Refusal as refusal:
        assert_refused(refusal)


def assert_refused(refusal: Refusal) -> None:
    assert refusal.status in (400, 501)


# --- whole answers ---------------------------------------------------------------------------------------------------


def completion(message: dict[str, Any], finish_reason: str = "stop", **values: Any) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    return json.dumps({"id": "x", "choices": [choice], "usage": usage, **values}).encode()


def response_of(body: bytes, **request: Any) -> dict[str, Any]:
    response: dict[str, Any] = json.loads(read_completion(body, request, "asked").body)
    return response


def test_text_and_usage_and_what_was_asked() -> None:
    bare = {"type": "function", "name": "bare"}
    response = response_of(completion({"content": "Hi."}), temperature=0.3, tools=[WEATHER, bare], metadata={"a": "b"})
    (item,) = response["output"]
    assert (item["type"], item["status"], item["role"]) == ("message", "completed", "assistant")
    assert item["content"] == [{"type": "output_text", "text": "Hi.", "annotations": [], "logprobs": []}]
    assert response["id"].startswith("resp_")
    assert (response["object"], response["status"], response["model"]) == ("response", "completed", "asked")
    assert (response["temperature"], response["metadata"]) == (0.3, {"a": "b"})
    assert response["tools"] == [WEATHER, {**bare, "description": None, "parameters": None, "strict": None}]
    assert (response["usage"]["input_tokens"], response["usage"]["output_tokens"]) == (3, 4)
    assert response["store"] is False
    tokens = read_completion(completion({"content": "Hi."}), {}, "asked").tokens
    assert tokens is not None
    assert (tokens.prompt, tokens.completion) == (3, 4)


def test_thinking_and_calls() -> None:
    calls = [
        {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"place":"Oslo"}'}},
        {"type": "function", "function": {"name": "weather", "arguments": {"place": "Rome"}}},
    ]
    for name in ("reasoning_content", "reasoning"):
        response = response_of(completion({"content": None, name: "hm", "tool_calls": calls}, "tool_calls"))
        thought, first, second = response["output"]
        assert thought["content"] == [{"type": "reasoning_text", "text": "hm"}]
        assert (first["type"], first["call_id"], first["arguments"]) == ("function_call", "c1", '{"place":"Oslo"}')
        assert json.loads(second["arguments"]) == {"place": "Rome"}
        assert second["call_id"].startswith("call_")


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_incomplete_answer_says_why(finish: str, reason: str) -> None:
    response = response_of(completion({"content": "Hi"}, finish))
    assert (response["status"], response["incomplete_details"]) == ("incomplete", {"reason": reason})
    assert response["output"][0]["status"] == "incomplete"


def test_refusals_and_silence() -> None:
    assert response_of(completion({"content": None, "refusal": "No."}))["output"][0]["content"] == [
        {"type": "refusal", "refusal": "No."}
    ]
    assert response_of(completion({"content": ""}))["output"][0]["content"][0]["text"] == ""
    assert response_of(completion({"content": "x"}, usage=None))["usage"] is None


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"choices":[]}', b'{"choices":[{"message":7}]}', b"\xff"])
def test_what_is_no_completion(body: bytes) -> None:
    with pytest.raises(MalformedFault):
        read_completion(body, {}, "asked")


# --- streams ---------------------------------------------------------------------------------------------------------


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **values: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish}
    return b"data: " + json.dumps({"choices": [choice], **values}).encode() + b"\n\n"


def told(*chunks: bytes, **request: Any) -> list[dict[str, Any]]:
    """The events that these chunks become, and that they are in order and well-formed."""
    reader = TranslatedStream(request, "asked")
    out = b"".join([reader.take(piece) for piece in chunks]) + reader.end()
    assert out.endswith(b"data: [DONE]\n\n")
    events = []
    for text in out.decode().split("\n\n")[:-2]:
        name, data = text.split("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        events.append(event)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    return events


def types_of(events: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


DONE = b"data: [DONE]\n\n"
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}\n\n'


def test_the_events_of_a_text() -> None:
    events = told(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Hel"}),
        chunk({"content": "lo"}),
        chunk(finish="stop"),
        USAGE,
        DONE,
    )
    assert types_of(events) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    assert events[0]["response"]["output"] == []
    final = events[-1]["response"]
    assert final["id"] == events[0]["response"]["id"]
    assert events[6]["text"] == "Hello"
    assert final["output"] == [events[8]["item"]]
    assert final["output"][0]["content"][0]["text"] == "Hello"
    assert final["usage"]["total_tokens"] == 5
    assert {event["item_id"] for event in events[3:8]} == {final["output"][0]["id"]}


def call_piece(index: int | None, arguments: str, id: str | None = None, name: str | None = None) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": name} if name else {})}
    piece: dict[str, Any] = {"function": function, **({"id": id} if id else {})}
    return {"tool_calls": [piece if index is None else {"index": index, **piece}]}


def test_the_events_of_thinking_then_calls_that_interleave() -> None:
    events = told(
        chunk({"reasoning_content": "hm"}),
        chunk(call_piece(0, "", "c1", "weather")),
        chunk(call_piece(1, "", "c2", "time")),
        chunk(call_piece(0, '{"a"')),
        chunk(call_piece(1, "{}")),
        chunk(call_piece(0, ":1}")),
        chunk(finish="tool_calls"),
        DONE,
    )
    assert types_of(events)[2:7] == [
        "output_item.added",
        "content_part.added",
        "reasoning_text.delta",
        "reasoning_text.done",
        "content_part.done",
    ]
    thought, first, second = events[-1]["response"]["output"]
    assert thought["content"][0]["text"] == "hm"
    assert (first["call_id"], first["name"], first["arguments"]) == ("c1", "weather", '{"a":1}')
    assert (second["call_id"], second["name"], second["arguments"]) == ("c2", "time", "{}")
    deltas: dict[int, str] = {}
    for event in events:
        if event["type"] == "response.function_call_arguments.delta":
            deltas[event["output_index"]] = deltas.get(event["output_index"], "") + event["delta"]
    assert deltas == {1: '{"a":1}', 2: "{}"}
    done = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert [(event["name"], event["arguments"]) for event in done] == [("weather", '{"a":1}'), ("time", "{}")]


def test_calls_without_an_index_or_all_with_the_same() -> None:
    for index in (None, 0):
        events = told(
            chunk(call_piece(index, "{}", "c1", "a")), chunk(call_piece(index, "[]", "c2", "b")), chunk(finish="stop")
        )
        calls = [(item["call_id"], item["arguments"]) for item in events[-1]["response"]["output"]]
        assert calls == [("c1", "{}"), ("c2", "[]")]


def test_an_end_for_length_and_a_refusal() -> None:
    events = told(chunk({"refusal": "No."}), chunk(finish="length"))
    assert types_of(events)[-1] == "incomplete"
    assert events[-1]["response"]["incomplete_details"] == {"reason": "max_output_tokens"}
    assert events[-1]["response"]["output"][0]["content"] == [{"type": "refusal", "refusal": "No."}]
    assert "refusal.done" in types_of(events)


def test_nothing_said_is_an_empty_message() -> None:
    events = told(chunk({"role": "assistant"}), chunk(finish="stop"))
    assert events[-1]["response"]["output"][0]["content"][0]["text"] == ""


def test_done_alone_does_not_make_it_whole() -> None:
    reader = TranslatedStream({}, "asked")
    reader.take(chunk({"content": "x"}))
    assert reader.take(DONE) == b""
    assert not reader.whole


pieces = st.lists(
    st.one_of(
        st.text(max_size=3).map(lambda text: {"content": text}),
        st.text(max_size=3).map(lambda text: {"reasoning": text}),
        st.builds(call_piece, st.sampled_from([None, 0, 1]), st.text(max_size=3), st.sampled_from([None, "c1", "c2"])),
    ),
    max_size=12,
)


@given(pieces)
def test_every_item_is_opened_filled_and_closed_in_order(deltas: list[dict[str, Any]]) -> None:
    events = told(*[chunk(delta) for delta in deltas], chunk(finish="stop"), DONE)
    output = events[-1]["response"]["output"]
    added = [event for event in events if event["type"] == "response.output_item.added"]
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["output_index"] for event in added] == list(range(len(output)))
    assert sorted(done, key=lambda event: event["output_index"]) == [
        {**event, "item": output[event["output_index"]]}
        for event in sorted(done, key=lambda event: event["output_index"])
    ]
    assert len(done) == len(output)
    for kind in ("content", "reasoning"):
        said = "".join(delta.get(kind, "") for delta in deltas)
        wanted = "response.output_text.delta" if kind == "content" else "response.reasoning_text.delta"
        assert "".join(event["delta"] for event in events if event["type"] == wanted) == said


@given(st.binary(max_size=80))
def test_no_bytes_make_the_translation_fail(data: bytes) -> None:
    reader = TranslatedStream({}, "asked")
    reader.take(b"data: " + data + b"\n\n")
    reader.end()


@given(values)
def test_no_chunk_makes_the_translation_fail(value: Any) -> None:
    for document in (value, {"choices": value}, {"choices": [value]}, {"choices": [{"delta": value}]}):
        TranslatedStream({}, "asked").take(b"data: " + json.dumps(document).encode() + b"\n\n")
    for delta in ({"tool_calls": value}, {"tool_calls": [value]}, {"content": value}, {"tool_calls": [{"id": value}]}):
        TranslatedStream({}, "asked").take(chunk(delta))


@given(values)
def test_no_completion_makes_the_translation_fail_otherwise(value: Any) -> None:
    for message in ({"content": value}, {"tool_calls": value}, {"tool_calls": [value]}, {"refusal": value}):
        response_of(completion(message))
    for choice in (value, {"message": value}, {"message": {}, "logprobs": value, "finish_reason": value}):
        with contextlib.suppress(MalformedFault):
            response_of(json.dumps({"choices": [choice], "usage": value}).encode())


# --- through the gateway ---------------------------------------------------------------------------------------------


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
    import asyncio

    await fleet.add("model-a", "model-b", limit=0, behaviour=Behaviour(chunks=30, chunk_interval=0.01))
    asked = [ask(fleet, model=f"model-{'ab'[number % 2]}", stream=True) for number in range(100)]
    for number, response in enumerate(await asyncio.gather(*asked)):
        events = events_of(response)
        final = events[-1]["response"]
        assert final["model"] == f"model-{'ab'[number % 2]}"
        text = "".join(event["delta"] for event in events if event["type"] == "response.output_text.delta")
        assert text == final["output"][0]["content"][0]["text"] == "".join(f"fake-{index} " for index in range(30))
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
