"""Failure drills: the real product among real processes, and one row of figures for each thing that was broken.

The short form is part of `make test`; `make drill` runs the full one, whose figures are in docs/reliability.md.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

# Fixtures are found by name where they are imported.
from tests.blackbox.conftest import MakeProduct, migrated, product  # noqa: F401
from tests.scaled.conftest import database, redis_server, shared
from tests.support.node_process import NodeProcess
from tests.support.product import Product, wait_until

ADMINISTRATOR: Final = {"username": "hana", "password": "a long walk along the river"}
FULL_SECONDS: Final = 600
ROW: Final = "drill"
HEADINGS: Final = ("drill", "figure", "goal", "ok")
DRILLS: Final = pytest.StashKey[list[str]]()  # the ids of all that there are, whether or not they are to run

MakeNodeProcess = Callable[..., NodeProcess]


def needs_servers(drill: Callable[..., None]) -> Callable[..., None]:
    """Marks a drill of the scaled profile."""
    there = {"LLMLB_TEST_DATABASE_URL", "LLMLB_TEST_REDIS_URL"} <= set(os.environ)
    reason = "LLMLB_TEST_DATABASE_URL and LLMLB_TEST_REDIS_URL not set"
    marked: Callable[..., None] = pytest.mark.scaled(pytest.mark.skipif(not there, reason=reason)(drill))
    return marked


@dataclass(frozen=True, slots=True)
class Drill:
    """What a drill is told, and where it says what it found. `full`: the form of `make drill`, else the short one."""

    full: bool
    _rows: list[tuple[str, object]]
    missed: list[str] = field(default_factory=list)

    def record(self, name: str, figure: str, *, goal: str, ok: bool) -> None:
        """One row of the table at the end of the run. Where the goal is missed, the test fails when it is over."""
        self._rows.append((ROW, [name, figure, goal, "yes" if ok else "missed"]))
        if not ok:
            self.missed.append(f"{name}: {figure}; the goal is {goal}")


def is_full() -> bool:
    return os.environ.get("LLMLB_DRILL") == "full"


@pytest.fixture
def drill(request: pytest.FixtureRequest) -> Iterator[Drill]:
    drill = Drill(full=is_full(), _rows=request.node.user_properties)
    yield drill
    if drill.missed:
        pytest.fail("\n".join(drill.missed), pytrace=False)


@pytest.fixture(scope="module")
def one_product(tmp_path_factory: pytest.TempPathFactory, migrated: Path) -> Iterator[Product]:  # noqa: F811
    """One product, with default settings, for all drills of a file: each brings its own nodes."""
    data_dir = tmp_path_factory.mktemp("drills") / "data"
    shutil.copytree(migrated, data_dir)
    with Product(data_dir) as running:
        yield running
        assert "Traceback" not in running.output, running.output


@pytest.fixture(scope="module")
def two_gateways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Product]]:
    """Two gateways of one installation, each a `serve` of its own: the first with two processes."""
    with ExitStack() as stack:
        urls = stack.enter_context(database()), stack.enter_context(redis_server())
        administrator = {f"LLMLB_ADMIN_{name.upper()}": value for name, value in ADMINISTRATOR.items()}
        gateways = []
        for processes in (2, 1):
            environment = {**shared(*urls), "LLMLB_PROCESSES": str(processes), "LLMLB_QUEUE_MAX": "10000"}
            of_its_own = {**environment, **administrator, "LLMLB_LAME_DUCK_SECONDS": "3"}
            gateways.append(Product(tmp_path_factory.mktemp("gateway"), environment=of_its_own))
            gateways[-1].key = gateways[0].key
            stack.callback(gateways[-1].end)
            gateways[-1].launch()
        for gateway in gateways:
            # B023: it is called before the loop goes on.
            wait_until(lambda: gateway.is_ready() or not gateway.is_running, seconds=120, what="it is ready")  # noqa: B023
            assert gateway.is_running, gateway.output
        yield gateways


@pytest.fixture
def node_process() -> Iterator[MakeNodeProcess]:
    """`node_process(models=…, chunks=…)`: a fake inference server in a process of its own, up, and gone afterwards."""
    with ExitStack() as stack:

        def make(models: tuple[str, ...] = ("model-a",), **options: Any) -> NodeProcess:
            return stack.enter_context(NodeProcess(models, **options))

        yield make


@pytest.hookimpl(tryfirst=True)  # before any is deselected
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In full form a drill may take its time; those that take longer still say so themselves."""
    drills = [
        item for item in items if item.path.parent.name == "drills" and "drill" in getattr(item, "fixturenames", ())
    ]
    config.stash[DRILLS] = [item.nodeid for item in drills]
    for item in drills:
        if is_full() and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(FULL_SECONDS))


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table. Rows travel in the reports, so that they also come from the processes of pytest-xdist."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    calls = [report for report in reports if getattr(report, "when", "") == "call"]
    told = [(report, row) for report in calls for name, row in report.user_properties if name == ROW]
    if told:
        terminalreporter.section("failure drills")
        terminalreporter.write_line("\n".join(as_table([list(HEADINGS), *(row for _report, row in told)])))
    if path := os.environ.get("LLMLB_DRILL_TABLE"):  # for the documentation, with what to type for each row
        whole = {report.nodeid for report, _row in told if report.passed}  # a goal is missed after the call
        if missing := [drill for drill in terminalreporter.config.stash[DRILLS] if drill not in whole]:
            terminalreporter.write_line(f"no table for the documentation, without {', '.join(map(test_of, missing))}")
            return
        rows = [[*row, f"`-k {test_of(report.nodeid)}`"] for report, row in told]
        Path(path).write_text("\n".join(as_table([[*HEADINGS, "ARGS"], *rows])) + "\n")


def test_of(node_id: str) -> str:
    """The name of the test's function: `tests/drills/test_x.py::test_y[z]` is `test_y`."""
    return node_id.rpartition("::")[2].partition("[")[0]


def as_table(rows: list[list[str]]) -> list[str]:
    """Rows as lines of Markdown, aligned, the first one being the headings."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines
