"""Two gateway processes of one `serve` on PostgreSQL and Redis beside one: `python -m benchmarks.processes`.

*Two cores*: requests per second of two processes on two cores, against twice those of one on one core. Where four cores
are, load and node have others. On fewer they run on the gateway's cores and take their share of them, in both cases.
PostgreSQL and Redis run where the kernel puts them: beside one process they find a core free, beside two they do
not. Nothing is taken off for any of that.

*One core*: CPU per request of one process, against that of two on the same core, which is what sharing state costs. Two
that take turns as often as the kernel likes find the core's caches full of the other's data each time: a twentieth to a
tenth of a request's CPU that nobody pays who has two cores. So there both run in long turns (SCHED_BATCH).

PostgreSQL and Redis are found or started as for the tests; their CPU is in no figure but `foreign_cores`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import database
from benchmarks.side_by_side import bodies, gateways, machine, runs, samples
from benchmarks.side_by_side.gateways import CannotStart, Node, Ours
from benchmarks.side_by_side.goals import ONE, ONE_CORE, TWO, TWO_CORES
from benchmarks.side_by_side.runs import Bench, Case
from benchmarks.side_by_side.samples import Sample, Spread
from scripts import services

ROUNDS: Final = 5
CASE: Final = Case("processes", "1 KB", 64, ROUNDS, 2)
FIGURES: Final = ("per_second", "cpu_us", "pss_mb", "foreign_cores")
# Above those that an installation beside this one is likely to use.
FIRST_REDIS_DATABASE: Final = 11


@dataclass(frozen=True, slots=True)
class Arrangement:
    """So many processes on these cores; load and node on those."""

    name: str
    processes: int
    cores: set[int]
    load: set[int]
    in_long_turns: bool = False


ONE_IN_LONG_TURNS, TWO_IN_LONG_TURNS = "one process in long turns", "two processes on one core in long turns"


def arrangements(cores: Sequence[int]) -> list[Arrangement]:
    """Raises CannotStart."""
    if len(cores) < 2:
        raise CannotStart("there is one core only")
    one, two, others = set(cores[:1]), set(cores[:2]), set(cores[2:] if len(cores) >= 4 else ())
    return [
        Arrangement(ONE, 1, one, others or one),
        Arrangement(TWO, 2, two, others or two),
        Arrangement(ONE_IN_LONG_TURNS, 1, one, others or two - one, in_long_turns=True),
        Arrangement(TWO_IN_LONG_TURNS, 2, one, others or two - one, in_long_turns=True),
    ]


def measure(folder: Path) -> tuple[dict[str, float], int]:
    """Returns: figures named with their units, and how many requests failed. Raises CannotStart."""
    with contextlib.ExitStack() as stack:
        try:
            redis, postgresql = stack.enter_context(services.redis()), stack.enter_context(services.postgresql())
        except services.Unavailable as error:
            raise CannotStart(str(error)) from error
        running = []
        for number, arrangement in enumerate(arrangements(machine.ALL_CORES)):
            url = stack.enter_context(database.on_server(postgresql, f"llmlb_bench_{os.getpid()}_{number}"))
            settings = {"LLMLB_DATABASE_URL": url, "LLMLB_REDIS_URL": f"{redis}/{FIRST_REDIS_DATABASE + number}"}
            place = folder / str(number)
            place.mkdir()
            node = Node(place, chunks=runs.CHUNKS, interval=runs.INTERVAL, on=arrangement.load)
            stack.callback(node.stop)
            gateway = start(arrangement, node, place, settings)
            stack.callback(gateway.stop)
            running.append((arrangement, gateway))
        measured = compare(running, folder)
        return figures(measured), sum(sample.errors for sample in measured)


def start(arrangement: Arrangement, node: Node, place: Path, settings: Mapping[str, str]) -> Ours:
    command = ("serve", "--processes", str(arrangement.processes))
    with machine.long_turns() if arrangement.in_long_turns else contextlib.nullcontext():
        return gateways.Ours(arrangement.name, node.port, place, settings, command=command, on=arrangement.cores)


def compare(running: Sequence[tuple[Arrangement, Ours]], folder: Path) -> list[Sample]:
    """In turns, so that what disturbs one disturbs all."""
    bench = Bench(folder, bodies.write(folder))
    for _, gateway in running:
        bench.warm_up(gateway)
    measured = []
    for round in range(CASE.rounds):
        for arrangement, gateway in running:
            with machine.pinned(arrangement.load):
                measured.append(bench.run(CASE, gateway, round))
    return measured


def figures(measured: Sequence[Sample]) -> dict[str, float]:
    """Medians of each arrangement, and how near to linear two are, with the lowest and the highest round."""
    found = {
        f"{name}, {figure}": spread.median
        for name in dict.fromkeys(sample.gateway for sample in measured)
        for figure in FIGURES
        if (spread := samples.figure(measured, CASE.name, name, figure))
    }
    found |= linear(TWO_CORES, samples.ratio(measured, CASE.name, "per_second", TWO, ONE), of=2)
    return found | linear(
        ONE_CORE, samples.ratio(measured, CASE.name, "cpu_us", ONE_IN_LONG_TURNS, TWO_IN_LONG_TURNS), of=1
    )


def linear(name: str, spread: Spread | None, *, of: int) -> dict[str, float]:
    if spread is None:
        return {}
    return {name: spread.median / of, f"{name}, lowest": spread.low / of, f"{name}, highest": spread.high / of}


def main() -> int:
    machine.end_as_on_ctrl_c()
    with tempfile.TemporaryDirectory(prefix="llmlb-bench-") as folder:
        try:
            found, errors = measure(Path(folder))
        except CannotStart as error:
            print(error)
            return 1
    for name, value in found.items():
        print(f"{name:<56}{value:>10.2f}")
    print(f"{'errors':<56}{errors:>10}")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
