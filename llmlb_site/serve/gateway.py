"""This process as a gateway: the application on its sockets, until a signal."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable
from types import FrameType

from django.conf import settings

from llmlb_site.serve.lifecycle import Lifecycle
from routing.siblings import Siblings

log = logging.getLogger("llmlb.serve")


def _nothing() -> None:
    """There is nothing beside the listener."""


def _cannot_renew(number: int, frame: FrameType | None) -> None:
    """A service manager's reload must not end what it is to renew."""
    log.warning("one process alone cannot be renewed: set LLMLB_PROCESSES to 2 or more, or restart it")


def run(
    sockets: list[socket.socket],
    *,
    server: str,
    listening: Callable[[], None],
    stop_beside: Callable[[], None] = _nothing,
    siblings: Siblings | None = None,
) -> None:
    """Serve; returns after the drain. `siblings`: the other gateway processes of the same `serve`."""
    from llmlb_site.asgi import application

    runtime = application.runtime
    runtime.engine.siblings = siblings
    succeeded = False

    def leave_to_successor(number: int, frame: FrameType | None) -> None:
        """It serves already, on the same socket."""
        nonlocal succeeded
        succeeded = True
        signal.raise_signal(signal.SIGTERM)

    if siblings is not None:
        signal.signal(signal.SIGHUP, leave_to_successor)
    elif settings.LLMLB.scaled:
        signal.signal(signal.SIGHUP, _cannot_renew)

    def start_draining() -> None:
        runtime.draining = not succeeded  # a load balancer that asks here is to go on sending to this host
        log.info("stopping: running requests may finish", extra={"drain_seconds": settings.LLMLB.drain_seconds})

    lifecycle = Lifecycle(
        listening=listening,
        draining=start_draining,
        stop_beside=stop_beside,
        drain_seconds=settings.LLMLB.drain_seconds,
        lame_duck_seconds=settings.LLMLB.lame_duck_seconds,
        client_seconds=settings.LLMLB.client_timeout,
        start=runtime.start,
        stop=runtime.stop,
    )
    if server == "daphne":
        from llmlb_site.serve import daphne_server

        daphne_server.run(application, sockets, lifecycle, max_body_bytes=settings.LLMLB.max_multipart_bytes)
    else:
        from llmlb_site.serve import uvicorn_server

        uvicorn_server.run(application, sockets, lifecycle)
