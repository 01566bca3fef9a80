"""The node's ASGI application: who may ask, and who answers."""

from __future__ import annotations

import hmac
import logging
from typing import Final

from llmlb_site import __version__
from nodes.runtime.serving.http import (
    ClientGone,
    Message,
    Receive,
    Refused,
    Request,
    Response,
    Route,
    Router,
    Scope,
    Send,
)
from nodes.runtime.serving.inference import infer
from nodes.runtime.serving.node import Node
from nodes.runtime.serving.telling import Telling

log = logging.getLogger("llmlb.node")

OPEN_PATH: Final = "/livez"
SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
SERVER: Final = (b"server", b"xllm-llmlb/" + __version__.encode())


class NodeApp:
    """One node on one port."""

    def __init__(self, node: Node, more_routes: list[Route] | None = None) -> None:
        self._node = node
        self._key = node.config.api_key.encode()
        self._router = Router([*Telling(node).routes(), Route("GET", OPEN_PATH, _alive), *(more_routes or [])])
        self._inference = frozenset[str]().union(
            *(engine.paths for engine in node.engines.values() if not engine.is_installed())
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            await self._answer(Request.open(scope, receive), Sender(send))

    async def _answer(self, request: Request, send: Sender) -> None:
        try:
            self._admit(request)
            if request.path in self._inference:
                await infer(self._node, request, send)
            else:
                await (await self._router.find(request)(request)).send_to(send)
        except Refused as refused:
            await refused.response().send_to(send)
        except ClientGone:
            return
        except Exception:
            log.exception("%s %s failed", request.method, request.path)
            if send.started:  # that the answer is not whole, only the broken connection can tell
                return
            await Refused(500, "internal_error", "The node failed on this request.").response().send_to(send)

    def _admit(self, request: Request) -> None:
        """Raises: Refused (401, 403)."""
        if request.path == OPEN_PATH:
            return
        if not self._key:
            _refuse_pages(request)
            return
        scheme, _, bearer = request.headers.get(b"authorization", b"").partition(b" ")
        given = bearer.strip() if scheme.lower() == b"bearer" else request.headers.get(b"x-api-key", b"")
        if not hmac.compare_digest(given, self._key):
            raise Refused(401, "invalid_api_key", "This node wants its API key.", kind="authentication_error")

    async def _live(self, receive: Receive, send: Send) -> None:
        """Start and stop with the server."""
        await receive()
        try:
            await self._node.start()
        except Exception as error:
            log.exception("the node cannot start")
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self._node.stop()
        await send({"type": "lifespan.shutdown.complete"})


def _refuse_pages(request: Request) -> None:
    """A page that someone looks at on this machine reaches a node without a key, and must not pull, unload or compute.

    Browsers say whose page a request comes from; programs do not send this header. Raises: Refused (403).
    """
    origin = request.headers.get(b"origin")
    if request.method in SAFE_METHODS or origin is None:
        return
    if origin.partition(b"://")[2] != request.headers.get(b"host"):
        raise Refused(403, "cross_origin", "Pages of other servers may not use this node.")


class Sender:
    """Sends an answer that tells by its `Server` header what this is, and remembers that it has begun."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.started = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.started = True
            message["headers"] = [*message["headers"], SERVER]
        await self._send(message)


async def _alive(request: Request) -> Response:
    return Response(body=b"ok", media_type="text/plain; charset=utf-8")
