"""uvicorn with the shutdown that a gateway needs, and with limits on what may arrive before a request is one."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Generator
from types import FrameType
from typing import Any, Final

import uvicorn
from uvicorn.server import ServerState

from llmlb_site.serve.http_protocol import LeanProtocol
from llmlb_site.serve.lifecycle import Lifecycle, until
from llmlb_site.serve.listener import BACKLOG

log = logging.getLogger("llmlb.serve")

HEAD_LIMIT_BYTES: Final = 64 * 1024
HEAD_TIMEOUT_SECONDS: Final = 20.0
# Longer than the 60 s after which nginx lets go of an idle upstream connection: whoever is in front closes first.
KEEP_ALIVE_SECONDS: Final = 75
CANCELLED_SECONDS: Final = 2.0
_HEAD_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-type: text/plain; charset=utf-8\r\ncontent-length: 27\r\nconnection: close\r\n\r\n"
    b"Request headers are too big"
)


class DrainingState(ServerState):
    """uvicorn's shared state, plus whether the server is on its way out."""

    def __init__(self) -> None:
        super().__init__()
        self.draining = False


class BoundedProtocol(LeanProtocol):
    """Bounds a request's head in size and time: uvicorn would collect an endless one, and wait for a slow one for ever.

    While the server drains, every response says `Connection: close`, so that clients come back elsewhere.
    """

    server_state: DrainingState

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_head_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        was_in_head = self._in_head
        super().data_received(data)
        if self._in_head and not self.transport.is_closing():
            self._bound_head(len(data) if was_in_head else 0)

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._head_bytes = 0
        self._stop_head_timer()
        super().on_headers_complete()
        if self.server_state.draining and self.cycle is not None:  # None for an upgrade to a WebSocket
            self.cycle.keep_alive = False

    def _bound_head(self, received: int) -> None:
        self._head_bytes += received
        if self._head_bytes > HEAD_LIMIT_BYTES:
            self.transport.write(_HEAD_TOO_LARGE)
            self.transport.close()
        elif self._head_timer is None and self._is_idle():
            self._head_timer = self.loop.call_later(HEAD_TIMEOUT_SECONDS, self.timeout_keep_alive_handler)

    def _is_idle(self) -> bool:
        """The last response is complete; until then the connection has more to do than to wait for a head."""
        return self.cycle is not None and self.cycle.response_complete

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None


class DrainingServer(uvicorn.Server):
    """At SIGTERM: not ready, still listening for a moment, then no listener, running requests finish, exit 0."""

    server_state: DrainingState

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        super().__init__(config)
        self.server_state = DrainingState()
        self._lifecycle = lifecycle
        self._seen_draining_until = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if self.started:
            self._lifecycle.listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        beside = asyncio.create_task(asyncio.to_thread(self._lifecycle.stop_beside))
        await until(self._hurried, lambda: time.monotonic() >= self._seen_draining_until)
        self._close_listener(sockets)
        await self._drain()
        await beside
        await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """As uvicorn's, but without raising the signal again at the end: a drained server exits with 0."""
        previous = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            return
        self.should_exit = self.server_state.draining = True
        # A person at the terminal is no load balancer that must first read /readyz.
        self._seen_draining_until = time.monotonic() + (self._lifecycle.notice_seconds if sig == signal.SIGTERM else 0)
        self._lifecycle.draining()

    def _close_listener(self, sockets: list[socket.socket] | None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()

    async def _drain(self) -> None:
        """Wait for running requests; cancel what is left after the drain time."""
        deadline = time.monotonic() + self._lifecycle.drain_seconds
        await until(self._hurried, lambda: not self.server_state.tasks, lambda: time.monotonic() >= deadline)
        left = list(self.server_state.tasks)
        if not left:
            return
        log.warning("requests cut at the end of the drain time", extra={"requests": len(left)})
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCELLED_SECONDS)

    def _hurried(self) -> bool:
        return self.force_exit


def run(application: Any, sockets: list[socket.socket], lifecycle: Lifecycle) -> None:
    """Serve until a signal; returns after the drain.

    Raises:
        SystemExit: the application did not start.
    """
    config = uvicorn.Config(
        application,
        http=BoundedProtocol,
        loop="uvloop",
        ws="websockets-sansio",
        ws_max_size=64 * 1024,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    DrainingServer(config, lifecycle).run(sockets=sockets)
