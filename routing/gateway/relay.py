"""Step 6 of the way: the node's answer to the client, as it comes."""

from __future__ import annotations

import asyncio
from typing import Final

from llmlb_site.lib.sse import EventSplitter, EventTooLong
from llmlb_site.lib.upstream.base import Headers, UpstreamAnswer
from llmlb_site.lib.upstream.faults import BrokenFault, MalformedFault
from routing.core.errors import Refusal
from routing.gateway import replies
from routing.gateway.exchange import Exchange
from routing.protocols.base import Answer, Plan, StreamReader, TellsBreak

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
# Reading more than this takes milliseconds: of thousands of embeddings, a quarter of a second. Others need not wait.
LARGE_BYTES: Final = 1024 * 1024
_OURS_IN_STREAMS: Final = frozenset({b"cache-control", b"x-accel-buffering"})


async def whole_body(answer: UpstreamAnswer) -> bytes:
    """Raises: NodeFault, also for an answer beyond `MAX_ANSWER_BYTES`."""
    chunks = []
    size = 0
    while data := await answer.read():
        chunks.append(data)
        size += len(data)
        if size > MAX_ANSWER_BYTES:
            raise MalformedFault("the answer is too large")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


async def relay(exchange: Exchange, plan: Plan, answer: UpstreamAnswer) -> None:
    """An answer that succeeded, in the way that its kind wants. Raises: NodeFault."""
    if exchange.streaming and is_event_stream(answer.headers):
        await relay_stream(exchange, plan, answer)
    elif plan.opaque:
        await relay_opaque(exchange, answer)
    else:
        await relay_whole(exchange, plan, answer)


async def relay_whole(exchange: Exchange, plan: Plan, answer: UpstreamAnswer) -> None:
    """A JSON answer: read to its end and understood before the first byte is passed on, so that it can be retried.

    Raises: NodeFault, with nothing sent.
    """
    body = await whole_body(answer)
    large = len(body) > LARGE_BYTES
    known = await asyncio.to_thread(plan.read_answer, body) if large else plan.read_answer(body)
    exchange.tokens = known.tokens
    exchange.completion_texts = known.completion_texts
    await replies.answer(exchange, answer.status, replies.forwarded(answer.headers), known.body)


async def answer_ready(exchange: Exchange, known: Answer) -> None:
    """An answer that no node was asked for."""
    exchange.tokens = known.tokens
    exchange.completion_texts = known.completion_texts
    await replies.json(exchange, known.body)


async def relay_opaque(exchange: Exchange, answer: UpstreamAnswer) -> None:
    """Bytes as they come, of whatever kind. Nothing is sent before the first of them.

    Raises: NodeFault. `exchange.first_byte` tells whether the client has seen anything of it.
    """
    media_type = next((value for name, value in answer.headers if name == b"content-type"), b"")
    if media_type.startswith(b"text/html"):
        raise MalformedFault("the answer is a web page")
    while data := await answer.read():
        if exchange.first_byte is None:
            exchange.opaque = True
            exchange.binary = not media_type.startswith((b"text/", b"application/json"))
            await replies.begin(
                exchange, answer.status, [*replies.forwarded(answer.headers), *replies.own_headers(exchange)]
            )
        await replies.write(exchange, data, more=True)
    if exchange.first_byte is None:
        raise BrokenFault("the answer is empty")
    await replies.write(exchange, b"", more=False)


async def relay_stream(exchange: Exchange, plan: Plan, answer: UpstreamAnswer) -> None:
    """An event stream: each event is passed on when it is whole, and at once.

    An event is never passed on in part, so that an error event can always follow. Before the first event nothing is
    sent at all: a node that fails until then is replaced by another.

    Raises: NodeFault. `exchange.first_byte` tells whether the client has seen anything of it.
    """
    reader = plan.open_stream()
    splitter = EventSplitter()
    exchange.tell_break = reader.broken if isinstance(reader, TellsBreak) else None
    try:
        while data := await answer.read():
            await _pass_on(exchange, answer, reader, _split(splitter, data))
        if splitter.rest.strip():
            await _pass_on(exchange, answer, reader, [splitter.rest + b"\n\n"])
    finally:
        exchange.tokens = reader.tokens
        exchange.deltas = reader.deltas
    if not reader.whole:
        raise BrokenFault("the stream ended before the answer did")
    if reader.failed:
        exchange.error_code, exchange.error_message = "node_error", "the node told an error in its answer"
    if exchange.first_byte is None:
        await _begin(exchange, answer)
    await replies.write(exchange, reader.end(), more=False)


async def end_broken_stream(exchange: Exchange, refusal: Refusal) -> None:
    """Tell a client that is in the middle of a stream that there is no more: an error event, and no `[DONE]`."""
    exchange.error_code = refusal.code
    exchange.error_message = refusal.message
    if (
        not exchange.opaque
    ):  # in sound there is no place for words: only a broken connection tells that more was to come
        tell = exchange.tell_break or exchange.dialect.event
        await replies.write(exchange, tell(refusal), more=False)


async def _pass_on(exchange: Exchange, answer: UpstreamAnswer, reader: StreamReader, events: list[bytes]) -> None:
    out = b"".join([reader.take(event) for event in events])
    if reader.failed and exchange.first_byte is None:
        raise BrokenFault("the node told an error in place of an answer")
    if reader.failed:
        out = exchange.without_address(out)
    if not out:
        return
    if exchange.first_byte is None:
        await _begin(exchange, answer)
    await replies.write(exchange, out, more=True)


async def _begin(exchange: Exchange, answer: UpstreamAnswer) -> None:
    headers = [(name, value) for name, value in replies.forwarded(answer.headers) if name not in _OURS_IN_STREAMS]
    headers += [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"), *replies.own_headers(exchange)]
    await replies.begin(exchange, answer.status, headers)


def is_event_stream(headers: Headers) -> bool:
    return any(name == b"content-type" and value.lower().startswith(b"text/event-stream") for name, value in headers)


def _split(splitter: EventSplitter, data: bytes) -> list[bytes]:
    try:
        return splitter.feed(data)
    except EventTooLong:
        raise MalformedFault("the answer is not an event stream") from None
