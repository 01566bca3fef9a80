"""What a node tells of its tokens that cannot be: it counts for nothing, and never costs the answer. No gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from routing.core.usage import MOST_TOKENS, Tokens, estimate
from routing.protocols.anthropic_answer import Frame, to_message
from routing.protocols.anthropic_native import NativeStream as NativeMessages
from routing.protocols.anthropic_native import read_message
from routing.protocols.anthropic_stream import MessageStream
from routing.protocols.audio import TranscriptStream
from routing.protocols.base import Answer, StreamReader
from routing.protocols.embeddings import read_vectors
from routing.protocols.images import _read_images
from routing.protocols.openai import ChunkStream, _read_choices
from routing.protocols.providers import anthropic, google_answers
from routing.protocols.rerank import _read_ranked
from routing.protocols.responses.answer import read_completion
from routing.protocols.responses.native import NativeStream as NativeResponse
from routing.protocols.responses.native import read_response
from routing.protocols.responses.stream import TranslatedStream

FRAME = Frame(model="m", thinking=False, stops=(), prompt=lambda: 7)
CHAT = {"choices": [{"message": {"content": "said"}, "delta": {"content": "said"}, "finish_reason": "stop"}]}
MESSAGE = {"type": "message", "content": [{"type": "text", "text": "said"}]}
FINAL = {"type": "response.completed"}

Usage = dict[str, Any]


def answered(read: Callable[[bytes], Answer], **document: Any) -> Tokens | None:
    answer = read(json.dumps(document).encode())
    assert json.loads(answer.body)
    return answer.tokens


def streamed(reader: StreamReader, *events: Usage) -> Tokens | None:
    out = b"".join([reader.take(b"data: %b\n\n" % json.dumps(event).encode()) for event in events])
    assert reader.whole
    assert not reader.failed
    assert out + reader.end()
    return reader.tokens


def messages(usage: Usage) -> list[Usage]:
    """A stream of Anthropic's: what went in is told at its start, what came out at its end."""
    first = {name: count for name, count in usage.items() if name != "output_tokens"} | {"output_tokens": 1}
    last = {"output_tokens": usage["output_tokens"]}
    return [
        {"type": "message_start", "message": {"content": [], "usage": first}},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "said"}},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": last},
        {"type": "message_stop"},
    ]


def google(usage: Usage) -> Usage:
    return {"candidates": [{"content": {"parts": [{"text": "said"}]}, "finishReason": "STOP"}], "usageMetadata": usage}


OPENAI = ("prompt_tokens", "completion_tokens")
NEWER = ("input_tokens", "output_tokens")
GOOGLE = ("promptTokenCount", "candidatesTokenCount")
READERS: dict[str, tuple[tuple[str, str], Callable[[Usage], Tokens | None]]] = {
    "chat": (OPENAI, lambda usage: answered(_read_choices, **CHAT, usage=usage)),
    "chat, streamed": (OPENAI, lambda usage: streamed(ChunkStream(), CHAT, {"choices": [], "usage": usage})),
    "embeddings": (OPENAI, lambda usage: answered(lambda body: read_vectors(body, ""), data=[], usage=usage)),
    "rerank": (OPENAI, lambda usage: answered(_read_ranked, results=[], usage=usage)),
    "rerank of Cohere": (NEWER, lambda usage: answered(_read_ranked, results=[], meta={"tokens": usage})),
    "images": (NEWER, lambda usage: answered(_read_images, data=[], usage=usage)),
    "a transcript, streamed": (
        NEWER,
        lambda usage: streamed(TranscriptStream(), {"type": "transcript.text.done", "text": "said", "usage": usage}),
    ),
    "a message": (NEWER, lambda usage: answered(read_message, **MESSAGE, usage=usage)),
    "a message, streamed": (NEWER, lambda usage: streamed(NativeMessages(), *messages(usage))),
    "a message out of chat": (
        OPENAI,
        lambda usage: answered(lambda body: to_message(body, FRAME), **CHAT, usage=usage),
    ),
    "a message out of chat, streamed": (
        OPENAI,
        lambda usage: streamed(MessageStream(FRAME), CHAT, {"choices": [], "usage": usage}),
    ),
    "a response": (
        NEWER,
        lambda usage: answered(lambda body: read_response(body, lambda id: None), id="r", output=[], usage=usage),
    ),
    "a response, streamed": (
        NEWER,
        lambda usage: streamed(
            NativeResponse(made=lambda id: None), {**FINAL, "response": {"id": "r", "usage": usage}}
        ),
    ),
    "a response out of chat": (
        OPENAI,
        lambda usage: answered(lambda body: read_completion(body, {}, "m"), **CHAT, usage=usage),
    ),
    "a response out of chat, streamed": (
        OPENAI,
        lambda usage: streamed(TranslatedStream({}, "m"), CHAT, {"choices": [], "usage": usage}),
    ),
    "chat of Anthropic": (
        NEWER,
        lambda usage: answered(lambda body: anthropic.read_answer(body, "m"), **MESSAGE, usage=usage),
    ),
    "chat of Anthropic, streamed": (
        NEWER,
        lambda usage: streamed(anthropic.MessageStream("m", tell_usage=True), *messages(usage)),
    ),
    "chat of Google": (
        GOOGLE,
        lambda usage: answered(lambda body: google_answers.read_answer(body, "m"), **google(usage)),
    ),
    "chat of Google, streamed": (
        GOOGLE,
        lambda usage: streamed(google_answers.ContentStream("m", tell_usage=True), google(usage)),
    ),
}


@pytest.mark.parametrize("api", READERS)
@pytest.mark.parametrize("count", [-1, -(2**70), MOST_TOKENS + 1, 2**53, 2**63, 2**70, 1.5, "12", True, [], {}])
@pytest.mark.parametrize("place", [0, 1])
def test_what_cannot_be_a_count_is_as_good_as_none(api: str, count: Any, place: int) -> None:
    names, tokens_of = READERS[api]
    assert tokens_of({names[place]: count, names[1 - place]: 5}) is None


@pytest.mark.parametrize("api", READERS)
@pytest.mark.parametrize("counts", [(0, 0), (12, 34), (MOST_TOKENS, MOST_TOKENS)])
def test_what_can_be_is_believed(api: str, counts: tuple[int, int]) -> None:
    names, tokens_of = READERS[api]
    assert tokens_of(dict(zip(names, counts, strict=True))) == Tokens(*counts)


def test_no_more_is_told_of_a_cache_than_came_out_of_it() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": -5}}
    answer = to_message(json.dumps({**CHAT, "usage": usage}).encode(), FRAME)
    told = json.loads(answer.body)["usage"]
    assert (told["input_tokens"], told["cache_read_input_tokens"]) == (3, 0)


@pytest.mark.parametrize(("texts", "tokens"), [([], 0), ([""], 0), (["hi"], 1), (["a", "b"], 1), (["good morning"], 3)])
def test_whoever_says_anything_says_a_token(texts: list[str], tokens: int) -> None:
    assert estimate(texts) == tokens
