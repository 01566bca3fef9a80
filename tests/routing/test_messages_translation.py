"""Between Anthropic's messages and chat: nothing that was said is lost, however a stream is cut. No gateway."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmlb_site.lib.sse import EventSplitter
from llmlb_site.lib.upstream.faults import BrokenFault, MalformedFault
from routing.core.errors import Refusal
from routing.core.usage import Tokens
from routing.protocols.anthropic_answer import Frame, to_message
from routing.protocols.anthropic_request import chat_request, texts_read
from routing.protocols.anthropic_stream import MessageStream

FRAME = Frame(model="asked", thinking=True, stops=("###",), prompt=lambda: 11)

texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
values = st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda inner: st.lists(inner, max_size=3))
inputs = st.dictionaries(texts, values, max_size=3)
tool_uses = st.fixed_dictionaries({"type": st.just("tool_use"), "id": texts, "name": texts, "input": inputs})
conversations = st.lists(
    st.tuples(st.lists(texts, max_size=2), st.lists(tool_uses, min_size=1, max_size=3)), min_size=1, max_size=3
)


def ask(**request: Any) -> dict[str, Any]:
    return chat_request({"max_tokens": 5, "messages": [{"role": "user", "content": "hi"}], **request}, "model")


# --- the request ------------------------------------------------------------------------------------------------------


@given(conversations)
def test_tool_calls_and_their_results_keep_ids_names_inputs_and_order(turns: Any) -> None:
    messages: list[dict[str, Any]] = []
    for said, calls in turns:
        results = [{"type": "tool_result", "tool_use_id": call["id"], "content": call["name"]} for call in calls]
        blocks = [{"type": "text", "text": text} for text in said]
        messages += [{"role": "assistant", "content": blocks + calls}, {"role": "user", "content": results}]
    chat = ask(messages=messages)["messages"]
    called = [call for message in chat for call in message.get("tool_calls", ())]
    assert [(call["id"], call["function"]["name"], json.loads(call["function"]["arguments"])) for call in called] == [
        (call["id"], call["name"], call["input"]) for _, calls in turns for call in calls
    ]
    answered = [(message["tool_call_id"], message["content"]) for message in chat if message["role"] == "tool"]
    assert answered == [(call["id"], call["name"]) for _, calls in turns for call in calls]
    assert [message["content"] for message in chat if message["role"] == "assistant"] == [
        "".join(said) or None for said, _ in turns
    ]


def test_results_come_before_what_the_user_adds_and_their_pictures_after() -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}
    nested = [{"type": "text", "text": "a"}, picture, {"type": "text", "text": "b"}]
    blocks = [
        {"type": "text", "text": "Go on."},
        {"type": "tool_result", "tool_use_id": "t1", "content": nested, "cache_control": {"type": "ephemeral"}},
        {"type": "tool_result", "tool_use_id": "t2", "content": "no such file", "is_error": True},
        {"type": "tool_result", "tool_use_id": "t3"},
    ]
    assert ask(messages=[{"role": "user", "content": blocks}])["messages"] == [
        {"role": "tool", "tool_call_id": "t1", "content": "a\n\nb"},
        {"role": "tool", "tool_call_id": "t2", "content": "Error: no such file"},
        {"role": "tool", "tool_call_id": "t3", "content": ""},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "Go on."},
                {"type": "text", "text": "Pictures in the result of t1:"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
            ],
        },
    ]


def test_pictures_and_documents() -> None:
    blocks = [
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
        {"type": "document", "title": "T", "source": {"type": "text", "media_type": "text/plain", "data": "words"}},
    ]
    (message,) = ask(messages=[{"role": "user", "content": blocks}])["messages"]
    assert message["content"] == [
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
        {"type": "text", "text": "T"},
        {"type": "text", "text": "words"},
    ]
    pdf = {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "AAAA"}}
    with pytest.raises(Refusal, match="base64"):
        ask(messages=[{"role": "user", "content": [pdf]}])


def test_system_and_earlier_thinking() -> None:
    thinking = [
        {"type": "thinking", "thinking": "hm", "signature": ""},
        {"type": "redacted_thinking", "data": "x"},
        {"type": "text", "text": "Yes."},
    ]
    system = [
        {"type": "text", "text": "One.", "cache_control": {"type": "ephemeral"}},
        {"type": "text", "text": "Two."},
    ]
    chat = ask(system=system, messages=[{"role": "assistant", "content": thinking}])
    assert chat["messages"] == [
        {"role": "system", "content": "One.\n\nTwo."},
        {"role": "assistant", "content": "Yes.", "reasoning_content": "hm"},
    ]


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({"type": "auto"}, {"tool_choice": "auto"}),
        ({"type": "none"}, {"tool_choice": "none"}),
        (
            {"type": "any", "disable_parallel_tool_use": True},
            {"tool_choice": "required", "parallel_tool_calls": False},
        ),
        ({"type": "tool", "name": "t"}, {"tool_choice": {"type": "function", "function": {"name": "t"}}}),
    ],
)
def test_tool_choice(choice: dict[str, Any], expected: dict[str, Any]) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    chat = ask(tools=[{"type": "custom", "name": "t", "description": "d", "input_schema": schema}], tool_choice=choice)
    assert chat["tools"] == [{"type": "function", "function": {"name": "t", "parameters": schema, "description": "d"}}]
    assert {name: chat[name] for name in expected} == expected


def test_a_wanted_shape_of_the_answer() -> None:
    form = {"type": "json_schema", "schema": {"type": "object"}}
    wanted = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True}}
    assert ask(output_config={"format": form})["response_format"] == wanted
    assert ask(output_format=form)["response_format"] == wanted
    assert "response_format" not in ask()


@given(st.recursive(values, lambda inner: st.dictionaries(st.sampled_from(["type", "role", "content", "text"]), inner)))
def test_whatever_is_sent_is_translated_or_refused(content: Any) -> None:
    for request in ({"messages": [content]}, {"messages": [{"role": "user", "content": content}]}, {"tools": content}):
        with contextlib.suppress(Refusal):
            ask(**request)


def test_pictures_are_no_text_to_estimate() -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "A" * 9999}}
    call = {"type": "tool_use", "id": "secret", "name": "weather", "input": {"city": "Tokyo"}}
    request = {"model": "m", "system": "Be brief.", "messages": [{"role": "user", "content": ["hi", picture, call]}]}
    assert list(texts_read(request)) == ["Be brief.", "hi", "weather", '{"city":"Tokyo"}']


# --- the answer -------------------------------------------------------------------------------------------------------

calls_made = st.lists(st.tuples(texts, inputs), max_size=3)
answers = st.tuples(
    st.text(st.characters(codec="utf-8"), max_size=30), st.text(max_size=30, alphabet="ab \n"), calls_made
)


def chat_message(answer: Any) -> dict[str, Any]:
    thought, text, calls = answer
    made = [
        {"id": f"call_{number}", "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
        for number, (name, arguments) in enumerate(calls)
    ]
    return {"role": "assistant", "content": text, "reasoning_content": thought, "tool_calls": made}


def expected_blocks(answer: Any) -> list[dict[str, Any]]:
    thought, text, calls = answer
    blocks: list[dict[str, Any]] = []
    if thought:
        blocks.append({"type": "thinking", "thinking": thought, "signature": ""})
    if text:
        blocks.append({"type": "text", "text": text})
    return blocks + [
        {"type": "tool_use", "id": f"call_{number}", "name": name, "input": arguments}
        for number, (name, arguments) in enumerate(calls)
    ]


@given(answers)
def test_a_whole_answer_keeps_everything(answer: Any) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    choice = {"index": 0, "message": chat_message(answer), "finish_reason": "stop"}
    known = to_message(json.dumps({"choices": [choice], "usage": usage}).encode(), FRAME)
    message = json.loads(known.body)
    assert message["content"] == expected_blocks(answer)
    assert message["stop_reason"] == ("tool_use" if answer[2] else "end_turn")
    assert (message["usage"]["input_tokens"], message["usage"]["cache_read_input_tokens"]) == (5, 4)
    assert known.tokens == Tokens(9, 3)


@given(st.data(), answers)
def test_a_stream_keeps_everything_however_it_is_cut(data: st.DataObject, answer: Any) -> None:
    def cut(text: str) -> list[str]:
        points = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=3)))
        return [text[start:end] for start, end in zip([0, *points], [*points, len(text)], strict=True)]

    sent = b"".join(chunk(delta) for delta in deltas_of(answer, cut))
    sent += chunk({}, "tool_calls" if answer[2] else "stop") + b"data: [DONE]\n\n"
    splitter, reader, out = EventSplitter(), MessageStream(FRAME), b""
    size = data.draw(st.integers(1, 200))
    for start in range(0, len(sent), size):
        out += b"".join(reader.take(event) for event in splitter.feed(sent[start : start + size]))
    assert reader.whole
    events = events_in(out + reader.end())
    assert put_together(events) == expected_blocks(answer)
    assert [event["type"] for event in events][-2:] == ["message_delta", "message_stop"]


def deltas_of(answer: Any, cut: Any) -> list[dict[str, Any]]:
    thought, text, calls = answer
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": piece} for piece in cut(thought)]
    deltas += [{"content": piece} for piece in cut(text)]
    for index, (name, arguments) in enumerate(calls):
        begin = {"index": index, "id": f"call_{index}", "type": "function"}
        pieces = cut(json.dumps(arguments))
        deltas.append({"tool_calls": [{**begin, "function": {"name": name, "arguments": pieces[0]}}]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces[1:]]
    return deltas


def chunk(delta: dict[str, Any], finish_reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    return b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"


def events_in(stream: bytes) -> list[dict[str, Any]]:
    blocks = stream.decode().split("\n\n")
    return [json.loads(block.split("\ndata: ", 1)[1]) for block in blocks if block]


def put_together(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What a client makes of the events; each block begins, goes on and ends before the next one."""
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in events:
        if event["type"] == "content_block_start":
            assert not is_open
            assert event["index"] == len(blocks)
            blocks.append({**event["content_block"], "pieces": ""})
            is_open = True
        elif event["type"] == "content_block_delta":
            assert is_open
            assert event["index"] == len(blocks) - 1
            blocks[-1]["pieces"] += next(value for name, value in event["delta"].items() if name != "type")
        elif event["type"] == "content_block_stop":
            is_open = False
            pieces = blocks[-1].pop("pieces")
            blocks[-1] |= {"input": json.loads(pieces)} if "input" in blocks[-1] else {blocks[-1]["type"]: pieces}
    assert not is_open
    return blocks


