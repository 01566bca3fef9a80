"""uvicorn with the shutdown that a gateway needs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Generator
from types import FrameType
from typing import Any, Final

import uvicorn

from llmlb_site.lib.signals import handled
from llmlb_site.serve.accepting import AcceptAll
from llmlb_site.serve.bounds import BoundedProtocol, DrainingState
from llmlb_site.serve.lifecycle import Leaving, Lifecycle, until
from llmlb_site.serve.listener import BACKLOG, drop_vanished

log = logging.getLogger("llmlb.serve")

# Longer than the 60 s after which nginx lets go of an idle upstream connection: whoever is in front closes first.
KEEP_ALIVE_SECONDS: Final = 75
CANCELLED_SECONDS: Final = 2.0
DATE_SECONDS: Final = 1.0


class DrainingServer(uvicorn.Server):
    """At SIGTERM: not ready, still listening for a moment, then no listener, running requests finish, exit 0."""

    server_state: DrainingState
    _leaving: Leaving  # from the signal on

    def __init__(self, config: uvicorn.Config, lifecycle: Lifecycle) -> None:
        super().__init__(config)
        self.server_state = DrainingState(lifecycle.client_seconds)
        self._lifecycle = lifecycle
        self._told_to_leave = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # uvicorn only calls it
        self.config.http_protocol_class = AcceptAll(self.config.http_protocol_class, sockets or [])  # type: ignore[assignment]
        await super().startup(sockets=sockets)
        if self.started:
            self._lifecycle.listening()

    async def main_loop(self) -> None:
        """uvicorn's looks ten times a second whether to leave. This one is told, and wakes for the date of answers."""
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told_to_leave.wait(), DATE_SECONDS)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        beside = asyncio.create_task(asyncio.to_thread(self._lifecycle.stop_beside))
        await until(self._hurried, self._leaving.closes)
        self._close_listener(sockets)
        await asyncio.sleep(0.01)  # what was accepted last becomes a connection
        await until(self._hurried, self._all_have_asked, self._leaving.hangs_up)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._drain()
        await beside
        await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """As uvicorn's, but without raising the signal again at the end: a drained server exits with 0."""
        with handled(self.handle_exit, signal.SIGINT, signal.SIGTERM):
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = self.force_exit or sig == signal.SIGINT
            return
        self.should_exit = self.server_state.draining = True
        asyncio.get_running_loop().call_soon_threadsafe(self._told_to_leave.set)
        self._leaving = Leaving.after(sig, self._lifecycle)
        self._lifecycle.draining()

    def _close_listener(self, sockets: list[socket.socket] | None) -> None:
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()

    def _all_have_asked(self) -> bool:
        connections = self.server_state.connections
        return not any(isinstance(each, BoundedProtocol) and each.cycle is None for each in connections)

    async def _drain(self) -> None:
        """Wait for running requests; cancel what is left after the drain time."""
        await until(self._hurried, lambda: not self.server_state.tasks, self._leaving.cuts)
        left = list(self.server_state.tasks)
        if not left:
            return
        log.warning("requests cut at the end of the drain time", extra={"requests": len(left)})
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=CANCELLED_SECONDS)

    def _hurried(self) -> bool:
        return self.force_exit


def run(application: Any, sockets: list[socket.socket], lifecycle: Lifecycle) -> None:
    """Serve until a signal; returns after the drain.

    Raises:
        SystemExit: the application did not start.
    """
    config = uvicorn.Config(
        application,
        http=BoundedProtocol,
        loop="uvloop",
        ws="websockets-sansio",
        ws_max_size=64 * 1024,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
    )
    drop_vanished(sockets, lifecycle.client_seconds)
    DrainingServer(config, lifecycle).run(sockets=sockets)
