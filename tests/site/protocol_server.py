"""Our HTTP/1.1 protocol on a real socket, with an application of the test's own."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from llmlb_site.lib.direct import Direct, direct_of
from llmlb_site.serve.bounds import BoundedProtocol, DrainingState

Application = Callable[[Any, Any, Any], Awaitable[None]]
Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


@asynccontextmanager
async def serving(
    application: Application, *, keep_alive: int = 5, client_seconds: float = 30, connections: set[Any] | None = None
) -> AsyncIterator[Connect]:
    """A server with this application. `connections`: a set that shows its connections, each a `BoundedProtocol`."""
    config = uvicorn.Config(
        application, ws="websockets-sansio", timeout_keep_alive=keep_alive, lifespan="off", log_config=None
    )
    config.load()
    config.loaded_app = application
    state = DrainingState(client_seconds)
    state.connections = set() if connections is None else connections
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: BoundedProtocol(config, state, {}), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", port)

    try:
        yield connect
    finally:
        server.close()
        for connection in list(state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)


def answering(*pieces: bytes, status: int = 200, headers: tuple[tuple[bytes, bytes], ...] = ()) -> Application:
    async def application(scope: Any, receive: Any, send: Any) -> None:
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, piece in enumerate(pieces, 1):
            await send({"type": "http.response.body", "body": piece, "more_body": number < len(pieces)})

    return application


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the request's path and its body; `echoed` finds them in what was answered."""
    body = b""
    while (message := await receive())["type"] == "http.request":
        body += message["body"]
        if not message["more_body"]:
            break
    text = b"<%b|%b>" % (scope["path"].encode(), body)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": text})


def echoed(answer: bytes) -> list[tuple[bytes, bytes]]:
    """Path and body of each request that was answered, in the order of their answers."""
    return re.findall(rb"<([^|]*)\|([^>]*)>", answer)


async def ask(connect: Connect, request: bytes) -> bytes:
    """All that comes until the server closes; the request must say that it should."""
    reader, writer = await connect()
    writer.write(request)
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


def request(method: str = "GET", path: str = "/", body: bytes = b"", *headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: here", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


CLOSE = "Connection: close"


def direct(scope: Any) -> Direct:
    found = direct_of(scope)
    assert found is not None
    return found
