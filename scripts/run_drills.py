"""`make drill`: every failure drill in its full form, one after the other, and one table at the end.

Drills of the scaled profile need PostgreSQL and Redis; where those cannot be had, that is said, and the rest runs.
`--write-docs` puts the table into docs/reliability.md, if every drill ran to its end, whether or not its goal was met.
It goes with no other option: all others are pytest's, such as `-k soak`, and make a run of some drills.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from benchmarks.side_by_side.install import our_version
from scripts import services
from scripts.run_tests import ROOT

WRITE_DOCS: Final = "--write-docs"
TABLE: Final = "LLMLB_DRILL_TABLE"
USAGE: Final = 2
DOCUMENT: Final = ROOT / "docs" / "reliability.md"
_MARKED: Final = re.compile(r"(<!-- figures: drills -->\n).*?(<!-- figures end -->)", re.DOTALL)


def main(arguments: Sequence[str]) -> int:
    os.chdir(ROOT)
    if WRITE_DOCS not in arguments:
        return run(arguments)
    if others := [argument for argument in arguments if argument != WRITE_DOCS]:
        print(f"{WRITE_DOCS} is for a run of every drill: it does not go with {shlex.join(others)}", file=sys.stderr)
        return USAGE
    return run_for_docs()


def run_for_docs() -> int:
    """Every drill, and their table in the documentation if there is a row of each. Returns: the exit code."""
    heading = what_runs()
    with tempfile.TemporaryDirectory() as directory:
        table = Path(directory) / "table.md"
        code = run((), table)
        if not table.exists():
            print(f"{DOCUMENT.relative_to(ROOT)} is as it was: not every drill ran to its end", file=sys.stderr)
            return code or 1
        write_docs(f"{heading}\n\n{table.read_text()}")
    return code


def run(arguments: Sequence[str], table: Path | None = None) -> int:
    """The drills, to their end; their rows go into the file `table`. Returns: pytest's exit code."""
    given = {"LLMLB_DRILL": "full", **({TABLE: str(table)} if table else {})}
    marker = ""
    with ExitStack() as stack:
        try:
            given[services.REDIS_URL] = stack.enter_context(services.redis())
            given[services.DATABASE_URL] = stack.enter_context(services.postgresql())
        except services.Unavailable as error:
            print(f"not run: the drills of the scaled profile: {error}", flush=True)
            marker = "not scaled"
        command = [sys.executable, "-m", "pytest", "-q", "-m", marker, "tests/drills", *arguments]
        return subprocess.run(command, env={**os.environ, **given}, check=False).returncode


def what_runs() -> str:
    """What must be known of a run to compare its figures with another's. Asked before it: it may take an hour."""
    today = datetime.datetime.now(datetime.UTC).date()
    where = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}"
    return f"`make drill ARGS={WRITE_DOCS}` of {our_version()} on {today}: {where}."


def write_docs(text: str) -> None:
    DOCUMENT.write_text(_MARKED.sub(lambda found: f"{found[1]}{text}{found[2]}", DOCUMENT.read_text()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
