"""Answers that cost something are given again for a while: the dearer, the longer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import wraps
from typing import Generic, TypeVar

Answer = TypeVar("Answer")


class _Kept(Generic[Answer]):
    def __init__(self, make: Callable[[], Answer], factor: float) -> None:
        self._make = make
        self._factor = factor
        self._lock = threading.Lock()
        self._answer: Answer | None = None
        self._until = 0.0

    def get(self) -> Answer:
        with self._lock:
            started = time.monotonic()
            if self._answer is None or started >= self._until:
                self._answer = self._make()
                ended = time.monotonic()
                self._until = ended + self._factor * (ended - started)
            return self._answer

    def forget(self) -> None:
        with self._lock:
            self._answer = None


_all: list[_Kept[object]] = []


def reused_by_cost(factor: float = 20.0) -> Callable[[Callable[[], Answer]], Callable[[], Answer]]:
    """Call the function again only after `factor` times as long as it took.

    So however often it is asked for, it takes at most a `factor`-th of one core; while it is quick, it is fresh.
    """

    def decorate(make: Callable[[], Answer]) -> Callable[[], Answer]:
        kept = _Kept(make, factor)
        _all.append(kept)  # type: ignore[arg-type]  # only `forget` is called on it

        @wraps(make)
        def get() -> Answer:
            return kept.get()

        return get

    return decorate


def forget_all() -> None:
    """Make every answer anew at the next call: for tests, whose databases come and go."""
    for kept in _all:
        kept.forget()
