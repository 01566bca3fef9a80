"""Passing a request on as it came: what every API needs of that. Only a model behind an alias is written into it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from llmlb_site.lib.sse import data_of
from routing.core import document
from routing.core.usage import NOT_TOLD, Tokens, UsageFields, counts_in
from routing.protocols.base import Answer, Call


class _Counted(msgspec.Struct):
    usage: msgspec.Raw = NOT_TOLD


class _Told(msgspec.Struct):
    error: Any = None
    object: Any = None


_told: Final = msgspec.json.Decoder(_Told)
_usage: Final = msgspec.json.Decoder(UsageFields)
_counted: Final = msgspec.json.Decoder(_Counted)


def read_usage(raw: msgspec.Raw) -> Tokens | None:
    """The tokens in a `usage` member, as it stands in the answer; None where it says nothing that we know."""
    known = counts_in(raw, _usage)
    return known.tokens() if known is not None else None


def usage_in(data: bytes) -> Tokens | None:
    """The tokens in the `usage` member of a JSON object, such as an event's data."""
    try:
        return read_usage(_counted.decode(data).usage)
    except msgspec.DecodeError:
        return None


def tells_error(data: bytes) -> bool:
    """Whether an event's data is an error that the node tells in the middle of its answer."""
    if b'"error"' not in data:
        return False
    try:
        told = _told.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return bool(told.error) or told.object == "error"


def marks_end(data: bytes) -> bool:
    """Whether the node of a chat stream will tell a `finish_reason`, by the data of the first event.

    It stands in every piece of an answer, as null until the last, unless the node knows none. What is no piece of an
    answer says nothing about that.
    """
    return b'"finish_reason"' in data or (b'"delta"' not in data and b'"text"' not in data)


class PassedStream:
    """Events that are no text, passed on as they come. Whole once one `is_last`; that one has the usage."""

    __slots__ = ("_is_last", "deltas", "failed", "tokens", "whole")

    def __init__(self, is_last: Callable[[bytes], bool]) -> None:
        self._is_last = is_last
        self.whole = False
        self.failed = False
        self.tokens: Tokens | None = None
        self.deltas = 0  # without usage nothing is known

    @property
    def over(self) -> bool:
        """See `TellsEnd`."""
        return self.whole

    def take(self, event: bytes) -> bytes:
        data = data_of(event)
        if self._is_last(data):
            self.whole = True
            self.tokens = usage_in(data)
        self.failed = self.failed or tells_error(data)
        return event

    def end(self) -> bytes:
        return b""


def renamed(call: Call) -> bytes:
    """The client's own bytes, with the model that is meant where it used an alias."""
    if not call.renamed:
        return call.body
    return document.replace_member(call.body, "model", document.as_json(call.model))


def restoring(call: Call, read: Callable[[bytes], Answer]) -> Callable[[bytes], Answer]:
    """Reads an answer in which the model has the name again that the client used."""
    if not call.renamed:
        return read
    name = document.as_json(call.asked_model)

    def read_and_restore(body: bytes) -> Answer:
        answer = read(body)
        return replace(answer, body=document.replace_member(body, "model", name))

    return read_and_restore
