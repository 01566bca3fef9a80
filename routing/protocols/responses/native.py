"""Answers and streams of nodes that serve the API themselves: passed on untouched, and followed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec

from llmlb_site.lib.sse import DONE, data_of
from llmlb_site.lib.upstream.faults import MalformedFault
from routing.core import document
from routing.core.errors import Refusal
from routing.core.usage import Tokens, texts_in
from routing.protocols.base import Answer
from routing.protocols.passing import read_usage
from routing.protocols.responses import shape

_FINAL: Final = frozenset({"response.completed", "response.incomplete", "response.failed", "response.cancelled"})
_FAILED: Final = frozenset({"response.failed", "error"})
_NULL: Final = msgspec.Raw(b"null")


class _Response(msgspec.Struct):
    id: str
    output: list[msgspec.Raw]
    usage: msgspec.Raw = _NULL


class _Event(msgspec.Struct):
    type: str = ""
    sequence_number: int | None = None
    response: msgspec.Raw = _NULL


class _State(msgspec.Struct):
    id: str = ""
    usage: msgspec.Raw = _NULL


_response: Final = msgspec.json.Decoder(_Response)
_event: Final = msgspec.json.Decoder(_Event)
_state: Final = msgspec.json.Decoder(_State)

Made = Callable[[str], None]


def read_response(body: bytes, made: Made) -> Answer:
    """`made` is told the response's id. Raises: MalformedFault."""
    try:
        response = _response.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedFault("the answer is not a response") from None
    made(response.id)
    return Answer(body, read_usage(response.usage), lambda: _texts_of(response.output))


def read_object(body: bytes) -> Answer:
    """Any answer about a response that exists already. Raises: MalformedFault."""
    try:
        msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedFault("the answer is not a JSON object") from None
    return Answer(body, None, tuple)


class NativeStream:
    """`StreamReader` over a node's own events: whole once its final state came."""

    __slots__ = ("_created", "_made", "_number", "_rename", "deltas", "failed", "tokens", "whole")

    def __init__(self, *, made: Made, rename: str | None = None) -> None:
        self._made = made
        self._rename = rename
        self._created = _NULL
        self._number = -1
        self.whole = False
        self.failed = False
        self.tokens: Tokens | None = None
        self.deltas = 0

    @property
    def over(self) -> bool:
        """See `TellsEnd`."""
        return self.whole

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if not data or data == DONE:
            return event
        try:
            told = _event.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return event
        self._number = told.sequence_number if told.sequence_number is not None else self._number + 1
        self.failed = self.failed or told.type in _FAILED
        if told.response != _NULL:
            self._take_state(told)
            return self._renamed(event, data, told)
        if told.type.endswith(".delta"):
            self.deltas += 1
        return event

    def end(self) -> bytes:
        return b""

    def broken(self, refusal: Refusal) -> bytes:
        """Told in place of the end to a client that is in the middle of it."""
        number, error = self._number + 1, shape.failure(refusal.message)
        created = msgspec.json.decode(self._created)
        if not isinstance(created, dict):
            return shape.event("error", number, code=refusal.code, message=refusal.message, param=None)
        response = {**created, "status": shape.FAILED, "error": error}
        return shape.event("response.failed", number, response=response)

    def _take_state(self, told: _Event) -> None:
        try:
            state = _state.decode(told.response)
        except (msgspec.DecodeError, RecursionError):
            return
        if self._created == _NULL:
            self._created = told.response.copy()
            self._made(state.id)
        if told.type in _FINAL:
            self.whole = True
            self.tokens = read_usage(state.usage)

    def _renamed(self, event: bytes, data: bytes, told: _Event) -> bytes:
        """The event, with the model in its response named as the client did."""
        if self._rename is None:
            return event
        response = document.replace_member(bytes(told.response), "model", document.as_json(self._rename))
        if told.type == "response.created":
            self._created = msgspec.Raw(response)
        data = document.replace_member(data, "response", response)
        return b"event: " + told.type.encode() + b"\ndata: " + data + b"\n\n"


def _texts_of(output: list[msgspec.Raw]) -> Sequence[str]:
    texts: list[str] = []
    for raw in output:
        item: Any = msgspec.json.decode(raw)
        texts += texts_in(item)
        if isinstance(item, dict):
            texts += texts_in(item.get("arguments"))
    return texts
