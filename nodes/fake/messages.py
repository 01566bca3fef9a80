"""Anthropic's Messages API as a fake node that speaks it answers: text, or the message that it was given to say."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from nodes.fake.answers import Answer
from nodes.fake.saying import cut

Json = dict[str, Any]
PATHS = frozenset({"/v1/messages", "/v1/messages/count_tokens"})


class MessagesAnswer(Answer):
    """The same answer as in a chat, in Anthropic's shape."""

    def document(self, *, finished: bool = True) -> Json:
        if self.asked.path.endswith("/count_tokens"):
            return {"input_tokens": self.usage["prompt_tokens"]}
        end = {"stop_reason": self._stop_reason if finished else None, "stop_sequence": None}
        return {**self._opening, "content": self._blocks, **end, "usage": self._counts}

    def events(self) -> Iterator[bytes]:
        message = {**self._opening, "content": [], "stop_reason": None, "stop_sequence": None}
        yield _event("message_start", message={**message, "usage": {**self._counts, "output_tokens": 1}})
        for number, block in enumerate(self._blocks):
            yield _event("content_block_start", index=number, content_block={**block, **_emptied(block)})
            if number == 0:
                yield _event("ping")
            for delta in _deltas(block):
                yield _event("content_block_delta", index=number, delta=delta)
            yield _event("content_block_stop", index=number)

    def tail(self, *, finished: bool = True) -> bytes:
        if not finished:
            return b""
        delta = {"stop_reason": self._stop_reason, "stop_sequence": None}
        usage = {"output_tokens": self.count}
        return _event("message_delta", delta=delta, usage=usage) + _event("message_stop")

    @property
    def _opening(self) -> Json:
        return {"id": f"msg_fake_{self.name}", "type": "message", "role": "assistant", "model": self.asked.model}

    @property
    def _counts(self) -> Json:
        return {"input_tokens": self.usage["prompt_tokens"], "output_tokens": self.count}

    @property
    def _blocks(self) -> list[Json]:
        text = "".join(self.token(number) for number in range(self.count))
        says = self.says or {"content": text}
        blocks: list[Json] = []
        if says.get("reasoning_content"):
            blocks.append({"type": "thinking", "thinking": says["reasoning_content"], "signature": "sig"})
        if says.get("content"):
            blocks.append({"type": "text", "text": says["content"]})
        for call in says.get("tool_calls") or ():
            function = call["function"]
            given = json.loads(function["arguments"])
            blocks.append({"type": "tool_use", "id": call["id"], "name": function["name"], "input": given})
        return blocks

    @property
    def _stop_reason(self) -> str:
        return {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}[self.finish_reason]


def _emptied(block: Json) -> Json:
    return {name: "" for name in ("text", "thinking", "signature") if name in block} | (
        {"input": {}} if "input" in block else {}
    )


def _deltas(block: Json) -> Iterator[Json]:
    if block["type"] == "tool_use":
        yield from ({"type": "input_json_delta", "partial_json": piece} for piece in cut(json.dumps(block["input"])))
    else:
        kind = block["type"]
        yield from ({"type": f"{kind}_delta", kind: piece} for piece in cut(block[kind]))


def _event(name: str, **fields: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **fields})}\n\n".encode()