# --- servers' habits --------------------------------------------------------------------------------------------------


def take(*pieces: bytes) -> list[dict[str, Any]]:
    reader = MessageStream(FRAME)
    return events_in(b"".join(reader.take(piece) for piece in pieces) + reader.end())


def call(identity: str | None, name: str | None, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"tool_calls": [{"id": identity, "function": {"name": name, "arguments": arguments}, **more}]}


def test_calls_that_all_have_the_index_0_are_told_apart_by_their_ids() -> None:
    events = take(chunk(call("a", "t", "{}", index=0)), chunk(call("b", "t", "{}", index=0)), chunk({}, "tool_calls"))
    assert [block["id"] for block in put_together(events)] == ["a", "b"]


def test_calls_without_an_index_and_arguments_as_an_object() -> None:
    events = take(chunk(call("a", "t", {"x": 1})), chunk(call("b", "u", {"y": 2})), chunk({}, "stop"))
    assert [block["input"] for block in put_together(events)] == [{"x": 1}, {"y": 2}]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_an_id_that_is_repeated_or_new_in_each_piece_begins_nothing() -> None:
    events = take(
        chunk(call("a", "t", '{"x"', index=0)),
        chunk(call("a", None, ":", index=0)),
        chunk(call("z", None, "1}", index=0)),
        chunk({}, "tool_calls"),
    )
    assert put_together(events) == [{"type": "tool_use", "id": "a", "name": "t", "input": {"x": 1}}]


