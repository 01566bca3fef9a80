"""Whatever a client or a provider sends: a translation gives an answer or a refusal, and loses nothing."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmlb_site.lib.sse import EventSplitter, data_of
from llmlb_site.lib.upstream.faults import NodeFault
from routing.core.errors import Refusal
from routing.core.table import NodeEntry
from routing.protocols.base import Api, Call, Plan, StreamReader, read_envelope
from routing.protocols.openai import CHAT
from routing.protocols.providers.errors import refused
from routing.protocols.providers.plans import plan_for
from routing.protocols.registry import APIS
from tests.support.fake_provider import (
    anthropic_answer,
    anthropic_stream,
    google_answer,
    google_stream,
)

NAMES = ("openai", "google", "anthropic")
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
KINDS = st.sampled_from(["text", "image_url", "input_audio", "file", "refusal", "hologram"])
PARTS = st.fixed_dictionaries(
    {"type": KINDS},
    optional={"text": JSON, "image_url": JSON, "input_audio": JSON, "file": JSON, "cache_control": JSON},
)
MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["system", "user", "assistant", "tool", "developer", "function", "x"])},
    optional={
        "content": st.lists(PARTS | JSON, max_size=3) | JSON,
        "tool_calls": st.lists(JSON | st.fixed_dictionaries({"id": JSON, "function": JSON}), max_size=2) | JSON,
        "tool_call_id": JSON,
        "name": JSON,
    },
)
EMBEDDINGS = APIS["/v1/embeddings"]
OPTIONS = ["tools", "tool_choice", "stop", "response_format", "reasoning_effort", "user", "seed", "top_k", "thinking"]
REQUESTS = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGES | JSON, max_size=4) | JSON}, optional=dict.fromkeys(OPTIONS, JSON)
)
TURNS = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), st.text(min_size=1, max_size=20)),
    min_size=1,
    max_size=8,
)


def provider(name: str) -> NodeEntry:
    return NodeEntry(id=0, name=name, base_url="https://provider.test", api_key="k", node_type=name)


def call(document: dict[str, Any], model: str = "m", path: str = CHAT.path) -> Call:
    body = json.dumps({"model": f"x:{model}", **document}).encode()
    return Call(path, body, read_envelope(body), asked_model=f"x:{model}", model=model)


def planned(api: Api, asked: Call, name: str) -> Plan | Refusal:
    try:
        return plan_for(api, asked, provider(name))
    except Refusal as refusal:
        return refusal


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=300, deadline=None)
@given(REQUESTS)
def test_a_request_is_translated_or_refused(name: str, document: dict[str, Any]) -> None:
    plan = planned(CHAT, call(document), name)
    if isinstance(plan, Refusal):
        assert plan.status == 400
    else:
        assert isinstance(plan.body, bytes)
        msgspec.json.decode(plan.body)


def test_text_that_is_no_utf8_never_comes_to_be_translated() -> None:
    with pytest.raises(Refusal) as refused:
        read_envelope(b'{"model":"x:m","messages":[{"role":"user","content":"\xff\xfe"}]}')
    assert refused.value.status == 400


@pytest.mark.parametrize("name", ["google", "anthropic"])
@given(TURNS)
def test_no_word_of_a_conversation_is_lost_or_moved(name: str, turns: list[tuple[str, str]]) -> None:
    messages = [{"role": role, "content": text} for role, text in turns]
    plan = plan_for(CHAT, call({"messages": messages}), provider(name))
    asked = json.loads(plan.body)  # type: ignore[arg-type]
    system = asked.get("systemInstruction", {}).get("parts") if name == "google" else asked.get("system")
    said = [
        (turn["role"].replace("model", "assistant"), part["text"])
        for turn in asked["contents" if name == "google" else "messages"]
        for part in turn["parts" if name == "google" else "content"]
    ]
    assert [part["text"] for part in system or []] == [text for role, text in turns if role == "system"]
    assert said == [(role, text) for role, text in turns if role != "system"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("api", APIS.values(), ids=lambda api: api.kind)
def test_every_api_is_planned_or_refused(name: str, api: Any) -> None:
    """Through chat, natively or not at all, but never by accident."""
    if api.read_form is not None:
        return
    document = {"messages": [{"role": "user", "content": "x"}], "input": "x", "max_tokens": 5, "prompt": "x"}
    body = json.dumps({"model": "x:m", **document}).encode()
    made = Call(api.path, body, api.read_envelope(body), asked_model="x:m", model="m")
    plan = planned(api, made, name)
    if isinstance(plan, Refusal):
        assert plan.status == 501
    else:
        assert b"x:m" not in (plan.body if isinstance(plan.body, bytes) else b"")


def plan_of(name: str, stream: bool = False) -> Plan:
    return plan_for(CHAT, call({"messages": [{"role": "user", "content": "x"}], "stream": stream}), provider(name))


@pytest.mark.parametrize("name", NAMES)
@given(JSON | st.dictionaries(st.sampled_from(["candidates", "content", "choices", "usage", "usageMetadata"]), JSON))
def test_an_answer_is_understood_or_a_fault(name: str, document: Any) -> None:
    for plan, body in (
        (plan_of(name), json.dumps(document).encode()),
        (plan_of(name), b"\xff" + str(document).encode()),
    ):
        try:
            answer = plan.read_answer(body)
        except NodeFault:
            continue
        msgspec.json.decode(answer.body)
        list(answer.completion_texts())


@pytest.mark.parametrize("name", ["google", "anthropic"])
@given(st.lists(JSON, max_size=4), st.binary(max_size=20))
def test_an_event_is_understood_or_a_fault(name: str, documents: list[Any], noise: bytes) -> None:
    reader = plan_of(name, stream=True).open_stream()
    events = [f"data: {json.dumps(document)}\n\n".encode() for document in documents]
    try:
        for event in [*events, b": comment\n\n", b"data: " + noise.replace(b"\n", b"") + b"\n\n"]:
            reader.take(event)
    except NodeFault:
        pass


def collected(reader: StreamReader, events: list[bytes], cuts: list[int]) -> list[dict[str, Any]]:
    """The stream as the client reads it, however the network cut it into pieces."""
    raw = b"".join(events)
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    splitter = EventSplitter()
    out = b""
    for start, end in pairwise(edges):
        out += b"".join(reader.take(event) for event in splitter.feed(raw[start:end]))
    assert reader.whole
    out += reader.end()
    data = [data_of(event) for event in EventSplitter().feed(out)]
    assert data[-1] == b"[DONE]"
    return [json.loads(one) for one in data[:-1]]


def said(chunks: list[dict[str, Any]]) -> tuple[str, dict[int, str], str]:
    """The text, the arguments of each tool call, and why it ended."""
    text, finish = "", ""
    calls: dict[int, str] = {}
    for chunk in chunks:
        choice = chunk["choices"][0]
        text += choice["delta"].get("content") or ""
        for piece in choice["delta"].get("tool_calls", []):
            calls[piece["index"]] = calls.get(piece["index"], "") + piece["function"]["arguments"]
        finish = choice["finish_reason"] or finish
    return text, calls, finish


ARGUMENTS = st.dictionaries(st.text(max_size=5), st.integers(-9, 9) | st.text(max_size=5), max_size=3)
CUTS = st.lists(st.integers(0, 10_000), max_size=6)


@given(st.lists(st.text(max_size=10), max_size=5), st.lists(ARGUMENTS, max_size=3), CUTS)
def test_google_streams_say_what_whole_answers_say(texts: list[str], calls: list[Any], cuts: list[int]) -> None:
    parts: list[dict[str, Any]] = [{"text": text} for text in texts]
    parts += [{"functionCall": {"name": "f", "args": args}} for args in calls]
    answers = [google_answer(part, finish=None) for part in parts]
    events = google_stream(*answers, google_answer(finish="STOP"))
    text, arguments, finish = said(collected(plan_of("google", True).open_stream(), events, cuts))
    whole = json.loads(plan_of("google").read_answer(json.dumps(google_answer(*parts)).encode()).body)["choices"][0]
    assert text == (whole["message"]["content"] or "") == "".join(texts)
    assert [json.loads(one) for one in arguments.values()] == calls
    assert finish == whole["finish_reason"] == ("tool_calls" if calls else "stop")


@given(st.lists(st.text(max_size=10), max_size=5), st.lists(ARGUMENTS, max_size=3), CUTS)
def test_anthropic_streams_say_what_whole_answers_say(texts: list[str], calls: list[Any], cuts: list[int]) -> None:
    deltas = [{"type": "text_delta", "text": text} for text in texts]
    blocks: list[Any] = [({"type": "text", "text": ""}, deltas)]
    whole_blocks: list[dict[str, Any]] = [{"type": "text", "text": "".join(texts)}]
    for number, args in enumerate(calls):
        use = {"type": "tool_use", "id": f"t{number}", "name": "f", "input": {}}
        written = json.dumps(args)
        pieces = [{"type": "input_json_delta", "partial_json": written[i : i + 3]} for i in range(0, len(written), 3)]
        blocks.append((use, pieces))
        whole_blocks.append({**use, "input": args})
    stop = "tool_use" if calls else "end_turn"
    text, arguments, finish = said(
        collected(plan_of("anthropic", True).open_stream(), anthropic_stream(*blocks, stop=stop), cuts)
    )
    body = json.dumps(anthropic_answer(*whole_blocks, stop=stop)).encode()
    choice = json.loads(plan_of("anthropic").read_answer(body).body)["choices"][0]
    assert text == choice["message"]["content"] == "".join(texts)
    assert [json.loads(one) for one in arguments.values()] == calls
    assert finish == choice["finish_reason"]


@given(JSON)
def test_texts_to_embed_are_texts(value: Any) -> None:
    plan = planned(EMBEDDINGS, call({"input": value}, path=EMBEDDINGS.path), "google")
    if isinstance(plan, Refusal):
        assert plan.status == 400
    else:
        assert json.loads(plan.body)["requests"]  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
@given(st.integers(400, 599), JSON | st.dictionaries(st.sampled_from(["error", "message"]), JSON), st.booleans())
def test_an_error_is_always_a_refusal_of_that_status(name: str, status: int, document: Any, known: bool) -> None:
    body = json.dumps({"error": document} if known else document).encode()
    refusal = refused(name, status, body, "", ("secret",))
    assert (refusal.status, refusal.extra) == (status, {"provider": name})
    assert refusal.code
    assert refusal.message


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_no_secret_in_an_error(name: str, status: int) -> None:
    body = json.dumps({"error": {"message": "The key k-123 at proxy.internal:99 is wrong.", "code": 7}}).encode()
    refusal = refused(name, status, body, "", ("k-123", "proxy.internal:99"))
    assert "k-123" not in refusal.message
    assert "proxy.internal" not in refusal.message
