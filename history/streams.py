"""A recorded event stream, read as the answer that it amounts to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

Event = dict[str, Any]


def is_stream(body: bytes) -> bool:
    """Whether a body is server-sent events."""
    return body.lstrip()[:6].startswith((b"data:", b"event:"))


def assembled(body: bytes) -> dict[str, Any]:
    """The whole answer of a stream: how many events, the text put together, why it ended, its usage."""
    events = list(_events(body))
    answer: dict[str, Any] = {"events": len(events), "model": _last(events, "model")}
    answer["content"] = "".join(_text(event) for event in events)
    if reasoning := "".join(_choice_text(event, "reasoning_content") for event in events):
        answer["reasoning_content"] = reasoning
    if calls := [call for event in events for call in _tool_calls(event)]:
        answer["tool_calls"] = calls
    answer["finish_reason"] = next((reason for event in reversed(events) if (reason := _finish(event))), None)
    answer["usage"] = _last(events, "usage")
    if error := _last(events, "error"):
        answer["error"] = error
    return answer


def said(answer: Any) -> str:
    """The text of an answer, put together from a stream or whole; empty where there is none."""
    if not isinstance(answer, dict):
        return ""
    whole = answer.get("content")
    if isinstance(whole, str):
        return whole
    texts = [choice.get("text") or _content(choice.get("message")) for choice in _choices(answer)]
    return "\n\n".join(text for text in texts if isinstance(text, str) and text)


def _content(message: Any) -> Any:
    return message.get("content") if isinstance(message, dict) else None


def _events(body: bytes) -> Iterator[Event]:
    for line in body.splitlines():
        if not line.startswith(b"data:"):
            continue
        try:
            event = msgspec.json.decode(line[5:])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):  # `[DONE]`, or cut in the middle
            continue
        if isinstance(event, dict):
            yield event


def _text(event: Event) -> str:
    delta = event.get("delta")
    if isinstance(delta, str):  # Responses: response.output_text.delta
        return delta
    if isinstance(delta, dict):  # Anthropic: content_block_delta
        return str(delta.get("text") or "")
    return _choice_text(event, "content")


def _choice_text(event: Event, name: str) -> str:
    parts = []
    for choice in _choices(event):
        piece = choice.get("delta", {}).get(name) if isinstance(choice.get("delta"), dict) else None
        parts.append(piece if piece is not None else choice.get("text") if name == "content" else None)
    return "".join(part for part in parts if isinstance(part, str))


def _tool_calls(event: Event) -> Iterator[Any]:
    for choice in _choices(event):
        delta = choice.get("delta")
        if isinstance(delta, dict) and isinstance(delta.get("tool_calls"), list):
            yield from delta["tool_calls"]


def _finish(event: Event) -> Any:
    delta = event.get("delta")
    if isinstance(delta, dict) and delta.get("stop_reason"):
        return delta["stop_reason"]
    return next((choice["finish_reason"] for choice in _choices(event) if choice.get("finish_reason")), None)


def _choices(event: Event) -> list[Event]:
    choices = event.get("choices")
    return [choice for choice in choices if isinstance(choice, dict)] if isinstance(choices, list) else []


def _last(events: list[Event], name: str) -> Any:
    return next((event[name] for event in reversed(events) if event.get(name)), None)
