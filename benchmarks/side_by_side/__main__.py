"""llmlb beside other gateways, in turns, on one core each time: `python -m benchmarks.side_by_side [--quick]`.

Installs the peers on first use (`.bench/`), starts all before one mock node, measures in interleaved rounds, writes
every sample to `benchmarks/results/<date>.txt` and prints the tables. Load goes over loopback only, and is bounded.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import FrameType

from benchmarks.side_by_side import bodies, gateways, install, load, machine, report, runs
from benchmarks.side_by_side.gateways import CannotStart, Gateway, Node
from benchmarks.side_by_side.runs import Bench, Case
from benchmarks.side_by_side.samples import Sample


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    signal.signal(signal.SIGTERM, end)
    try:
        install.debian("wrk", "wrk")
    except install.NotInstalled as error:
        print(f"no load without wrk: {error}", file=sys.stderr)
        return 1
    began = datetime.now().astimezone()
    print("\n".join(f"{name}: {value}" for name, value in machine.describe().items()))
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory(prefix="llmlb-bench-") as folder:
        measured = measure(options, Path(folder), stack)
    for case in dict.fromkeys(sample.case for sample in measured):
        print(f"\n{report.case_table(measured, case)}")
    print(f"\n{(datetime.now().astimezone() - began).total_seconds():.0f} s in all")
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.side_by_side", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, no default settings of peers")
    parser.add_argument("--only", metavar="NAMES", help=f"gateways, with commas: {', '.join(gateways.names())}")
    parser.add_argument("-c", metavar="N", type=int, action="append", help="only rows with so many connections")
    parser.add_argument("--rows", metavar="TEXT", help='only rows whose name has this, such as "stream" or "1 KB"')
    parser.add_argument("--rounds", type=int, help="instead of each row's own")
    options = parser.parse_args(arguments)
    options.only = options.only.split(",") if options.only else None
    for name in options.only or ():
        if name not in gateways.names():
            parser.error(f"no gateway is called {name}; there are {', '.join(gateways.names())}")
    return options


def end(number: int, frame: FrameType | None) -> None:
    """SIGTERM ends as Ctrl-C does: everything that was started is stopped."""
    raise KeyboardInterrupt


def cases(options: argparse.Namespace) -> list[Case]:
    every = runs.QUICK if options.quick else runs.FULL
    chosen = [
        case
        for case in every
        if (not options.c or case.connections in options.c) and (not options.rows or options.rows in case.name)
    ]
    return [replace(case, rounds=options.rounds or case.rounds) for case in chosen]


def chosen_gateways(options: argparse.Namespace) -> list[str]:
    if options.only:
        return list(options.only)
    return [name for name in gateways.names() if not (options.quick and name.endswith("-default"))]


def measure(options: argparse.Namespace, folder: Path, stack: contextlib.ExitStack) -> list[Sample]:
    node = Node(folder, chunks=runs.CHUNKS, interval=runs.INTERVAL)
    stack.callback(node.stop)
    bench = Bench(folder, bodies.write(folder))
    running: list[Gateway] = [node]
    for name in chosen_gateways(options):
        try:
            gateway = gateways.start(name, node.port, folder / name)
        except CannotStart as error:
            print(f"left out: {name}: {error}", flush=True)
            continue
        stack.callback(gateway.stop)
        print(f"{name} {gateway.version}: up in {gateway.start_seconds:.2f} s; {gateway.source}", flush=True)
        bench.warm_up(gateway)
        running.append(gateway)
    measured: list[Sample] = []
    for case in cases(options):
        for round in range(case.rounds):
            measured += measure_round(bench, case, running, round, explicit=bool(options.only))
    return measured


def measure_round(bench: Bench, case: Case, running: list[Gateway], round: int, *, explicit: bool) -> list[Sample]:
    """Each gateway once, in turn. One that the load generator cannot measure is one line, not the end."""
    taken = []
    for gateway in running:
        if case.connections > gateway.most or (gateway.name.endswith("-default") and not case.key and not explicit):
            continue
        try:
            taken.append(bench.run(case, gateway, round))
        except load.LoadError as error:
            print(f"{case.name}, {gateway.name}: {error}", flush=True)
            continue
        print(taken[-1].line(), flush=True)
    return taken


if __name__ == "__main__":
    started = time.monotonic()
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print(f"\nended after {time.monotonic() - started:.0f} s", file=sys.stderr)
        sys.exit(130)
