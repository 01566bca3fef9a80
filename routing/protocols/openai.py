"""OpenAI's chat completions and completions.

https://platform.openai.com/docs/api-reference, and SPEC-63acef08, SPEC-0f1de549 for the ranges.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

import msgspec

from llmlb_site.lib.sse import DONE, data_of
from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core import document
from routing.core.table import NodeEntry
from routing.core.usage import Tokens, UsageFields, texts_in
from routing.protocols.base import ANSWERS, OPENAI, Answer, Api, Call, Envelope, Plan, Range, envelope_reader
from routing.protocols.passing import marks_end, read_usage, renamed, restoring, tells_error
from routing.protocols.vision import inspect_chat

INFINITY: Final = float("inf")
_SAMPLING: Final = {
    "temperature": Range(0, 2),
    "top_p": Range(0, 1),
    "n": Range(ANSWERS.start, ANSWERS.stop - 1, integer=True),
    "presence_penalty": Range(-2, 2),
    "frequency_penalty": Range(-2, 2),
    "max_tokens": Range(1, INFINITY, integer=True),
}
_CHAT: Final = {
    **_SAMPLING,
    "top_logprobs": Range(0, 20, integer=True),
    "max_completion_tokens": Range(1, INFINITY, integer=True),
}

_BEST_OF: Final = range(1, 21)
# Inside a JSON string a quote is escaped, so these never match text that a model wrote.
_FINISHED: Final = re.compile(rb'"finish_reason"\s*:\s*"')
_USAGE: Final = re.compile(rb'"usage"\s*:\s*\{')


class CompletionsEnvelope(Envelope):
    """What concerns the gateway of a request for completions."""

    prompt: msgspec.Raw = msgspec.Raw(b"")
    best_of: Any = None

    @property
    def answers(self) -> int:
        """One for each prompt, and those of which the best is chosen."""
        each = max(super().answers, self.best_of if type(self.best_of) is int and self.best_of in _BEST_OF else 1)
        prompts = bytes(self.prompt)
        if not prompts.startswith(b"["):
            return each
        return each * max(1, prompts.count(b'"') // 2 + prompts.count(b"[") - 1)  # texts, or lists of tokens; or more


class _Choices(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: msgspec.Raw = msgspec.Raw(b"null")


class _Counted(msgspec.Struct):
    choices: list[msgspec.Raw]
    usage: UsageFields


class _Chunk(msgspec.Struct):
    choices: list[msgspec.Raw] = []
    usage: msgspec.Raw = msgspec.Raw(b"null")


_choices: Final = msgspec.json.Decoder(_Choices)
_counted: Final = msgspec.json.Decoder(_Counted)
_chunk: Final = msgspec.json.Decoder(_Chunk)


class ChunkStream:
    """An event stream of chat or text completions: whole once a `finish_reason` came.

    `[DONE]` is held back until then, because a node that crashed may still send it (llama-cpp-python does). Of a node
    that knows no `finish_reason`, not even as null, it is the only mark, and believed. The usage event that only the
    gateway asked for is taken out.
    """

    __slots__ = ("_done", "_has_mark", "_hide_usage", "_rename", "deltas", "failed", "tokens", "whole")

    def __init__(self, *, hide_usage: bool = False, rename: str | None = None) -> None:
        self._hide_usage = hide_usage
        self._rename = rename
        self._done = b""
        self._has_mark = False
        self.whole = False
        self.failed = False
        self.tokens: Tokens | None = None
        self.deltas = 0

    @property
    def over(self) -> bool:
        """See `TellsEnd`."""
        return self.whole and bool(self._done)

    def take_line(self, event: bytes) -> bytes:
        # `rfind`: of CPython's ways to look for a few bytes, it takes half the time.
        if (
            event.startswith(b"data: {")
            and event.rfind(b'"usage"') < 0
            and event.rfind(b'"error"') < 0
            and self._rename is None
            and self.deltas
        ):  # most events are such: a piece of the answer after its first, to be passed on and counted
            if not self.whole and _FINISHED.search(event):
                self.whole = True
            self.deltas += 1
            return event
        return self.take(event)

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if data == DONE:
            self._done = event
            self.whole = self.whole or (self.deltas > 0 and not self._has_mark and not self.failed)
            return b""
        if not data:
            return event
        if not self.deltas:
            self._has_mark = marks_end(data)
        if self._rename is not None and data.startswith(b"{"):
            data = document.replace_member(data, "model", document.as_json(self._rename))
            event = b"data: " + data + b"\n\n"
        if not self.whole and _FINISHED.search(data):
            self.whole = True
        self.failed = self.failed or tells_error(data)
        if _USAGE.search(data):
            return self._take_usage(event, data)
        self.deltas += 1
        return event

    def end(self) -> bytes:
        return self._done

    def _take_usage(self, event: bytes, data: bytes) -> bytes:
        try:
            chunk = _chunk.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return event
        self.tokens = read_usage(chunk.usage) or self.tokens
        return b"" if self._hide_usage and not chunk.choices else event


def _read_choices(body: bytes) -> Answer:
    try:
        counted = _counted.decode(body)  # the usual case
        return Answer(body, counted.usage.tokens(), partial(_texts_of_choices, counted.choices))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _read_uncounted(body)


def _read_uncounted(body: bytes) -> Answer:
    """An answer whose usage is missing, or says nothing that we know."""
    try:
        answer = _choices.decode(body)
    except (msgspec.DecodeError, RecursionError):
        raise MalformedFault("the answer is not a completion") from None
    return Answer(body, read_usage(answer.usage), partial(_texts_of_choices, answer.choices))


def _texts_of_choices(choices: list[msgspec.Raw]) -> Sequence[str]:
    texts: list[str] = []
    for raw in choices:
        choice: Any = msgspec.json.decode(raw)
        if isinstance(choice, dict):
            texts += texts_in(choice.get("text"))
            texts += texts_in(choice.get("message"))
    return texts


def _prompt_texts(body: bytes) -> Sequence[str]:
    return list(texts_in(msgspec.json.decode(body)))


def _plan_choices(call: Call, node: NodeEntry) -> Plan:
    """The client's own bytes, but for the model behind an alias, and a usage count where a stream has none."""
    if call.model == call.asked_model and call.envelope.stream is not True:  # nothing is to be changed
        return Plan(call.path, call.body, _read_choices, ChunkStream)
    body = renamed(call)
    hide_usage = call.streaming and not call.wants_usage_chunk
    if hide_usage:
        body = _with_usage(body, call.envelope.stream_options)
    return Plan(
        path=call.path,
        body=body,
        read_answer=restoring(call, _read_choices),
        open_stream=partial(ChunkStream, hide_usage=hide_usage, rename=call.asked_model if call.renamed else None),
    )


def _with_usage(body: bytes, options: Any) -> bytes:
    if options is not None:
        return document.replace_member(body, "stream_options", document.as_json({**options, "include_usage": True}))
    if b"stream_options" in body:  # null says nothing, but a second member of that name would be one too many
        body = document.remove_member(body, "stream_options")
    return document.insert_member(body, "stream_options", b'{"include_usage":true}')


CHAT: Final = Api(
    kind="chat",
    path="/v1/chat/completions",
    capability="text",
    ranges=_CHAT,
    plan=_plan_choices,
    prompt_texts=_prompt_texts,
    dialect=OPENAI,
    inspect=inspect_chat,
)
COMPLETIONS: Final = Api(
    kind="completion",
    path="/v1/completions",
    capability="text",
    ranges=_SAMPLING,
    plan=_plan_choices,
    prompt_texts=_prompt_texts,
    dialect=OPENAI,
    read_envelope=envelope_reader(CompletionsEnvelope),
)
APIS: Final = {api.path: api for api in (CHAT, COMPLETIONS)}
