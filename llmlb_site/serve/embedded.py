"""Celery inside the server process: worker and beat as threads, for the profile whose broker is `memory://`.

The tasks, the schedule and `.delay()` are the same as with Redis; only where they run differs. A message is lost at
a restart, which is harmless: all that is periodic is idempotent and due by a column in the database. A watchdog
starts again what has died, and /readyz says so meanwhile.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol

from celery import Celery
from celery.beat import Service
from celery.worker import WorkController
from celery.worker import state as celery_worker_state

from llmlb_site.beat import SteadyEntry, SteadyScheduler
from llmlb_site.lib import health
from llmlb_site.serve import broker

log = logging.getLogger("llmlb.embedded")
worker_state: Any = celery_worker_state  # its stubs say that should_stop is always None

POOL_SIZE: Final = 8
BEAT_MAX_SLEEP_SECONDS: Final = 0.5
RARE_TASKS_AFTER_SECONDS: Final = 60.0
LONGEST_BACK_OFF_SECONDS: Final = 60.0
STEADY_SECONDS: Final = 60.0


class Part(Protocol):
    """One thread of work that can be started, watched and stopped."""

    name: str

    def run(self) -> None: ...

    def stop(self) -> None: ...


class Worker:
    """A Celery worker with a thread pool. `run` blocks until `stop` is called from another thread."""

    name = "worker"

    def __init__(self, app: Celery) -> None:
        self._app = app
        self.ready = threading.Event()

    def run(self) -> None:
        worker_state.should_stop = None
        controller: Any = WorkController(
            app=self._app,
            hostname="embedded@llmlb",
            pool="threads",
            concurrency=POOL_SIZE,
            without_heartbeat=True,
            without_mingle=True,
            without_gossip=True,
            ready_callback=lambda consumer: self.ready.set(),
        )
        controller.start()
        if controller.exitcode:
            raise RuntimeError(f"the worker ended with exit code {controller.exitcode}")

    def stop(self) -> None:
        worker_state.should_stop = 0
        broker.wake()


class Beat:
    """Celery beat with its schedule in memory: what is due is a column of the database, not beat's business."""

    name = "beat"

    def __init__(self, app: Celery) -> None:
        self._app = app
        self._service: Any = None

    def run(self) -> None:
        service: Any = Service  # its stubs are of an older Celery
        self._service = service(
            self._app, max_interval=BEAT_MAX_SLEEP_SECONDS, scheduler_cls=SteadyScheduler, remote_control=False
        )
        self._bring_forward(self._service.scheduler.schedule.values())
        self._service.start()

    def _bring_forward(self, entries: Iterable[SteadyEntry]) -> None:
        """Rare tasks run soon after the start too: a server that never stays up for an hour must prune as well."""
        for entry in entries:
            entry.last_run_at -= max(0.0, entry.every - RARE_TASKS_AFTER_SECONDS)

    def stop(self) -> None:
        if self._service is not None:
            self._service.stop()


class Supervised:
    """Runs one part in a thread and, when it ends without having been told to, runs it again, later each time."""

    def __init__(self, part: Part, *, clock: Callable[[], float] = time.monotonic, back_off: float = 1.0) -> None:
        self._part = part
        self._clock = clock
        self._first_back_off = self._back_off = back_off
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._keep_running, name=f"llmlb-{part.name}", daemon=True)

    def start(self) -> None:
        health.report(self._part.name, ok=True)
        self._thread.start()

    def stop(self, timeout: float) -> bool:
        """Ask the part to end and wait for it. Returns whether it did within `timeout` seconds."""
        deadline = self._clock() + timeout
        self._stopping.set()
        while self._thread.is_alive() and self._clock() < deadline:
            self._part.stop()  # again and again: a part that was only just starting has not heard the first
            self._thread.join(timeout=0.05)
        health.forget(self._part.name)
        return not self._thread.is_alive()

    def _keep_running(self) -> None:
        while not self._stopping.is_set():
            started = self._clock()
            self._run_once()
            if self._stopping.is_set():
                return
            self._wait_before_restart(ran_for=self._clock() - started)

    def _run_once(self) -> None:
        try:
            self._part.run()
        except Exception:
            log.critical("the embedded %s failed", self._part.name, exc_info=True)
        else:
            if not self._stopping.is_set():
                log.critical("the embedded %s ended by itself", self._part.name)

    def _wait_before_restart(self, *, ran_for: float) -> None:
        if ran_for > STEADY_SECONDS:
            self._back_off = self._first_back_off
        health.report(self._part.name, ok=False, detail=f"died, starts again in {self._back_off:g} s")
        self._stopping.wait(self._back_off)
        self._back_off = min(self._back_off * 2, LONGEST_BACK_OFF_SECONDS)
        if not self._stopping.is_set():
            health.report(self._part.name, ok=True)


class EmbeddedCelery:
    """Worker and beat of one Celery application as threads of this process.

    Start it before the listener opens (its imports would stall the event loop) and stop it before the loop closes.
    """

    def __init__(self, app: Celery) -> None:
        self._worker = Worker(app)
        self._beat = Beat(app)
        self._supervised = (Supervised(self._worker), Supervised(self._beat))

    def start(self, *, ready_timeout: float = 20.0) -> None:
        """Returns when the worker takes tasks.

        Raises:
            RuntimeError: it does not within `ready_timeout` seconds.
        """
        os.environ["CELERY_SKIP_CHECKS"] = "1"  # the server has just run Django's system checks
        worker, beat = self._supervised
        worker.start()
        if not self._worker.ready.wait(ready_timeout):
            self.stop(timeout=1.0)
            raise RuntimeError(f"the embedded worker did not start within {ready_timeout:g} seconds")
        beat.start()

    def stop(self, timeout: float = 8.0) -> None:
        """The worker after the tasks that it is running; then beat."""
        deadline = time.monotonic() + timeout
        for supervised in self._supervised:
            if not supervised.stop(max(0.1, deadline - time.monotonic())):
                log.warning("an embedded Celery thread did not stop in time and is left behind")
