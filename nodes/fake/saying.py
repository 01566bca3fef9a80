"""A given assistant's message of a chat, whole or cut into the pieces that a stream has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

Json = dict[str, Any]
PIECE: Final = 5


def finish_reason(message: Json) -> str:
    return "tool_calls" if message.get("tool_calls") else "stop"


def deltas(message: Json) -> Iterator[Json]:
    """What it thinks, what it says, then the calls one after the other: the order of real servers."""
    for name in ("reasoning_content", "reasoning", "content"):
        yield from ({name: piece} for piece in cut(message.get(name) or ""))
    for index, call in enumerate(message.get("tool_calls") or ()):
        function = call["function"]
        begin = {"index": index, "id": call["id"], "type": "function"}
        yield {"tool_calls": [{**begin, "function": {"name": function["name"], "arguments": ""}}]}
        for piece in cut(function["arguments"]):
            yield {"tool_calls": [{"index": index, "function": {"arguments": piece}}]}


def cut(text: str) -> list[str]:
    return [text[start : start + PIECE] for start in range(0, len(text), PIECE)]
