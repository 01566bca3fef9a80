"""The node: its GPU, its models, its engines, and who watches them. One per process; belongs to the event loop."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from llmlb_site.lib.upstream.client import PooledClient
from nodes.runtime.backend import GpuDetector
from nodes.runtime.config import NodeConfig
from nodes.runtime.engines.base import Engine, Setup
from nodes.runtime.engines.catalogue import ENGINES
from nodes.runtime.files.scan import BEING_WRITTEN, SETTLE
from nodes.runtime.models import ModelFile
from nodes.runtime.registry import Listed, ModelRegistry
from nodes.runtime.serving.http import Refused
from nodes.runtime.serving.logs import LogRing
from nodes.runtime.serving.metrics import Figures, Metrics
from nodes.runtime.serving.pool import EnginePool

log = logging.getLogger("llmlb.node")

LOOK_SECONDS: Final = 2.0
TIDY_SECONDS: Final = 1.0
ENGINE_CONNECT_SECONDS: Final = 5.0


class Node:
    """Everything that the handlers of requests need. `start` and `stop` are for the server's life."""

    def __init__(self, config: NodeConfig, logs: LogRing, engines: Sequence[Engine] = ENGINES) -> None:
        self.config = config
        self.logs = logs
        self.started_at = time.time()
        self.detector = GpuDetector(config.gpu_backend)
        self.backend = self.detector.get_gpu_backend()
        self.engines = {engine.name: engine for engine in engines}
        self.registry = ModelRegistry(config.models_dir, engines, self.backend, require_gpu=config.require_gpu)
        self.metrics = Metrics()
        self.upstream = PooledClient(connect_timeout=ENGINE_CONNECT_SECONDS)
        self.pool = EnginePool(
            config, Setup(self.backend, config.parallel, config.context, config.threads), self.upstream
        )
        self.metrics.registry.register(Figures(self._gauges, self.detector.devices))
        self._tasks: list[asyncio.Task[None]] = []
        self._looking = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        await self.refresh()
        if any(entry.reason == BEING_WRITTEN for entry in self.registry.all()):
            await asyncio.sleep(SETTLE)  # who has just put models there finds them in the first list
            await self.refresh()
        self._tasks = [
            asyncio.create_task(self._repeat(LOOK_SECONDS, self.refresh), name="look at the models"),
            asyncio.create_task(self._repeat(TIDY_SECONDS, self.tidy), name="tidy the engines"),
        ]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self.pool.close()
        await self.upstream.aclose()

    # --- the models -----------------------------------------------------------------------------------------------

    async def refresh(self) -> None:
        """Look at the models directory; the registry logs what has changed."""
        async with self._looking:
            await asyncio.to_thread(self.registry.refresh)

    def look_soon(self) -> None:
        """Look at the models directory without being waited for. From any thread: a pull has put a model there."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(self.refresh(), self._loop)

    async def tidy(self) -> None:
        """Unload what nobody needs."""
        await self.pool.tidy(self._current)

    def listed(self) -> list[Listed]:
        """Every model of the directory, with the reason why it is not executable here and now, if it is not."""
        return [self._judged(entry) for entry in self.registry.all()]

    def executable(self) -> list[Listed]:
        return [entry for entry in self.listed() if not entry.reason]

    def get(self, model_id: str) -> Listed | None:
        entry = self.registry.get(model_id)
        return self._judged(entry) if entry is not None else None

    def find(self, model_id: str) -> tuple[ModelFile, Engine]:
        """An executable model and its engine. Raises: Refused (404)."""
        entry = self.get(model_id)
        if entry is None:
            raise Refused(404, "model_not_found", f"The model '{model_id}' does not exist on this node.", param="model")
        if entry.reason:
            message = f"The model '{model_id}' cannot be executed on this node: {entry.reason}."
            raise Refused(404, "model_not_found", message, param="model")
        return entry.model, self.engines[entry.engine]

    def _judged(self, entry: Listed) -> Listed:
        reason = entry.reason or self.pool.why_not(entry.model)
        return Listed(entry.model, reason, "") if reason else entry

    def _current(self, model_id: str) -> ModelFile | None:
        entry = self.registry.get(model_id)
        return entry.model if entry is not None and not entry.model.problem else None

    # --- the machine ----------------------------------------------------------------------------------------------

    def _gauges(self) -> dict[str, tuple[str, float]]:
        listed = self.listed()
        executable = sum(not entry.reason for entry in listed)
        running = list(self.pool.running.values())
        return {
            "llmlb_node_models_executable": ("Models that are offered.", executable),
            "llmlb_node_models_refused": ("Models of the directory that are not offered.", len(listed) - executable),
            "llmlb_node_engines": ("Engines that run.", len(running)),
            "llmlb_node_engine_restarts_total": (
                "Engines started again after a crash.",
                self.pool.restarts + sum(engine.restarts for engine in running),
            ),
            "llmlb_node_engines_memory_bytes": ("What the engines hold of main memory.", self.pool.memory_bytes),
            "llmlb_node_active_requests": ("Inference requests at work.", self.pool.active_requests),
        }

    async def _repeat(self, seconds: float, step: Callable[[], Awaitable[None]]) -> None:
        """Take a step again and again; what goes wrong in it is logged, and does not end it."""
        while True:
            await asyncio.sleep(seconds)
            try:
                await step()
            except Exception:
                log.exception("a periodic step failed")
