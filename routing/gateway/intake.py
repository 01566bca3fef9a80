"""Step 2: the body, read with a cap, and the few things in it that concern us."""

from __future__ import annotations

import re
from typing import Final

from routing.core import document
from routing.core.errors import Refusal, body_invalid, body_too_large, media_type_wrong, parameter_invalid
from routing.core.table import Principal
from routing.gateway.exchange import Exchange, Message, Receive
from routing.protocols.base import Api, Call

# How much of a refused body is still read (and thrown away), so that the client, which is still sending, gets to
# read the refusal instead of a reset connection.
COURTESY_BYTES: Final = 64 * 1024 * 1024
_MODEL: Final = b'"model"'
# The same name with some of its letters escaped, which is as good to a JSON reader.
_ANY_MODEL: Final = re.compile(rb'"(?:m|\\u006[dD])(?:o|\\u006[fF])(?:d|\\u0064)(?:e|\\u0065)(?:l|\\u006[cC])"')


class ClientGone(Exception):
    """The client hung up before anything was done for it."""


async def read_body(exchange: Exchange, limit: int) -> bytes:
    """The whole body.

    Raises: Refusal (413; 400 for a Content-Length that is no number), ClientGone.
    """
    declared = exchange.headers.get(b"content-length", b"0")
    if not declared.isdigit() or int(declared) > limit:
        await refuse_declared(exchange, limit)
    message = await exchange.receive()
    if message["type"] == "http.disconnect":
        raise ClientGone
    if message.get("more_body", False):
        return await _read_pieces(exchange, message, limit)
    body: bytes = message.get("body", b"")
    if len(body) > limit:
        raise body_too_large(limit)
    return body


async def _read_pieces(exchange: Exchange, message: Message, limit: int) -> bytes:
    """The body of which `message` is the first piece."""
    pieces: list[bytes] = []
    size = 0
    while True:
        piece: bytes = message.get("body", b"")
        more = message.get("more_body", False)
        size += len(piece)
        if size > limit:
            if more:
                await discard(exchange.receive, COURTESY_BYTES)
            raise body_too_large(limit)
        pieces.append(piece)
        if not more:
            return b"".join(pieces)
        message = await exchange.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone


async def refuse_declared(exchange: Exchange, limit: int, *, around: int = 0) -> None:
    """Raises: Refusal (413), where the client itself says that it sends too much; 400, if it says no number.

    `around`: bytes that may come on top of the limit.
    """
    declared = _declared_length(exchange.headers)
    if declared > limit + around:
        if exchange.headers.get(b"expect", b"").lower() != b"100-continue":
            await discard(exchange.receive, min(declared, limit + COURTESY_BYTES))
        raise body_too_large(limit)


def understand(exchange: Exchange, api: Api, principal: Principal) -> Call:
    """What is asked of which model. Raises: Refusal (400; 415 for a form where JSON is wanted)."""
    body = exchange.body
    try:
        envelope = api.read_envelope(body)
    except Refusal:
        if exchange.headers.get(b"content-type", b"").startswith(b"multipart/"):
            raise media_type_wrong(exchange.path, "application/json") from None
        raise
    strict = bool(principal.allowed_models) or principal.limits is not None
    # Nearly always: it stands there once, and nothing is escaped that might be another.
    if document.mentions(body, _MODEL, any_case=strict) != 1 or (b"\\" in body and body.rfind(b"\\u00") >= 0):
        _refuse_second_model(body)
        if strict:
            _refuse_other_spellings(body)
    return Call(exchange.path, body, envelope, envelope.model, envelope.model)


def _refuse_second_model(body: bytes) -> None:
    """Of two `model` members we would check one, and the node might use the other."""
    if document.mentions(body, _MODEL) == 1 and (
        b"\\" not in body or body.rfind(b"\\u006") < 0 or len(_ANY_MODEL.findall(body)) == 1
    ):
        return
    if len(document.occurrences(body, "model")) > 1:
        raise parameter_invalid("model", "'model' is given more than once.", code="duplicate_parameter")


def _refuse_other_spellings(body: bytes) -> None:
    """Servers written in Go, such as Ollama, read `Model` as `model`: nobody gets round the limits of a key so."""
    if sum(member.name.lower() == "model" for member in document.members(body)) > 1:
        raise parameter_invalid("model", "'model' is given in more than one spelling.", code="duplicate_parameter")


def _declared_length(headers: dict[bytes, bytes]) -> int:
    raw = headers.get(b"content-length", b"0")
    if not raw.isdigit():
        raise body_invalid("Content-Length is not a number.")
    return int(raw)


async def discard(receive: Receive, limit: int) -> None:
    """Read what still comes, up to `limit` bytes of it. Not to be called once the body has ended."""
    seen = 0
    while seen < limit:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        seen += len(message.get("body", b""))
        if not message.get("more_body", False):
            return
