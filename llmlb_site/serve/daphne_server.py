"""Daphne, taught what uvicorn knows: start and stop of the application, drain, a body limit, back-pressure.

Stock Daphne cuts streams at SIGTERM, buffers a body of any size before the application sees it, and writes as fast as
the application produces, whatever the client reads. It also lets a client choose the root path of every URL in a page.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from typing import Any, Final

from daphne import server as daphne_server
from daphne.http_protocol import HTTPFactory, WebRequest
from daphne.ws_protocol import WebSocketFactory
from twisted.internet import reactor as twisted_reactor
from twisted.internet.interfaces import IPushProducer
from twisted.logger import globalLogBeginner
from zope.interface import implementer

from llmlb_site.serve import request_head
from llmlb_site.serve.lifecycle import Leaving, Lifecycle, until
from llmlb_site.serve.listener import BACKLOG, drop_vanished
from routing.core.errors import body_too_large
from routing.protocols.base import OPENAI

log = logging.getLogger("llmlb.serve")
reactor: Any = twisted_reactor  # a module to mypy, the asyncio reactor at run time

ROOT_PATH_HEADER: Final = b"daphne-root-path"
CANCELLED_SECONDS: Final = 2.0
SERVICE_RESTART: Final = 1012
WEBSOCKET_LIMIT_BYTES: Final = 64 * 1024
_MALFORMED: Final = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


@implementer(IPushProducer)
class BoundedRequest(WebRequest):  # type: ignore[misc]  # untyped base
    """One HTTP request whose body is bounded while it arrives, and whose writer waits for a slow reader."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._received = 0
        self._refused = False
        self.writable = asyncio.Event()
        self.writable.set()

    def gotLength(self, length: int | None) -> None:
        super().gotLength(length)
        if length is not None and length > self.server.max_body_bytes:
            self._refuse()

    def handleContentChunk(self, data: bytes) -> None:
        self._received += len(data)
        if not self._refused and self._received > self.server.max_body_bytes:
            self._refuse()
        if not self._refused:
            super().handleContentChunk(data)

    def process(self) -> Any:
        if self._refused:
            return None
        if self._is_malformed():
            self.channel.transport.write(_MALFORMED)
            self.channel.loseConnection()
            return None
        self.requestHeaders.removeHeader(ROOT_PATH_HEADER)
        if self.server.leaving:
            self.channel.persistent = False
            self.responseHeaders.setRawHeaders(b"connection", [b"close"])
        self.registerProducer(self, True)
        return super().process()

    def finish(self) -> None:
        self._stop_producing()
        super().finish()

    def connectionLost(self, reason: Any) -> None:
        self.writable.set()
        super().connectionLost(reason)

    def handle_exception(self, exception: BaseException | None) -> None:
        """The application has left its answer without an end: 500 where nothing was said yet, else a broken connection.

        Daphne would try to say 500 in the middle of an answer, and its checker would end with that.
        """
        if not self._response_started:
            super().handle_exception(exception)
        elif self.channel is not None:
            self._stop_producing()
            self.channel.loseConnection()

    def pauseProducing(self) -> None:
        self.writable.clear()

    def resumeProducing(self) -> None:
        self.writable.set()

    def stopProducing(self) -> None:
        self.writable.set()

    def _is_malformed(self) -> bool:
        lines = self.requestHeaders.getAllRawHeaders()
        headers = [(name.lower(), value) for name, values in lines for value in values]
        try:
            request_head.check(self.uri, self.clientproto.decode("ascii").removeprefix("HTTP/"), headers, dict(headers))
        except request_head.Malformed:
            return True
        return False

    def _stop_producing(self) -> None:
        self.writable.set()
        if self.producer is self:
            self.unregisterProducer()

    def _refuse(self) -> None:
        self._refused = True
        self.channel.transport.write(_too_large(self.server.max_body_bytes))
        self.channel.loseConnection()


