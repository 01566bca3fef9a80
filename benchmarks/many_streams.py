"""1 000 streams of 20 chunks a second each, through one process, everything on: `python -m benchmarks.many_streams`.

Prints how late chunks came, what was lost, CPU per chunk, and the most memory that the process took. The gateway has
a core of its own; the streams are made and read on the others.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import bodies, gateways, machine, streams

STREAMS: Final = 1000
INTERVAL: Final = 0.05
CHUNKS: Final = 200
# They begin one after the other, as people do: a thousand connections in one moment are another experiment.
SPREAD: Final = 5.0
LONGEST: Final = 60.0


def measure(folder: Path, *, count: int = STREAMS) -> tuple[dict[str, float], int]:
    """Returns: figures named with their units, and how many streams failed. Raises CannotStart."""
    node = gateways.Node(folder, chunks=CHUNKS, interval=INTERVAL)
    try:
        gateway = gateways.Ours("llmlb", node.port, folder / "many", {})
        try:
            body = bodies.all_bodies()["stream"]
            _follow(gateway, body, count=100, spread=0.5)  # to warm up
            machine.wait_until_quiet(gateway.pid, seconds=20)
            machine.forget_peak(gateway.pid)
            before = machine.cpu_seconds(gateway.pid)
            seen = _follow(gateway, body, count=count, spread=SPREAD)
            machine.wait_until_quiet(gateway.pid, seconds=20)
            used = machine.cpu_seconds(gateway.pid) - before
            figures = streams.figures(seen, expected=count * CHUNKS)
            figures["cpu_us"] = used / max(1, seen.chunks) * 1e6
            figures["peak_mb"] = machine.peak_mb(gateway.pid)
            return figures, seen.errors
        finally:
            gateway.stop()
    finally:
        node.stop()


def _follow(gateway: gateways.Gateway, body: bytes, *, count: int, spread: float) -> streams.Followed:
    return streams.follow(
        gateway.url, gateway.key, body, count=count, chunks=CHUNKS, turns=1, seconds=LONGEST, spread=spread
    )


def main() -> int:
    machine.end_as_on_ctrl_c()
    with tempfile.TemporaryDirectory(prefix="llmlb-bench-") as folder, machine.pinned(machine.LOAD_CORES):
        figures, errors = measure(Path(folder), count=int(sys.argv[1]) if len(sys.argv) > 1 else STREAMS)
    for name, value in figures.items():
        print(f"{name:<16}{value:>12.2f}")
    print(f"{'errors':<16}{errors:>12}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
