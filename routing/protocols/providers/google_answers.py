"""What Google's Gemini API answers, whole and streamed, as chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from llmlb_site.lib.sse import data_of
from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core.usage import NOT_TOLD, Count, Tokens, counts_in
from routing.protocols.base import Answer
from routing.protocols.providers import chat

FINISH: Final[chat.FinishReasons] = {
    "MAX_TOKENS": "length",
    "SAFETY": "content_filter",
    "RECITATION": "content_filter",
    "LANGUAGE": "content_filter",
    "BLOCKLIST": "content_filter",
    "PROHIBITED_CONTENT": "content_filter",
    "SPII": "content_filter",
    "IMAGE_SAFETY": "content_filter",
    "IMAGE_PROHIBITED_CONTENT": "content_filter",
    "IMAGE_RECITATION": "content_filter",
}


class FunctionCall(msgspec.Struct):
    name: str
    args: Any = None
    id: str = ""


class Part(msgspec.Struct, rename="camel"):
    text: str | None = None
    thought: bool = False
    function_call: FunctionCall | None = None
    thought_signature: str | None = None


class Content(msgspec.Struct):
    parts: list[Part] = []


class Candidate(msgspec.Struct, rename="camel"):
    content: Content = msgspec.field(default_factory=Content)
    finish_reason: str | None = None
    index: int = 0


class Usage(msgspec.Struct, rename="camel"):
    """Google counts what a model thought apart."""

    prompt_token_count: Count = 0
    tool_use_prompt_token_count: Count = 0
    candidates_token_count: Count = 0
    thoughts_token_count: Count = 0
    cached_content_token_count: Count = 0

    def tokens(self) -> Tokens:
        prompt = self.prompt_token_count + self.tool_use_prompt_token_count
        return Tokens(prompt, self.candidates_token_count + self.thoughts_token_count)

    def document(self) -> dict[str, Any]:
        return chat.usage_document(
            self.tokens(), cached=self.cached_content_token_count, reasoning=self.thoughts_token_count
        )


class Feedback(msgspec.Struct, rename="camel"):
    block_reason: str | None = None


class Generated(msgspec.Struct, rename="camel"):
    candidates: list[Candidate] = []
    prompt_feedback: Feedback | None = None
    usage_metadata: msgspec.Raw = NOT_TOLD
    response_id: str = ""
    error: Any = None

    @property
    def blocked(self) -> str | None:
        return self.prompt_feedback.block_reason if self.prompt_feedback is not None else None


_generated: Final = msgspec.json.Decoder(Generated)
_usage: Final = msgspec.json.Decoder(Usage)


def finish_reason(reason: str | None, *, calls: bool) -> str:
    finish = FINISH.get(reason or "", "stop")
    return "tool_calls" if calls and finish == "stop" else finish


def refusal(block_reason: str) -> str:
    return f"Google blocked the prompt: {block_reason}."


def tool_call(call: FunctionCall, signature: str | None) -> dict[str, Any]:
    """A call of a function; its signature stands where Google's own OpenAI-compatible API puts it."""
    arguments = msgspec.json.encode(call.args if call.args is not None else {}).decode()
    written = chat.tool_call(call.id or chat.new_id(None, "call_"), call.name, arguments)
    if signature:
        written["extra_content"] = {"google": {"thought_signature": signature}}
    return written


def read_answer(body: bytes, model: str) -> Answer:
    """A generated content as a chat completion. Raises: MalformedFault."""
    try:
        generated = _generated.decode(body)
    except chat.UNREADABLE:
        raise MalformedFault("the answer is not a generated content") from None
    if not generated.candidates and generated.blocked is None:
        raise MalformedFault("the answer has neither candidates nor a reason for that")
    said = [_said(candidate) for candidate in generated.candidates]
    choices = [
        one.choice(candidate.index, finish_reason(candidate.finish_reason, calls=bool(one.tool_calls)))
        for one, candidate in zip(said, generated.candidates, strict=True)
    ]
    if not choices:
        choices = [chat.Said(refusal=refusal(generated.blocked or "")).choice(0, "content_filter")]
    usage = counts_in(generated.usage_metadata, _usage)
    id = chat.new_id(generated.response_id, "chatcmpl-")
    document = chat.completion(id, model, choices, usage.document() if usage is not None else None)
    return Answer(document, usage.tokens() if usage is not None else None, lambda: _texts(said))


def _said(candidate: Candidate) -> chat.Said:
    said = chat.Said()
    for part in candidate.content.parts:
        if part.function_call is not None:
            said.tool_calls.append(tool_call(part.function_call, part.thought_signature))
        elif part.text is not None:
            (said.reasoning if part.thought else said.text).append(part.text)
    return said


def _texts(said: list[chat.Said]) -> Sequence[str]:
    return [text for one in said for text in one.text]


class ContentStream:
    """A streamed content as the events of a chat completion; whole once every candidate has a finish reason.

    The finish reason is told at the end: some models repeat it in every event.
    """

    def __init__(self, model: str, *, tell_usage: bool) -> None:
        self._out = chat.ChunkWriter(model)
        self._tell_usage = tell_usage
        self._usage: Usage | None = None
        self._finished: dict[int, str | None] = {}
        self._calls: dict[int, int] = {}
        self._blocked: str | None = None
        self.failed = False
        self.deltas = 0

    @property
    def whole(self) -> bool:
        return self._blocked is not None or (bool(self._finished) and None not in self._finished.values())

    @property
    def tokens(self) -> Tokens | None:
        return self._usage.tokens() if self._usage is not None else None

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return b""
        try:
            generated = _generated.decode(data)
        except chat.UNREADABLE:
            raise MalformedFault("an event of the stream is not what the API promises") from None
        if generated.error is not None:
            self.failed = True
            return b""
        self._usage = counts_in(generated.usage_metadata, _usage) or self._usage
        self._blocked = generated.blocked or self._blocked
        if generated.response_id:
            self._out.id = f"chatcmpl-{generated.response_id}"
        return b"".join([self._candidate(candidate) for candidate in generated.candidates])

    def end(self) -> bytes:
        out = b""
        if self._blocked is not None and not self._finished:
            out += self._out.delta({"role": "assistant", "refusal": refusal(self._blocked)})
            self._finished[0] = "SAFETY"
        for index, reason in sorted(self._finished.items()):
            finish = finish_reason(reason, calls=bool(self._calls.get(index)))
            out += self._out.delta({}, index, finish)
        if self._tell_usage and self._usage is not None:
            out += self._out.usage(self._usage.document())
        return out + chat.DONE_EVENT

    def _candidate(self, candidate: Candidate) -> bytes:
        index = candidate.index
        out = b""
        if index not in self._finished:
            self._finished[index] = None
            out = self._out.delta({"role": "assistant", "content": ""}, index)
        self._finished[index] = candidate.finish_reason or self._finished[index]
        return out + b"".join([self._piece(index, part) for part in candidate.content.parts])

    def _piece(self, index: int, part: Part) -> bytes:
        if part.function_call is not None:
            self.deltas += 1
            number = self._calls.get(index, 0)
            self._calls[index] = number + 1
            call = {"index": number, **tool_call(part.function_call, part.thought_signature)}
            return self._out.delta({"tool_calls": [call]}, index)
        if not part.text:
            return b""
        self.deltas += 1
        return self._out.delta({"reasoning_content" if part.thought else "content": part.text}, index)
