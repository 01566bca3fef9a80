"""How far a pull is: in bytes and speed, readable from any thread while another works on it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass
from enum import StrEnum
from threading import Lock
from typing import Any, Final

WINDOW_SECONDS: Final = 5.0


class PullState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCESS = "success"
    FAILED = "failed"
    CANCELLED = "cancelled"


OVER: Final = frozenset({PullState.SUCCESS, PullState.FAILED, PullState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Progress:
    """One look at a pull. Sizes are bytes, `bytes_per_second` of the last five seconds, times seconds since 1970.

    `total_bytes` is None until it is known, `model` the id that the model will have as soon as that is.
    """

    task_id: str
    model: str
    status: PullState
    downloaded_bytes: int
    total_bytes: int | None
    bytes_per_second: float
    files_done: int
    files_total: int
    error: str
    started_at: float
    finished_at: float | None

    @property
    def share(self) -> float | None:
        """From 0 to 1; None where the total is not known."""
        if self.status is PullState.SUCCESS:
            return 1.0
        return min(1.0, self.downloaded_bytes / self.total_bytes) if self.total_bytes else None

    def as_json(self) -> dict[str, Any]:
        """As the node's API tells it."""
        return {**asdict(self), "progress": self.share}


class Meter:
    """The figures of one pull, written by its thread."""

    def __init__(self, task_id: str, name: str) -> None:
        self._lock = Lock()
        self._task_id = task_id
        self._model = name
        self._status = PullState.QUEUED
        self._done = 0
        self._total: int | None = None
        self._files = (0, 0)
        self._error = ""
        self._started = time.time()
        self._finished: float | None = None
        self._window: deque[tuple[float, int]] = deque()

    def plan(self, model: str, *, total: int | None, files: int) -> None:
        with self._lock:
            self._model, self._total, self._files = model, total, (0, files)
            self._status = PullState.RUNNING

    def add(self, count: int) -> None:
        """Bytes that were fetched just now; negative where earlier ones were thrown away."""
        with self._lock:
            self._done += count
            if count > 0:
                self._window.append((time.monotonic(), count))
            self._forget_old()

    def have(self, count: int) -> None:
        """Bytes that were here before: they count as done, and not as speed."""
        with self._lock:
            self._done += count

    def file_done(self) -> None:
        with self._lock:
            self._files = (self._files[0] + 1, self._files[1])

    def finish(self, status: PullState, error: str = "") -> None:
        with self._lock:
            self._status, self._error, self._finished = status, error, time.time()

    def look(self) -> Progress:
        with self._lock:
            self._forget_old()
            return Progress(
                self._task_id,
                self._model,
                self._status,
                max(0, self._done),
                self._total,
                0.0 if self._finished else self._speed(),
                *self._files,
                self._error,
                self._started,
                self._finished,
            )

    def _forget_old(self) -> None:
        oldest = time.monotonic() - WINDOW_SECONDS
        while self._window and self._window[0][0] < oldest:
            self._window.popleft()

    def _speed(self) -> float:
        if not self._window:
            return 0.0
        lasted = max(0.5, time.monotonic() - self._window[0][0])
        return sum(count for _at, count in self._window) / lasted
