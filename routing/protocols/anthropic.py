"""Anthropic's Messages API: passed through to nodes that speak it, translated to chat for all others.

https://docs.anthropic.com/en/api/messages, /en/api/messages-count-tokens and /en/api/errors.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import msgspec

from routing.core import document
from routing.core.errors import Refusal, body_invalid
from routing.core.table import NodeEntry
from routing.core.usage import Tokens, estimate
from routing.protocols import base
from routing.protocols.anthropic_answer import Frame, to_message
from routing.protocols.anthropic_blocks import check_turns, invalid
from routing.protocols.anthropic_native import NativeStream, read_count, read_message
from routing.protocols.anthropic_request import chat_request, texts_read, wants_thinking
from routing.protocols.anthropic_stream import MessageStream
from routing.protocols.base import Answer, Api, Call, Dialect, Envelope, Plan, Range
from routing.protocols.passing import renamed, restoring
from routing.protocols.vision import inspect_messages

MESSAGES_PATH: Final = "/v1/messages"
COUNT_PATH: Final = "/v1/messages/count_tokens"
CHAT_PATH: Final = "/v1/chat/completions"
TRANSLATED: Final = ((b"x-llmlb-translated", b"chat_completions"),)
ESTIMATED: Final = ((b"x-llmlb-token-count", b"estimated"),)
# Anthropic's own status for "overloaded", beside HTTP's.
OVERLOADED: Final = 529
_TYPES: Final = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    OVERLOADED: "overloaded_error",
}
_INFINITY: Final = float("inf")
_RANGES: Final = {
    "max_tokens": Range(1, _INFINITY, integer=True),
    "temperature": Range(0, 1),
    "top_p": Range(0, 1),
    "top_k": Range(0, _INFINITY, integer=True),
}


class MessagesEnvelope(Envelope):
    """What of a Messages request concerns the gateway."""

    messages: Any = None
    top_k: Any = None
    stop_sequences: Any = None


_decoder: Final = msgspec.json.Decoder(MessagesEnvelope)
_object: Final = msgspec.json.Decoder(dict[str, Any])


def read_envelope(body: bytes) -> Envelope:
    """As `base.read_envelope`, with the members of this API. Raises: Refusal (400)."""
    base.read_envelope(body)
    return _decoder.decode(body)


# --- errors -----------------------------------------------------------------------------------------------------------


def error_type(status: int) -> str:
    """The name that Anthropic has for errors of this status."""
    return _TYPES.get(status, "api_error" if status >= 500 else "invalid_request_error")


def _error(status: int, message: str, code: str = "", extra: Mapping[str, Any] | None = None) -> bytes:
    error: dict[str, Any] = {"type": error_type(status), "message": message, **(extra or {})}
    if code:
        error["details"] = {"error_code": code}
    return msgspec.json.encode({"type": "error", "error": error})


def _status(refusal: Refusal) -> int:
    """A full queue is no client's rate limit: it is what Anthropic calls overloaded."""
    return OVERLOADED if refusal.code == "queue_full" else refusal.status


def _answer(refusal: Refusal) -> tuple[int, bytes]:
    status = _status(refusal)
    return status, _error(status, refusal.message, refusal.code, refusal.extra)


def _restate(status: int, body: bytes) -> bytes:
    """A node's own error, in Anthropic's shape if it is not already."""
    answered = _object.decode(body)
    error = answered.get("error", answered)
    if answered.get("type") == "error" and isinstance(error, dict) and isinstance(error.get("message"), str):
        return body
    message = error.get("message") or error.get("detail") if isinstance(error, dict) else error
    return _error(status, message if isinstance(message, str) else f"The node answered {status}.")


def _tell_limit(of: str, allowed: int, left: int, reset: int) -> tuple[tuple[bytes, bytes], ...]:
    """As Anthropic's own API: the reset is a point in time (RFC 3339), in whole seconds."""
    moment = datetime.fromtimestamp(math.ceil(time.time() + reset / 1000), UTC)
    name = f"anthropic-ratelimit-{of}-".encode()
    return (
        (name + b"limit", b"%d" % allowed),
        (name + b"remaining", b"%d" % left),
        (name + b"reset", f"{moment:%Y-%m-%dT%H:%M:%SZ}".encode()),
    )


ANTHROPIC: Final = Dialect(
    answer=_answer,
    event=lambda refusal: b"event: error\ndata: " + _answer(refusal)[1] + b"\n\n",
    restate=_restate,
    request_id=b"request-id",
    tell_limit=_tell_limit,
)


# --- what is certainly wrong ------------------------------------------------------------------------------------------


