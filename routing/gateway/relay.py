"""Step 6 of the way: the node's answer to the client, as it comes."""

from __future__ import annotations

import asyncio
import re
from typing import Final

from llmlb_site.lib.sse import EventSplitter, EventTooLong
from llmlb_site.lib.upstream.base import Headers, UpstreamAnswer
from llmlb_site.lib.upstream.faults import BrokenFault, MalformedFault, NodeFault
from routing.core.errors import Refusal
from routing.gateway import replies
from routing.gateway.exchange import Exchange, HeaderList
from routing.protocols.base import Answer, Plan, StreamReader

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
# Reading more than this takes milliseconds: of thousands of embeddings, a quarter of a second. Others need not wait.
LARGE_BYTES: Final = 1024 * 1024
# A field of an event, or nothing yet. JSON and compressed bytes begin otherwise, whatever a node says that they are.
_BEGINS_EVENT: Final = re.compile(rb"\s*(?:\xef\xbb\xbf\s*)?(?:\w*:|\Z)")
# What a node does after the last event of its answer is nobody's business: some never close, or break the connection.
LAST_EVENT_SECONDS: Final = 1.0
_OURS_IN_STREAMS: Final = frozenset({b"cache-control", b"x-accel-buffering"})


async def whole_body(answer: UpstreamAnswer) -> bytes:
    """Raises: NodeFault, also for an answer beyond `MAX_ANSWER_BYTES`."""
    all_of_it = answer.whole()
    if all_of_it is not None:  # most answers come in one piece
        return all_of_it
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
    if exchange.streaming and is_event_stream(answer.headers, plan):
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
    headers = dict(answer.headers)
    media_type = headers.get(b"content-type", b"")
    if media_type.startswith(b"text/html"):
        raise MalformedFault("the answer is a web page")
    if headers.get(b"content-encoding", b"identity").lower() != b"identity":
        raise MalformedFault("the answer is compressed, which nobody asked for")
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
    exchange.tell_break = getattr(reader, "broken", None)  # see `TellsBreak`
    flow = _Flow(exchange, answer, reader)
    try:
        await flow.run()
    except NodeFault:
        if not flow.over or exchange.first_byte is None:
            raise
    finally:
        flow.forget_end()
        exchange.tokens = reader.tokens
        exchange.deltas = reader.deltas
    if not reader.whole:
        raise BrokenFault("the stream ended before the answer did")
    if reader.failed:
        exchange.error_code, exchange.error_message = "node_error", "the node told an error in its answer"
    if exchange.first_byte is None:
        await replies.begin(exchange, answer.status, flow.headers())
    await replies.write(exchange, reader.end(), more=False)


class _Flow:
    """One event stream from node to client.

    Where the server can send without waiting, an event goes out in the very callback in which it came in: no task is
    woken, which is half of what a relayed event costs.
    """

    __slots__ = ("_answer", "_direct", "_exchange", "_giving_up", "_reader", "_splitter", "_take", "_take_line")

    def __init__(self, exchange: Exchange, answer: UpstreamAnswer, reader: StreamReader) -> None:
        self._exchange = exchange
        self._direct = exchange.direct
        self._answer = answer
        self._reader = reader
        self._take = reader.take
        self._take_line = getattr(reader, "take_line", reader.take)  # see `TakesLines`
        self._splitter = EventSplitter()
        self._giving_up: asyncio.TimerHandle | None = None

    @property
    def over(self) -> bool:
        """The last event has come: see `TellsEnd`."""
        return self._giving_up is not None

    def forget_end(self) -> None:
        """The node's stream has ended, in whatever way."""
        if self._giving_up is not None:
            self._giving_up.cancel()

    async def run(self) -> None:
        """To the end of the node's stream. Raises: NodeFault."""
        if self._direct is None:
            while data := await self._answer.read():
                await self._send(self._understood(data))
        else:
            while await self._answer.pump(self._pass_on):
                # The client does not keep up: nothing is sent, but not before it has taken what it was sent.
                await self._exchange.send({"type": "http.response.body", "body": b"", "more_body": True})
        if self._splitter.rest.strip():
            await self._send(self._understood(b"\n\n"))

    def headers(self) -> HeaderList:
        headers = replies.forwarded(self._answer.headers)
        headers = [(name, value) for name, value in headers if name not in _OURS_IN_STREAMS]
        if not media_type_of(headers):
            headers.append((b"content-type", b"text/event-stream"))
        return [
            *headers,
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
            *replies.own_headers(self._exchange),
        ]

    def _pass_on(self, data: bytes) -> bool:
        """Sends what of it the client should see. Returns whether the client keeps up."""
        exchange, direct = self._exchange, self._direct
        assert direct is not None
        if (
            data[-2:] == b"\n\n"
            and data.count(b"\n") == 2
            and data.rfind(b"\r") < 0
            and exchange.first_byte is not None
            and not self._splitter.rest
        ):  # one line: most of what is ever relayed
            out = self._take_line(data)
            if self._reader.failed:
                out = exchange.without_address(out)
            if not out:
                self._look_for_end()
                return True
        else:
            out = self._understood(data)
            if not out:
                return True
            if exchange.first_byte is None:
                direct.start(self._answer.status, self.headers())
                replies.begun(exchange, self._answer.status)
        replies.sent(exchange, out)
        return direct.piece(out)

    async def _send(self, out: bytes) -> None:
        if not out:
            return
        if self._exchange.first_byte is None:
            await replies.begin(self._exchange, self._answer.status, self.headers())
        await replies.write(self._exchange, out, more=True)

    def _understood(self, data: bytes) -> bytes:
        """What the client sees of the events that are whole now.

        Raises: MalformedFault, for what is no event stream; BrokenFault, for an error in place of an answer.
        """
        try:
            events = self._splitter.feed(data)
        except EventTooLong:
            raise MalformedFault("the answer is not an event stream") from None
        take = self._take
        out = take(events[0]) if len(events) == 1 else b"".join([take(event) for event in events])
        self._look_for_end()
        if self._reader.failed:
            if self._exchange.first_byte is None:
                raise BrokenFault("the node told an error in place of an answer")
            out = self._exchange.without_address(out)
        if self._exchange.first_byte is None and _BEGINS_EVENT.match(out) is None:
            raise MalformedFault("the answer is not an event stream")
        return out

    def _look_for_end(self) -> None:
        """The node has a moment to end its stream, so that its connection can be kept; then that is closed."""
        if self._giving_up is None and getattr(self._reader, "over", False):
            self._giving_up = asyncio.get_running_loop().call_later(LAST_EVENT_SECONDS, self._answer.abort)


async def end_broken_stream(exchange: Exchange, refusal: Refusal) -> None:
    """Tell a client that is in the middle of a stream that there is no more: an error event, and no `[DONE]`."""
    exchange.error_code = refusal.code
    exchange.error_message = refusal.message
    if (
        not exchange.opaque
    ):  # in sound there is no place for words: only a broken connection tells that more was to come
        tell = exchange.tell_break or exchange.dialect.event
        await replies.write(exchange, tell(refusal), more=False)


def is_event_stream(headers: Headers, plan: Plan) -> bool:
    """Of the answer to a client that asked for one. Where the node does not say, the first event tells; sound may be
    anything.
    """
    media_type = media_type_of(headers)
    return media_type.startswith(b"text/event-stream") or not (media_type or plan.opaque)


def media_type_of(headers: Headers) -> bytes:
    return next((value.lower() for name, value in headers if name == b"content-type"), b"")
