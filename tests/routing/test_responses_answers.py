"""Chat's answers told as responses, and its streams as a response's events. Pure."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlb_site.lib.upstream.faults import MalformedFault
from routing.protocols.responses.answer import read_completion
from routing.protocols.responses.stream import TranslatedStream
from tests.routing.responses_support import WEATHER, values

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
