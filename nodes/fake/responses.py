"""The Responses API as a fake node that serves it answers, and the responses that it keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

from nodes.fake.answers import Answer, Asked
from nodes.fake.behaviour import SeenRequest
from nodes.fake.saying import cut

Json = dict[str, Any]
PATH: Final = "/v1/responses"
PATHS: Final = frozenset({PATH})


class ResponsesAnswer(Answer):
    """The same answer as in a chat, as a response."""

    def document(self, *, finished: bool = True) -> Json:
        status = ("completed" if self.finish_reason != "length" else "incomplete") if finished else "in_progress"
        details = {"reason": "max_output_tokens"} if status == "incomplete" else None
        output = [self._item(status)]
        return {**self._frame_of(status), "incomplete_details": details, "output": output, "usage": self._counts}

    def events(self) -> Iterator[bytes]:
        begun = {**self._frame_of("in_progress"), "output": [], "usage": None}
        yield _event("response.created", 0, response=begun)
        yield _event("response.in_progress", 1, response=begun)
        item = {**self._item("in_progress"), "content": []}
        yield _event("response.output_item.added", 2, output_index=0, item=item)
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        yield _event("response.content_part.added", 3, **self._place, part=part)
        for number, piece in enumerate(self._pieces):
            yield _event("response.output_text.delta", 4 + number, **self._place, delta=piece, logprobs=[])

    def tail(self, *, finished: bool = True) -> bytes:
        if not finished:
            return b""
        number, item = 4 + len(self._pieces), self._item("completed")
        document = self.document()
        return b"".join(
            (
                _event("response.output_text.done", number, **self._place, text=self._text, logprobs=[]),
                _event("response.content_part.done", number + 1, **self._place, part=item["content"][0]),
                _event("response.output_item.done", number + 2, output_index=0, item=item),
                _event(f"response.{document['status']}", number + 3, response=document),
            )
        )

    @property
    def count(self) -> int:
        limit = self.asked.body.get("max_output_tokens")
        return super().count if not isinstance(limit, int) else min(self.chunks, limit)

    @property
    def id(self) -> str:
        return f"resp_{self.name}_{hashlib.sha256(json.dumps(self.asked.body).encode()).hexdigest()[:24]}"

    @property
    def _pieces(self) -> list[str]:
        said = (self.says or {}).get("content")
        return cut(said) if said else [self.token(number) for number in range(self.count)]

    @property
    def _text(self) -> str:
        return "".join(self._pieces)

    @property
    def _place(self) -> Json:
        return {"item_id": f"msg_{self.id}", "output_index": 0, "content_index": 0}

    @property
    def _counts(self) -> Json | None:
        usage = self.usage
        counts = {
            "input_tokens": usage["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": self.count,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": usage["prompt_tokens"] + self.count,
        }
        return counts if self.tells_usage else None

    def _frame_of(self, status: str) -> Json:
        return {
            "id": self.id,
            "object": "response",
            "created_at": 1_700_000_000,
            "status": status,
            "error": None,
            "instructions": self.asked.body.get("instructions"),
            "model": self.asked.model,
            "parallel_tool_calls": True,
            "previous_response_id": self.asked.body.get("previous_response_id"),
            "tool_choice": "auto",
            "tools": self.asked.body.get("tools", []),
            "text": {"format": {"type": "text"}},
            "system_fingerprint": f"fake:{self.name}",
        }

    def _item(self, status: str) -> Json:
        part = {"type": "output_text", "text": self._text, "annotations": [], "logprobs": []}
        return {"id": f"msg_{self.id}", "type": "message", "status": status, "role": "assistant", "content": [part]}


class Kept:
    """The responses that a node has made and not deleted, by id."""

    def __init__(self) -> None:
        self._made: dict[str, Json] = {}
        self._inputs: dict[str, Any] = {}

    def keep(self, answer: ResponsesAnswer) -> None:
        self._made[answer.id] = answer.document()
        self._inputs[answer.id] = answer.asked.body.get("input")

    def missing(self, asked: Asked) -> Json | None:
        """The error, where a request goes on from a response that is not kept: as vLLM says it."""
        earlier = asked.body.get("previous_response_id")
        return None if earlier is None or earlier in self._made else _not_found(earlier)

    def serve(self, request: SeenRequest) -> tuple[int, Json]:
        """Status and body of a request about one of them."""
        response_id, _, act = request.path.removeprefix(f"{PATH}/").partition("/")
        if response_id not in self._made:
            return 404, _not_found(response_id)
        if act == "input_items":
            item = {"type": "message", "role": "user", "content": self._inputs[response_id]}
            return 200, {"object": "list", "data": [item], "has_more": False}
        if act == "cancel":
            self._made[response_id]["status"] = "cancelled"
        elif request.method == "DELETE":
            del self._made[response_id]
            return 200, {"id": response_id, "object": "response", "deleted": True}
        return 200, self._made[response_id]


def _not_found(response_id: str) -> Json:
    message = f"Response with id '{response_id}' not found."
    return {"error": {"message": message, "type": "invalid_request_error", "param": "response_id", "code": 404}}


def _event(kind: str, number: int, **fields: Any) -> bytes:
    data = json.dumps({"type": kind, "sequence_number": number, **fields})
    return f"event: {kind}\ndata: {data}\n\n".encode()
