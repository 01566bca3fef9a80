"""Answers of nodes that speak Anthropic's API: passed on as they come, read for usage and wholeness. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import msgspec

from llmlb_site.lib.sse import data_of
from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core import document
from routing.core.usage import NOT_TOLD, Count, Tokens, counts_in
from routing.protocols.base import Answer


class Usage(msgspec.Struct):
    """What came out of a cache, or went into one, is counted apart from the rest of the input."""

    input_tokens: Count | None = None
    output_tokens: Count | None = None
    cache_creation_input_tokens: Count | None = None
    cache_read_input_tokens: Count | None = None

    @property
    def prompt(self) -> int | None:
        if self.input_tokens is None:
            return None
        return self.input_tokens + (self.cache_creation_input_tokens or 0) + (self.cache_read_input_tokens or 0)


class _Message(msgspec.Struct):
    type: str
    content: list[Any]
    usage: msgspec.Raw = NOT_TOLD


class _Started(msgspec.Struct):
    usage: msgspec.Raw = NOT_TOLD


class _Event(msgspec.Struct):
    type: str
    message: _Started | None = None
    usage: msgspec.Raw = NOT_TOLD


class _Count(msgspec.Struct):
    input_tokens: int


_message: Final = msgspec.json.Decoder(_Message)
_event: Final = msgspec.json.Decoder(_Event)
_usage: Final = msgspec.json.Decoder(Usage)
_count: Final = msgspec.json.Decoder(_Count)


class NativeStream:
    """Whole at `message_stop`. An alias is put back into `message_start`; nothing else is changed."""

    __slots__ = ("_completion", "_prompt", "_rename", "deltas", "failed", "whole")

    def __init__(self, *, rename: str | None = None) -> None:
        self._rename = rename
        self._prompt: int | None = None
        self._completion = 0
        self.whole = False
        self.failed = False
        self.deltas = 0

    @property
    def tokens(self) -> Tokens | None:
        return Tokens(self._prompt, self._completion) if self._prompt is not None else None

    @property
    def over(self) -> bool:
        """See `TellsEnd`."""
        return self.whole

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data.startswith(b"{"):
            return event
        try:
            known = _event.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event
        return self._follow(known, event, data)

    def end(self) -> bytes:
        return b""

    def _follow(self, known: _Event, event: bytes, data: bytes) -> bytes:
        if known.type == "content_block_delta":
            self.deltas += 1
        elif known.type == "message_start":
            self._note(known.message.usage if known.message is not None else NOT_TOLD)
            if self._rename is not None:
                return _renamed_start(data, self._rename)
        elif known.type == "message_delta":
            self._note(known.usage)
        elif known.type == "message_stop":
            self.whole = True
        elif known.type == "error":
            self.failed = True
        return event

    def _note(self, said: msgspec.Raw) -> None:
        """Later counts are totals and replace the earlier ones; one that cannot be makes those worthless too."""
        if said == NOT_TOLD:
            return
        usage = counts_in(said, _usage)
        if usage is None:
            self._prompt = None
            return
        self._prompt = usage.prompt if usage.prompt is not None else self._prompt
        self._completion = usage.output_tokens if usage.output_tokens is not None else self._completion


def read_message(body: bytes) -> Answer:
    """Raises: MalformedFault."""
    try:
        message = _message.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedFault("the answer is not a message") from None
    if message.type != "message":
        raise MalformedFault("the answer is not a message")
    usage = counts_in(message.usage, _usage)
    tokens = None
    if usage is not None and usage.prompt is not None:
        tokens = Tokens(usage.prompt, usage.output_tokens or 0)
    return Answer(body, tokens, lambda: _texts(message.content))


def read_count(body: bytes) -> Answer:
    """The answer of `count_tokens`: nothing was computed, so no tokens are booked. Raises: MalformedFault."""
    try:
        _count.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedFault("the answer is not a count of tokens") from None
    return Answer(body, Tokens(0, 0), tuple)


def _renamed_start(data: bytes, model: str) -> bytes:
    for member in document.occurrences(data, "message"):
        inner = document.replace_member(data[member.start : member.end], "model", document.as_json(model))
        data = data[: member.start] + inner + data[member.end :]
    return b"event: message_start\ndata: " + data + b"\n\n"


def _texts(content: list[Any]) -> Sequence[str]:
    blocks = [block for block in content if isinstance(block, dict)]
    return [block[name] for block in blocks for name in ("text", "thinking") if isinstance(block.get(name), str)]
