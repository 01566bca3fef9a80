"""`make drill`: every failure drill in its full form, one after the other, and one table at the end.

Drills of the scaled profile need PostgreSQL and Redis; where those cannot be had, that is said, and the rest runs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import ExitStack

from scripts import services
from scripts.run_tests import ROOT


def main() -> int:
    os.chdir(ROOT)
    given = {"LLMLB_DRILL": "full"}
    marker = ""
    with ExitStack() as stack:
        try:
            given[services.REDIS_URL] = stack.enter_context(services.redis())
            given[services.DATABASE_URL] = stack.enter_context(services.postgresql())
        except services.Unavailable as error:
            print(f"not run: the drills of the scaled profile: {error}", flush=True)
            marker = "not scaled"
        command = [sys.executable, "-m", "pytest", "-q", "-m", marker, "tests/drills", *sys.argv[1:]]
        return subprocess.run(command, env={**os.environ, **given}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
