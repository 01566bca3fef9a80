"""Gateways that nobody asks anything: how fast they started, what they hold, what they use."""

from __future__ import annotations

import time
from collections.abc import Sequence

from benchmarks.side_by_side import machine
from benchmarks.side_by_side.gateways import Gateway, Ours
from benchmarks.side_by_side.goals import AT_REST
from benchmarks.side_by_side.samples import Sample


def measure(running: Sequence[Gateway], *, seconds: float) -> list[Sample]:
    """All at once, after they have settled."""
    for gateway in running:
        machine.wait_until_quiet(gateway.pid, seconds=10)
    before = {gateway.pid: machine.cpu_seconds(gateway.pid) for gateway in running}
    time.sleep(seconds)
    taken = []
    for gateway in running:
        figures = {
            "start_seconds": gateway.start_seconds,
            "pss_mb": machine.resident_mb(gateway.pid),
            "idle_cpu_percent": (machine.cpu_seconds(gateway.pid) - before[gateway.pid]) / seconds * 100,
        }
        if isinstance(gateway, Ours):
            figures["first_start_seconds"] = gateway.first_start_seconds
        taken.append(Sample(AT_REST, gateway.name, 0, figures))
    return taken
