"""Event streams and JSON members, to the byte."""

from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from llmlb_site.lib.sse import EventSplitter, data_of
from routing.core import document
from routing.core.errors import Refusal
from routing.core.usage import UsageFields, estimate, estimate_document, texts_in
from routing.protocols.base import read_envelope
from routing.protocols.openai import ChunkStream

text = st.text(st.characters(codec="utf-8"), max_size=20)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(text, values, max_size=6), st.sampled_from([None, 1]), st.booleans())
def test_members_are_found_wherever_they_stand(value: dict[str, object], indent: int | None, ascii: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii).encode()
    found = {member.name: json.loads(body[member.start : member.end]) for member in document.members(body)}
    assert found == value


@given(st.dictionaries(text, values, max_size=5), text)
def test_a_replaced_member_changes_nothing_else(value: dict[str, object], name: str) -> None:
    value["model"] = {"x": [1, '"]}']}
    body = json.dumps(value, indent=2).encode()
    changed = document.replace_member(body, "model", document.as_json(name))
    assert json.loads(changed) == {**value, "model": name}


@given(st.dictionaries(text, values, max_size=4))
def test_insert_and_remove(value: dict[str, object]) -> None:
    value.pop("new", None)
    body = json.dumps(value).encode()
    longer = document.insert_member(body, "new", b"[1]")
    assert json.loads(longer) == {"new": [1], **value}
    assert json.loads(document.remove_member(longer, "new")) == value


def test_a_second_model_is_seen_even_when_its_name_is_escaped() -> None:
    body = rb'{"model":"a","messages":[{"model":"no"}],"\u006dodel":"b"}'
    assert len(document.occurrences(body, "model")) == 2


@pytest.mark.parametrize("inner", [{"role": "user"}, [[1], "x"], {"a": {"b": []}}, "text", {}])
@pytest.mark.parametrize("count", [1, 63, 64, 65, 255, 256, 257, 1000])
def test_a_second_model_is_seen_behind_any_number_of_values(inner: object, count: int) -> None:
    for value in ([inner] * count, [[inner] * count, inner], {"x": [inner] * count}):
        body = b'{"model": "a", "messages": %s, "model": "b"}' % json.dumps(value).encode()
        assert [json.loads(body[each.start : each.end]) for each in document.members(body)] == ["a", value, "b"]


@given(st.dictionaries(text, values, max_size=5), st.integers(0, 200))
@settings(deadline=None)
def test_what_is_no_json_is_no_reason_to_fail(value: dict[str, object], length: int) -> None:
    cut = json.dumps(value).encode()[:length]
    assert document.replace_member(cut, "no such member", b"1") == cut


EVENT_ENDS = ["\n\n", "\r\n\r\n", "\r\r"]


@given(
    st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=8), min_size=1, max_size=6),
    st.sampled_from(EVENT_ENDS),
    st.lists(st.integers(1, 9), max_size=40),
)
@example(["a", "b"], "\r\r", [1] * 30)
def test_events_come_out_whole_however_the_bytes_arrive(texts: list[str], end: str, cuts: list[int]) -> None:
    stream = "".join(f"data: {text}{end}" for text in texts).encode()
    splitter = EventSplitter()
    events: list[bytes] = []
    rest = stream
    for size in [*cuts, len(stream)]:
        events += splitter.feed(rest[:size])
        rest = rest[size:]
    assert b"".join(events) + splitter.rest == stream
    whole = events + ([bytes(splitter.rest)] if splitter.rest else [])
    assert [data_of(event).decode() for event in whole] == texts


def test_a_long_event_is_searched_once() -> None:
    """Quadratic, these 12 MB take ten seconds, in which no other stream moves."""
    piece = b"a" * 4096
    splitter = EventSplitter()
    began = time.process_time()
    assert not any(splitter.feed(piece) for _ in range(3000))
    assert splitter.feed(b"\n\n") == [piece * 3000 + b"\n\n"]
    assert time.process_time() - began < 3


