"""What goes on in the gateway right now, in all processes that share its state: for the dashboard and the API."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as TooSlow
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from routing import metrics
from routing.core.limits import Limit, Reading

if TYPE_CHECKING:
    from routing.engine import Engine


@dataclass(frozen=True, slots=True)
class LiveView:
    """In flight per node id, and the queue now and over the last hour. Times are milliseconds."""

    in_flight: Mapping[int, int] = field(default_factory=dict)
    waiting: int = 0
    processing: int = 0
    avg_wait_ms: float = 0.0
    avg_process_ms: float = 0.0
    timeouts: int = 0
    rejected: int = 0
    draining: bool = False


_engine: Engine | None = None


def watch(engine: Engine | None) -> None:
    """Called by the runtime: from now on this is the gateway of the process (or there is none)."""
    global _engine
    _engine = engine


def cloud_metrics() -> bytes:
    """Prometheus' text of this `serve`'s requests to cloud providers; empty where no gateway runs."""
    return metrics.cloud_text(_engine.figures()) if _engine is not None else b""


def use_of(limits: Sequence[Limit]) -> Sequence[Reading] | None:
    """What is used of each now, over all processes. None where no gateway runs here, or it does not say in time.

    For threads: the event loop of the gateway is asked, and answers.
    """
    loop = _engine.loop if _engine is not None else None
    if _engine is None or loop is None or not loop.is_running():
        return None
    try:
        return asyncio.run_coroutine_threadsafe(_engine.limits.read(limits), loop).result(timeout=1)
    except TooSlow:
        return None


def view() -> LiveView:
    """All zeros where no gateway runs in this process (a management command, a worker)."""
    if _engine is None:
        return LiveView()
    stats = _engine.state.stats()
    return LiveView(
        in_flight=dict(_engine.state.live.in_flight),
        waiting=stats.waiting,
        processing=stats.processing,
        avg_wait_ms=stats.avg_wait_ms,
        avg_process_ms=stats.avg_process_ms,
        timeouts=stats.timeouts,
        rejected=stats.rejected,
        draining=_engine.draining,
    )
