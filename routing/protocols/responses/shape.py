"""The response object, its items and its events, as the API's clients expect them."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from routing.core.usage import Tokens, UsageFields

Document = dict[str, Any]

COMPLETED: Final = "completed"
INCOMPLETE: Final = "incomplete"
IN_PROGRESS: Final = "in_progress"
FAILED: Final = "failed"

# What a response repeats of its request, and says where the request did not.
_ECHOED: Final[Mapping[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
# Members that these have in an answer, whether or not the request had them.
_FUNCTION: Final = {"type": "function", "description": None, "parameters": None, "strict": None}
_FORMAT: Final = {"type": "json_schema", "description": None, "strict": False}
_INCOMPLETE_REASONS: Final = {"length": "max_output_tokens", "content_filter": "content_filter"}


def new_id(prefix: str) -> str:
    """As unguessable as OpenAI's: `resp_` and 48 hexadecimal digits."""
    return f"{prefix}_{os.urandom(24).hex()}"


@dataclass(frozen=True, slots=True)
class Head:
    """What is the same in every state of one response. `created_at` is Unix time."""

    id: str
    created_at: int
    echo: Mapping[str, Any]

    @classmethod
    def of(cls, request: Mapping[str, Any], model: str) -> Head:
        """Of a response to this request. `model` is the name that the client used."""
        echo = {name: _or_default(request.get(name), default) for name, default in _ECHOED.items()}
        text, reasoning = _mapping(request.get("text")), _mapping(request.get("reasoning"))
        echo["tools"] = [_complete(tool, _FUNCTION) for tool in echo["tools"]]
        echo["text"] = {**text, "format": _complete(text.get("format") or {"type": "text"}, _FORMAT)}
        echo["reasoning"] = {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")}
        return cls(new_id("resp"), int(time.time()), {**echo, "model": model})

    def in_state(
        self,
        status: str,
        output: Sequence[Document] = (),
        *,
        usage: Document | None = None,
        reason: str | None = None,
        error: Document | None = None,
    ) -> Document:
        """The response object. `reason` is why it is incomplete."""
        return {
            "id": self.id,
            "object": "response",
            "created_at": self.created_at,
            "completed_at": int(time.time()) if status == COMPLETED else None,
            "status": status,
            "background": False,
            "error": error,
            "incomplete_details": {"reason": reason} if reason is not None else None,
            **self.echo,
            "output": list(output),
            "previous_response_id": None,
            "service_tier": "default",
            "store": False,  # nothing is kept of a translated response
            "usage": usage,
        }


def status_of(finish_reason: Any) -> tuple[str, str | None]:
    """The status of a response, and why it is incomplete, from the chat's `finish_reason`."""
    reason = _INCOMPLETE_REASONS.get(finish_reason) if isinstance(finish_reason, str) else None
    return (INCOMPLETE, reason) if reason is not None else (COMPLETED, None)


def tokens_of(usage: Any) -> Tokens | None:
    """What chat's `usage` counts; None where the node did not count, or told what cannot be."""
    if not isinstance(usage, dict):
        return None
    try:
        return msgspec.convert(usage, UsageFields).tokens()
    except msgspec.ValidationError:
        return None


def usage_of(usage: Any) -> Document | None:
    """Chat's `usage` in this API's words; None where it counts nothing."""
    tokens = tokens_of(usage)
    if tokens is None:
        return None
    prompt_details = _mapping(usage.get("prompt_tokens_details"))
    completion_details = _mapping(usage.get("completion_tokens_details"))
    return {
        "input_tokens": tokens.prompt,
        "input_tokens_details": {
            "cached_tokens": _count(prompt_details.get("cached_tokens")),
            "cache_write_tokens": _count(prompt_details.get("cache_write_tokens")),
        },
        "output_tokens": tokens.completion,
        "output_tokens_details": {"reasoning_tokens": _count(completion_details.get("reasoning_tokens"))},
        "total_tokens": _count(usage.get("total_tokens")) or tokens.total,
    }


def text_part(text: str, logprobs: Sequence[Any] = ()) -> Document:
    return {"type": "output_text", "annotations": [], "logprobs": list(logprobs), "text": text}


def refusal_part(text: str) -> Document:
    return {"type": "refusal", "refusal": text}


def reasoning_part(text: str) -> Document:
    return {"type": "reasoning_text", "text": text}


def message_item(id: str, status: str, content: Sequence[Document]) -> Document:
    return {"id": id, "type": "message", "status": status, "role": "assistant", "content": list(content)}


def reasoning_item(id: str, status: str, content: Sequence[Document]) -> Document:
    return {"id": id, "type": "reasoning", "status": status, "summary": [], "content": list(content)}


def call_item(id: str, status: str, call_id: str, name: str, arguments: str) -> Document:
    return {
        "id": id,
        "type": "function_call",
        "status": status,
        "call_id": call_id,
        "name": name,
        "arguments": arguments,
    }


def event(type: str, number: int, **fields: Any) -> bytes:
    """One event of a stream. `number` is its place in it."""
    data = msgspec.json.encode({"type": type, "sequence_number": number, **fields})
    return b"event: " + type.encode("ascii") + b"\ndata: " + data + b"\n\n"


def failure(message: str) -> Document:
    """The `error` of a response that failed for no fault of the client's."""
    return {"code": "server_error", "message": message}


def _complete(given: Any, whole: Document) -> Any:
    """What was given, with the members that are missing in its kind."""
    return {**whole, **given} if isinstance(given, dict) and given.get("type") == whole["type"] else given


def _or_default(value: Any, default: Any) -> Any:
    return default if value is None else value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _count(value: Any) -> int:
    return value if type(value) is int and value >= 0 else 0
