"""A chat stream as Anthropic's event stream, one event of the node at a time. Pure.

https://docs.anthropic.com/en/docs/build-with-claude/streaming: message_start, ping, then for each content block
start, deltas and stop, one block after the other, then message_delta and message_stop.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from llmlb_site.lib.sse import DONE, data_of
from llmlb_site.lib.upstream.faults import BrokenFault, MalformedFault
from routing.core.usage import Tokens
from routing.protocols.anthropic_answer import (
    ChatUsage,
    Choice,
    Frame,
    Function,
    ToolCall,
    arguments_text,
    opening,
    read_completion,
    stop_of,
    tool_id,
    usage_of,
)
from routing.protocols.passing import marks_end


def written(name: str, **fields: Any) -> bytes:
    """One event as Anthropic writes it: named, with its name in the data too."""
    return b"event: %b\ndata: %b\n\n" % (name.encode("ascii"), msgspec.json.encode({"type": name, **fields}))


PING: Final = written("ping")


class MessageStream:
    """Whole as a `ChunkStream` is. What closes the message waits for the end of the stream."""

    __slots__ = (
        "_call", "_frame", "_has_mark", "_kind", "_last", "_number", "_started", "_usage",
        "deltas", "failed", "over", "tokens",
    )  # fmt: skip

    def __init__(self, frame: Frame) -> None:
        self._frame = frame
        self._started = False
        # The content block that is open: its kind ("" for none), its number, and of a tool call its index and id.
        self._kind = ""
        self._number = -1
        self._call: tuple[int, str] = (-1, "")
        self._last: tuple[str, str | None] | None = None
        self._usage: ChatUsage | None = None
        self._has_mark = False
        self.failed = False
        self.over = False  # see `TellsEnd`
        self.tokens: Tokens | None = None
        self.deltas = 0

    @property
    def whole(self) -> bool:
        return self._last is not None

    def take(self, event: bytes) -> bytes:
        """See `StreamReader.take`. Raises: NodeFault, for what is no chat stream, and where the node tells an error."""
        data = data_of(event)
        if not data:  # a comment: servers send them to keep the connection alive
            return PING if self._started else b""
        if data == DONE:
            if not self.whole and self.deltas and not self._has_mark:
                self._last = stop_of(Choice(), self._call != (-1, ""), self._frame.stops)
            self.over = self.whole
            return b""
        if not self.deltas:
            self._has_mark = marks_end(data)
        chunk = read_completion(data)
        if chunk.error is not None:
            self.failed = True
            raise BrokenFault("the node told an error in the stream")
        usage = chunk.counted()
        if usage is not None:
            self._usage = usage
            self.tokens = usage.tokens() or self.tokens
        return b"".join([*self._start(), *(piece for choice in chunk.choices[:1] for piece in self._choice(choice))])

    def end(self) -> bytes:
        assert self._last is not None
        reason, sequence = self._last
        tokens = self.tokens or Tokens(self._frame.prompt(), self.deltas, "estimated")
        delta = {"stop_reason": reason, "stop_sequence": sequence}
        closing = written("message_delta", delta=delta, usage=usage_of(tokens, self._usage))
        return b"".join([*self._close(), closing, written("message_stop")])

    def _start(self) -> list[bytes]:
        if self._started:
            return []
        self._started = True
        # The node counts at the end; message_delta then says what is true.
        usage = usage_of(Tokens(self._frame.prompt(), 0), None)
        return [written("message_start", message=opening(self._frame.model) | {"usage": usage}), PING]

    def _choice(self, choice: Choice) -> list[bytes]:
        said = choice.delta or choice.message
        out: list[bytes] = []
        if said is not None:
            out += self._thinking(said.thought())
            out += self._text(said.text())
            for call in said.tool_calls or ():
                out += self._tool(call)
        if choice.finish_reason:
            self._last = stop_of(choice, self._call != (-1, ""), self._frame.stops)
        return out

    def _thinking(self, thought: str) -> list[bytes]:
        if not thought:
            return []
        self.deltas += 1
        if not self._frame.thinking:
            return []
        out = self._open("thinking", {"thinking": "", "signature": ""})
        return [*out, self._delta("thinking_delta", thinking=thought)]

    def _text(self, text: str) -> list[bytes]:
        if not text:
            return []
        self.deltas += 1
        return [*self._open("text", {"text": ""}), self._delta("text_delta", text=text)]

    def _tool(self, call: ToolCall) -> list[bytes]:
        """A new index, or a new id, begins a new call; blocks follow one another, so an earlier one cannot go on."""
        function = call.function or Function()
        index = self._call[0]
        out: list[bytes] = []
        if self._begins_call(call, function):
            if not function.name:
                raise MalformedFault("a tool call begins without a name")
            self._call = (call.index if call.index is not None else index + 1, call.id or "")
            block = {"id": tool_id(call.id), "name": function.name, "input": {}}
            out = [*self._close(), *self._open("tool_use", block)]
        elif self._kind != "tool_use" or (call.index is not None and call.index != index):
            raise MalformedFault("a tool call goes on after the next block has begun")
        piece = arguments_text(function.arguments)
        if piece:
            self.deltas += 1
            out.append(self._delta("input_json_delta", partial_json=piece))
        return out

    def _begins_call(self, call: ToolCall, function: Function) -> bool:
        index, identity = self._call
        if call.id and call.id != identity and function.name:
            return True
        return call.index is not None and call.index > index

    # --- blocks -------------------------------------------------------------------------------------------------------

    def _open(self, kind: str, fields: dict[str, Any]) -> list[bytes]:
        """Begin a block, unless one of the kind is open."""
        if self._kind == kind:
            return []
        out = self._close()
        self._kind = kind
        self._number += 1
        return [*out, written("content_block_start", index=self._number, content_block={"type": kind, **fields})]

    def _delta(self, kind: str, **fields: str) -> bytes:
        return written("content_block_delta", index=self._number, delta={"type": kind, **fields})

    def _close(self) -> list[bytes]:
        if not self._kind:
            return []
        self._kind = ""
        return [written("content_block_stop", index=self._number)]
