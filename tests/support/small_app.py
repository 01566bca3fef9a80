"""A small ASGI application on one of our servers: see `main`.

It shows what a server does with streams, bodies, slow readers and signals, without the rest of the product.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, Final

from llmlb_site.serve.lifecycle import Lifecycle
from llmlb_site.serve.listener import bind

BODY_LIMIT_BYTES: Final = 1_000_000
LINES: Final = 20
LINE_SECONDS: Final = 0.1
state: dict[str, Any] = {"draining": False, "sent": 0, "floods": 0}


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await websocket(receive, send)
    elif scope["path"] == "/readyz":
        await answer(send, 503 if state["draining"] else 200, b"")
    elif scope["path"] == "/sent":
        await answer(send, 200, str(state["sent"]).encode())
    elif scope["path"] == "/root":
        await answer(send, 200, scope["root_path"].encode())
    elif scope["path"] == "/floods":
        await answer(send, 200, str(state["floods"]).encode())
    elif scope["path"] == "/headers":
        await answer(send, 200, repr(scope["headers"]).encode())
    elif scope["path"] == "/flood":
        state["floods"] += 1
        await flood(send)
        state["floods"] -= 1
    elif scope["path"] == "/part":
        await part(send, scope["query_string"])
    else:
        await stream(receive, send)


async def lifespan(receive: Any, send: Any) -> None:
    for expected in ("startup", "shutdown"):
        assert (await receive())["type"] == f"lifespan.{expected}"
        say(f"lifespan {expected}")
        await send({"type": f"lifespan.{expected}.complete"})


async def websocket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (await receive())["type"] != "websocket.disconnect":
        pass
    say("websocket closed")


async def stream(receive: Any, send: Any) -> None:
    """Read the body, then a line each LINE_SECONDS, then how long the body was."""
    length = 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if not message.get("more_body"):
            break
    try:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for number in range(LINES):
            await send({"type": "http.response.body", "body": b"line %d\n" % number, "more_body": True})
            await asyncio.sleep(LINE_SECONDS)
        await send({"type": "http.response.body", "body": b"end %d\n" % length})
    except asyncio.CancelledError:
        say("stream cut")
        raise


async def flood(send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1600):  # 100 MiB
        await send({"type": "http.response.body", "body": b"x" * 65536, "more_body": True})
        state["sent"] += 65536
    await send({"type": "http.response.body", "body": b"flood end"})


async def part(send: Any, way: bytes) -> None:
    """An answer without its end."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the beginning", "more_body": True})
    if way == b"fails":
        raise RuntimeError("in the middle")


async def answer(send: Any, status: int, body: bytes) -> None:
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def main(server: str, port: str, drain_seconds: str, client_seconds: str) -> None:
    async def start() -> None:
        say("started")

    async def stop() -> None:
        say("stopped")

    lifecycle = Lifecycle(
        listening=lambda: say("listening"),
        draining=lambda: state.update(draining=True),
        stop_beside=lambda: say("worker stopped"),
        drain_seconds=float(drain_seconds),
        lame_duck_seconds=0.5,
        client_seconds=float(client_seconds),
        start=start,
        stop=stop,
    )
    sockets = bind("127.0.0.1", int(port))
    if server == "daphne":
        from llmlb_site.serve import daphne_server

        daphne_server.run(application, sockets, lifecycle, max_body_bytes=BODY_LIMIT_BYTES)
    else:
        from llmlb_site.serve import uvicorn_server

        uvicorn_server.run(application, sockets, lifecycle)
    say("gone")


if __name__ == "__main__":
    main(*sys.argv[1:])