def test_data_of_several_lines_and_of_a_comment() -> None:
    assert data_of(b"event: x\ndata: one\ndata:two\n\n") == b"one\ntwo"
    assert data_of(b": keep-alive\n\n") == b""


# --- reading requests ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b"[1]", "invalid_json"),
        (b'"model"', "invalid_json"),
        (b"\xff\xfe", "invalid_json"),
        (b"[" * 100_000, "invalid_json"),
        (b'{"a":' * 100_000, "invalid_json"),
        (b'{"model":"a","messages":"\xe9"}', "invalid_json"),
        (b'{"model":"a","temperature":1e999}', "invalid_json"),
        (b"{}", "model_required"),
        (b'{"model":null}', "model_required"),
        (b'{"model":7}', "model_required"),
        (b'{"model":"  "}', "model_required"),
        (b'{"model":["a"]}', "model_required"),
    ],
)
def test_bad_bodies_are_refused_in_words(body: bytes, code: str) -> None:
    with pytest.raises(Refusal) as refused:
        read_envelope(body)
    assert (refused.value.status, refused.value.code) == (400, code)


def test_a_number_out_of_range_is_not_called_a_wrong_type() -> None:
    with pytest.raises(Refusal, match="out of range"):
        read_envelope(b'{"model":"a","temperature":1e999}')


@given(st.binary(max_size=60))
def test_no_bytes_make_the_reader_fail_otherwise(body: bytes) -> None:
    with contextlib.suppress(Refusal):
        read_envelope(body)


# --- streams and usage -----------------------------------------------------------------------------------------------


def chunk(**values: object) -> bytes:
    return b"data: " + json.dumps(values).encode() + b"\n\n"


def test_done_alone_does_not_make_a_stream_whole() -> None:
    reader = ChunkStream(hide_usage=True)
    assert reader.take(chunk(choices=[{"delta": {"content": '"finish_reason": "stop"'}, "finish_reason": None}]))
    assert reader.take(b"data: [DONE]\n\n") == b""
    assert [reader.whole] == [False]
    reader.take(chunk(choices=[{"delta": {}, "finish_reason": "stop"}]))
    assert [reader.whole] == [True]
    assert reader.end() == b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    ("data", "failed"),
    [
        (b'{"error":{"message":"boom"}}', True),
        (b'{  "error" : "boom"}', True),
        (b'{"id":"x","error":{"message":"boom"},"usage":{"prompt_tokens":1}}', True),
        (b'{"object":"error","message":"boom"}', True),
        (b'{"error":null,"choices":[{"delta":{"content":"error"}}]}', False),
        (b'{"choices":[{"delta":{"content":"{\\"error\\":1}"}}]}', False),
        (b'{"error":\xff}', False),
    ],
)
def test_an_error_in_a_stream_is_known_wherever_it_stands(data: bytes, failed: bool) -> None:
    reader = ChunkStream(hide_usage=True)
    reader.take(b"data: " + data + b"\n\n")
    assert reader.failed is failed


_PARTS = (
    b'{"choices":[{"delta":{"content":"x"},"finish_reason":null}]}', b'{"choices":[{"finish_reason" : "stop"}]}',
    b'{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}', b'{"error":{"message":"boom"}}', b"[DONE]",
    b'{"choices":[{"delta":{"content":"\\"error\\" \\"usage\\""}}]}', b"", b"{", b"\xff",
)  # fmt: skip


@given(
    lines=st.lists(st.tuples(st.sampled_from([b"data: ", b"data:", b": ", b"id: "]), st.sampled_from(_PARTS))),
    hide=st.booleans(),
    rename=st.sampled_from([None, "alias"]),
)
def test_the_short_way_of_an_event_of_one_line_comes_to_the_same(
    lines: list[tuple[bytes, bytes]], hide: bool, rename: str | None
) -> None:
    usual, short = (ChunkStream(hide_usage=hide, rename=rename) for _ in range(2))
    for line in lines:
        event = b"".join(line) + b"\n\n"
        assert usual.take(event) == short.take_line(event)
    for name in ("whole", "failed", "tokens", "deltas"):
        assert getattr(usual, name) == getattr(short, name)
    assert usual.end() == short.end()


