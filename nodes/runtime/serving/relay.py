"""An engine's answer to the client: the bytes as they come, and the truth where they stop too early."""

from __future__ import annotations

import json
from typing import Final, Protocol

from llmlb_site.lib.sse import EventSplitter, EventTooLong
from llmlb_site.lib.upstream.base import Headers
from llmlb_site.lib.upstream.faults import MalformedFault, NodeFault, TimeoutFault
from nodes.runtime.serving.http import Refused, Send

MAX_ANSWER_BYTES: Final = 256 * 1024 * 1024
# Between the engine and us alone (RFC 9110, section 7.6.1), or said again by our own server.
_NOT_PASSED_ON: Final = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"upgrade", b"trailer", b"te", b"content-length", b"server",
     b"date", b"access-control-allow-origin", b"access-control-allow-credentials"}
)  # fmt: skip


class Answer(Protocol):
    """What is read of an engine's answer: `llmlb_site.lib.upstream.base.UpstreamAnswer`, and less."""

    status: int
    headers: Headers

    async def read(self) -> bytes: ...


class Relay:
    """Passes one answer on. `started` and `status` tell what the client has been told so far."""

    def __init__(self, send: Send, path: str) -> None:
        self._send = send
        self._path = path
        self.started = False
        self.status = 0

    async def pass_on(self, answer: Answer) -> None:
        """Raises: NodeFault, with nothing sent; what breaks after the first byte is told to the client here."""
        media_type = next((value.lower() for name, value in answer.headers if name == b"content-type"), b"")
        try:
            if media_type.startswith(b"text/event-stream"):
                await self._events(answer)
            elif media_type.startswith(b"application/json") or answer.status >= 400:
                await self._whole(answer)
            else:
                await self._pieces(answer)
        except NodeFault as fault:
            if not self.started:
                raise
            await self._break_off(fault, media_type)

    async def _events(self, answer: Answer) -> None:
        """Each event when it is whole, so that an event that tells of an error can always follow."""
        splitter = EventSplitter()
        while data := await answer.read():
            try:
                events = splitter.feed(data)
            except EventTooLong:
                raise MalformedFault("the engine's answer is no event stream") from None
            if events:
                await self._write(answer, b"".join(events))
        await self._write(answer, bytes(splitter.rest), more=False)

    async def _whole(self, answer: Answer) -> None:
        """Read to its end before anything is sent: what is cut off can still be told as an error."""
        pieces = []
        size = 0
        while data := await answer.read():
            pieces.append(data)
            size += len(data)
            if size > MAX_ANSWER_BYTES:
                raise MalformedFault("the engine's answer is too large")
        body = b"".join(pieces)
        await self._begin(answer, [(b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def _pieces(self, answer: Answer) -> None:
        while data := await answer.read():
            await self._write(answer, data)
        await self._write(answer, b"", more=False)

    async def _write(self, answer: Answer, data: bytes, *, more: bool = True) -> None:
        if not self.started:
            await self._begin(answer, [])
        await self._send({"type": "http.response.body", "body": data, "more_body": more})

    async def _begin(self, answer: Answer, more: Headers) -> None:
        headers = [(name, value) for name, value in answer.headers if name not in _NOT_PASSED_ON]
        self.started = True
        self.status = answer.status
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers + more})

    async def _break_off(self, fault: NodeFault, media_type: bytes) -> None:
        """An error event and no final one. In anything else there is no place for words: only the connection breaks."""
        self.status = 0
        if media_type.startswith(b"text/event-stream"):
            body = error_event(self._path, refusal_for(fault))
            await self._send({"type": "http.response.body", "body": body, "more_body": False})


def refusal_for(fault: NodeFault) -> Refused:
    """The engine's failure as the client is told of it."""
    if isinstance(fault, TimeoutFault):
        return Refused(504, "engine_timeout", "The model's engine was silent for too long.", kind="api_error")
    return Refused(502, "engine_failed", "The model's engine failed while it served this request.", kind="api_error")


def error_event(path: str, refused: Refused) -> bytes:
    """As the API of this path tells of an error in the middle of a stream."""
    told = {"type": refused.kind, "message": refused.message}
    if path == "/v1/messages":
        return b"event: error\ndata: " + json.dumps({"type": "error", "error": told}).encode() + b"\n\n"
    if path == "/v1/responses":
        document = {"type": "error", "code": refused.code, "message": refused.message, "param": None}
        return b"event: error\ndata: " + json.dumps(document).encode() + b"\n\n"
    return b"data: " + refused.body() + b"\n\n"
