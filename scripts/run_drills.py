"""`make drill`: every failure drill in its full form, one after the other, and one table at the end.

Drills of the scaled profile need PostgreSQL and Redis; where those cannot be had, that is said, and the rest runs.
`--write-docs` puts the table of this run into docs/reliability.md; every other option is pytest's, such as `-k soak`.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from scripts import services
from scripts.run_tests import ROOT

WRITE_DOCS: Final = "--write-docs"
DOCUMENT: Final = ROOT / "docs" / "reliability.md"
_MARKED: Final = re.compile(r"(<!-- figures: drills -->\n).*?(<!-- figures end -->)", re.DOTALL)


def main(arguments: Sequence[str]) -> int:
    os.chdir(ROOT)
    others = [argument for argument in arguments if argument != WRITE_DOCS]
    with tempfile.TemporaryDirectory() as directory:
        table = Path(directory) / "table.md"
        code = run(others, table)
        if WRITE_DOCS in arguments and table.exists():
            write_docs(table.read_text())
    return code


def run(arguments: Sequence[str], table: Path) -> int:
    """The drills, to their end. Returns: pytest's exit code."""
    given = {"LLMLB_DRILL": "full", "LLMLB_DRILL_TABLE": str(table)}
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


def write_docs(table: str) -> None:
    today = datetime.datetime.now(datetime.UTC).date()
    where = f"{os.cpu_count()} cores, {platform.system()} {platform.release()}, Python {platform.python_version()}"
    text = f"`make drill ARGS={WRITE_DOCS}` on {today}: {where}.\n\n{table}"
    DOCUMENT.write_text(_MARKED.sub(lambda found: f"{found[1]}{text}{found[2]}", DOCUMENT.read_text()))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
