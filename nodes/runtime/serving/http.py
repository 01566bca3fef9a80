"""Just enough ASGI for a node: a request that is read once, an answer, and routes. No framework, no Django."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

JSON: Final = "application/json"
ADMIN_BODY_BYTES: Final = 1024 * 1024


class Refused(Exception):
    """The request is answered with an error in OpenAI's shape. The message is for the client, and names no address."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        param: str | None = None,
        kind: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.param = param
        self.kind = kind or ("invalid_request_error" if status < 500 else "service_unavailable")
        self.retry_after = retry_after

    def body(self) -> bytes:
        error = {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}
        return json.dumps({"error": error}, ensure_ascii=False).encode()

    def response(self) -> Response:
        headers = () if self.retry_after is None else ((b"retry-after", str(max(1, round(self.retry_after))).encode()),)
        return Response(self.status, self.body(), headers=headers)


class ClientGone(Exception):
    """The client closed the connection while its request was still coming."""


@dataclass(frozen=True, slots=True)
class Response:
    """An answer: either `body`, or `pieces` as they come (each is sent at once)."""

    status: int = 200
    body: bytes = b""
    media_type: str = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()
    pieces: AsyncIterator[bytes] | None = None

    @classmethod
    def of(cls, document: Any, status: int = 200) -> Response:
        """A JSON answer."""
        return cls(status, json.dumps(document, ensure_ascii=False).encode())

    async def send_to(self, send: Send) -> None:
        headers = [(b"content-type", self.media_type.encode()), *self.headers]
        if self.pieces is None:
            headers.append((b"content-length", str(len(self.body)).encode()))
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        if self.pieces is not None:
            async for piece in self.pieces:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": self.body, "more_body": False})


@dataclass(slots=True)
class Request:
    """One request. `rest` is what of the path stands in place of a route's `*`, decoded."""

    scope: Scope
    receive: Receive
    method: str
    path: str
    rest: str = ""
    headers: dict[bytes, bytes] = field(default_factory=dict)

    @classmethod
    def open(cls, scope: Scope, receive: Receive) -> Request:
        return cls(scope, receive, scope["method"], scope["path"], headers=dict(scope["headers"]))

    def query(self, name: str, default: str = "") -> str:
        """The last value of a query parameter."""
        given = parse_qs(self.scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
        values: list[str] = given.get(name, [default])
        return values[-1]

    async def body(self, limit: int = ADMIN_BODY_BYTES) -> bytes:
        """All of the body, of `limit` bytes at most. Raises: Refused (413), ClientGone."""
        pieces: list[bytes] = []
        size = 0
        more = True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            piece: bytes = message.get("body", b"")
            size += len(piece)
            if size > limit:
                raise Refused(413, "body_too_large", f"The request body is larger than {limit} bytes.")
            pieces.append(piece)
            more = message.get("more_body", False)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def document(self) -> dict[str, Any]:
        """The body, which must be a JSON object; an empty one is `{}`. Raises: Refused (400, 413), ClientGone."""
        body = await self.body()
        try:
            document = json.loads(body or b"{}")
        except (ValueError, RecursionError):
            raise Refused(400, "invalid_json", "The request body is not valid JSON.") from None
        if not isinstance(document, dict):
            raise Refused(400, "invalid_json", "The request body must be a JSON object.")
        return document


Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Route:
    """`path` may end in `/*`, which stands for the rest of the path: a model's id has slashes in it."""

    method: str
    path: str
    handler: Handler


class Router:
    """Finds the handler of a request: an exact path first, then the longest that ends in `/*`."""

    def __init__(self, routes: list[Route]) -> None:
        self._exact = {(route.method, route.path): route for route in routes if not route.path.endswith("/*")}
        open_ended = [route for route in routes if route.path.endswith("/*")]
        self._open_ended = sorted(open_ended, key=lambda route: -len(route.path))

    def find(self, request: Request) -> Handler:
        """Raises: Refused (404, 405)."""
        method = "GET" if request.method == "HEAD" else request.method
        route = self._exact.get((method, request.path))
        if route is not None:
            return route.handler
        for candidate in self._open_ended:
            if candidate.method == method and request.path.startswith(candidate.path[:-1]):
                request.rest = unquote(request.path.removeprefix(candidate.path[:-1]))
                return candidate.handler
        raise self._refusal(request)

    def _refusal(self, request: Request) -> Refused:
        others = {method for method, path in self._exact if path == request.path}
        others |= {route.method for route in self._open_ended if request.path.startswith(route.path[:-1])}
        if others:
            allowed = ", ".join(sorted(others))
            return Refused(405, "method_not_allowed", f"{request.path} takes {allowed}.")
        return Refused(404, "unknown_path", f"There is no such path: {request.path}.")