def _too_large(limit: int) -> bytes:
    """The gateway's own refusal, written by hand: Twisted has no response yet while a body arrives."""
    status, body = OPENAI.answer(body_too_large(limit))
    head = (
        f"HTTP/1.1 {status} Content Too Large\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


class BoundedFactory(HTTPFactory):  # type: ignore[misc]  # untyped base
    def buildProtocol(self, addr: Any) -> Any:
        protocol = super().buildProtocol(addr)
        protocol.requestFactory = BoundedRequest
        return protocol


class DrainingDaphne(daphne_server.Server):  # type: ignore[misc]  # untyped base
    """Daphne on sockets that are already bound, with the same way of leaving as `DrainingServer`."""

    def __init__(
        self, application: Any, sockets: list[socket.socket], lifecycle: Lifecycle, *, max_body_bytes: int
    ) -> None:
        super().__init__(application, endpoints=["unused"], server_name="", verbosity=1)
        self.max_body_bytes = max_body_bytes
        self.leaving = False
        self._hurried = False
        self._sockets = sockets
        self._lifecycle = lifecycle
        self._ports: list[Any] = []
        self._leave_task: asyncio.Task[None] | None = None

    def run(self) -> None:
        """Serve until a signal; returns after the drain."""
        loop = daphne_server.twisted_loop
        asyncio.set_event_loop(loop)
        loop.run_until_complete(self._lifecycle.start())
        self._listen()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        reactor.callLater(1, self.application_checker)
        reactor.callLater(2, self.timeout_checker)
        reactor.callWhenRunning(self._lifecycle.listening)
        reactor.run(installSignalHandlers=False)

    async def handle_reply(self, protocol: Any, message: Any) -> None:
        await super().handle_reply(protocol, message)
        if isinstance(protocol, BoundedRequest) and not protocol.writable.is_set():
            await self._wait_for_reader(protocol)

    def application_checker(self) -> None:
        """Also ends the answers that applications have left without an end: their clients would wait for ever."""
        for protocol, details in list(self.connections.items()):
            task = details.get("application_instance")
            returned = task is not None and task.done() and not task.cancelled() and task.exception() is None
            if returned and isinstance(protocol, BoundedRequest) and not protocol.finished:
                protocol.handle_exception(None)
        super().application_checker()

    def _listen(self) -> None:
        self.connections: dict[Any, dict[str, Any]] = {}
        self.http_factory = BoundedFactory(self)
        self.ws_factory = WebSocketFactory(self, server=self.server_name)
        self.ws_factory.setProtocolOptions(
            autoPingTimeout=self.ping_timeout,
            allowNullOrigin=True,
            openHandshakeTimeout=self.websocket_handshake_timeout,
            maxMessagePayloadSize=WEBSOCKET_LIMIT_BYTES,
            maxFramePayloadSize=WEBSOCKET_LIMIT_BYTES,
        )
        silent: Any = lambda _: None  # noqa: E731
        globalLogBeginner.beginLoggingTo([silent], redirectStandardIO=False, discardBuffer=True)
        drop_vanished(self._sockets, self._lifecycle.client_seconds)
        for bound in self._sockets:
            bound.listen(BACKLOG)
            self._ports.append(reactor.adoptStreamPort(bound.fileno(), bound.family, self.http_factory))
            bound.close()  # Twisted listens on a duplicate

    def _on_signal(self, number: int) -> None:
        if self.leaving:
            self._hurried = self._hurried or number == signal.SIGINT
            return
        self.leaving = True
        self._lifecycle.draining()
        self._leave_task = asyncio.ensure_future(self._leave(Leaving.after(number, self._lifecycle)))

    async def _leave(self, leaving: Leaving) -> None:
        try:
            beside = asyncio.create_task(asyncio.to_thread(self._lifecycle.stop_beside))
            await until(self._is_hurried, leaving.closes)
            for port in self._ports:
                port.stopListening()
            await self._drain(leaving)
            await beside
            await self._lifecycle.stop()
        finally:
            reactor.stop()

    async def _drain(self, leaving: Leaving) -> None:
        """WebSockets are told at once; running requests get the drain time, and what is left is cancelled."""
        for protocol in list(self.connections):
            if not isinstance(protocol, BoundedRequest) and protocol.state == protocol.STATE_OPEN:
                protocol.sendCloseFrame(code=SERVICE_RESTART, isReply=False)  # sendClose would refuse this code
        await until(self._is_hurried, lambda: not self._running(), leaving.cuts)
        left = self._running()
        if not left:
            return
        log.warning("requests cut at the end of the drain time", extra={"requests": len(left)})
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCELLED_SECONDS)

    def _running(self) -> list[asyncio.Future[None]]:
        running = (details.get("application_instance") for details in self.connections.values())
        return [task for task in running if task is not None and not task.done()]

    def _is_hurried(self) -> bool:
        return self._hurried

    async def _wait_for_reader(self, protocol: BoundedRequest) -> None:
        try:
            await asyncio.wait_for(protocol.writable.wait(), self._lifecycle.client_seconds)
        except TimeoutError:
            protocol.transport.abortConnection()


def run(application: Any, sockets: list[socket.socket], lifecycle: Lifecycle, *, max_body_bytes: int) -> None:
    """Serve until a signal; returns after the drain."""
    DrainingDaphne(application, sockets, lifecycle, max_body_bytes=max_body_bytes).run()
