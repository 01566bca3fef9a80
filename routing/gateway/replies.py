"""Everything that goes to the client passes here: heads, bodies, errors, and what of them history keeps."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Final
from urllib.parse import quote

from llmlb_site.lib.upstream.base import Headers
from routing.core.errors import Refusal
from routing.gateway import kept
from routing.gateway.exchange import Exchange, HeaderList

# Hop-by-hop (RFC 9110, 7.6.1), what we say ourselves, and what a node has no business to set on our host.
_NOT_FORWARDED: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"server",
        b"date",
        b"content-length",
        b"content-encoding",
        b"x-request-id",
        b"request-id",
        b"set-cookie",
        b"alt-svc",
        b"strict-transport-security",
        b"location",
        b"via",
    }
)
# Of these the gateway alone speaks: what a node says of limits is about the gateway's use of it.
_OURS: Final = (b"x-llmlb-", b"x-ratelimit-", b"anthropic-ratelimit-")


def forwarded(headers: Headers) -> HeaderList:
    """The node's headers that the client may see."""
    hidden = _NOT_FORWARDED
    if b"connection" in dict(headers):
        named = [value.lower() for name, value in headers if name == b"connection"]
        hidden = hidden.union(token.strip() for value in named for token in value.split(b","))
    return [header for header in headers if header[0] not in hidden and not header[0].startswith(_OURS)]


def own_headers(exchange: Exchange) -> HeaderList:
    """What the gateway says about the request."""
    request_id = exchange.request_id.encode("ascii")
    headers = [(b"x-request-id", request_id)]
    if exchange.attempts:
        headers += _attempted(exchange.attempts[-1].node_name, len(exchange.attempts))
    if exchange.queue_headers:
        headers.append((b"x-llmlb-queue-wait-ms", b"%d" % round(exchange.queue_seconds * 1000)))
        headers += _encoded(exchange.queue_headers)
    if exchange.dialect.request_id:
        headers.append((exchange.dialect.request_id, request_id))
    headers += exchange.notes
    headers += exchange.limit_headers
    return headers


@lru_cache(maxsize=4096)
def _attempted(node_name: str, attempts: int) -> HeaderList:
    return [(b"x-llmlb-node", header_text(node_name)), (b"x-llmlb-attempts", b"%d" % attempts)]


async def begin(exchange: Exchange, status: int, headers: HeaderList) -> None:
    await exchange.send({"type": "http.response.start", "status": status, "headers": headers})
    begun(exchange, status)


async def write(exchange: Exchange, data: bytes, *, more: bool) -> None:
    sent(exchange, data)
    await exchange.send({"type": "http.response.body", "body": data, "more_body": more})
    if not more:
        exchange.finished = True


async def answer(exchange: Exchange, status: int, headers: HeaderList, body: bytes) -> None:
    """A whole answer at once."""
    head = [*headers, (b"content-length", b"%d" % len(body)), *own_headers(exchange)]
    data = body if exchange.method != "HEAD" else b""
    if exchange.direct is not None:  # it is in memory, whole: there is nothing to wait for
        exchange.direct.answer(status, head, data)
        begun(exchange, status)
        sent(exchange, data)
        exchange.finished = True
    else:
        await begin(exchange, status, head)
        await write(exchange, data, more=False)


def begun(exchange: Exchange, status: int) -> None:
    """To be called once the server has taken the head: until then, another answer may take its place."""
    exchange.status = status
    exchange.first_byte = time.monotonic()


def sent(exchange: Exchange, data: bytes) -> None:
    """To be called as they are sent: from here on the bytes count as sent, and the history has them."""
    if exchange.bytes_out < exchange.captured_until:
        exchange.captured.append(data)
    else:
        kept.begin_block(exchange, data)
    exchange.bytes_out += len(data)


async def json(exchange: Exchange, body: bytes, status: int = 200) -> None:
    await answer(exchange, status, [(b"content-type", b"application/json")], body)


async def refuse(exchange: Exchange, refusal: Refusal) -> None:
    """A refusal, in the shape that the client's SDK parses."""
    exchange.error_code = refusal.code
    exchange.error_message = refusal.message
    headers = [(b"content-type", b"application/json"), *_encoded(refusal.headers)]
    status, body = exchange.dialect.answer(refusal)
    await answer(exchange, status, headers, body)


@lru_cache(maxsize=256)  # names come again; waits in milliseconds do not, and would only fill a larger one
def header_text(text: str) -> bytes:
    """A header value in ASCII: anything else is percent-encoded as UTF-8 (RFC 8187 has no simpler form)."""
    return quote(text, safe=" !#$&'()*+,-./:;<=>?@[]^_`{|}~").encode("ascii")


def _encoded(headers: Mapping[str, str]) -> HeaderList:
    return [(name.lower().encode("ascii"), header_text(value)) for name, value in headers.items()]
