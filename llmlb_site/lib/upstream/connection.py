"""One HTTP/1.1 connection to a node, as an asyncio protocol over httptools (RFC 9112)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, cast

import httptools

from llmlb_site.lib.upstream.base import BodySource, Headers
from llmlb_site.lib.upstream.faults import BrokenFault, MalformedFault, NodeFault, SendFault, TimeoutFault

MAX_HEAD_BYTES: Final = 64 * 1024
# A client that reads slowly must not make us hold the node's whole answer: beyond this we stop reading from the node.
READ_HIGH_WATER: Final = 256 * 1024
# A node that closes a kept connection while a request is on its way to it tells so within a round trip. One that closes
# later has the request, and perhaps works on it: to send that again would be a second attempt that nobody counts.
STALE_SECONDS: Final = 1.0


class StaleConnection(Exception):
    """A kept connection was closed by the node before it answered anything: the request goes out on a fresh one."""


class Connection(asyncio.Protocol):
    """Sends one request at a time and parses its answer. Errors surface in `head` and `read`, never in callbacks."""

    __slots__ = (
        "_asked_at",
        "_buffered",
        "_chunks",
        "_complete",
        "_deadline",
        "_error",
        "_head_bytes",
        "_head_done",
        "_informational",
        "_is_heard",
        "_is_sent",
        "_keep_alive",
        "_loop",
        "_owes",
        "_parser",
        "_paused",
        "_silence",
        "_sink",
        "_sink_error",
        "_sink_has_enough",
        "_until_close",
        "_waiter",
        "_write_paused",
        "headers",
        "idle_since",
        "lost",
        "requests",
        "status",
        "transport",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.transport: asyncio.Transport
        self.lost = False
        self.requests = 0
        self.idle_since = 0.0
        # One for all answers of the connection; it holds us as we hold it, until the connection is lost.
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self.status = 0
        self.headers: Headers = []
        self._chunks: list[bytes] = []
        self._buffered = 0
        self._owes = False  # an answer, or the rest of one
        self._is_sent = True  # the request, whole
        self._asked_at = 0.0
        self._complete = False
        self._head_done = False
        self._head_bytes = 0
        self._is_heard = False
        self._informational = False
        self._until_close = False
        self._keep_alive = False
        self._paused = False
        self._error: NodeFault | None = None
        self._sink_error: Exception | None = None
        self._sink: Callable[[bytes], bool] | None = None
        self._sink_has_enough = False
        self._waiter: asyncio.Future[None] | None = None
        self._write_paused = False
        self._silence = 0.0
        self._deadline = 0.0

    def _begin(self, silence: float) -> None:
        """A new request. What is not set here is as it was: only after a whole answer is a connection kept."""
        self.requests += 1
        self._owes = True
        self.headers = []
        self._complete = self._head_done = self._keep_alive = False
        self._head_bytes = 0
        self._silence = silence
        self._asked_at = self._loop.time()
        self._is_heard = True  # the time-out runs from the next look

    # --- used by the client ---------------------------------------------------------------------------------------

    async def ask(self, data: Sequence[bytes], source: BodySource | None, silence: float) -> None:
        """Send a request and wait until status and headers of its answer are here.

        `data` is the head, and the body if that is in memory; otherwise the body is read from `source` no faster
        than the node takes it.

        Raises: StaleConnection, SendFault, TimeoutFault, MalformedFault.
        """
        self._begin(silence)
        if len(data) == 1:
            self.transport.write(data[0])
        else:
            self.transport.writelines(data)
        if source is not None:
            await self._send_body(source)
        while not self._head_done:
            if self._error is not None:
                if self._is_stale(self._error):
                    raise StaleConnection
                raise self._error
            await self._wait()

    def _is_stale(self, error: NodeFault) -> bool:
        if self.requests == 1 or self._head_bytes or not isinstance(error, SendFault):
            return False
        return self._loop.time() - self._asked_at < STALE_SECONDS

    async def _send_body(self, source: BodySource) -> None:
        """Stops early where the node has answered already, or is gone: `ask` tells which."""
        self._is_sent = False
        for piece in source.pieces():
            if not self._takes_more():
                return
            self.transport.write(piece)
            self._is_heard = True
            while self._write_paused and self._takes_more():
                await self._wait()
        self._is_sent = True

    def _takes_more(self) -> bool:
        return not (self.lost or self._head_done or self._error is not None)

    def whole(self) -> bytes | None:
        """See `UpstreamAnswer.whole`."""
        if not self._complete:
            return None
        return self._taken() if self._chunks else b""

    async def read(self) -> bytes:
        """Raises: BrokenFault, TimeoutFault, MalformedFault. See `UpstreamAnswer.read`."""
        while not self._chunks:
            if self._complete:
                return b""
            if self._error is not None:
                raise self._error
            await self._wait()
        return self._taken()

    async def pump(self, sink: Callable[[bytes], bool]) -> bool:
        """See `UpstreamAnswer.pump`."""
        self._sink_error = None
        while True:
            if self._chunks and not sink(self._taken()):
                return True
            if self._complete:
                return False
            if self._error is not None:
                raise self._error
            self._sink = sink
            self._sink_has_enough = False
            try:
                await self._wait()
            finally:
                self._sink = None
            if self._sink_error is not None:  # before anything else: what came since is not for this sink
                raise self._sink_error
            if self._sink_has_enough:
                return True

    def _taken(self) -> bytes:
        chunks, self._chunks = self._chunks, []
        self._buffered = 0
        if self._paused:
            self._paused = False
            self._is_heard = True
            self.transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    @property
    def reusable(self) -> bool:
        """The answer came to its end and was read, and the node keeps the connection; nor does it wait for our body."""
        return self._keep_alive and not self.lost and not self._chunks and self._is_sent

    def rest(self) -> None:
        """Between two requests: whatever comes now is not asked for."""
        self._waiter = None
        self.idle_since = self._loop.time()

    def loop_time(self) -> float:
        return self._loop.time()

    def check_silence(self, now: float) -> None:
        """Called by the client a few times a second while an answer is awaited. `now` is the loop's time."""
        if self._is_heard or self._paused:  # paused: it is the client that is slow
            self._is_heard = False
            self._deadline = now + self._silence
        elif now >= self._deadline and not self._complete:
            self._fail(TimeoutFault("the node was silent for too long"))
            self.abort()

    def abort(self) -> None:
        self.lost = True
        self.transport.abort()

    # --- called by the event loop ---------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        if not self._owes:
            self.abort()  # bytes that nobody asked for: the connection cannot be trusted any more
            return
        self._is_heard = True
        try:
            self._parser.feed_data(data)  # type: ignore[union-attr]  # it is there as long as the connection
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            if not self._complete:
                self._fail(MalformedFault("the node's answer is not HTTP"))
            self.lost = True
            self.transport.abort()
        if not self._head_done:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self._fail(MalformedFault("the head of the node's answer is too large"))
                self.abort()
        if self._sink is None or self._complete:
            self._wake()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        closed_by_node = error is None and not self.lost
        self.lost = True
        self._parser = None
        if not self._owes:
            return
        if self._head_done and self._until_close and closed_by_node:
            self._owes, self._complete = False, True
            self._wake()
        elif self._head_done:
            self._fail(BrokenFault("the node's answer stopped before its end"))
        else:
            self._fail(SendFault("the node closed the connection before it answered"))

    def pause_writing(self) -> None:
        self._write_paused = True

    def resume_writing(self) -> None:
        self._write_paused = False
        self._wake()

    # --- called by the parser -------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._complete:
            raise ValueError("a second answer to one request")

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        self.status = self._parser.get_status_code()
        if not 100 <= self.status < 600:
            raise ValueError("a status that HTTP has none of")
        self._informational = self.status < 200
        if self._informational:
            return
        if not self._parser.should_keep_alive():  # which it says, too, where only the end of the connection ends it
            names = {name for name, _ in self.headers}
            self._until_close = not names & {b"content-length", b"transfer-encoding"} and self.status not in (204, 304)
        self._head_done = True

    def on_body(self, data: bytes) -> None:
        sink = self._sink
        if sink is not None:  # who waits in `pump` is woken only if the sink wants no more, or fails
            try:
                if sink(data):
                    return
                self._sink_has_enough = True
            except Exception as error:
                self._sink_error = error
            self._sink = None
            return
        self._chunks.append(data)
        self._buffered += len(data)
        if self._buffered > READ_HIGH_WATER and not self._paused:
            self._paused = True
            self.transport.pause_reading()

    def on_message_complete(self) -> None:
        if self._informational:  # 100 Continue, 103 Early Hints: the answer is still to come
            self.headers = []
            self._informational = False
            return
        assert self._parser is not None
        self._keep_alive = self._parser.should_keep_alive()  # afterwards the parser has forgotten
        self._owes, self._complete = False, True

    # --- inside ---------------------------------------------------------------------------------------------------

    def _fail(self, error: NodeFault) -> None:
        if self._error is None:
            self._error = error
        self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = self._loop.create_future()
        await self._waiter