def _check_headers(headers: Mapping[bytes, bytes]) -> None:
    if not headers.get(b"anthropic-version", b"").strip():
        raise Refusal(400, "header_missing", "anthropic-version: header is required", param="anthropic-version")


def _check_messages(envelope: Envelope) -> None:
    assert isinstance(envelope, MessagesEnvelope)
    if not isinstance(envelope.messages, list):
        raise invalid("messages", "Field required" if envelope.messages is None else "Input should be a list")
    if not envelope.messages:
        raise invalid("messages", "at least one message is required")
    check_turns(envelope.messages)


def _check(envelope: Envelope) -> None:
    assert isinstance(envelope, MessagesEnvelope)
    if envelope.max_tokens is None:
        raise invalid("max_tokens", "Field required")
    _check_messages(envelope)
    stops = envelope.stop_sequences
    if stops is not None and not (isinstance(stops, list) and all(isinstance(stop, str) for stop in stops)):
        raise invalid("stop_sequences", "Input should be a list of strings")


# --- how nodes are asked ----------------------------------------------------------------------------------------------


def _plan(call: Call, node: NodeEntry) -> Plan:
    if MESSAGES_PATH not in node.speaks:
        return _translation(call)
    return Plan(
        path=MESSAGES_PATH,
        body=renamed(call),
        read_answer=restoring(call, read_message),
        open_stream=lambda: NativeStream(rename=call.asked_model if call.renamed else None),
        otherwise=lambda: _translation(call),
    )


def _translation(call: Call) -> Plan:
    request = _read(call.body)
    frame = Frame(
        model=call.asked_model,
        thinking=wants_thinking(request),
        stops=tuple(request.get("stop_sequences") or ()),
        prompt=cache(lambda: _prompt_tokens(request)),
    )
    return Plan(
        path=CHAT_PATH,
        body=_chat_body(request, call.model),
        read_answer=lambda body: to_message(body, frame),
        open_stream=lambda: MessageStream(frame),
        notes=TRANSLATED,
    )


def _chat_body(request: dict[str, Any], model: str) -> bytes:
    try:
        return document.as_json(chat_request(request, model))
    except RecursionError:
        raise body_invalid("The request body is nested too deeply.") from None


def _prompt_tokens(request: dict[str, Any]) -> int:
    try:
        return estimate(texts_read(request))
    except RecursionError:  # at the very limit of what could be decoded
        return 0


def _plan_count(call: Call, node: NodeEntry) -> Plan:
    if COUNT_PATH not in node.speaks:
        return _estimate(call)
    return Plan(
        path=COUNT_PATH,
        body=renamed(call),
        read_answer=read_count,
        open_stream=NativeStream,
        otherwise=lambda: _estimate(call),
    )


def _estimate(call: Call) -> Plan:
    """A count that no node was asked for, to within a quarter or so. Pictures are not in it."""
    counted = {"input_tokens": max(1, _prompt_tokens(_read(call.body)))}
    ready = Answer(document.as_json(counted), Tokens(0, 0), tuple)
    return Plan(COUNT_PATH, b"", read_count, NativeStream, ready=ready, notes=ESTIMATED)


def _count_here(call: Call, nodes: Sequence[NodeEntry]) -> Plan | None:
    """An estimate waits for no node, and is the same each time: it is one unless every node of the model can count."""
    return None if nodes and all(COUNT_PATH in node.speaks for node in nodes) else _estimate(call)


def _prompt_texts(body: bytes) -> Sequence[str]:
    try:
        return list(texts_read(_read(body)))
    except (Refusal, RecursionError):
        return ()


def _read(body: bytes) -> dict[str, Any]:
    """All of the request. Raises: Refusal (400), for a fault deep inside that the envelope did not show."""
    try:
        return _object.decode(body)
    except RecursionError:
        raise body_invalid("The request body is nested too deeply.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise body_invalid(f"The request body is not valid JSON: {error}.") from None


MESSAGES: Final = Api(
    kind="messages",
    path=MESSAGES_PATH,
    capability="text",
    ranges=_RANGES,
    plan=_plan,
    prompt_texts=_prompt_texts,
    dialect=ANTHROPIC,
    read_envelope=read_envelope,
    check_headers=_check_headers,
    check=_check,
    inspect=inspect_messages,
)
COUNT_TOKENS: Final = Api(
    kind="count_tokens",
    path=COUNT_PATH,
    capability="text",
    ranges={},
    plan=_plan_count,
    prompt_texts=_prompt_texts,
    dialect=ANTHROPIC,
    read_envelope=read_envelope,
    check_headers=_check_headers,
    check=_check_messages,
    infers=False,
    answer_here=_count_here,
)

APIS: Final = {api.path: api for api in (MESSAGES, COUNT_TOKENS)}
