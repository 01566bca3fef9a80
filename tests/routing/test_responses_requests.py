"""A Responses request said in chat's words. Pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.core.errors import Refusal
from routing.protocols.responses.request import to_chat
from tests.routing.responses_support import WEATHER, values

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
