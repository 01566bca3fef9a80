"""What a client may make the server hold: a head's size, and time without progress, sending or reading.

uvicorn would collect an endless head, wait for ever for the rest of a request, and keep an answer, and with it a slot
on a node, for a client that never reads it.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Final

from uvicorn.server import ServerState

from llmlb_site.serve import request_head
from llmlb_site.serve.http_protocol import LeanProtocol

log = logging.getLogger("llmlb.serve")

HEAD_LIMIT_BYTES: Final = 64 * 1024
# Less than this in LLMLB_CLIENT_TIMEOUT_SECS is no progress: 550 bytes a second by default, as on a modem of 1990.
PROGRESS_BYTES: Final = 16 * 1024


def _closing(status: bytes, text: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (status, len(text)) + text


_HEAD_TOO_LARGE: Final = _closing(b"431 Request Header Fields Too Large", b"Request headers are too big")
_TOO_SLOW: Final = _closing(b"408 Request Timeout", b"The request did not arrive in time")


class DrainingState(ServerState):
    """uvicorn's shared state, plus whether the server is on its way out, and how long clients may make no progress."""

    def __init__(self, client_seconds: float) -> None:
        super().__init__()
        self.draining = False
        self.client_seconds = client_seconds


class BoundedProtocol(LeanProtocol):
    """Bounds a request's head in size, and clients in time.

    A client has `client_seconds` for each `PROGRESS_BYTES` that it sends of a request, and reads of an answer.
    While the server drains, every response says `Connection: close`, so that clients come back elsewhere.
    """

    server_state: DrainingState

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0  # of a head that came in more than one read: those that are known to be of it
        self._read_bytes = 0  # in the last read
        # The request that is arriving: whether one is, what came of it since the last look, and the next look.
        self._arriving = False
        self._arrived_bytes = 0
        self._look_at_arriving: asyncio.TimerHandle | None = None
        # The answer that is not read: what was unread at the last look, and the next look.
        self._unread_bytes = 0
        self._look_at_unread: asyncio.TimerHandle | None = None

    # --- callbacks of the transport -------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._begin_to_arrive()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._look_at_arriving, self._look_at_unread):
            if timer is not None:
                timer.cancel()
        self._look_at_arriving = self._look_at_unread = None
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        before = self.headers
        self._read_bytes = len(data)
        super().data_received(data)
        if self._in_head:
            self._bound_head(len(data) if self.headers is before else 1)
        elif self.cycle is None or not self.cycle.more_body:
            self._arriving = False
            return
        self._arrived_bytes += len(data)
        if not self._arriving:
            self._begin_to_arrive()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._look_at_unread is None:
            self._watch_unread()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._look_at_unread is not None:
            self._look_at_unread.cancel()
            self._look_at_unread = None

    # --- callbacks of the parser ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_begin()

    def check_head(self, version: str, fields: dict[bytes, bytes]) -> None:
        self._in_head = False
        if self._head_bytes or self._read_bytes > HEAD_LIMIT_BYTES:
            self._bound_whole_head()
        request_head.check(self.url, version, self.headers, fields)

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        if self.parser.should_upgrade():  # the head is not done with yet
            return
        self.headers = _TRAILERS
        if self.server_state.draining and self.cycle is not None:
            self.cycle.keep_alive = False

    # --- bounds ---------------------------------------------------------------------------------------------------

    def _bound_head(self, received: int) -> None:
        self._head_bytes += received
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self._refuse(_HEAD_TOO_LARGE)

    def _bound_whole_head(self) -> None:
        """Exactly, now that it is here: what was read may have been a body too. Raises: request_head.Malformed."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > HEAD_LIMIT_BYTES:
            self._refuse(_HEAD_TOO_LARGE)
            raise request_head.Malformed("the head is too large")

    def _refuse(self, answer: bytes) -> None:
        if self._is_owed_an_answer():
            self.transport.write(answer)
        self.transport.close()

    def _begin_to_arrive(self) -> None:
        self._arriving = True
        self._arrived_bytes = 0
        if self._look_at_arriving is not None:
            self._look_at_arriving.cancel()
        self._watch_arriving()

    def _watch_arriving(self) -> None:
        self._look_at_arriving = self.loop.call_later(self.server_state.client_seconds, self._judge_arriving)

    def _judge_arriving(self) -> None:
        self._look_at_arriving = None
        if not self._arriving or self.transport.is_closing():
            return
        # While we do not read, it is not the client who is slow; nor is a next request due while one is answered.
        held_back = self.flow.read_paused or self.pipeline or (self._in_head and self._is_answering())
        if not held_back and self._arrived_bytes < PROGRESS_BYTES:
            self._refuse_slow()
            return
        self._arrived_bytes = 0
        self._watch_arriving()

    def _refuse_slow(self) -> None:
        log.info("a request did not arrive in time", extra={"client": self.client})
        if self._in_head and not self._head_bytes:  # who says nothing is told nothing
            self.transport.close()
        else:
            self._refuse(_TOO_SLOW)

    def _watch_unread(self) -> None:
        self._unread_bytes = self.transport.get_write_buffer_size()
        self._look_at_unread = self.loop.call_later(self.server_state.client_seconds, self._judge_unread)

    def _judge_unread(self) -> None:
        self._look_at_unread = None
        if self._unread_bytes - self.transport.get_write_buffer_size() >= PROGRESS_BYTES:
            self._watch_unread()
            return
        log.info("an answer is not being read: the connection is cut", extra={"client": self.client})
        self.transport.abort()


class _Trailers(list[tuple[bytes, bytes]]):
    """Fields after a chunked body: nothing that they say may count, and nobody should have to keep them."""

    def append(self, item: tuple[bytes, bytes]) -> None:
        pass


_TRAILERS: Final = _Trailers()
