"""uvicorn's HTTP/1.1 protocol with less work a request: what a proxied request costs is mostly what a server costs.

What differs from uvicorn's own: one write for head and first piece of body, headers checked in one go, one timer a
connection instead of one a request, no event and no callback objects, and a hang-up that is told by a call, so that
nobody needs a task to wait for it, also while other requests wait behind this one. What ASGI promises is the same; so
is what goes over the wire, but that a request which asks for an upgrade that is not wanted keeps its body.
"""

from __future__ import annotations

import asyncio
import functools
import urllib.parse
from typing import Any, Final

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from llmlb_site.lib.direct import DIRECT
from llmlb_site.serve.cycle import Cycle
from llmlb_site.serve.request_head import Malformed

UNREAD_BYTES: Final = 512 * 1024  # of a request's body, before its sender has to wait
PIPELINED: Final = 8  # requests that wait behind a running one, before their sender has to wait
_USUAL_TARGET_BYTES: Final = 128  # a longer one is not worth remembering
_OVER: Final[Any] = {}


class LeanProtocol(HttpToolsProtocol):
    """uvicorn's protocol with a `Cycle` for each request."""

    cycle: Cycle | None  # type: ignore[assignment]  # it has all that uvicorn's protocol uses of its own

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._running: Cycle | None = None  # `cycle` is the last request, which may wait behind this one
        self._idle_since: float | None = None
        self._lost = False
        self._scope: dict[str, Any] = {}  # what is the same for all requests of the connection

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._scope = {
            "type": "http",
            "asgi": {"version": self.asgi_version, "spec_version": "2.3"},
            "server": self.server,
            "client": self.client,
            "scheme": self.scheme,
            "root_path": self.root_path,
        }

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        running = self._running
        if running is not None and running is not self.cycle and not running.response_complete:
            running.disconnected = True
            running.set()
        self._idle_since = None
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None
        self._lost = True
        self.pipeline.clear()
        if running is None or running.response_complete:
            self._let_go()

    def _let_go(self) -> None:
        """The connection is lost, and nothing is under way: what refers to us must not be referred to by us."""
        self.cycle = self._running = None
        self.scope = _OVER

    def data_received(self, data: bytes) -> None:
        rest: bytes | memoryview = data
        try:
            while rest:
                rest = self._feed(rest)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")

    def _feed(self, data: bytes | memoryview) -> bytes | memoryview:
        """Returns: what is still to be fed, which is nothing as a rule. Raises: httptools.HttpParserError."""
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._should_upgrade():
                self._begin_again_without_upgrade()
                return memoryview(data)[upgrade.args[0] :]
            self.handle_websocket_upgrade()
        return b""

    def _begin_again_without_upgrade(self) -> None:
        """The head once more, to another parser, without the upgrade that is ignored (RFC 9110, 7.8).

        A parser that has met one takes what follows for another protocol: to it, a body is the next request.
        """
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
        method, version = self.scope["method"].encode(), self.scope["http_version"].encode()
        fields = [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        self.parser.feed_data(b"\r\n".join([b"%b %b HTTP/%b" % (method, self.url, version), *fields, b"", b""]))

    def _should_upgrade(self) -> bool:
        """To a WebSocket, by a GET without a body (RFC 6455, 4.1), and not while an answer is under way."""
        asked = self.scope["method"] == "GET" and self.scope["http_version"] == "1.1" and super()._should_upgrade()
        return asked and not self._is_answering() and not any(map(_tells_of_a_body, self.headers))

    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        other = self.transport.get_protocol()
        # What cannot read the handshake says nothing, and would keep the connection for ever.
        if isinstance(other, WebSocketsSansIOProtocol) and not other.handshake_initiated:
            self.send_400_response("Invalid WebSocket handshake received.")

    def send_400_response(self, msg: str) -> None:
        """Close, and say why where it cannot be taken for a part of another answer."""
        self.logger.warning(msg)
        if self._is_owed_an_answer():
            super().send_400_response(msg)
        self.transport.close()

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _is_owed_an_answer(self) -> bool:
        """Whether the client would take what is said now for the answer to the request that is arriving."""
        cycle = self.cycle
        if self.transport.is_closing() or self.pipeline:
            return False
        if cycle is not None and cycle.more_body:
            return not cycle.response_started
        return not self._is_answering()

    # --- callbacks of the parser ----------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        self._idle_since = None
        self.url = b""
        self.headers = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        parser = self.parser
        headers, version, app_state = self.headers, parser.get_http_version(), self.app_state
        fields = dict(headers)
        self.check_head(version, fields)
        path, raw_path, query = (_locate if len(self.url) <= _USUAL_TARGET_BYTES else _locate.__wrapped__)(
            self.url, self.root_path
        )
        scope = {
            **self._scope,
            "http_version": version,
            "method": parser.get_method().decode("ascii"),
            "path": path,
            "raw_path": raw_path,
            "query_string": query,
            "headers": headers,
        }
        self.scope = scope  # type: ignore[assignment]  # uvicorn's is a TypedDict of the same
        if parser.should_upgrade():  # `data_received` is told, and reads the head again if it stays with HTTP
            if scope["method"] == "CONNECT":
                raise Malformed("nobody is given a tunnel")
            return
        if app_state:
            scope["state"] = app_state.copy()
        before = self.cycle
        expects_continue = b"expect" in fields and fields[b"expect"].lower() == b"100-continue" and version != "1.0"
        cycle = self.cycle = Cycle(self, scope, version != "1.0" and parser.should_keep_alive(), expects_continue)
        scope["extensions"] = {DIRECT: cycle}
        if before is None or before.response_complete:
            self._start_asgi_task(cycle, self.app)
        else:  # pipelined: its turn comes after the answer to the one before
            self.pipeline.appendleft((cycle, self.app))  # type: ignore[arg-type]
            if len(self.pipeline) >= PIPELINED:
                self.flow.pause_reading()

    def check_head(self, version: str, fields: dict[bytes, bytes]) -> None:
        """Whether this head may be served at all. What is raised answers 400. `fields` are the last of each name."""

    def on_body(self, body: bytes) -> None:
        cycle = self.cycle
        if cycle is not None and not cycle.response_complete and cycle.take_piece(body) > UNREAD_BYTES:
            self.flow.pause_reading()

    def on_message_complete(self) -> None:
        cycle = self.cycle
        if cycle is not None and cycle.more_body:
            cycle.end_body()
            if self.flow.read_paused and len(self.pipeline) < PIPELINED:
                self.flow.resume_reading()  # or nobody would see the client leave

    def _start_asgi_task(self, cycle: Cycle, app: Any) -> None:  # type: ignore[override]
        self._running = cycle
        cycle.task = self.loop.create_task(cycle.run(app))
        self.tasks.add(cycle.task)

    def ended(self, cycle: Cycle) -> None:
        """Told by a cycle whose application has returned."""
        assert cycle.task is not None
        self.tasks.discard(cycle.task)
        if self._lost:
            self._let_go()

    # --- one timer a connection -----------------------------------------------------------------------------------

    def on_response_complete(self) -> None:
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)  # type: ignore[arg-type]  # the queue holds our cycles
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._watch_idle(self.timeout_keep_alive)

    def _unset_keepalive_if_required(self) -> None:
        """The timer looks at `_idle_since` when it fires; nobody cancels it for a request."""

    def _watch_idle(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self._on_idle_timer)

    def _on_idle_timer(self) -> None:
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if self.cycle is not None and self.cycle.more_body:  # it was answered before all of it was here
            self._watch_idle(self.timeout_keep_alive)
        elif left > 0:
            self._watch_idle(left)
        else:
            self.timeout_keep_alive_handler()


def _tells_of_a_body(header: tuple[bytes, bytes]) -> bool:
    name, value = header
    return name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")


@functools.lru_cache(maxsize=256)
def _locate(url: bytes, root_path: str) -> tuple[str, bytes, bytes]:
    """Path, raw path and query string of a request's target."""
    if url[:1] == b"/" and b"?" not in url and b"#" not in url:
        raw, query = url, b""
    else:
        parsed = httptools.parse_url(url)
        raw, query = parsed.path or b"/", parsed.query or b""
    path = raw.decode("ascii")
    full_path = root_path + (urllib.parse.unquote(path) if "%" in path else path)
    return full_path, root_path.encode("ascii") + raw, query
