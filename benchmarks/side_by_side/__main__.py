"""llmlb beside other gateways, in turns, on one core each time: `python -m benchmarks.side_by_side [--quick]`.

Installs the peers on first use (`.bench/`), starts all before one mock node, measures in interleaved rounds, writes
every sample to `benchmarks/results/` and prints the tables. Load goes over loopback only, and is bounded.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.side_by_side import documents, gateways, install, machine, report, results
from benchmarks.side_by_side.peers import PEERS
from benchmarks.side_by_side.session import Plan, Session
from scripts import debian
from scripts.debian import NotInstalled

FULL_MINUTES: Final = 24.0
QUICK_MINUTES: Final = 4.0


def main(arguments: Sequence[str]) -> int:
    options = parse(arguments)
    if options.peers:
        return list_peers()
    if options.write_docs is not None:
        documents.write(results.FOLDER / options.write_docs if options.write_docs else latest())
        return 0
    machine.end_as_on_ctrl_c()
    try:
        debian.program("wrk", "wrk")
    except NotInstalled as error:
        print(f"no load without wrk: {error}", file=sys.stderr)
        return 1
    install_peers(options)
    os.sched_setaffinity(0, machine.LOAD_CORES)
    writer = results.begin("benchmarks.side_by_side", arguments, whole=not arguments)
    minutes = options.minutes or (QUICK_MINUTES if options.quick else FULL_MINUTES)
    plan = Plan(options.quick, options.only, options.c, options.rows, options.rounds, time.monotonic() + minutes * 60)
    try:
        with Session(plan, writer) as session:
            session.run()
    finally:
        if writer.measured:
            writer.say(f"\n{report.whole(writer)}")
        writer.close()
    print(f"\nKept in {writer.path.relative_to(Path.cwd()) if writer.path.is_relative_to(Path.cwd()) else writer.path}")
    return 0


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.side_by_side", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds, no default settings of peers")
    parser.add_argument("--only", metavar="NAMES", help=f"gateways, with commas: {', '.join(gateways.names())}")
    parser.add_argument("-c", metavar="N", type=int, action="append", help="only rows with so many connections")
    parser.add_argument("--rows", metavar="TEXT", help='only rows whose name has this: "stream", "1 KB", "rest" …')
    parser.add_argument("--rounds", type=int, help="instead of each row's own")
    parser.add_argument("--minutes", type=float, help="begin nothing new after these")
    parser.add_argument("--peers", action="store_true", help="list the gateways and how they are run, and end")
    parser.add_argument(
        "--write-docs",
        nargs="?",
        const="",
        metavar="RESULTS",
        help="put the figures of this results file (default: the latest) into the documents and the picture, and end",
    )
    options = parser.parse_args(arguments)
    options.only = options.only.split(",") if options.only else None
    for name in options.only or ():
        if name not in gateways.names():
            parser.error(f"no gateway is called {name}; there are {', '.join(gateways.names())}")
    return options


def install_peers(options: argparse.Namespace) -> None:
    """Before the clock starts. What cannot be had is told when it would be started."""
    for peer in PEERS:
        if options.only is None or peer.name in options.only:
            with contextlib.suppress(NotInstalled):
                install.program_of(peer)


def latest() -> Path:
    return results.latest() or sys.exit("no results yet: run `make bench` first")


def list_peers() -> int:
    for name in gateways.OURS:
        print(f"{name:<24} this checkout; {gateways.Ours.source}")
    for peer in PEERS:
        print(f"{peer.name:<24} {peer.package}; {peer.source}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nended before its end", file=sys.stderr)
        sys.exit(130)
