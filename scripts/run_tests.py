"""`make test`: every part of the suite, each with what it needs, and one line of totals at the end.

Parts: the suite in the embedded profile; the failure drills in short; the browser; the scaled profile on PostgreSQL
and Redis; one pass with real inference servers. A part whose needs cannot be had is named with the reason,
and does not fail the run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from scripts import services

ROOT: Final = Path(__file__).resolve().parent.parent
WORKERS: Final = "2"
INSTALL_SECONDS: Final = 300
# The suites that go through the ORM and the API: the same must hold on the other database.
BOTH_DATABASES: Final = ("tests/access", "tests/nodes", "tests/models_catalog", "tests/history")
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
NOTHING_COLLECTED: Final = 5
_COUNT: Final = re.compile(r"(\d+) (passed|failed|errors?|skipped|xfailed|xpassed|deselected|warnings?)")


@dataclass
class Report:
    """What became of each part."""

    began: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)
    failed: bool = False

    def ran(self, name: str, code: int, counts: Mapping[str, int], seconds: float) -> None:
        ok = code in (0, NOTHING_COLLECTED)
        self.failed = self.failed or not ok
        self.counts.update(counts)
        self.lines.append(f"  {'passed' if ok else 'FAILED':8} {name} ({summary(counts)}, {seconds:.0f} s)")

    def not_run(self, name: str, reason: str) -> None:
        self.lines.append(f"  not run  {name}: {reason}")

    def closing_line(self) -> str:
        text = f" {summary(self.counts)} in {time.monotonic() - self.began:.2f}s "
        return text.center(80, "=")


def main() -> int:
    os.chdir(ROOT)
    report = Report()
    parts: tuple[tuple[str, Callable[[Report, str], None]], ...] = (
        ("embedded profile", run_embedded),
        ("failure drills", run_drills),
        ("browser", run_browser),
        ("scaled profile", run_scaled),
        ("real inference servers", run_real_nodes),
    )
    for name, run in parts:
        print(f"\n----- {name} -----", flush=True)
        try:
            run(report, name)
        except services.Unavailable as error:
            report.not_run(name, str(error))
    print("\n----- all parts -----", *report.lines, sep="\n", flush=True)
    print(report.closing_line(), flush=True)
    return 1 if report.failed else 0


def run_embedded(report: Report, name: str) -> None:
    others = ("--ignore=tests/e2e", "--ignore=tests/drills")
    pytest(report, name, "-n", WORKERS, "-m", "not e2e and not scaled and not real_node", *others)


def run_drills(report: Report, name: str) -> None:
    """One after the other: each measures what the others would disturb."""
    pytest(report, name, "-m", "not scaled", "tests/drills")


def run_browser(report: Report, name: str) -> None:
    if not find_browser():
        services.install("chromium", "fonts-noto-cjk")
    if not find_browser():
        raise services.Unavailable("no Chromium: install it (apt install chromium)")
    pytest(report, name, "-n", WORKERS, "--dist", "loadfile", "tests/e2e")  # a product and a browser a worker


def run_scaled(report: Report, name: str) -> None:
    with ExitStack() as stack:
        redis_url = stack.enter_context(services.redis())
        database_url = stack.enter_context(services.postgresql())
        given = {services.REDIS_URL: redis_url, services.DATABASE_URL: database_url}
        # Each test has a Redis of its own, but where there is no redis-server: then they take turns with the one given.
        together = ("-n", WORKERS, "--dist", "loadfile") if shutil.which("redis-server") else ()
        pytest(report, f"{name}: several processes", *together, "tests/scaled", environment=given)
        pytest(report, f"{name}: failure drills", "-m", "scaled", "tests/drills", environment=given)
        own_database = database_url.rpartition("/")[0] + f"/llmlb_{os.getpid()}"  # Django makes test_llmlb_… of it
        run = {"LLMLB_TEST_RUN_DATABASE_URL": own_database, "LLMLB_TEST_RUN_REDIS_URL": redis_url}
        paths = [path for path in BOTH_DATABASES if Path(path).is_dir()]
        pytest(report, f"{name}: ORM and API", "-n", WORKERS, "-m", "not scaled", *paths, environment={**given, **run})


def run_real_nodes(report: Report, name: str) -> None:
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "-c",
        "constraints.txt",
    ]
    for what in (("-r", "requirements-node.txt"), ("--no-deps", "-r", "requirements-demo.txt")):
        try:
            done = subprocess.run([*install, *what], timeout=INSTALL_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise services.Unavailable("their wheels did not install in time") from None
        if done.returncode != 0:
            raise services.Unavailable("their wheels cannot be installed here (pip said why above)")
    pytest(report, name, "-m", "real_node", "tests/blackbox")


def pytest(report: Report, name: str, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """Run pytest, showing its output as it comes, and add what it counted to the report."""
    command = [sys.executable, "-m", "pytest", "-q", *arguments]
    began = time.monotonic()
    process = subprocess.Popen(
        command, env={**os.environ, **(environment or {})}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    last = ""
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
        last = line if _COUNT.search(line) else last
    report.ran(name, process.wait(), counted(last), time.monotonic() - began)


def counted(line: str) -> dict[str, int]:
    """The numbers of pytest's closing line."""
    return {kind.removesuffix("s") if kind == "errors" else kind: int(number) for number, kind in _COUNT.findall(line)}


def summary(counts: Mapping[str, int]) -> str:
    kinds = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")
    return ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts.get(kind)) or "no tests"


def find_browser() -> str | None:
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


if __name__ == "__main__":
    sys.exit(main())
