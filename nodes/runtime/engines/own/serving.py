"""What our small engine servers share: routes on a loopback port, and work in a thread that stops with its client."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, TypeVar

import uvicorn

from nodes.runtime.engines.own.orphan import end_with_parent
from nodes.runtime.serving.http import ClientGone, Receive, Refused, Request, Response, Route, Router, Scope, Send

log = logging.getLogger("llmlb.engine")

Result = TypeVar("Result")
KEEP_ALIVE_SECONDS: Final = 30


class Stopped(Exception):
    """The client is gone: whoever works for it stops."""


def arguments(description: str, **more: str) -> argparse.Namespace:
    """`--model`, `--port`, and more options with their defaults."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    for name, default in more.items():
        parser.add_argument(f"--{name}", default=default)
    return parser.parse_args()


def serve(routes: list[Route], port: int) -> None:
    """Listen until the process is ended. To be called once the model is loaded: that it listens says so."""
    end_with_parent()

    async def healthy(request: Request) -> Response:
        return Response.of({"status": "ok"})

    app = EngineApp(Router([*routes, Route("GET", "/health", healthy)]))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=port,
        access_log=False,
        log_level="warning",
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )


class EngineApp:
    """The ASGI application: errors in OpenAI's shape, and a fault of ours told without its trace."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        request = Request.open(scope, receive)
        try:
            response = await self._router.find(request)(request)
        except Refused as refused:
            response = refused.response()
        except (ClientGone, Stopped):
            return
        except Exception:
            log.exception("a request failed")
            response = Refused(500, "engine_failed", "The engine failed on this request.").response()
        await response.send_to(send)


async def work(request: Request, task: Callable[[threading.Event], Result]) -> Result:
    """Run `task` in a thread. It is told by the event when the client has hung up, and should then raise `Stopped`.

    To be called when the body has been read: what comes after it can only be the end of the connection.
    """
    gone = threading.Event()
    watch = asyncio.create_task(_watch(request.receive, gone))
    try:
        return await asyncio.to_thread(task, gone)
    finally:
        watch.cancel()


async def stream(request: Request, produce: Callable[[threading.Event], Iterator[bytes]]) -> AsyncIterator[bytes]:
    """What `produce` yields in a thread, as it comes; it is stopped where the client hangs up."""
    loop = asyncio.get_running_loop()
    queue: asyncio.Queue[bytes | Exception | None] = asyncio.Queue()

    def run(gone: threading.Event) -> None:
        ending: Exception | None = None
        try:
            for piece in produce(gone):
                loop.call_soon_threadsafe(queue.put_nowait, piece)
        except Exception as error:
            ending = error
        loop.call_soon_threadsafe(queue.put_nowait, ending)

    working = asyncio.create_task(work(request, run))
    while isinstance(piece := await queue.get(), bytes):
        yield piece
    await working
    if piece is not None:
        raise piece


async def _watch(receive: Receive, gone: threading.Event) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()


def event(document: Any) -> bytes:
    """One server-sent event."""
    return b"data: " + json.dumps(document, ensure_ascii=False).encode() + b"\n\n"
