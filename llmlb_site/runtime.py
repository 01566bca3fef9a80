"""What runs beside the listener in a server process: the gateway's engine, the dashboard's hints, the event relay."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from typing import Final

from django.conf import settings

from llmlb_site.dashboard.websockets import Hints
from llmlb_site.lib.relay import RedisRelay
from routing import live
from routing.engine import Engine

log = logging.getLogger("llmlb.runtime")


# A thread that wants to go on waits this long for one that computes; Python's default of 5 ms would show in every
# request that is served while a batch of history is written.
SWITCH_SECONDS: Final = 0.0005
# What is loaded at the start stays; looking through all of it for garbage again and again would stop every stream. Of
# what comes later next to nothing is garbage, and what is (a check of nodes, admin pages) is found while it is small.
GARBAGE_THRESHOLDS: Final = (2_000, 20, 50)


class Runtime:
    """Started once a process: by ASGI lifespan, or by the first request on servers without one (Daphne)."""

    def __init__(self) -> None:
        self.engine = Engine(settings.LLMLB)
        self._hints = Hints()
        self._relay = RedisRelay(settings.LLMLB.redis_url) if settings.LLMLB.redis_url else None
        self._starting: asyncio.Task[None] | None = None
        self.started = False

    @property
    def draining(self) -> bool:
        """Set at SIGTERM: `/readyz` says 503 from then on, running requests go on."""
        return self.engine.draining

    @draining.setter
    def draining(self, value: bool) -> None:
        self.engine.draining = value

    async def start(self) -> None:
        """Idempotent; callers that come while it is starting wait for the same start."""
        if self.started:
            return
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        await asyncio.shield(self._starting)

    async def stop(self) -> None:
        if not self.started:
            return
        self.started = False
        live.watch(None)
        self._hints.stop()
        await self.engine.stop()
        if self._relay is not None:
            await asyncio.to_thread(self._relay.stop)

    async def _start(self) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        if self._relay is not None:
            self._relay.start()
        await self.engine.start()
        self._hints.start(asyncio.get_running_loop())
        live.watch(self.engine)
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GARBAGE_THRESHOLDS)
        self.started = True
