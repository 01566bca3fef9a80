"""`/livez`, `/readyz` and `/metrics`: answered while Django, the database and the nodes are down."""

from __future__ import annotations

from typing import Final

import msgspec

from access.permissions import Permission
from llmlb_site.lib import health
from routing import metrics
from routing.core.errors import Refusal, method_not_allowed
from routing.engine import Engine
from routing.gateway import auth, replies
from routing.gateway.clients import is_local
from routing.gateway.exchange import Exchange, Scope

PATHS: Final = frozenset({"/livez", "/readyz", "/metrics"})


async def answer(exchange: Exchange, scope: Scope, engine: Engine) -> None:
    """Raises: Refusal."""
    if exchange.method not in ("GET", "HEAD"):
        raise method_not_allowed(exchange.method, exchange.path, "GET, HEAD")
    if exchange.path == "/livez":
        await replies.json(exchange, b'{"status":"alive"}')
    elif exchange.path == "/readyz":
        await _ready(exchange, engine)
    else:
        await _may_read_metrics(exchange, scope, engine)
        text = [(b"content-type", b"text/plain; version=0.0.4; charset=utf-8")]
        await replies.answer(exchange, 200, text, metrics.text(engine.figures(), engine.table))


async def _ready(exchange: Exchange, engine: Engine) -> None:
    """503 only while leaving. A part that is down makes it `degraded`: inference goes on without it."""
    failing = [part.name for part in health.failing()]
    if engine.recorder.health().failing_since is not None:
        failing.append("history")
    status = "draining" if engine.draining else "degraded" if failing else "ready"
    body = msgspec.json.encode({"status": status, "failing": failing})
    await replies.json(exchange, body, status=503 if engine.draining else 200)


async def _may_read_metrics(exchange: Exchange, scope: Scope, engine: Engine) -> None:
    try:
        await auth.identify(exchange.headers, engine, Permission.METRICS_READ)
    except Refusal:
        if not is_local(scope):
            raise
