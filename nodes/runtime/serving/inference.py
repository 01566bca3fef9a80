"""The way of an inference request: whose model it asks for, a slot on its engine, the engine's answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Coroutine
from typing import Any, Final

from llmlb_site.lib.upstream.base import Headers
from llmlb_site.lib.upstream.faults import NodeFault
from nodes.runtime.engines.base import Engine
from nodes.runtime.models import ModelFile
from nodes.runtime.serving.http import ClientGone, Receive, Refused, Request, Send
from nodes.runtime.serving.intake import Asked, read_asked
from nodes.runtime.serving.node import Node
from nodes.runtime.serving.relay import Relay, refusal_for
from nodes.runtime.serving.running import RunningEngine

log = logging.getLogger("llmlb.request")

CLIENT_CLOSED: Final = 499
# What an engine may know of the client's request besides its body.
_TO_ENGINE: Final = (b"content-type", b"accept", b"anthropic-version", b"anthropic-beta", b"openai-beta")


async def infer(node: Node, request: Request, send: Send) -> None:
    """Serve one request from its engine. Raises: Refused, with nothing sent; ClientGone."""
    began = time.monotonic()
    relay = Relay(send, request.path)
    asked: Asked | None = None
    status = 0
    try:
        if request.method != "POST":
            raise Refused(405, "method_not_allowed", f"{request.path} takes POST.")
        body = await request.body(node.config.max_body_bytes)
        asked = read_asked(request.headers.get(b"content-type", b""), body)
        model, engine = node.find(asked.model)
        _check_path(model, engine, request.path)
        await _until_gone(request.receive, _serve(node, request, asked, (model, engine), relay))
        status = relay.status or 502
    except Refused as refused:
        status = refused.status
        raise
    except ClientGone:
        status = CLIENT_CLOSED
        raise
    finally:
        seconds = time.monotonic() - began
        node.metrics.observe(request.path, status or 500, seconds)
        log.info("%s %s %d %.3f s", request.path, asked.model if asked is not None else "-", status or 500, seconds)


def _check_path(model: ModelFile, engine: Engine, path: str) -> None:
    """Raises: Refused, where the model's engine does not serve the API: 400 for another kind of model, else 404."""
    served = engine.paths_for(model)
    if path in served:
        return
    if path in ("/v1/responses", "/v1/messages", "/v1/messages/count_tokens") and "/v1/chat/completions" in served:
        raise Refused(404, "unknown_path", f"There is no such path for '{model.id}' ({engine.name}): {path}.")
    message = f"The model '{model.id}' is for {model.task}, and is not served at {path}."
    raise Refused(400, "model_capability_mismatch", message, param="model")


async def _serve(node: Node, request: Request, asked: Asked, found: tuple[ModelFile, Engine], relay: Relay) -> None:
    async with node.pool.lease(*found) as running:
        try:
            await _ask(node, request, asked, running, relay)
        except NodeFault as fault:
            log.warning("%s: %s: %s", asked.model, running.engine.name, fault)
            raise refusal_for(fault) from None


async def _ask(node: Node, request: Request, asked: Asked, running: RunningEngine, relay: Relay) -> None:
    """Raises: NodeFault, with nothing sent."""
    assert running.target is not None
    headers: Headers = [(name, request.headers[name]) for name in _TO_ENGINE if name in request.headers]
    body = asked.calling_it(running.model_name)
    silence = node.config.answer_timeout
    answer = await node.upstream.send(running.target, "POST", request.path, headers, body, silence=silence)
    try:
        await relay.pass_on(answer)
    finally:
        answer.close()


async def _until_gone(receive: Receive, work: Coroutine[Any, Any, None]) -> None:
    """Do the work, and drop it at once when the client hangs up: the engine then stops too. Raises: ClientGone."""
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_hang_up(receive))
    try:
        await asyncio.wait({working, watching}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        working.result()
    finally:
        watching.cancel()
        if not working.done():
            working.cancel()
            with contextlib.suppress(asyncio.CancelledError, Refused):
                await working


async def _hang_up(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
