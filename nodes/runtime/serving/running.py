"""One model's engine: started, watched until it is ready, started again when it crashes, stopped."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from enum import StrEnum
from typing import Final

from llmlb_site.lib.upstream.base import Target, Upstream
from llmlb_site.lib.upstream.faults import NodeFault
from nodes.runtime.engines.base import Engine, Launch, Setup
from nodes.runtime.models import ModelFile
from nodes.runtime.serving.process import EngineProcess, free_port

log = logging.getLogger("llmlb.node")

LOAD_ATTEMPTS: Final = 3
FIRST_WAIT_SECONDS: Final = 1.0
LONGEST_WAIT_SECONDS: Final = 30.0
# An engine that ran for so long has recovered: its next crash counts as the first.
STEADY_SECONDS: Final = 60.0
READY_LOOK_SECONDS: Final = 0.05
SLOWEST_LOOK_SECONDS: Final = 0.5
READY_ANSWER_SECONDS: Final = 5.0
# For the first guess of how long a load takes: a start, and reading from a disk.
START_SECONDS: Final = 3.0
BYTES_A_SECOND: Final = 500_000_000


class State(StrEnum):
    """Of a model, as the node tells it."""

    UNLOADED = "unloaded"
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    FAILED = "failed"


class LoadFailed(Exception):
    """The engine did not come up. The message says why, in its own last words."""


class RunningEngine:
    """Belongs to the event loop. `active` and `waiting` requests are counted by the pool that hands it out."""

    def __init__(self, model: ModelFile, engine: Engine, setup: Setup, upstream: Upstream, *, load_timeout: float):
        self.model = model
        self.engine = engine
        self.state = State.LOADING
        self.problem = ""
        self.restarts = 0
        self.requests = 0
        self.active = 0
        self.waiting = 0
        self.slots = asyncio.Semaphore(setup.parallel)
        self.loaded_at: float | None = None
        self.last_used = time.time()
        self._touched = time.monotonic()
        self.launch: Launch | None = None
        self.target: Target | None = None
        self.process: EngineProcess | None = None
        self._setup = setup
        self._upstream = upstream
        self._load_timeout = load_timeout
        self._began = time.monotonic()
        self._changed = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep(), name=f"keeper of {model.id}")

    @property
    def model_name(self) -> str:
        """What the engine calls the model."""
        return (self.launch.model_name if self.launch else "") or self.model.id

    @property
    def is_idle(self) -> bool:
        return self.active == 0 and self.waiting == 0 and self.state is not State.LOADING

    @property
    def idle_seconds(self) -> float:
        """Since it was last asked for something, or had answered."""
        return time.monotonic() - self._touched

    def touch(self) -> None:
        """It is being used."""
        self.last_used = time.time()
        self._touched = time.monotonic()

    @property
    def seconds_left(self) -> float:
        """About how long it will take to be ready; at least one second."""
        expected = START_SECONDS + self.model.size_bytes / BYTES_A_SECOND
        return max(1.0, expected - (time.monotonic() - self._began))

    async def wait_ready(self, seconds: float) -> bool:
        """Whether it is ready, at once or within `seconds`. Raises: LoadFailed."""
        deadline = time.monotonic() + seconds
        while self.state is not State.READY:
            if self.state is State.FAILED:
                raise LoadFailed(self.problem)
            left = deadline - time.monotonic()
            if left <= 0 or self.state is State.UNLOADED:
                return False
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await self._changed.wait()
        return True

    async def stop(self) -> None:
        """End the engine; whoever still waits for it is told that it is not there."""
        self._keeper.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._keeper
        self._say(State.UNLOADED)
        if self.process is not None:
            await self.process.stop()

    def kill(self) -> None:
        """End it without waiting, at the end of the node."""
        if self.process is not None:
            self.process.kill()

    async def _keep(self) -> None:
        """The life of the engine: up, and up again after a crash, until loading it fails for good."""
        failures = crashes = 0
        while True:
            try:
                await self._start()
            except LoadFailed as failure:
                failures += 1
                log.warning("%s did not load %s: %s", self.engine.name, self.model.id, failure)
                if failures >= LOAD_ATTEMPTS:
                    self._say(State.FAILED, f"{self.engine.name} cannot load it: {failure}")
                    return
                await asyncio.sleep(_back_off(failures))
                continue
            except Exception:  # a fault of ours or of the engine's description: nobody may wait for it for ever
                log.exception("%s cannot be started with %s", self.engine.name, self.model.id)
                self._say(State.FAILED, f"{self.engine.name} cannot be started with it")
                return
            failures = 0
            crashes = 1 if await self._until_crash() > STEADY_SECONDS else crashes + 1
            await asyncio.sleep(_back_off(crashes - 1))

    async def _until_crash(self) -> float:
        """How long the engine ran, in seconds."""
        assert self.process is not None
        began = time.monotonic()
        await self.process.ended.wait()
        self.restarts += 1
        self._say(State.RESTARTING)
        log.error("%s crashed with %s: it %s", self.engine.name, self.model.id, self.process.how_it_ended())
        return time.monotonic() - began

    async def _start(self) -> None:
        """Raises: LoadFailed."""
        self._began = time.monotonic()
        port = free_port()
        self.launch = self.engine.command(self.model, port, self._setup)
        self.target = Target(f"http://127.0.0.1:{port}")
        try:
            self.process = EngineProcess(self.launch, self.model.id)
        except OSError as error:
            raise LoadFailed(f"it cannot be started ({error.strerror})") from error
        try:
            async with asyncio.timeout(self._load_timeout):
                await self._until_ready(self.process, self.target, self.launch.ready_path)
        except TimeoutError:
            await self.process.stop()
            raise LoadFailed(f"it was not ready within {self._load_timeout:g} seconds") from None
        self.loaded_at = time.time()
        self._say(State.READY)
        seconds = time.monotonic() - self._began
        log.info("%s has loaded %s in %.1f s (pid %d)", self.engine.name, self.model.id, seconds, self.process.pid)

    async def _until_ready(self, process: EngineProcess, target: Target, path: str) -> None:
        """Raises: LoadFailed, if the process ends before it is ready."""
        pause = READY_LOOK_SECONDS
        while not await self._says_ready(target, path):
            with contextlib.suppress(TimeoutError):
                # Not wait_for: in Python 3.11 that swallows a cancellation which comes together with the end.
                async with asyncio.timeout(pause):
                    await process.ended.wait()
                raise LoadFailed(f"it {process.how_it_ended()}")
            pause = min(pause * 1.2, SLOWEST_LOOK_SECONDS)

    async def _says_ready(self, target: Target, path: str) -> bool:
        try:
            answer = await self._upstream.send(target, "GET", path, [], b"", silence=READY_ANSWER_SECONDS)
        except NodeFault:
            return False
        answer.close()
        return answer.status == 200

    def _say(self, state: State, problem: str = "") -> None:
        self.state = state
        self.problem = problem
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


def _back_off(failures: int) -> float:
    """Seconds to wait: none the first time, then 1, 2, 4 … up to the longest."""
    if failures <= 0:
        return 0.0
    return min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2.0 ** (failures - 1))
