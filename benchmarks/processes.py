"""Two gateway processes of one `serve` on PostgreSQL and Redis beside one: `python -m benchmarks.processes`.

Where four cores are, one process has one core, two have two, and requests per second are compared. On fewer, load and
node need the second core: both run on the same one, and what is compared is CPU per request, which is what sharing
state costs. Two that take turns as often as the kernel likes find the core's caches full of the other's data each time:
a twentieth to a tenth of a request's CPU that nobody pays who has two cores. So there all run in long turns.
PostgreSQL and Redis are found or started as for the tests; their own CPU is not counted.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from benchmarks import database
from benchmarks.side_by_side import bodies, gateways, machine, runs, samples
from benchmarks.side_by_side.gateways import CannotStart, Gateway, Node, Ours
from benchmarks.side_by_side.runs import Bench, Case
from benchmarks.side_by_side.samples import Sample
from scripts import services

ROUNDS: Final = 5
CASE: Final = Case("processes", "1 KB", 64, ROUNDS, 2)
ONE, TWO = "one process", "two processes"
# Above those that an installation beside this one is likely to use.
REDIS_DATABASES: Final = {ONE: 13, TWO: 14}


def measure(folder: Path) -> tuple[dict[str, float], int]:
    """Returns: figures named with their units, and how many requests failed. Raises CannotStart."""
    with contextlib.ExitStack() as stack:
        try:
            redis, postgresql = stack.enter_context(services.redis()), stack.enter_context(services.postgresql())
        except services.Unavailable as error:
            raise CannotStart(str(error)) from error
        node = Node(folder, chunks=runs.CHUNKS, interval=runs.INTERVAL)
        stack.callback(node.stop)
        running = []
        for count, name in enumerate((ONE, TWO), start=1):
            url = stack.enter_context(database.on_server(postgresql, f"llmlb_bench_{os.getpid()}_{count}"))
            settings = {"LLMLB_DATABASE_URL": url, "LLMLB_REDIS_URL": f"{redis}/{REDIS_DATABASES[name]}"}
            gateway = start(name, count, node, folder, settings)
            stack.callback(gateway.stop)
            running.append(gateway)
        return compare(running, folder)


def start(name: str, count: int, node: Node, folder: Path, settings: Mapping[str, str]) -> Ours:
    place = folder / name.replace(" ", "-")
    place.mkdir()
    command = ("serve", "--processes", str(count))
    with contextlib.nullcontext() if has_cores() else machine.long_turns():
        return gateways.Ours(name, node.port, place, settings, command=command, on=cores_for(count))


def cores_for(count: int) -> set[int]:
    return set(machine.ALL_CORES[:count]) if has_cores() else machine.GATEWAY_CORE


def has_cores() -> bool:
    return len(machine.ALL_CORES) >= 4


def compare(running: Sequence[Gateway], folder: Path) -> tuple[dict[str, float], int]:
    bench = Bench(folder, bodies.write(folder))
    for gateway in running:
        bench.warm_up(gateway)
    measured: list[Sample] = []
    with machine.pinned(set(machine.ALL_CORES[2:]) if has_cores() else machine.LOAD_CORES):
        for round in range(CASE.rounds):
            measured += [bench.run(CASE, gateway, round) for gateway in running]
    linear = (
        samples.ratio(measured, CASE.name, "per_second", TWO, ONE)
        if has_cores()
        else samples.ratio(measured, CASE.name, "cpu_us", ONE, TWO)
    )
    figures = {
        f"{gateway.name}, {name}": spread.median
        for gateway in running
        for name in ("cpu_us", "per_second", "pss_mb")
        if (spread := samples.figure(measured, CASE.name, gateway.name, name))
    }
    if linear is not None:
        figures["linear"] = linear.median / (2 if has_cores() else 1)
    return figures, sum(sample.errors for sample in measured)


def main() -> int:
    machine.end_as_on_ctrl_c()
    with tempfile.TemporaryDirectory(prefix="llmlb-bench-") as folder:
        try:
            figures, errors = measure(Path(folder))
        except CannotStart as error:
            print(error)
            return 1
    for name, value in figures.items():
        print(f"{name:<28}{value:>10.2f}")
    print(f"{'errors':<28}{errors:>10}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