def test_a_call_that_goes_on_after_the_next_has_begun_is_a_fault() -> None:
    reader = MessageStream(FRAME)
    reader.take(chunk(call("a", "t", "{", index=0)))
    reader.take(chunk(call("b", "t", "{", index=1)))
    with pytest.raises(MalformedFault):
        reader.take(chunk(call(None, None, "}", index=0)))


def test_comments_become_pings_and_errors_faults() -> None:
    reader = MessageStream(FRAME)
    assert reader.take(b": waiting\n\n") == b""
    reader.take(chunk({"content": "x"}))
    assert reader.take(b": waiting\n\n") == b'event: ping\ndata: {"type":"ping"}\n\n'
    with pytest.raises(BrokenFault):
        reader.take(b'data: {"error": {"message": "out of memory"}}\n\n')


@pytest.mark.parametrize("body", [b"{}", b"[]", b"<html>", b'{"choices":[]}', b'{"choices":[{"message":null}]}'])
def test_what_is_no_completion_is_a_fault(body: bytes) -> None:
    with pytest.raises(MalformedFault):
        to_message(body, FRAME)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [("", {}), ('{"a":1}', {"a": 1}), ('{"a":', {"arguments": '{"a":'}), ("[1]", {"arguments": [1]})],
)
def test_arguments_that_are_no_object_are_kept(arguments: str, expected: dict[str, Any]) -> None:
    made = [{"id": None, "function": {"name": "t", "arguments": arguments}}]
    body = json.dumps({"choices": [{"message": {"content": None, "tool_calls": made}}]}).encode()
    (block,) = json.loads(to_message(body, FRAME).body)["content"]
    assert block["input"] == expected
    assert block["id"].startswith("toolu_")
