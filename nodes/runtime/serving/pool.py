"""The engines that run: loaded when a model is asked for, evicted for another, unloaded when nobody asks any more."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final

from llmlb_site.lib.upstream.base import Upstream
from nodes.runtime.config import NodeConfig
from nodes.runtime.engines.base import Engine, Setup
from nodes.runtime.models import ModelFile
from nodes.runtime.serving.http import Refused
from nodes.runtime.serving.running import LoadFailed, RunningEngine, State

log = logging.getLogger("llmlb.node")

# What a model takes beside its weights: the context of its requests, buffers. SPEC-68551ec8 reckons the same.
MEMORY_FACTOR: Final = 1.5
# A slot that is just being given back: the client hung up, and the gateway sends the next request at once.
SLOT_GRACE_SECONDS: Final = 0.5
RETRY_BUSY_SECONDS: Final = 1.0
MAX_RETRY_SECONDS: Final = 30.0
# How long a model that could not be loaded is out of the list, unless its files change before.
FAILED_SECONDS: Final = 600.0


def needed_bytes(model: ModelFile) -> int:
    """About the memory that it takes when it is loaded."""
    return int(model.size_bytes * MEMORY_FACTOR)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a model could not be loaded, and of which version of its files that is true until when."""

    reason: str
    modified: float
    until: float


