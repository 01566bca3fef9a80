"""A chat stream as the events of a response, each numbered, each item opened before and closed after its pieces."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from llmlb_site.lib.sse import DONE, data_of
from routing.core.errors import Refusal
from routing.core.usage import Tokens
from routing.protocols.passing import marks_end
from routing.protocols.responses import shape
from routing.protocols.responses.answer import arguments_of, logprobs_in, objects_in, reasoning_in
from routing.protocols.responses.shape import Document, Head

# The terminal event of the Open Responses specification; OpenAI's SDKs know it from chat.
END: Final = b"data: [DONE]\n\n"


@dataclass(slots=True)
class _Item:
    """One output item that is being gathered: of text (said, refused or thought), or a call."""

    kind: str
    id: str
    index: int
    text: list[str] = field(default_factory=list)
    logprobs: list[Any] = field(default_factory=list)
    call_id: str = ""
    name: str = ""
    status: str = shape.IN_PROGRESS

    @property
    def whole_text(self) -> str:
        return "".join(self.text)

    def part(self, text: str) -> Document:
        """The only content part of the item, with so much of its text."""
        if self.kind == "refusal":
            return shape.refusal_part(text)
        if self.kind == "reasoning":
            return shape.reasoning_part(text)
        return shape.text_part(text, self.logprobs if text else ())

    def document(self) -> Document:
        """The item as it stands: without content while it is in progress."""
        begun = self.status == shape.IN_PROGRESS
        if self.kind == "call":
            return shape.call_item(self.id, self.status, self.call_id, self.name, "" if begun else self.whole_text)
        content = [] if begun else [self.part(self.whole_text)]
        make = shape.reasoning_item if self.kind == "reasoning" else shape.message_item
        return make(self.id, self.status, content)


_PREFIXES: Final = {"message": "msg", "refusal": "msg", "reasoning": "rs", "call": "fc"}
# The events of a piece of text: its delta, its end, and the member that holds it there.
_TEXT_EVENTS: Final = {
    "message": ("response.output_text", "text"),
    "refusal": ("response.refusal", "refusal"),
    "reasoning": ("response.reasoning_text", "text"),
}


class TranslatedStream:
    """`StreamReader` over the chunks of a chat completion. See `protocols.base.StreamReader`."""

    def __init__(self, request: Mapping[str, Any], model: str) -> None:
        self.whole = False
        self.failed = False
        self.tokens: Tokens | None = None
        self.deltas = 0
        self._head = Head.of(request, model)
        self._next_number = 0
        self._items: list[_Item] = []
        self._open_text: _Item | None = None
        self._calls: list[_Item] = []
        self._call_at: dict[int, _Item] = {}
        self._finish_reason: str | None = None
        self._usage: Document | None = None
        self._ended = False
        self._has_mark = False

    @property
    def over(self) -> bool:
        """See `TellsEnd`."""
        return self._ended

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data:
            return b""
        if data == DONE:
            self.whole = self.whole or (self.deltas > 0 and not self._has_mark and not self.failed)
            return self.end() if self.whole else b""
        if not self.deltas:
            self._has_mark = marks_end(data)
        chunk = _read_chunk(data)
        if chunk is None or "error" in chunk:
            self.failed = True
            return b""
        out = self._begin()
        self._take_usage(chunk.get("usage"))
        for choice in objects_in(chunk.get("choices")):
            if not choice.get("index"):
                out += self._take_choice(choice)
        return b"".join(out)

    def end(self) -> bytes:
        """The final state of the response, once."""
        if self._ended:
            return b""
        self._ended = True
        status, reason = shape.status_of(self._finish_reason)
        output = [item.document() for item in self._items]
        response = self._head.in_state(status, output, usage=self._usage, reason=reason)
        return b"".join((*self._begin(), self._event(f"response.{status}", response=response), END))

    def broken(self, refusal: Refusal) -> bytes:
        """Told in place of the end to a client that is in the middle of it."""
        for item in self._items:
            if item.status == shape.IN_PROGRESS:
                item.status = shape.INCOMPLETE
        output = [item.document() for item in self._items]
        response = self._head.in_state(shape.FAILED, output, error=shape.failure(refusal.message))
        return self._event("response.failed", response=response)

    # --- pieces ---------------------------------------------------------------------------------------------------

    def _begin(self) -> list[bytes]:
        if self._next_number:
            return []
        response = self._head.in_state(shape.IN_PROGRESS)
        return [self._event(f"response.{state}", response=response) for state in ("created", "in_progress")]

    def _take_usage(self, usage: Any) -> None:
        known = shape.usage_of(usage)
        if known is not None:
            self._usage = known
            self.tokens = shape.tokens_of(usage)

    def _take_choice(self, choice: Document) -> list[bytes]:
        out: list[bytes] = []
        delta = choice.get("delta")
        if isinstance(delta, dict):
            out += self._take_delta(delta, choice.get("logprobs"))
        if isinstance(choice.get("finish_reason"), str) and not self.whole:
            self.whole = True
            self._finish_reason = choice["finish_reason"]
            out += self._close_all()
        return out

    def _take_delta(self, delta: Document, logprobs: Any) -> list[bytes]:
        out: list[bytes] = []
        for kind, text in (("reasoning", reasoning_in(delta)), ("message", delta.get("content")), _refusal(delta)):
            if isinstance(text, str) and text:
                self.deltas += 1
                out += self._add_text(kind, text, logprobs_in(logprobs) if kind == "message" else ())
        for call in objects_in(delta.get("tool_calls")):
            self.deltas += 1
            out += self._add_call(call)
        return out

    def _add_text(self, kind: str, text: str, logprobs: Any) -> list[bytes]:
        out: list[bytes] = []
        item = self._open_text
        if item is None or item.kind != kind:
            out += self._close_text(shape.COMPLETED)
            item = self._open_text = self._new_item(kind)
            out.append(self._opened(item))
            out.append(self._part_event("added", item, ""))
        item.text.append(text)
        item.logprobs += logprobs
        extra = {"logprobs": list(logprobs)} if kind == "message" else {}
        out.append(self._in_part(f"{_TEXT_EVENTS[kind][0]}.delta", item, delta=text, **extra))
        return out

    def _add_call(self, call: Document) -> list[bytes]:
        function = call.get("function")
        function = function if isinstance(function, dict) else {}
        out: list[bytes] = []
        item = self._call_of(call)
        if item is None:
            out += self._close_text(shape.COMPLETED)
            item = self._new_item("call")
            item.call_id = str(call.get("id") or shape.new_id("call"))
            item.name = str(function.get("name") or "")
            self._calls.append(item)
            self._call_at[_index_of(call, len(self._calls))] = item
            out.append(self._opened(item))
        arguments = arguments_of(function)
        if arguments:
            item.text.append(arguments)
            out.append(self._in_item("response.function_call_arguments.delta", item, delta=arguments))
        return out

    def _call_of(self, call: Document) -> _Item | None:
        """The call that this is a piece of; None where it begins another (some servers give all of them index 0)."""
        call_id = call.get("id")
        known = self._call_at.get(_index_of(call, -1))
        if known is None and not call_id and self._calls:
            return self._calls[-1]
        return None if known is not None and call_id and call_id != known.call_id else known

    # --- items ----------------------------------------------------------------------------------------------------

    def _new_item(self, kind: str) -> _Item:
        item = _Item(kind, shape.new_id(_PREFIXES[kind]), len(self._items))
        self._items.append(item)
        return item

    def _opened(self, item: _Item) -> bytes:
        return self._event("response.output_item.added", output_index=item.index, item=item.document())

    def _close_text(self, status: str) -> list[bytes]:
        item, self._open_text = self._open_text, None
        if item is None:
            return []
        name, member = _TEXT_EVENTS[item.kind]
        extra = {"logprobs": item.logprobs} if item.kind == "message" else {}
        return [
            self._in_part(f"{name}.done", item, **{member: item.whole_text}, **extra),
            self._part_event("done", item, item.whole_text),
            self._closed(item, status),
        ]

    def _close_all(self) -> list[bytes]:
        """Calls stay open until here: their pieces may come interleaved."""
        status, _reason = shape.status_of(self._finish_reason)
        out: list[bytes] = []
        if not self._items:  # nothing was said: that is an empty message
            out += self._add_text("message", "", ())
        out += self._close_text(status)
        for item in self._calls:
            done = "response.function_call_arguments.done"
            out.append(self._in_item(done, item, name=item.name, arguments=item.whole_text))
            out.append(self._closed(item, status))
        return out

    def _closed(self, item: _Item, status: str) -> bytes:
        item.status = status
        return self._event("response.output_item.done", output_index=item.index, item=item.document())

    # --- events ---------------------------------------------------------------------------------------------------

    def _part_event(self, what: str, item: _Item, text: str) -> bytes:
        return self._in_part(f"response.content_part.{what}", item, part=item.part(text))

    def _in_part(self, type: str, item: _Item, **fields: Any) -> bytes:
        return self._in_item(type, item, content_index=0, **fields)

    def _in_item(self, type: str, item: _Item, **fields: Any) -> bytes:
        return self._event(type, item_id=item.id, output_index=item.index, **fields)

    def _event(self, type: str, **fields: Any) -> bytes:
        number = self._next_number
        self._next_number += 1
        return shape.event(type, number, **fields)


def _read_chunk(data: bytes) -> Document | None:
    try:
        chunk = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return chunk if isinstance(chunk, dict) else None


def _refusal(delta: Document) -> tuple[str, Any]:
    return "refusal", delta.get("refusal")


def _index_of(call: Document, default: int) -> int:
    index = call.get("index")
    return index if type(index) is int and index >= 0 else default
