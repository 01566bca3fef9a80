"""What the benchmarks of the history have in common: their options, a database of their own, and what they leave."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from benchmarks import database
from benchmarks.side_by_side import install, machine, results, scale
from benchmarks.side_by_side.results import Writer
from scripts import services

Measure = Callable[[str, int, Writer], None]


def main(what: str, arguments: Sequence[str], rows: Mapping[str, int], measure: Measure) -> int:
    """Call `measure` with the database's vendor, how many rows, and where samples go. Returns: the exit code."""
    module = f"benchmarks.{what}"
    parser = argparse.ArgumentParser(prog=f"python -m {module}")
    parser.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    parser.add_argument("--rows", type=int, help=f"instead of {rows[scale.SQLITE]} ({rows[scale.POSTGRESQL]})")
    options = parser.parse_args(arguments)
    vendor = scale.POSTGRESQL if options.postgresql else scale.SQLITE
    machine.end_as_on_ctrl_c()
    try:
        with database.fresh(postgresql=options.postgresql) as server:
            writer = results.begin(module, arguments, kind=f"{what}-{vendor}", whole=options.rows is None)
            writer.add_note("llmlb", install.our_version())
            writer.add_note("database", server)
            writer.add_note("load average before", f"{os.getloadavg()[0]:.1f}")
            try:
                measure(vendor, options.rows or rows[vendor], writer)
            finally:
                writer.say(f"\n{scale.tables(writer.measured)}")
                writer.close()
    except services.Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    print(f"\nKept in {writer.path}")
    return 0
