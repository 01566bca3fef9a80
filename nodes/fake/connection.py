"""One HTTP/1.1 connection of the fake node, low enough to be cut, reset or filled with garbage at will."""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import time
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Protocol, cast

import httptools

from nodes.fake.behaviour import SeenRequest


class Host(Protocol):
    """What a connection needs of its node."""

    connections: set[Connection]

    async def answer(self, request: SeenRequest, wire: Connection) -> bool:
        """Answers `request` on `wire`. Returns: whether the connection may stay open."""
        ...


class Connection(asyncio.Protocol):
    """Parses requests, hands them to the node one after the other, and notices when the client hangs up."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._waiting: deque[SeenRequest] = deque()
        self._current: SeenRequest | None = None
        self._task: asyncio.Task[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._own_doing = False
        self._parser = httptools.HttpRequestParser(self)
        self._fresh()

    def _fresh(self) -> None:
        self._url = b""
        self._headers: dict[str, str] = {}
        self._body: list[bytes] = []

    # --- asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one without saying so
        self._host.connections.add(self)

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.close()

    def pause_writing(self) -> None:
        self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._host.connections.discard(self)
        self._may_write.set()
        if self._current is not None and not self._own_doing:
            self._current.aborted_at = time.monotonic()
        if self._task is not None:
            self._task.cancel()

    # --- httptools

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        self._body.append(body)

    def on_message_complete(self) -> None:
        method, (path, _, query) = self._parser.get_method().decode(), self._url.decode("latin-1").partition("?")
        body = b"".join(self._body)
        self._waiting.append(SeenRequest(method, path, self._headers, body, time.monotonic(), query=query))
        self._fresh()
        self._next()

    def _next(self) -> None:
        if self._task is None and self._waiting:
            self._current = self._waiting.popleft()
            self._task = asyncio.get_running_loop().create_task(self._serve(self._current))

    async def _serve(self, request: SeenRequest) -> None:
        keep = await self._host.answer(request, self)
        request.ended = time.monotonic()
        self._current = self._task = None
        if not keep or request.headers.get("connection", "").lower() == "close":
            self.close()
        self._next()

    # --- what the node does with it

    async def send(self, data: bytes) -> None:
        """Write, and wait while the client is not reading."""
        self._transport.write(data)
        if not self._may_write.is_set():
            await self._may_write.wait()

    def close(self) -> None:
        self._own_doing = True
        self._transport.close()

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self._own_doing = True
        raw: socket.socket | None = self._transport.get_extra_info("socket")
        if raw is not None and not self._transport.is_closing():
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._transport.abort()

    async def reply(self, status: int, headers: dict[str, str], body: Any) -> None:
        """A whole answer. `body`: bytes as they are, text as HTML, anything else as JSON."""
        data, media_type = encode(body)
        await self.send(head(status, {"content-type": media_type, "content-length": str(len(data)), **headers}) + data)

    async def send_chunk(self, data: bytes) -> None:
        """One chunk of a body in `Transfer-Encoding: chunked`; an empty one ends it."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data))


@dataclass(frozen=True)
class Raw:
    """A body that is neither JSON nor a page."""

    data: bytes
    media_type: str


def encode(body: Any) -> tuple[bytes, str]:
    if isinstance(body, Raw):
        return body.data, body.media_type
    if isinstance(body, bytes):
        return body, "application/octet-stream"
    if isinstance(body, str):
        return body.encode(), "text/html; charset=utf-8"
    return json.dumps(body).encode(), "application/json"


def head(status: int, headers: dict[str, str]) -> bytes:
    known = status in HTTPStatus.__members__.values()
    phrase = HTTPStatus(status).phrase if known else "Not In The Book"  # such as Anthropic's 529
    lines = [f"HTTP/1.1 {status} {phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")