def test_only_the_usage_event_that_we_asked_for_is_taken_out() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7}
    for hide in (True, False):
        reader = ChunkStream(hide_usage=hide)
        event = chunk(choices=[], usage=usage)
        assert reader.take(event) == (b"" if hide else event)
        with_text = chunk(choices=[{"delta": {"content": "x"}}], usage=usage)
        assert reader.take(with_text) == with_text
        assert reader.tokens is not None
        assert (reader.tokens.prompt, reader.tokens.completion) == (3, 4)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"prompt_tokens": 2, "completion_tokens": 3}, (2, 3)),
        ({"input_tokens": 2, "output_tokens": 3}, (2, 3)),
        ({"prompt_tokens": 5, "total_tokens": 5}, (5, 0)),
        ({"total_tokens": 9, "completion_tokens": 4}, (5, 4)),
        ({}, None),
    ],
)
def test_usage_in_every_dialect(fields: dict[str, int], expected: tuple[int, int] | None) -> None:
    tokens = UsageFields(**fields).tokens()
    assert (tokens and (tokens.prompt, tokens.completion)) == expected


def test_estimates_are_near_what_vocabularies_say() -> None:
    english = "The quick brown fox jumps over the lazy dog. " * 10  # 101 tokens in cl100k
    japanese = "今日は天気がいいので散歩に行きましょう。" * 10  # about 170 tokens in cl100k
    assert 75 <= estimate([english]) <= 130
    assert 120 <= estimate([japanese]) <= 220


@pytest.mark.parametrize("escaped", [False, True])
def test_a_long_document_is_estimated_like_its_texts(escaped: bool) -> None:
    said = [
        "a river runs " * 30_000,
        "天気はどうですか" * 9000,
        "data:image/png;base64," + "QUJD" * 10_000,
        'say "hi"\\',
    ] * 2
    messages = [{"role": "user", "content": text} for text in said]
    document = json.dumps({"model": "m", "messages": messages}, ensure_ascii=escaped).encode()
    assert estimate_document(document) == pytest.approx(estimate(texts_in(messages)), rel=0.6)
    few = json.dumps({"messages": messages[3:4]}).encode()
    assert estimate_document(few) == pytest.approx(estimate(texts_in(messages[3:4])), abs=2)


def test_half_a_million_tiny_messages_are_not_read_to_be_counted() -> None:
    document = b'{"messages": [%b]}' % b",".join([b'{"role": "user", "content": "hello there"}'] * 500_000)
    assert estimate_document(document) == pytest.approx(500_000 * 4, rel=0.2)


def test_texts_are_found_in_every_form_of_a_prompt() -> None:
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "look"}, {"type": "image_url"}]},
        {"role": "assistant", "content": "yes"},
    ]
    assert list(texts_in({"messages": messages})) == ["look", "yes"]
    assert list(texts_in({"input": ["a", "b"]})) == ["a", "b"]
    assert list(texts_in({"input": [1, 2]})) == []


@given(
    st.lists(st.sampled_from([b'"model"', b'"MoDel"', b'"', b" ", b'"m"', b"model", b'\\"', b"x" * 300]), max_size=120),
    st.booleans(),
)
def test_how_often_a_word_stands_in_a_body(pieces: list[bytes], long: bool) -> None:
    body = b" ".join(pieces) + b" " * (document.SHORT_BYTES if long else 0)
    assert min(document.mentions(body, b'"model"'), 2) == min(body.count(b'"model"'), 2)
    assert document.is_mentioned(body, b'"model"') == (b'"model"' in body)
    assert min(document.mentions(body, b'"model"', any_case=True), 2) == min(body.lower().count(b'"model"'), 2)
