"""Masked bodies show their structure and parameters, and none of the words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from history.masking import MASK, masked, readable
from history.streams import said

SECRET = "the patient is Taro Yamada"


def mask(value: Any) -> Any:
    return masked(json.dumps(value).encode())


def test_one_character_is_one() -> None:
    assert masked(b"x") == f"{MASK} (1 character)"


def test_a_chat_keeps_its_structure_and_parameters() -> None:
    asked = {
        "model": "llama",
        "temperature": 0.2,
        "stream": True,
        "messages": [
            {"role": "system", "content": SECRET},
            {"role": "user", "content": [{"type": "text", "text": SECRET}, {"type": "image_url", "url": SECRET}]},
        ],
    }
    hidden = f"{MASK} ({len(SECRET)} characters)"
    assert mask(asked) == {
        "model": "llama",
        "temperature": 0.2,
        "stream": True,
        "messages": [
            {"role": "system", "content": hidden},
            {"role": "user", "content": [{"type": "text", "text": hidden}, {"type": "image_url", "url": hidden}]},
        ],
    }


def test_an_answer_keeps_its_usage() -> None:
    answer = mask(
        {
            "id": "chatcmpl-1",
            "choices": [{"index": 0, "message": {"role": "assistant", "content": SECRET}, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11},
        }
    )
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 6, "total_tokens": 11}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert SECRET not in json.dumps(answer)


@pytest.mark.parametrize(
    "body",
    [
        {"prompt": SECRET},
        {"input": [SECRET, SECRET]},
        {"input": {"id": SECRET, "model": SECRET}},
        {"user": SECRET},
        {"metadata": {"id": SECRET}},
        {"something_new": {"deep": [[SECRET]]}},
        {"model": SECRET * 20},
        {"tools": [{"type": "function", "function": {"name": SECRET, "parameters": {"type": SECRET}}}]},
        {"messages": [{"role": "assistant", "tool_calls": [{"id": "1", "function": {"arguments": SECRET}}]}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {"code": SECRET}}]}]},
        {"metadata": {SECRET: "1"}},
        {"logit_bias": {SECRET: 1}},
        {"tools": [{"type": "custom", "input_schema": {"type": "object", "properties": {SECRET: {}}}}]},
        {"tools": [{"type": "function", "function": {"parameters": {"properties": {SECRET: {"type": "string"}}}}}]},
        {"messages": [{"role": "assistant", "content": [{"type": "tool_use", "input": {SECRET: [{SECRET: 1}]}}]}]},
        {"error": {"message": SECRET, "type": "invalid_request_error"}},
        [SECRET],
        SECRET,
    ],
)
def test_words_are_hidden_wherever_they_are(body: Any) -> None:
    assert "Taro" not in json.dumps(mask(body))


def test_numbers_that_say_something_are_hidden() -> None:
    assert mask({"prompt": [15339, 1917, 30, 2]}) == {"prompt": f"{MASK} (4 numbers)"}
    assert mask({"data": [{"embedding": [0.5] * 384, "index": 0}]}) == {
        "data": [{"embedding": f"{MASK} (384 numbers)", "index": 0}]
    }
    assert mask({"input": {"age": 42}}) == {"input": f"{MASK} (1 fields)"}
    assert mask({"prompt": [1, 2]}) == {"prompt": [MASK, MASK]}


def test_what_is_no_json_is_hidden_whole() -> None:
    assert masked(b"the patient is") == f"{MASK} (14 characters)"
    assert masked(b'{"content": "cut in the mid') == f"{MASK} (27 characters)"
    assert "Taro" not in str(masked(SECRET.encode() + b"\xff\xfe"))
    assert masked(b"[" * 5000) == f"{MASK} (5000 characters)"
    assert masked(b"") is None


EVENTS = "".join(
    f"data: {json.dumps(event)}\n\n"
    for event in (
        {"model": "llama", "choices": [{"index": 0, "delta": {"role": "assistant"}}]},
        {"model": "llama", "choices": [{"index": 0, "delta": {"content": "To"}}]},
        {"model": "llama", "choices": [{"index": 0, "delta": {"content": "kyo"}, "finish_reason": "stop"}]},
        {"model": "llama", "choices": [], "usage": {"total_tokens": 10}},
    )
)


def test_a_stream_is_put_together() -> None:
    body = (EVENTS + "data: [DONE]\n\n").encode()
    assert readable(body) == {
        "events": 4,
        "model": "llama",
        "content": "Tokyo",
        "finish_reason": "stop",
        "usage": {"total_tokens": 10},
    }
    assert masked(body) == {
        "events": 4,
        "model": "llama",
        "content": f"{MASK} (5 characters)",
        "finish_reason": "stop",
        "usage": {"total_tokens": 10},
    }


def test_a_stream_cut_in_the_middle_is_read_as_far_as_it_goes() -> None:
    assert readable(EVENTS.encode()[:-70])["content"] == "Tokyo"


def test_streams_of_the_other_apis_are_put_together() -> None:
    completion = b'data: {"choices":[{"text":"To"}]}\n\ndata: {"choices":[{"text":"kyo","finish_reason":"length"}]}\n\n'
    assert (readable(completion)["content"], readable(completion)["finish_reason"]) == ("Tokyo", "length")
    responses = b'event: x\ndata: {"type":"response.output_text.delta","delta":"Tokyo"}\n\n'
    assert readable(responses)["content"] == "Tokyo"
    messages = (
        b'event: content_block_delta\ndata: {"delta":{"type":"text_delta","text":"Tokyo"}}\n\n'
        b'event: message_delta\ndata: {"delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":2}}\n\n'
    )
    assert (readable(messages)["content"], readable(messages)["finish_reason"]) == ("Tokyo", "end_turn")


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ({"content": "Tokyo"}, "Tokyo"),
        ({"choices": [{"message": {"content": "Tokyo"}}, {"message": {"content": "Kyoto"}}]}, "Tokyo\n\nKyoto"),
        ({"choices": [{"text": "Tokyo"}]}, "Tokyo"),
        ({"choices": [{"message": {"content": None}}, {"message": 3}, 4]}, ""),
        ({"data": [{"embedding": [1.0]}]}, ""),
        ("plain", ""),
        (None, ""),
    ],
)
def test_what_was_said_is_read_out(answer: Any, text: str) -> None:
    assert said(answer) == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_masking_stands_any_json_and_can_be_answered(value: Any) -> None:
    json.dumps(mask(value), allow_nan=False).encode()


@given(st.binary(max_size=200))
def test_masking_and_revealing_stand_any_bytes(body: bytes) -> None:
    for value in (masked(body), readable(body), masked(b"data:" + body), readable(b"data:" + body)):
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
