"""One request as the server sees it, from its head to the last byte of its answer (RFC 9112, ASGI)."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

if TYPE_CHECKING:
    from llmlb_site.serve.http_protocol import LeanProtocol

log = logging.getLogger("llmlb.serve")

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]

# Of a body whose end is still to come, less is not worth waking the application for: else a client that sends a byte at
# a time costs the others as much as a hundred that send theirs in one piece.
WORTH_READING_BYTES: Final = 64 * 1024
JOINED_BYTES: Final = 64 * 1024  # a longer body is not copied behind its head, but written after it
_TOKEN: Final = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_CONTROL: Final = bytes({*range(0x20), 0x7F} - {0x09})
_NO_BODY: Final = frozenset({204, 304})
_OVER: Final[Scope] = {}
_SERVER_ERROR: Final = b"Internal Server Error"


class Cycle:
    """One request and its answer: what ASGI calls `receive` and `send`, and `Direct`.

    Its first values are on the class: one is made for every request, and most of them never change.
    """

    keep_alive: bool
    disconnected = False
    response_started = False
    response_complete = False
    more_body = True
    task: asyncio.Task[None] | None = None
    _unread_bytes = 0
    _news = False
    _reader: asyncio.Future[None] | None = None
    _gone: Callable[[], None] | None = None
    _head = b""
    _chunked = False
    _in_chunks = False  # the head of a chunked answer is out, its end is not, and the client is there
    _until_close = False
    _length_left = 0

    def __init__(self, protocol: LeanProtocol, scope: Scope, keep_alive: bool, expects_continue: bool) -> None:
        self.scope = scope
        self.keep_alive = keep_alive
        self._protocol = protocol
        self._transport: asyncio.Transport = protocol.transport
        self._flow = protocol.flow
        self._expects_continue = expects_continue
        self._pieces: list[bytes] = []

    @property
    def message_event(self) -> Cycle:
        """What uvicorn sets when the connection is lost."""
        return self

    # --- told by the protocol -------------------------------------------------------------------------------------

    def take_piece(self, piece: bytes) -> int:
        """A piece of the body has come. Returns how many bytes wait for the application."""
        self._pieces.append(piece)
        self._unread_bytes += len(piece)
        if self._unread_bytes >= WORTH_READING_BYTES:
            self._news = True
            if self._reader is not None:
                self.set()
        return self._unread_bytes

    def end_body(self) -> None:
        """The body is here, whole."""
        self.more_body = False
        self._news = True
        if self._reader is not None:
            self.set()

    def set(self) -> None:
        """There is news for the reader: a piece of the body, or the end of the connection."""
        self._news = True
        reader = self._reader
        if reader is not None and not reader.done():
            reader.set_result(None)
        if self.disconnected:
            self._in_chunks = False
            if self._gone is not None:
                gone, self._gone = self._gone, None
                gone()

    # --- called by the application --------------------------------------------------------------------------------

    async def run(self, app: Any) -> None:
        """The application, to the end of its answer; what it leaves undone is ended here."""
        try:
            await app(self.scope, self.receive, self.send)
        except asyncio.CancelledError:  # the server is leaving and its patience is over
            await self._give_up()
            raise
        except Exception:
            log.exception("the application failed")
            await self._give_up()
        else:
            if not self.response_complete and not self.disconnected:
                log.error("the application returned without completing its answer")
                await self._give_up()
        finally:
            self._protocol.ended(self)
            # Nothing that refers to itself is left behind: looking for such garbage would stop every stream.
            self.task = self._gone = None
            self.scope = _OVER

    async def receive(self) -> Message:
        if self._expects_continue:
            self._expects_continue = False
            if not self._transport.is_closing():
                self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._news and not (self.disconnected or self.response_complete):
            self._flow.resume_reading()
            self._reader = self._protocol.loop.create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        self._news = False
        if self.disconnected or self.response_complete:
            return {"type": "http.disconnect"}
        pieces, self._pieces, self._unread_bytes = self._pieces, [], 0
        body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return {"type": "http.request", "body": body, "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        if self._flow.write_paused and not self.disconnected:
            await self._flow.drain()
        if self.disconnected:
            return
        if message["type"] == "http.response.body":
            self._send_body(message.get("body", b""), message.get("more_body", False))
        elif message["type"] == "http.response.start":
            self._start(message["status"], message.get("headers", ()))
        else:
            raise RuntimeError(f"a message that is not expected here: {message['type']!r}")

    # --- called by an application that knows us: see `Direct` ------------------------------------------------------

    def on_hang_up(self, call: Callable[[], None] | None) -> bool:
        self._gone = call
        return self.disconnected

    def start(self, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        if not self.disconnected:
            self._start(status, headers)

    def piece(self, body: bytes) -> bool:
        if self._in_chunks and body:  # of a stream, most are such
            self._transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        elif self.disconnected:
            return True
        else:
            self._send_body(body, more=True)
        return not self._flow.write_paused

    def answer(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        if not self.disconnected:
            self._start(status, headers)
            self._send_body(body, more=False)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _start(self, status: int, headers: Any) -> None:
        """Make the head. It waits for the first piece of the body, as ASGI allows, and goes out with it."""
        if self.response_started:
            raise RuntimeError("the answer has been started already")
        given = dict(headers)
        if wrong_names := b"".join(given).translate(None, _TOKEN):
            headers = [(name.lower(), value) for name, value in headers]
            given = dict(headers)
            wrong_names = b"".join(given).translate(None, _TOKEN)
        if b"transfer-encoding" in given:  # ours to say
            headers = [(name, value) for name, value in headers if name != b"transfer-encoding"]
        lines = list(map(b": ".join, headers))
        if b"connection" in given and any(
            name == b"connection" and b"close" in value.lower() for name, value in headers
        ):
            self.keep_alive = False
        elif not self.keep_alive:
            lines.append(b"connection: close")
        self._frame(status, given.get(b"content-length"), lines)
        lines.append(b"")
        head = b"\r\n".join(lines)
        # Names are tokens, and there are no control characters but those that end our lines (RFC 9110, 5): no header
        # ends the head, or passes for two.
        ends = len(head) - len(head.translate(None, _CONTROL))
        if wrong_names or b"" in given or ends != 2 * (len(lines) - 1):
            self._chunked = False
            raise RuntimeError("a header that is none")
        # First what fails, for a status that is none: nothing has been started then.
        self._head = b"%b%b\r\n" % (STATUS_LINE[status], head)
        self.response_started = True
        self._expects_continue = False

    def _frame(self, status: int, length: bytes | None, lines: list[bytes]) -> None:
        """How the client will know where the body ends."""
        self._chunked = self._until_close = False
        if length is not None:
            self._length_left = 0 if status in _NO_BODY else int(length)
        elif status not in _NO_BODY and self.scope["method"] != "HEAD":
            self._chunked = self.scope["http_version"] != "1.0"  # which has no chunks (RFC 9112, 6.1)
            self._until_close = not self._chunked
            if self._chunked:
                lines.append(b"transfer-encoding: chunked")

    def _send_body(self, body: bytes, more: bool) -> None:
        if not self.response_started or self.response_complete:
            raise RuntimeError("a piece of an answer that is not under way")
        head, self._head = self._head, b""
        if self._chunked:
            self._in_chunks = more
            self._write_chunk(head, body, more)
        elif self.scope["method"] == "HEAD":
            self._length_left = 0
            self._transport.write(head)
        else:
            self._write_counted(head, body, more)
        if not more:
            self._complete()

    def _write_chunk(self, head: bytes, body: bytes, more: bool) -> None:
        last = b"" if more else b"0\r\n\r\n"
        if body:
            self._transport.write(b"%b%x\r\n%b\r\n%b" % (head, len(body), body, last))
        elif head or last:
            self._transport.write(head + last)

    def _write_counted(self, head: bytes, body: bytes, more: bool) -> None:
        self._length_left -= len(body)
        wrong = self._length_left < 0 or (self._length_left and not more)
        if wrong and not self._until_close:
            self._transport.close()  # the client must not take it for whole
            raise RuntimeError("an answer of another length than its Content-Length says")
        if len(body) <= JOINED_BYTES:
            if head or body:
                self._transport.write(head + body)
            return
        self._transport.write(head)
        self._transport.write(body)

    def _complete(self) -> None:
        self.response_complete = True
        self.set()
        if not self.keep_alive:
            self._transport.close()
        self._protocol.on_response_complete()

    async def _give_up(self) -> None:
        """500 where nothing was said yet, else a broken connection: the only way left to tell."""
        if self.response_started or self.disconnected:
            self._transport.close()
            return
        length = b"%d" % len(_SERVER_ERROR)
        headers = [(b"content-type", b"text/plain"), (b"content-length", length), (b"connection", b"close")]
        await self.send({"type": "http.response.start", "status": 500, "headers": headers})
        await self.send({"type": "http.response.body", "body": _SERVER_ERROR})
