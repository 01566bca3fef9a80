"""A chat answer as an Anthropic message: content blocks, stop reason, usage. Pure."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core.usage import NOT_TOLD, Tokens, UsageFields, counts_in, estimate
from routing.protocols.base import Answer

Json = dict[str, Any]
_STOPS: Final = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


@dataclass(frozen=True, slots=True)
class Frame:
    """What of the request the form of its answer depends on. `prompt` estimates the prompt's tokens."""

    model: str
    thinking: bool
    stops: tuple[str, ...]
    prompt: Callable[[], int]


class Function(msgspec.Struct):
    """A function that the model calls. Some servers give the arguments as an object instead of its JSON."""

    name: str | None = None
    arguments: Any = None


class ToolCall(msgspec.Struct):
    """A tool call, or a piece of one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Said(msgspec.Struct):
    """An assistant's message, or a piece of one. Servers of reasoning models have two names for what they think."""

    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    refusal: Any = None
    tool_calls: list[ToolCall] | None = None

    def text(self) -> str:
        return text_in(self.content) or text_in(self.refusal)

    def thought(self) -> str:
        return text_in(self.reasoning_content) or text_in(self.reasoning)


class Choice(msgspec.Struct):
    """One choice, whole (`message`) or a piece (`delta`). vLLM and SGLang tell which stop sequence came."""

    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    matched_stop: Any = None


class ChatUsage(UsageFields):
    prompt_tokens_details: Any = None

    @property
    def cached(self) -> int:
        details = self.prompt_tokens_details
        known = details.get("cached_tokens") if isinstance(details, dict) else None
        return max(0, known) if type(known) is int else 0


class Completion(msgspec.Struct):
    """A chat completion, or a chunk of one."""

    choices: list[Choice] = []
    usage: msgspec.Raw = NOT_TOLD
    error: Any = None

    def counted(self) -> ChatUsage | None:
        return counts_in(self.usage, _usage)


_completion: Final = msgspec.json.Decoder(Completion)
_usage: Final = msgspec.json.Decoder(ChatUsage)


def read_completion(data: bytes) -> Completion:
    """Raises: MalformedFault."""
    try:
        return _completion.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedFault("the answer is not a chat completion") from None


def to_message(body: bytes, frame: Frame) -> Answer:
    """The whole answer. Raises: MalformedFault."""
    completion = read_completion(body)
    said = completion.choices[0].message if completion.choices else None
    if said is None:
        raise MalformedFault("the answer is not a chat completion")
    content = _content(said, frame)
    usage = completion.counted()
    tokens = usage.tokens() if usage is not None else None
    texts = [said.thought(), said.text(), *_arguments_of(said)]
    reason, sequence = stop_of(completion.choices[0], bool(said.tool_calls), frame.stops)
    counted = tokens or Tokens(frame.prompt(), estimate(texts), "estimated")
    message = opening(frame.model) | {
        "content": content,
        "stop_reason": reason,
        "stop_sequence": sequence,
        "usage": usage_of(counted, usage),
    }
    return Answer(msgspec.json.encode(message), tokens, lambda: texts)


def opening(model: str) -> Json:
    """A message of which nothing is said yet."""
    return {
        "id": f"msg_{secrets.token_hex(12)}",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
    }


def usage_of(tokens: Tokens, usage: ChatUsage | None) -> Json:
    """Anthropic counts what came out of a cache apart from the rest of the input."""
    cached = min(usage.cached, tokens.prompt) if usage is not None else 0
    return {
        "input_tokens": tokens.prompt - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": tokens.completion,
    }


def stop_of(choice: Choice, called_tools: bool, stops: Sequence[str]) -> tuple[str, str | None]:
    """Why the model stopped, and at which of the client's stop sequences, where the node tells."""
    reason = _STOPS.get(choice.finish_reason or "stop", "end_turn")
    if reason != "end_turn":
        return reason, None
    if called_tools:  # several servers say "stop" all the same
        return "tool_use", None
    for found in (choice.stop_reason, choice.matched_stop):
        if isinstance(found, str) and found in stops:
            return "stop_sequence", found
    return reason, None


def tool_id(given: str | None) -> str:
    return given or f"toolu_{secrets.token_hex(12)}"


def arguments_text(arguments: Any) -> str:
    """A call's arguments, or a piece of them, as JSON text."""
    if isinstance(arguments, str):
        return arguments
    return "" if arguments is None else msgspec.json.encode(arguments).decode()


def text_in(content: Any) -> str:
    """The text of a string, or of a list of parts."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    return "".join(part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str))


def _content(said: Said, frame: Frame) -> list[Json]:
    blocks: list[Json] = []
    if frame.thinking and said.thought():
        blocks.append({"type": "thinking", "thinking": said.thought(), "signature": ""})
    if said.text():
        blocks.append({"type": "text", "text": said.text()})
    return blocks + [_tool_use(call) for call in said.tool_calls or ()]


def _tool_use(call: ToolCall) -> Json:
    function = call.function or Function()
    return {
        "type": "tool_use",
        "id": tool_id(call.id),
        "name": function.name or "",
        "input": _input(arguments_text(function.arguments)),
    }


def _input(arguments: str) -> Json:
    """The arguments as an object; what a model wrote that is none is kept where a person can see it."""
    if not arguments.strip():
        return {}
    try:
        given = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        given = arguments
    return given if isinstance(given, dict) else {"arguments": given}


def _arguments_of(said: Said) -> list[str]:
    return [arguments_text(call.function.arguments) for call in said.tool_calls or () if call.function is not None]