class EnginePool:
    """All engines of the node, by model. Belongs to the event loop."""

    def __init__(self, config: NodeConfig, setup: Setup, upstream: Upstream) -> None:
        self.running: dict[str, RunningEngine] = {}
        self.restarts = 0  # of engines that are gone by now
        self._config = config
        self._setup = setup
        self._upstream = upstream
        self._failures: dict[str, Failure] = {}
        self._making_room = asyncio.Lock()

    @asynccontextmanager
    async def lease(self, model: ModelFile, engine: Engine) -> AsyncIterator[RunningEngine]:
        """The model's engine, ready, with one of its slots; started if it does not run.

        Raises: Refused (503 `model_loading`, 429 `model_busy`, 503 `model_failed`).
        """
        running = await self.load(model, engine)
        running.waiting += 1
        try:
            if not await self.wait_ready(running, self._config.load_wait):
                raise _loading(running)
            await self._take_slot(running)
            if running.state is not State.READY:  # it crashed under the request before this one
                running.slots.release()
                raise _loading(running)
        finally:
            running.waiting -= 1
        running.active += 1
        running.requests += 1
        try:
            yield running
        finally:
            running.active -= 1
            running.touch()
            running.slots.release()

    async def load(self, model: ModelFile, engine: Engine) -> RunningEngine:
        """The model's engine, started if it does not run. Raises: Refused, where there is no room for it now."""
        running = self.running.get(model.id)
        if running is not None and running.state is not State.FAILED:
            running.touch()
            return running
        async with self._making_room:
            running = self.running.get(model.id)  # another request may have started it meanwhile
            if running is None or running.state is State.FAILED:
                await self._make_room(model)
                running = RunningEngine(
                    model, engine, self._setup, self._upstream, load_timeout=self._config.load_timeout
                )
                self.running[model.id] = running
        return running

    async def wait_ready(self, running: RunningEngine, seconds: float) -> bool:
        """Whether the engine is ready, within `seconds`. Raises: Refused (503 `model_failed`)."""
        try:
            return await running.wait_ready(seconds)
        except LoadFailed as failure:
            self._give_up(running)
            raise Refused(503, "model_failed", f"The model '{running.model.id}': {failure}.") from None

    async def unload(self, model_id: str, reason: str = "as asked") -> bool:
        """Stop its engine, and the requests that it serves. False where it does not run."""
        running = self.running.pop(model_id, None)
        if running is None:
            return False
        log.info("unloading %s: %s", model_id, reason)
        self.restarts += running.restarts
        await running.stop()
        return True

    async def tidy(self, current: Callable[[str], ModelFile | None]) -> None:
        """Unload what is idle for too long, and what is on disk no more or as another file than was loaded."""
        for model_id, running in list(self.running.items()):
            if running.state is State.FAILED:  # and nobody was waiting to be told
                self._give_up(running)
            if running.state is State.FAILED or not running.is_idle:
                continue
            model = current(model_id)
            if model is None or model.modified != running.model.modified:
                await self.unload(model_id, "its files are gone or have changed")
            elif self._config.idle and running.idle_seconds > self._config.idle:
                await self.unload(model_id, f"nobody asked for it for {self._config.idle:g} seconds")

    async def close(self) -> None:
        """Stop every engine."""
        await asyncio.gather(*(self.unload(model_id, "the node stops") for model_id in list(self.running)))

    # --- what does not work ---------------------------------------------------------------------------------------

    def _give_up(self, running: RunningEngine) -> None:
        """Takes a model that could not be loaded out of the list."""
        if self.running.get(running.model.id) is running:
            del self.running[running.model.id]
            until = time.monotonic() + FAILED_SECONDS
            self._failures[running.model.id] = Failure(running.problem, running.model.modified, until)

    def why_not(self, model: ModelFile) -> str:
        """Why a model that an engine could run is not offered all the same."""
        limit = self._config.memory_bytes
        if limit and needed_bytes(model) > limit:
            return f"it needs about {_gib(needed_bytes(model))}, and this node may use {_gib(limit)}"
        running = self.running.get(model.id)
        if running is not None and running.state is State.FAILED:  # until `tidy` sees it: nobody starts it again
            return running.problem
        failure = self._failures.get(model.id)
        if failure is None:
            return ""
        if failure.modified != model.modified or time.monotonic() > failure.until:
            self._failures.pop(model.id, None)  # asked for from several threads
            return ""
        return failure.reason

    def forgive(self, model_id: str) -> None:
        """Forget that a model could not be loaded: a person wants it tried again."""
        self._failures.pop(model_id, None)
        running = self.running.get(model_id)
        if running is not None and running.state is State.FAILED:
            del self.running[model_id]

    def state_of(self, model_id: str) -> State:
        running = self.running.get(model_id)
        return running.state if running is not None else State.UNLOADED

    @property
    def active_requests(self) -> int:
        return sum(running.active for running in self.running.values())

    @property
    def memory_bytes(self) -> int:
        """What the engines hold of this machine's memory, as far as the system tells."""
        running = list(self.running.values())  # at once: this is called from other threads, too
        processes = [each.process for each in running if each.process is not None]
        return sum(process.memory_bytes() or 0 for process in processes)

    async def _take_slot(self, running: RunningEngine) -> None:
        try:
            # Not wait_for: in Python 3.11 that swallows the cancellation by a client that hangs up in this very moment.
            async with asyncio.timeout(SLOT_GRACE_SECONDS):
                await running.slots.acquire()
        except TimeoutError:
            message = f"The model '{running.model.id}' is busy: it takes {self._setup.parallel} request(s) at a time."
            raise Refused(429, "model_busy", message, kind="rate_limit_error", retry_after=RETRY_BUSY_SECONDS) from None

    async def _make_room(self, model: ModelFile) -> None:
        """Unload what was not used for longest until the model fits. Raises: Refused (429), if all else is at work."""
        limit = self._config.memory_bytes
        while limit and _total(self.running.values()) + needed_bytes(model) > limit:
            idle = [running for running in self.running.values() if running.is_idle]
            if not idle:
                message = f"There is no memory for '{model.id}' until another model has done its work."
                raise Refused(429, "model_busy", message, kind="rate_limit_error", retry_after=RETRY_BUSY_SECONDS)
            oldest = max(idle, key=lambda running: running.idle_seconds)
            await self.unload(oldest.model.id, f"to make room for {model.id}")


def _loading(running: RunningEngine) -> Refused:
    message = f"The model '{running.model.id}' is being loaded. Try again in a moment."
    return Refused(503, "model_loading", message, retry_after=min(MAX_RETRY_SECONDS, running.seconds_left))


def _total(engines: Iterable[RunningEngine]) -> int:
    return sum(needed_bytes(running.model) for running in engines)


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
